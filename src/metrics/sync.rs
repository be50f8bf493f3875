//! How changes get into the kernel: upstream's `sync_proxy_rules_*` and network programming metrics.
//!
//! Upstream has one proxier per family; here one transaction serves both, so most values are the
//! same for each `ip_family`.

use super::PerFamily;
use super::register::{Register, seconds_buckets};
use crate::model::Family;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
use std::time::{Duration, SystemTime};

/// What one sync wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// The first load, or a rebuild of the table.
    Full,
    /// The difference that changes made.
    Partial,
}

/// The traffic policy that left a Service without endpoints on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicy {
    Internal,
    External,
}

pub struct Sync {
    duration: PerFamily<Histogram>,
    full_duration: PerFamily<Histogram>,
    partial_duration: PerFamily<Histogram>,
    programming: PerFamily<Histogram>,
    last: PerFamily<Gauge>,
    last_queued: PerFamily<Gauge>,
    failures: PerFamily<IntCounter>,
    no_local_internal: PerFamily<IntGauge>,
    no_local_external: PerFamily<IntGauge>,
    heartbeat_age: Gauge,
    oldest_input_age: Gauge,
    /// Stale objects of the table that could not be removed after a sync.
    pub cleanup_failures: PerFamily<IntCounter>,
    /// Changes of EndpointSlices.
    pub endpoint_changes: Changes,
    /// Changes of Services.
    pub service_changes: Changes,
}

/// Changes of one kind of object.
pub struct Changes {
    pending: IntGauge,
    total: IntCounter,
}

impl Sync {
    pub(super) fn new(register: &Register) -> Self {
        let no_local = register.gauges(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Services that a traffic policy of Local leaves without an endpoint on this node",
            &["traffic_policy", "ip_family"],
        );
        let no_local = |policy: &str| {
            PerFamily::new(register.families, |family| {
                no_local.with_label_values(&[policy, &family.to_string()])
            })
        };
        Sync {
            duration: register.histogram_by_family(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                "Time from taking up changes to having them in the kernel",
                seconds_buckets(),
            ),
            full_duration: register.histogram_by_family(
                "kubeproxy_sync_full_proxy_rules_duration_seconds",
                "The same for syncs that load the complete table",
                seconds_buckets(),
            ),
            partial_duration: register.histogram_by_family(
                "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                "The same for syncs that write only what changed",
                seconds_buckets(),
            ),
            programming: register.histogram_by_family(
                "kubeproxy_network_programming_duration_seconds",
                "Time from the change of a Pod or Service, as its EndpointSlice tells, to the kernel",
                programming_buckets(),
            ),
            last: register.gauge_by_family(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "When the last sync succeeded, in seconds since 1970",
            ),
            last_queued: register.gauge_by_family(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "When the last sync was asked for, in seconds since 1970",
            ),
            failures: register.counter_by_family(
                "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
                "Syncs that failed",
            ),
            heartbeat_age: register.number(
                "kubeproxy_sync_heartbeat_age_seconds",
                "How long ago the thread that writes to the kernel showed that it lives",
            ),
            oldest_input_age: register.number(
                "kubeproxy_sync_oldest_input_age_seconds",
                "How long the oldest change waits that this thread has not taken; 0 when none waits",
            ),
            no_local_internal: no_local("internal"),
            no_local_external: no_local("external"),
            cleanup_failures: register.counter_by_family(
                "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
                "Failures to remove what the table no longer needs",
            ),
            endpoint_changes: Changes::new(register, "endpoint", "EndpointSlices"),
            service_changes: Changes::new(register, "service", "Services"),
        }
    }

    /// How the sync thread lives: to be shown at a scrape.
    pub fn show_life(&self, heartbeat_age: Duration, oldest_input_age: Duration) {
        self.heartbeat_age.set(heartbeat_age.as_secs_f64());
        self.oldest_input_age.set(oldest_input_age.as_secs_f64());
    }

    /// A change was queued that has to be written.
    pub fn queued(&self, now: SystemTime) {
        self.last_queued.each(|gauge| gauge.set(unix_seconds(now)));
    }

    /// Everything queued was written. `duration` counts from taking it up.
    pub fn committed(&self, kind: SyncKind, duration: Duration, now: SystemTime) {
        let of_kind = match kind {
            SyncKind::Full => &self.full_duration,
            SyncKind::Partial => &self.partial_duration,
        };
        for durations in [&self.duration, of_kind] {
            durations.each(|histogram| histogram.observe(duration.as_secs_f64()));
        }
        self.last.each(|gauge| gauge.set(unix_seconds(now)));
        self.endpoint_changes.pending.set(0);
        self.service_changes.pending.set(0);
    }

    /// A sync failed; it will be tried again.
    pub fn failed(&self) {
        self.failures.each(IntCounter::inc);
    }

    /// An EndpointSlice's change has reached the kernel `latency` after its trigger
    /// (annotation `endpoints.kubernetes.io/last-change-trigger-time`).
    pub fn programmed(&self, family: Family, latency: Duration) {
        self.programming.of(family, |histogram| histogram.observe(latency.as_secs_f64()));
    }

    /// How many Services a policy of Local leaves without an endpoint here.
    pub fn set_no_local_endpoints(&self, policy: TrafficPolicy, family: Family, services: usize) {
        let gauges = match policy {
            TrafficPolicy::Internal => &self.no_local_internal,
            TrafficPolicy::External => &self.no_local_external,
        };
        gauges.of(family, |gauge| gauge.set(services as i64));
    }
}

impl Changes {
    fn new(register: &Register, kind: &str, plural: &str) -> Self {
        let name = |what| format!("kubeproxy_sync_proxy_rules_{kind}_changes_{what}");
        Changes {
            pending: register
                .gauge(&name("pending"), &format!("Changes of {plural} not yet in the kernel")),
            total: register.counter(&name("total"), &format!("Changes of {plural} seen")),
        }
    }

    /// `count` changes arrived; they are pending until the next commit.
    pub fn seen(&self, count: usize) {
        self.total.inc_by(count as u64);
        self.pending.add(count as i64);
    }
}

/// 0.25, 0.5, 1 to 59 by 1, 60 to 115 by 5, 120 to 300 by 30 seconds.
fn programming_buckets() -> Vec<f64> {
    let steps = |from: u32, to: u32, by: usize| (from..=to).step_by(by).map(f64::from);
    [0.25, 0.5]
        .into_iter()
        .chain(steps(1, 59, 1))
        .chain(steps(60, 115, 5))
        .chain(steps(120, 300, 30))
        .collect()
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
