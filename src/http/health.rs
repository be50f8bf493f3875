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
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone)]
struct Sources {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    healthz: Arc<Told>,
    livez: Arc<Told>,
}

/// The paths of the health server.
pub fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", any(healthz))
        .route("/livez", any(livez))
        .fallback(answer::not_found)
        .with_state(Sources {
            health,
            metrics,
            healthz: Told::new("/healthz"),
            livez: Told::new("/livez"),
        })
}

async fn healthz(State(sources): State<Sources>) -> Response {
    let report = sources.health.report(Moment::now());
    let good = report.healthy && report.node_eligible == Some(true);
    sources.healthz.tell(&report, good);
    respond(report, good, &sources.metrics.probes.healthz)
}

async fn livez(State(sources): State<Sources>) -> Response {
    let report = Report { node_eligible: None, ..sources.health.report(Moment::now()) };
    let good = report.healthy;
    sources.livez.tell(&report, good);
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

/// Why a path answered 503 last: the log says so once for each reason.
struct Told {
    path: &'static str,
    reason: Mutex<Option<String>>,
}

impl Told {
    fn new(path: &'static str) -> Arc<Told> {
        Arc::new(Told { path, reason: Mutex::default() })
    }

    fn tell(&self, report: &Report, good: bool) {
        let reason = (!good).then(|| why(report));
        let mut told = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == reason {
            return;
        }
        match &reason {
            Some(reason) => tracing::warn!("{} answers 503: {reason}", self.path),
            None => tracing::info!("{} answers 200 again", self.path),
        }
        *told = reason;
    }
}

/// Why an answer is not good.
fn why(report: &Report) -> String {
    if !report.pending.is_empty() {
        return format!("still to come: {}", report.pending.join(", "));
    }
    if !report.healthy {
        return "an update has been waiting for too long, or the thread that writes does not answer".to_owned();
    }
    "new traffic should not come here: this node's Node is not there, is being deleted, or is about to be removed \
     by the autoscaler"
        .to_owned()
}
