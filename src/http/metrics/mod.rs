//! The metrics server: what is scraped, and pages for whoever looks at a running proxy.

mod answers;
mod debug;
mod pages;
mod profile;

pub use debug::SetVerbosity;

use super::{answer, status};
use crate::answers::Answers;
use crate::explain::CountedPort;
use crate::health::{Health, Moment};
use crate::metrics::Metrics;
use crate::metrics::service_ports::PortLabels;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{any, get};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the pages show.
pub struct Content {
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    /// The body of `/configz`: `{"kubeproxy.config.k8s.io": {...}}`.
    pub configz: serde_json::Value,
    /// The flags in effect, by name, for `/flagz`; `None` when the gate ComponentFlagz is off.
    pub flagz: Option<BTreeMap<String, String>>,
    /// `/statusz` is served: the gate ComponentStatusz.
    pub statusz: bool,
    /// The version that this binary says it has.
    pub version: String,
    pub started: Moment,
    /// Who answers questions about Services; `None`: nobody, and there is no page that shows them.
    pub answers: Option<Answers>,
    /// Who says what the kernel has counted: connections, where all are, and refusals of clients over a limit.
    pub counted: Answers,
    /// Connections are counted.
    pub counts_connections: bool,
    pub node_name: String,
    /// `enableProfiling`: serve `/debug/`, with this to change the verbosity.
    pub profiling: Option<SetVerbosity>,
}

/// The paths of the metrics server.
pub fn router(mut content: Content) -> Router {
    let debug = content.profiling.take().map(debug::router);
    let mut router = Router::new()
        .route("/metrics", any(metrics))
        .route("/metrics/slis", any(slis))
        .route("/healthz", any(healthz))
        .route("/healthz/ping", any(ping))
        .route("/proxyMode", any(proxy_mode))
        .route("/configz", any(configz));
    if content.answers.is_some() {
        router = router
            .route("/api/explain", get(answers::explain))
            .route("/api/services", get(answers::services))
            .route("/api/connections", get(answers::connections))
            .route("/api/status", get(answers::status))
            .route("/status", get(status::page));
    }
    // Those that upstream has, too: /statusz lists them.
    let mut paths = vec!["/configz", "/healthz", "/metrics", "/proxyMode"];
    if content.flagz.is_some() {
        router = router.route("/flagz", any(pages::flagz));
        paths.push("/flagz");
    }
    if debug.is_some() {
        paths.push("/debug");
    }
    if content.statusz {
        paths.push("/statusz");
        paths.sort_unstable();
        router = router.route("/statusz", any(move |s, h| pages::statusz(s, h, paths.join(" "))));
    }
    let router = router.fallback(answer::not_found).with_state(Arc::new(content));
    match debug {
        Some(debug) => router.merge(debug),
        None => router,
    }
}

type Shared = State<Arc<Content>>;

/// Reads `/proc` and may wait for what a scrape hook fetches, so it runs on a thread for blocking work.
async fn metrics(State(content): Shared) -> Response {
    let metrics = &content.metrics;
    // Who counts nothing does not wait for the answer.
    if content.counts_connections || metrics.objects.limited_services.get() > 0 {
        match content.counted.connections(None).await {
            Ok(counted) => {
                metrics.over_limits.update(counted.ports.iter().filter_map(|port| {
                    let over = port.over_limits?;
                    Some((labels(port), [over.new_per_second, over.open]))
                }));
                if content.counts_connections {
                    metrics.connections.update(
                        counted
                            .ports
                            .iter()
                            .map(|port| (labels(port), [port.served, port.refused, port.dropped])),
                    );
                }
            }
            // They stay what they were.
            Err(error) => tracing::debug!(%error, "connections are not counted for a scrape"),
        }
    }
    match tokio::task::spawn_blocking(move || content.metrics.render()).await {
        Ok(text) => answer::typed(EXPOSITION, text),
        Err(error) => {
            tracing::error!(%error, "cannot render metrics");
            answer::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot render metrics\n")
        }
    }
}

fn labels(port: &CountedPort) -> PortLabels {
    [&port.namespace, &port.name, &port.port, &port.protocol].map(String::clone)
}

async fn slis(State(content): Shared) -> Response {
    answer::typed(EXPOSITION, content.metrics.render_slis())
}

/// Says that the process answers; [`super::health`] says whether it does its work.
async fn healthz(State(content): Shared, request: axum::extract::Request) -> Response {
    content.metrics.probes.pinged();
    let query = request.uri().query().unwrap_or_default();
    if query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")) {
        return answer::text(StatusCode::OK, "[+]ping ok\nhealthz check passed\n");
    }
    answer::text(StatusCode::OK, "ok")
}

async fn ping() -> Response {
    answer::text(StatusCode::OK, "ok")
}

async fn proxy_mode() -> Response {
    answer::text(StatusCode::OK, "nftables")
}

async fn configz(State(content): Shared) -> Response {
    answer::json(StatusCode::OK, content.configz.to_string())
}
