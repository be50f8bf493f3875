//! What goes to the kernel and what it holds: what upstream has no metrics for.

use super::register::{Register, exponential};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use std::time::Duration;

/// Why the complete table was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// There was no table at start.
    Absent,
    /// The table at start had another layout.
    Layout,
    /// Somebody deleted or flushed the table while the proxy ran.
    Lost,
    /// The table was not what the proxy had written.
    Drift,
}

pub struct Kernel {
    operations: Histogram,
    commit: Histogram,
    plan: Histogram,
    refused: IntCounterVec,
    rebuilds: [IntCounter; 4],
    touched: IntCounter,
    elements: IntGaugeVec,
    /// Services that stay as they were because the kernel refuses what they need now.
    pub quarantined: IntGauge,
}

impl Kernel {
    pub(super) fn new(register: &Register) -> Self {
        let rebuilds = register.counters(
            "kubeproxy_nftables_table_rebuilds_total",
            "How often the complete table was written, by reason",
            &["reason"],
        );
        let rebuilds = ["absent", "layout", "lost", "drift"]
            .map(|reason| rebuilds.with_label_values(&[reason]));
        Kernel {
            operations: register.histogram(
                "kubeproxy_nftables_transaction_operations",
                "Operations (objects and elements added or deleted) in one transaction",
                exponential(1.0, 4.0, 11),
            ),
            commit: register.histogram(
                "kubeproxy_nftables_commit_duration_seconds",
                "Time the kernel took to commit one transaction",
                micro_buckets(),
            ),
            plan: register.histogram(
                "kubeproxy_plan_duration_seconds",
                "Time from a batch of changes to the operations it makes",
                micro_buckets(),
            ),
            refused: register.counters(
                "kubeproxy_nftables_refused_transactions_total",
                "Transactions that the kernel refused, also those after which all was well, by class (transient, drift, \
                 object) and error",
                &["class", "errno"],
            ),
            rebuilds,
            touched: register.counter(
                "kubeproxy_nftables_foreign_changes_total",
                "Changes of the table by other programs that were noticed",
            ),
            elements: register.gauges(
                "kubeproxy_nftables_elements",
                "Elements of a map or set of the table",
                &["map"],
            ),
            quarantined: register.gauge(
                "kubeproxy_quarantined_services",
                "Services that stay as they were because the kernel refuses what they need now",
            ),
        }
    }

    /// A batch of changes was planned.
    pub fn planned(&self, duration: Duration) {
        self.plan.observe(duration.as_secs_f64());
    }

    /// A transaction was committed.
    pub fn committed(&self, operations: usize, duration: Duration) {
        self.operations.observe(operations as f64);
        self.commit.observe(duration.as_secs_f64());
    }

    /// A transaction was refused. `class` is whose fault that is: `transient`, nobody's; `drift`, the table was not as
    /// believed; `object`, a Service's. `errno` is the error's name, as `EBUSY`.
    pub fn refused(&self, class: &str, errno: &str) {
        self.refused.with_label_values(&[class, errno]).inc();
    }

    /// Another program changed the table.
    pub fn touched(&self) {
        self.touched.inc();
    }

    /// The complete table was written.
    pub fn rebuilt(&self, reason: Rebuild) {
        self.rebuilds[reason as usize].inc();
    }

    /// The gauge of one map or set; keep it, for looking it up takes time.
    pub fn elements(&self, map: &str) -> IntGauge {
        self.elements.with_label_values(&[map])
    }
}

/// 20 µs to 5.2 s: a replaced endpoint commits in tens of microseconds, a full load in seconds.
fn micro_buckets() -> Vec<f64> {
    exponential(0.000_02, 2.0, 19)
}
