//! Answers to health probes.

use super::register::Register;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};

/// Answers of one endpoint, by HTTP status.
pub struct Answers {
    ok: IntCounter,
    unavailable: IntCounter,
}

pub struct Probes {
    /// `/healthz` of the health server.
    pub healthz: Answers,
    /// `/livez` of the health server.
    pub livez: Answers,
    healthcheck: IntGaugeVec,
    healthchecks: IntCounterVec,
}

impl Probes {
    pub(super) fn new(register: &Register, slis: &Register) -> Self {
        Probes {
            healthz: Answers::new(register, "healthz"),
            livez: Answers::new(register, "livez"),
            healthcheck: slis.gauges(
                "kubernetes_healthcheck",
                "Result of the last run of a health check: 1 success, 0 error",
                &["name", "type"],
            ),
            healthchecks: slis.counters(
                "kubernetes_healthchecks_total",
                "Runs of health checks by result",
                &["name", "status", "type"],
            ),
        }
    }

    /// `/healthz` of the metrics server was asked: its only check, `ping`, always succeeds.
    pub fn pinged(&self) {
        self.healthcheck.with_label_values(&["ping", "healthz"]).set(1);
        self.healthchecks.with_label_values(&["ping", "success", "healthz"]).inc();
    }
}

impl Answers {
    fn new(register: &Register, endpoint: &str) -> Self {
        let answers = register.counters(
            &format!("kubeproxy_proxy_{endpoint}_total"),
            &format!("Answers of /{endpoint} by HTTP status"),
            &["code"],
        );
        Answers {
            ok: answers.with_label_values(&["200"]),
            unavailable: answers.with_label_values(&["503"]),
        }
    }

    /// Counts one answer: 200 if healthy, otherwise 503.
    pub fn count(&self, healthy: bool) {
        if healthy { self.ok.inc() } else { self.unavailable.inc() }
    }
}
