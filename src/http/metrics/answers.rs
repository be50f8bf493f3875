//! `/api/`: questions about the running proxy, answered in JSON. They change nothing, and say no more than objects in the
//! API and the kernel's ruleset do.

use super::{Shared, answer};
use crate::answers::{Query as Question, Unanswered};
use crate::explain::Filter;
use crate::health::Moment;
use crate::model::ObjectName;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// `/api/explain?address=10.96.0.10&port=53&protocol=UDP`, or `?service=namespace/name`; `&from=ADDRESS`: for that client.
pub async fn explain(
    State(content): Shared,
    question: Result<Query<Question>, QueryRejection>,
) -> Response {
    match question {
        Ok(Query(question)) => match &content.answers {
            Some(answers) => respond(answers.explain(question).await),
            None => answer::not_found().await,
        },
        Err(error) => bad_request(&error),
    }
}

/// `/api/services?namespace=&search=&problems=true&offset=0&limit=100`
pub async fn services(
    State(content): Shared,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Response {
    match filter {
        Ok(Query(filter)) => match &content.answers {
            Some(answers) => respond(answers.services(filter).await),
            None => answer::not_found().await,
        },
        Err(error) => bad_request(&error),
    }
}

/// Whose connections.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    /// `namespace/name` of Services, with commas between them; None: all.
    services: Option<String>,
}

/// So many Services are counted by endpoint at a time.
const SERVICES: usize = 20;

/// `/api/connections`; `?services=namespace/name,namespace/name`: with their endpoints.
pub async fn connections(
    State(content): Shared,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Response {
    let Whose { services } = match whose {
        Ok(Query(whose)) => whose,
        Err(error) => return bad_request(&error),
    };
    let names = services.map(|services| {
        let names = services.split(',').filter_map(|name| name.split_once('/'));
        names.take(SERVICES).map(|(namespace, name)| ObjectName::new(namespace, name)).collect()
    });
    match &content.answers {
        Some(answers) => respond(answers.connections(names).await),
        None => answer::not_found().await,
    }
}

/// How this proxy is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    node: &'a str,
    version: &'a str,
    /// RFC 3339.
    started: String,
    healthy: bool,
    /// Start-up tasks that are not done.
    pending: Vec<&'static str>,
    /// RFC 3339; None: there was none.
    last_commit: Option<String>,
}

/// `/api/status`
pub async fn status(State(content): Shared) -> Response {
    let report = content.health.report(Moment::now());
    let shown = |time: SystemTime| humantime::format_rfc3339_millis(time).to_string();
    respond(Ok(Status {
        node: &content.node_name,
        version: &content.version,
        started: shown(content.started.wall),
        healthy: report.healthy,
        pending: report.pending,
        last_commit: report.last_updated.0.map(shown),
    }))
}

fn bad_request(error: &QueryRejection) -> Response {
    answer::text(StatusCode::BAD_REQUEST, format!("{}\n", error.body_text()))
}

fn respond(answered: Result<impl Serialize, Unanswered>) -> Response {
    let status = match &answered {
        Ok(_) => StatusCode::OK,
        Err(Unanswered::BadQuery(_)) => StatusCode::BAD_REQUEST,
        Err(Unanswered::NoService(_)) => StatusCode::NOT_FOUND,
        Err(Unanswered::NotYet | Unanswered::Busy | Unanswered::NotCounted(_)) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    match answered {
        Ok(answered) => answer::json(
            status,
            serde_json::to_string(&answered).expect("an answer is always valid JSON"),
        ),
        Err(error) => answer::text(status, format!("{error}\n")),
    }
}
