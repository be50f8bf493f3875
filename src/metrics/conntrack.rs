//! Removal of stale UDP connection tracking entries.

use super::PerFamily;
use super::register::{Register, seconds_buckets};
use crate::model::Family;
use prometheus::{Histogram, IntCounter};
use std::time::Duration;

pub struct Conntrack {
    duration: PerFamily<Histogram>,
    deleted: PerFamily<IntCounter>,
}

impl Conntrack {
    pub(super) fn new(register: &Register) -> Self {
        Conntrack {
            duration: register.histogram_by_family(
                "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                "Time to find and delete stale conntrack entries",
                seconds_buckets(),
            ),
            deleted: register.counter_by_family(
                "kubeproxy_conntrack_reconciler_deleted_entries_total",
                "Stale conntrack entries deleted",
            ),
        }
    }

    /// One reconciliation of a family took `duration` and deleted `entries`.
    pub fn reconciled(&self, family: Family, duration: Duration, entries: usize) {
        self.duration.of(family, |histogram| histogram.observe(duration.as_secs_f64()));
        self.deleted.of(family, |counter| counter.inc_by(entries as u64));
    }
}
