//! The health server: `/healthz` tells load balancers whether to send new connections to this node,
//! `/livez` whether the proxy itself works.

use super::answer;
use crate::health::{Health, Moment, Report, Timestamp};
use crate::metrics::Metrics;
use crate::metrics::probes::Answers;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use std::sync::Arc;

#[derive(Clone)]
struct Sources {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// The paths of the health server.
pub fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", any(healthz))
        .route("/livez", any(livez))
        .fallback(answer::not_found)
        .with_state(Sources { health, metrics })
}

async fn healthz(State(sources): State<Sources>) -> Response {
    let report = sources.health.report(Moment::now());
    let good = report.healthy && report.node_eligible == Some(true);
    respond(report, good, &sources.metrics.probes.healthz)
}

async fn livez(State(sources): State<Sources>) -> Response {
    let report = Report { node_eligible: None, ..sources.health.report(Moment::now()) };
    let good = report.healthy;
    respond(report, good, &sources.metrics.probes.livez)
}

fn respond(mut report: Report, good: bool, answers: &Answers) -> Response {
    answers.count(good);
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if good {
        report.last_updated = Timestamp(report.current_time.0);
    }
    answer::json(status, serde_json::to_string(&report).expect("a report is always valid JSON"))
}
