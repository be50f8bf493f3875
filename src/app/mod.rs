//! Wiring: builds the rooms from a [`Config`], connects them, and waits for the end.
//!
//! ```text
//! manifests or api --+                +--> kernel: table, then conntrack
//! kernel addresses --+--> sync thread +--> health, metrics, health check ports <-- http servers
//!                                     +--> localhost NodePorts
//! ```

mod actions;
mod lives;
pub mod logging;
mod node_check;
mod node_ports;
mod observers;
mod rejected;
pub mod review;
mod servers;
pub mod settings;
mod sources;
mod startup;

pub use actions::{cleanup, init};

use crate::answers::Answers;
use crate::config::{Config, ConfigWatch, Source};
use crate::health::Moment;
use crate::kernel::addresses::AddressWatch;
use crate::kernel::nft::Nft;
use crate::memory;
use crate::sync::{self, Input, Sender};
use anyhow::{Context, bail};
use logging::SetFilter;
use node_ports::NodePortSelector;
use observers::Shared;
use sources::ApiServer;
use startup::StartUp;
use std::collections::BTreeMap;
use std::future::pending;
use std::thread;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Serves until a signal ends the process. The rules stay in the kernel.
pub fn run(
    config: Config,
    flags: BTreeMap<String, String>,
    set_filter: SetFilter,
) -> anyhow::Result<()> {
    let started = Moment::now();
    lives::end_with_a_panic();
    memory::keep_one_heap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    // From here on, whatever else is done and however long it takes.
    runtime.spawn(end_with_a_signal());
    actions::prepare(&config)?;
    let shared = Shared::new(&config);
    let api_server = sources::connect(&config, &shared.metrics)?;
    let served =
        runtime.block_on(serve(config, flags, set_filter, started, shared, api_server.as_ref()));
    // Threads may be in the middle of something; none of it matters to the kernel.
    runtime.shutdown_background();
    served
}

/// Ends the process when it is told to. Nothing has to be put in order: each transaction is taken whole or not at all.
async fn end_with_a_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return tracing::error!("cannot wait for signals: only SIGKILL ends this process");
    };
    let word = tokio::select! {
        _ = terminate.recv() => "terminated",
        _ = interrupt.recv() => "interrupted",
    };
    tracing::info!("{word}; the rules stay in place");
    logging::flush();
    std::process::exit(0);
}

async fn serve(
    config: Config,
    flags: BTreeMap<String, String>,
    set_filter: SetFilter,
    started: Moment,
    shared: Shared,
    api_server: Option<&ApiServer>,
) -> anyhow::Result<()> {
    let startup = StartUp::new(shared.health.readiness(), &config.source);
    let events = sources::events(&config, api_server);
    let (inputs, inbox) = sync::inbox();
    shared.watch(inbox.watch());
    let answers = Answers::new(inbox.asker());

    let _addresses = watch_addresses(&inputs)?;
    let kernel = Nft::open().context("cannot reach nftables")?;
    let mut options = settings::sync_options(&config);
    if !matches!(config.source, Source::Manifests(_)) {
        let mut nodeports = NodePortSelector::of_a_cluster(&config);
        options.select_nodeports = Box::new(move |node| nodeports.select(node));
    }
    let observers = shared.for_sync(&config, startup.first_commit, events.clone())?;
    let (ended, syncing) = oneshot::channel();
    thread::Builder::new()
        .name("sync".into())
        .spawn(move || drop(ended.send(sync::run(kernel, options, inbox, observers))))
        .context("cannot start the sync thread")?;

    let _servers = servers::start(&config, flags, &shared, started, set_filter, &events, answers)?;
    drop(startup.servers);
    let metrics = &shared.metrics;
    let source =
        sources::start(&config, api_server, metrics, events.clone(), inputs, startup.source)?;
    events.starting();
    tracing::info!(node = config.node_name, version = env!("CARGO_PKG_VERSION"), "started");

    tokio::select! {
        ended = source => Err(ended.unwrap_or_else(Into::into)),
        changed = file_changed(&config) => Err(changed),
        ended = syncing => match ended {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) | Err(_) => bail!("thread \"sync\" ended"),
        },
    }
}

/// Tells the sync thread of this machine's addresses, now and whenever they change.
fn watch_addresses(inputs: &Sender) -> anyhow::Result<AddressWatch> {
    let later = inputs.downgrade();
    let (watch, addresses) = AddressWatch::start(move |addresses| {
        later.send(Input::Addresses(addresses));
    })?;
    inputs.send(Input::Addresses(addresses));
    Ok(watch)
}

/// Resolves when the content of the configuration file has changed: whoever supervises this process then
/// starts it anew.
async fn file_changed(config: &Config) -> anyhow::Error {
    let Some(file) = &config.file else { return pending().await };
    ConfigWatch::new(file.clone()).changed().await.into()
}
