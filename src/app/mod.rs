//! Wiring: builds the rooms from a [`Config`], connects them, and waits for the end.
//!
//! ```text
//! manifests or api --+
//! kernel addresses --+--> sync thread --> kernel
//!                            |
//!                            +--> health, metrics <-- http servers
//! ```

pub mod logging;
mod settings;

use crate::config::{COMPONENT_FLAGZ, COMPONENT_STATUSZ, Config, ConfigWatch, Source};
use crate::health::{Health, HealthPolicy, Moment};
use crate::http;
use crate::intake;
use crate::kernel::addresses::{AddressWatch, available_families};
use crate::kernel::nft::{Kernel, Nft};
use crate::manifests;
use crate::metrics::Metrics;
use crate::model::Family;
use crate::plan::base::TABLE;
use crate::ruleset::{Operation, Transaction};
use crate::sync::{self, Input, Observers};
use anyhow::{Context, bail};
use logging::SetFilter;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until a signal ends the process. The rules stay in the kernel.
pub fn run(
    config: Config,
    flags: BTreeMap<String, String>,
    set_filter: SetFilter,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(serve(config, flags, set_filter))
}

async fn serve(
    config: Config,
    flags: BTreeMap<String, String>,
    set_filter: SetFilter,
) -> anyhow::Result<()> {
    let started = Moment::now();
    let observers = observers(&config);
    let (inputs, received) = channel();

    let _addresses = watch_addresses(&inputs)?;
    let kernel = Nft::open().context("cannot reach nftables")?;
    let options = settings::sync_options(&config);
    let for_sync = observers.clone();
    let syncing = thread::Builder::new()
        .name("sync".into())
        .spawn(move || sync::run(kernel, options, received, for_sync))
        .context("cannot start the sync thread")?;

    let _servers = start_servers(&config, flags, &observers, started, set_filter)?;
    let source = start_source(&config, &inputs)?;
    tracing::info!(node = config.node_name, version = env!("CARGO_PKG_VERSION"), "started");

    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("terminated; the rules stay in place"),
        _ = tokio::signal::ctrl_c() => tracing::info!("interrupted; the rules stay in place"),
        ended = source => bail!("the source of Services ended: {ended:?}"),
        changed = file_changed(&config) => return Err(changed),
        () = until_finished(syncing) => bail!("the sync thread ended; the log says why"),
    }
    Ok(())
}

fn observers(config: &Config) -> Observers {
    let available = available_families(Path::new("/proc"));
    let families: Vec<Family> =
        Family::BOTH.into_iter().filter(|family| available.has(*family)).collect();
    let metrics = Arc::new(Metrics::new(&families));
    settings::describe(&metrics, config);
    let health = Arc::new(Health::new(HealthPolicy {
        sync_period: config.sync_period,
        families,
        node_required: !matches!(config.source, Source::Manifests(_)),
    }));
    Observers { health, metrics }
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

fn start_servers(
    config: &Config,
    flags: BTreeMap<String, String>,
    observers: &Observers,
    started: Moment,
    set_filter: SetFilter,
) -> anyhow::Result<Vec<http::Server>> {
    let Observers { health, metrics } = observers;
    let mut servers = Vec::new();
    let mut start = |name, address, router| -> anyhow::Result<()> {
        let hard_fail = config.bind_address_hard_fail;
        servers.push(http::Server::start(name, address, hard_fail, router, drop)?);
        Ok(())
    };
    if let Some(address) = config.healthz_bind_address {
        start("healthz", address, http::health::router(health.clone(), metrics.clone()))?;
    }
    if let Some(address) = config.metrics_bind_address {
        let gates = &config.feature_gates;
        let content = http::metrics::Content {
            metrics: metrics.clone(),
            health: health.clone(),
            configz: config.configz(),
            flagz: gates.enabled(COMPONENT_FLAGZ).then_some(flags),
            statusz: gates.enabled(COMPONENT_STATUSZ),
            version: env!("CARGO_PKG_VERSION").to_string(),
            started,
            profiling: config
                .profiling
                .then(|| settings::set_verbosity(config.logging.clone(), set_filter)),
        };
        start("metrics", address, http::metrics::router(content))?;
    }
    Ok(servers)
}

/// Starts the source; the returned task ends only if the source does.
fn start_source(
    config: &Config,
    inputs: &Sender<Input>,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let options = intake::Options {
        allow_service_external_ips: config.feature_gates.enabled("AllowServiceExternalIPs"),
    };
    let inputs = inputs.clone();
    match &config.source {
        Source::Manifests(directory) => {
            let (source, changes) = manifests::Source::open(directory, &config.node_name, options)?;
            let _ = inputs.send(Input::Changes(changes));
            let _ = inputs.send(Input::Complete);
            Ok(tokio::spawn(async move {
                let send = move |changes| {
                    let _ = inputs.send(Input::Changes(changes));
                };
                Ok(source.run(send).await?)
            }))
        }
        _ => bail!("only --manifests is supported"),
    }
}

/// Resolves when the configuration file has other content: whoever supervises this process starts it
/// anew.
async fn file_changed(config: &Config) -> anyhow::Error {
    let Some(file) = &config.file else { return std::future::pending().await };
    match ConfigWatch::new(file.clone()) {
        Ok(watch) => watch.changed().await.into(),
        Err(error) => error.into(),
    }
}

async fn until_finished(thread: thread::JoinHandle<()>) {
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
}

/// `--init-only`: what needs more privileges than running.
pub fn init(_config: &Config) -> anyhow::Result<()> {
    Ok(())
}

/// `--cleanup`: removes everything that this proxy has put into the kernel.
pub fn cleanup() -> anyhow::Result<()> {
    let mut kernel = Nft::open().context("cannot reach nftables")?;
    if kernel.snapshot(TABLE)?.is_none() {
        tracing::info!("there is no table inet {TABLE}");
        return Ok(());
    }
    kernel.commit(&Transaction { table: TABLE, operations: vec![Operation::DeleteTable] })?;
    tracing::info!("deleted table inet {TABLE}");
    Ok(())
}
