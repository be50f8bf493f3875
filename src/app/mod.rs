//! Wiring: builds the rooms from a [`Config`], connects them, and waits for the end.
//!
//! ```text
//! manifests or api --+                +--> kernel: table, then conntrack
//! kernel addresses --+--> sync thread +--> health, metrics, health check ports <-- http servers
//!                                     +--> localhost NodePorts
//! ```

mod actions;
pub mod logging;
mod node_check;
mod observers;
mod rejected;
mod servers;
pub mod settings;
mod sources;
mod startup;

pub use actions::{cleanup, init};

use crate::config::{Config, ConfigWatch};
use crate::health::Moment;
use crate::kernel::addresses::AddressWatch;
use crate::kernel::nft::Nft;
use crate::memory;
use crate::sync::{self, Input};
use anyhow::{Context, bail};
use logging::SetFilter;
use startup::StartUp;
use std::collections::BTreeMap;
use std::future::pending;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until a signal ends the process. The rules stay in the kernel.
pub fn run(
    config: Config,
    flags: BTreeMap<String, String>,
    set_filter: SetFilter,
) -> anyhow::Result<()> {
    let started = Moment::now();
    memory::keep_one_heap();
    actions::prepare(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(serve(config, flags, set_filter, started))
}

async fn serve(
    config: Config,
    flags: BTreeMap<String, String>,
    set_filter: SetFilter,
    started: Moment,
) -> anyhow::Result<()> {
    let shared = observers::Shared::new(&config);
    let startup = StartUp::new(shared.health.readiness(), &config.source);
    let connection = sources::connect(&config, &shared.metrics).await?;
    let events = sources::events(&config, connection.as_ref());
    let (inputs, received) = channel();

    let _addresses = watch_addresses(&inputs)?;
    let kernel = Nft::open().context("cannot reach nftables")?;
    let options = settings::sync_options(&config);
    let observers = shared.for_sync(&config, startup.first_commit)?;
    let syncing = thread::Builder::new()
        .name("sync".into())
        .spawn(move || sync::run(kernel, options, received, observers))
        .context("cannot start the sync thread")?;

    let _servers = servers::start(&config, flags, &shared, started, set_filter, &events)?;
    drop(startup.servers);
    let metrics = &shared.metrics;
    let source = sources::start(&config, connection.as_ref(), metrics, inputs, startup.source)?;
    events.starting();
    tracing::info!(node = config.node_name, version = env!("CARGO_PKG_VERSION"), "started");

    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("terminated; the rules stay in place"),
        _ = tokio::signal::ctrl_c() => tracing::info!("interrupted; the rules stay in place"),
        ended = source => return Err(ended.unwrap_or_else(Into::into)),
        changed = file_changed(&config) => return Err(changed),
        () = until_finished(syncing) => bail!("the sync thread ended; the log says why"),
    }
    Ok(())
}

/// Tells the sync thread of this machine's addresses, now and whenever they change.
fn watch_addresses(inputs: &Sender<Input>) -> anyhow::Result<AddressWatch> {
    let later = inputs.clone();
    let (watch, addresses) = AddressWatch::start(move |addresses| {
        // At the end of the process nobody listens any more.
        let _ = later.send(Input::Addresses(addresses));
    })?;
    let _ = inputs.send(Input::Addresses(addresses));
    Ok(watch)
}

/// Resolves when the content of the configuration file has changed: whoever supervises this process then
/// starts it anew.
async fn file_changed(config: &Config) -> anyhow::Error {
    let Some(file) = &config.file else { return pending().await };
    match ConfigWatch::new(file.clone()) {
        Ok(watch) => watch.changed().await.into(),
        Err(error) => error.into(),
    }
}

async fn until_finished(thread: thread::JoinHandle<()>) {
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
}
