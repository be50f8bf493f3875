//! `/flagz` and `/statusz`: for people, in the form that Kubernetes' components have in common
//! (KEP-4828, KEP-4827).

use super::{Content, Shared, answer};
use crate::health::Moment;
use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use std::fmt::Write;
use std::time::SystemTime;

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no \
                       formatting compatibility guarantees and is for debugging purposes only.";

pub async fn flagz(State(content): Shared, headers: HeaderMap) -> Response {
    page(&headers, || {
        let mut text = format!("\nkube-proxy flagz\n{WARNING}\n\n");
        for (name, value) in content.flagz.iter().flatten() {
            let _ = writeln!(text, "{name}={value}");
        }
        text
    })
}

/// `paths` are those of the server.
pub async fn statusz(State(content): Shared, headers: HeaderMap, paths: String) -> Response {
    page(&headers, || status(&content, &paths, Moment::now()))
}

fn status(content: &Content, paths: &str, now: Moment) -> String {
    let up = now.since(content.started).as_secs();
    let report = content.health.report(now);
    let shown = |time: Option<SystemTime>| {
        time.map_or("never".into(), |time| humantime::format_rfc3339_seconds(time).to_string())
    };
    let mut text = format!("\nkube-proxy statusz\n{WARNING}\n\n");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}: {value}");
    };
    line("Started", &shown(Some(content.started.wall)));
    line("Up", &format!("{} hr {:02} min {:02} sec", up / 3600, up / 60 % 60, up % 60));
    line("Binary version", &content.version);
    line("Proxy mode", "nftables");
    line("Healthy", if report.healthy { "yes" } else { "no" });
    line("Last commit", &shown(report.last_updated.0));
    if !report.pending.is_empty() {
        line("Waiting for", &report.pending.join(", "));
    }
    line("Paths", paths);
    text
}

/// The page as text, or 406 for a client that does not take text.
fn page(headers: &HeaderMap, render: impl FnOnce() -> String) -> Response {
    if !accepts_text(headers) {
        return answer::text(StatusCode::NOT_ACCEPTABLE, "only text/plain is available\n");
    }
    answer::text(StatusCode::OK, render())
}

fn accepts_text(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    headers.get(ACCEPT).is_none()
        || accepted.any(|value| {
            value.split(',').any(|range| {
                let media_type = range.split(';').next().unwrap_or_default().trim();
                matches!(media_type, "*/*" | "text/*" | "text/plain" | "")
            })
        })
}
