//! `/debug/`: served only when the configuration has `enableProfiling`.
//!
//! Paths and answers are those of Kubernetes' Go components as far as they make sense here: the
//! verbosity of the log can be changed and the CPU profiled; what Go's runtime alone can tell is
//! answered with 501.

use super::answer;
use super::profile;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{Redirect, Response};
use axum::routing::any;
use std::sync::Arc;

/// Sets the verbosity of the log to a level of klog; the error says why that failed.
pub type SetVerbosity = Box<dyn Fn(u32) -> Result<(), String> + Send + Sync>;

/// Profiles of Go's runtime, which have no counterpart here.
const GO_ONLY: &str = "allocs block goroutine goroutineleak heap mutex symbol threadcreate trace";

const INDEX: &str = "/debug/pprof/\n\n\
    cmdline    the command line, separated by NUL\n\
    profile    CPU profile of the next seconds=N (30), for `go tool pprof`\n";

const FLAGS: &str = "/debug/flags/\n\nv    PUT a number to change the verbosity of the log\n";

pub fn router(set_verbosity: SetVerbosity) -> Router {
    Router::new()
        .route("/debug/pprof", any(async || Redirect::permanent("/debug/pprof/")))
        .route("/debug/pprof/", any(async || answer::text(StatusCode::OK, INDEX)))
        .route("/debug/pprof/cmdline", any(command_line))
        .route("/debug/pprof/profile", any(profile::cpu))
        .route("/debug/pprof/{name}", any(other_profile))
        .route("/debug/flags", any(async || answer::text(StatusCode::OK, FLAGS)))
        .route("/debug/flags/", any(async || answer::text(StatusCode::OK, FLAGS)))
        .route("/debug/flags/v", any(verbosity))
        .with_state(Arc::new(set_verbosity))
}

async fn command_line() -> Response {
    let arguments: Vec<_> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    answer::text(StatusCode::OK, arguments.join("\0"))
}

async fn other_profile(Path(name): Path<String>) -> Response {
    if GO_ONLY.split(' ').any(|known| known == name) {
        let text = format!("{name}: only Go's runtime has this profile, this program is in Rust\n");
        return answer::text(StatusCode::NOT_IMPLEMENTED, text);
    }
    answer::text(StatusCode::NOT_FOUND, "Unknown profile\n")
}

async fn verbosity(
    State(set_verbosity): State<Arc<SetVerbosity>>,
    method: Method,
    body: String,
) -> Response {
    if method != Method::PUT {
        return answer::text(StatusCode::NOT_ACCEPTABLE, "unsupported http method\n");
    }
    let level = body.trim();
    let result = level
        .parse()
        .map_err(|_| "not a number".to_string())
        .and_then(|level: u32| set_verbosity(level));
    match result {
        Ok(()) => {
            let text = format!("successfully set klog.logging.verbosity to {level}\n");
            answer::text(StatusCode::OK, text)
        }
        Err(why) => {
            let text = format!("failed to set klog.logging.verbosity to {level:?}: {why}\n");
            answer::text(StatusCode::BAD_REQUEST, text)
        }
    }
}
