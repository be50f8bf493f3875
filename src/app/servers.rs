//! The HTTP servers.

use super::lives;
use super::logging::SetFilter;
use super::observers::Shared;
use super::settings;
use super::sources::Events;
use crate::answers::Answers;
use crate::config::{COMPONENT_FLAGZ, COMPONENT_STATUSZ, Config, CountConnections};
use crate::health::Moment;
use crate::http::service_checks::CheckServers;
use crate::http::{self, Server};
use std::collections::BTreeMap;
use tokio_util::task::AbortOnDropHandle;

/// The running servers; dropping them closes their sockets.
pub struct Servers {
    _health: Option<Server>,
    _metrics: Option<Server>,
    _checks: AbortOnDropHandle<()>,
}

/// Starts the servers that the configuration asks for.
pub fn start(
    config: &Config,
    flags: BTreeMap<String, String>,
    shared: &Shared,
    started: Moment,
    set_filter: SetFilter,
    events: &Events,
    answers: Answers,
) -> anyhow::Result<Servers> {
    let Shared { health, metrics, checks } = shared;
    let hard_fail = config.document.bind_address_hard_fail;
    let health_server = match config.healthz_bind_address {
        None => None,
        Some(address) => {
            let router = http::health::router(health.clone(), metrics.clone());
            let failed = |error| events.server_failed("FailedToStartProxierHealthcheck", &error);
            Some(Server::start("healthz", address, hard_fail, router, failed)?)
        }
    };
    let metrics_server = match config.metrics_bind_address {
        None => None,
        Some(address) => {
            let gates = &config.feature_gates;
            let content = http::metrics::Content {
                metrics: metrics.clone(),
                health: health.clone(),
                configz: config.configz(),
                flagz: gates.enabled(COMPONENT_FLAGZ).then_some(flags),
                statusz: gates.enabled(COMPONENT_STATUSZ),
                version: env!("CARGO_PKG_VERSION").to_string(),
                started,
                counted: answers.clone(),
                counts_connections: config.count_connections != CountConnections::Off,
                answers: config.status_page.then_some(answers),
                node_name: config.node_name.clone(),
                profiling: config
                    .document
                    .enable_profiling
                    .then(|| settings::set_verbosity(config.logging.clone(), set_filter)),
            };
            let router = http::metrics::router(content);
            let failed = |error| events.server_failed("FailedToStartMetricServer", &error);
            Some(Server::start("metrics", address, hard_fail, router, failed)?)
        }
    };
    let events = events.clone();
    let report = move |error| events.health_check_failed(&error);
    let checks = CheckServers::new(checks, health.clone(), metrics.clone(), report);
    Ok(Servers {
        _health: health_server,
        _metrics: metrics_server,
        _checks: lives::spawn_owned("health check node ports", checks.run()),
    })
}
