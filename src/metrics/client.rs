//! Requests to the API server, under the names of Kubernetes' Go client.

use super::register::Register;
use prometheus::{HistogramVec, IntCounterVec};
use std::time::Duration;

pub struct Client {
    requests: IntCounterVec,
    duration: HistogramVec,
    throttled: HistogramVec,
}

/// Bucket bounds of the Go client, in seconds.
const SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

impl Client {
    pub(super) fn new(register: &Register) -> Self {
        Client {
            requests: register.counters(
                "rest_client_requests_total",
                "Requests to the API server by status code, method and host",
                &["code", "method", "host"],
            ),
            duration: register.histograms(
                "rest_client_request_duration_seconds",
                "Time to the answer's headers by verb and host",
                &["verb", "host"],
                SECONDS.to_vec(),
            ),
            throttled: register.histograms(
                "rest_client_rate_limiter_duration_seconds",
                "Time for which the client's own rate limit held requests back",
                &["verb", "host"],
                SECONDS.to_vec(),
            ),
        }
    }

    /// One request was held back for `throttled`, sent, and answered after `latency` with `code`;
    /// `None` when there was no answer, which the Go client calls `<error>`.
    pub fn answered(
        &self,
        method: &str,
        host: &str,
        code: Option<u16>,
        latency: Duration,
        throttled: Duration,
    ) {
        let code = code.map_or_else(|| "<error>".to_string(), |code| code.to_string());
        self.requests.with_label_values(&[&*code, method, host]).inc();
        for (seconds, time) in [(&self.duration, latency), (&self.throttled, throttled)] {
            seconds.with_label_values(&[method, host]).observe(time.as_secs_f64());
        }
    }
}
