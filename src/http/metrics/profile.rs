//! `/debug/pprof/profile`: a CPU profile as `go tool pprof` reads it.
//!
//! Samples are taken by SIGPROF, a hundred a second of CPU time; system calls of any thread may
//! return EINTR meanwhile. Only one profile can be taken at a time. Built with the Cargo feature
//! `profiling`.

use super::answer;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use std::time::Duration;

/// How long is sampled when the request does not say; the same as in Go's handler.
const DEFAULT: Duration = Duration::from_secs(30);

/// The longest profile: a longer one would only need more memory.
const LONGEST: Duration = Duration::from_secs(600);

pub async fn cpu(request: Request) -> Response {
    match take(duration(request.uri().query().unwrap_or_default())).await {
        Ok(profile) => answer::attachment("profile", profile),
        Err((status, why)) => answer::text(status, format!("cannot profile the CPU: {why}\n")),
    }
}

/// The value of `seconds=`; what is not a positive number is ignored, as Go does it.
fn duration(query: &str) -> Duration {
    let seconds = query.split('&').find_map(|part| part.strip_prefix("seconds=")?.parse().ok());
    let seconds = seconds.filter(|seconds| *seconds > 0);
    seconds.map_or(DEFAULT, Duration::from_secs).min(LONGEST)
}

type Failure = (StatusCode, String);

#[cfg(feature = "profiling")]
async fn take(duration: Duration) -> Result<Vec<u8>, Failure> {
    use pprof::protos::Message;
    use pprof::{Error, ProfilerGuardBuilder};

    /// Samples per second of CPU time.
    const FREQUENCY: i32 = 100;
    /// No stack is unwound from within these: they may hold locks that unwinding needs.
    const NOT_FROM: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

    let failed = |error: Error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let profiler = ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&NOT_FROM);
    // Dropping the guard ends the sampling, also when the client goes away.
    let sampling = profiler.build().map_err(failed)?;
    tokio::time::sleep(duration).await;
    let encode = move || Ok(sampling.report().build()?.pprof()?.encode_to_vec());
    match tokio::task::spawn_blocking(encode).await {
        Ok(profile) => profile.map_err(failed),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

#[cfg(not(feature = "profiling"))]
async fn take(_: Duration) -> Result<Vec<u8>, Failure> {
    Err((
        StatusCode::NOT_IMPLEMENTED,
        "this binary was built without the feature `profiling`".into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_read_as_go_reads_it() {
        for (query, seconds) in [
            ("", 30),
            ("seconds=5", 5),
            ("debug=1&seconds=7", 7),
            ("seconds=0", 30),
            ("seconds=x", 30),
            ("seconds=100000", 600),
        ] {
            assert_eq!(duration(query).as_secs(), seconds, "{query}");
        }
    }
}
