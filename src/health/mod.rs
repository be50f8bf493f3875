//! Whether this proxy is doing its work: what `/healthz`, `/livez` and the health check node ports
//! answer from.
//!
//! State that one side writes and the other reads; nothing here waits or does anything on its own.
//! The sync thread calls [`Health::queued`] and [`Health::synced`], servers call [`Health::report`].
//! Whoever calls says what time it is, so that tests need no clock; [`Moment::now`] alone reads one. What
//! [`Health`] knows is behind one short lock, its [`Readiness`] behind another; [`ServiceChecks`] is a
//! channel that wakes the servers.
//!
//! Invariants: the proxy is unhealthy until its first commit and as long as a start-up task of
//! [`Readiness`] is pending; after that it is unhealthy only while an update has been waiting for
//! twice the sync period. The Node object says whether the *node* should get new traffic, which only
//! `/healthz` tells.

mod moment;
mod readiness;
mod report;
mod service_checks;

pub use moment::Moment;
pub use readiness::{PendingTask, Readiness};
pub use report::{FamilyReport, Report, Timestamp};
pub use service_checks::{BindAddresses, DesiredChecks, ServiceCheck, ServiceChecks};

use crate::model::{Family, Node};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The taint that the cluster autoscaler sets on a node that it is going to remove. Its effect does
/// not matter.
pub const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// What decides when the proxy counts as healthy.
#[derive(Clone, Debug)]
pub struct HealthPolicy {
    /// `nftables.syncPeriod`: a failed sync is tried again after this time at the latest, so twice as
    /// long without a success means trouble.
    pub sync_period: Duration,
    /// The families that are programmed, as they are listed in the answers.
    pub families: Vec<Family>,
    /// Whether a node without a Node object is refused: true where the API server is the source,
    /// false for manifests.
    pub node_required: bool,
}

/// The health of the proxy and of its node, shared between the sync thread and the servers.
pub struct Health {
    policy: HealthPolicy,
    readiness: Readiness,
    state: Mutex<State>,
    oldest_input: OnceLock<OldestInput>,
}

#[derive(Debug)]
struct State {
    last_synced: Option<Moment>,
    /// When the oldest update arrived that is not in the kernel yet.
    oldest_queued: Option<Moment>,
    /// When the sync thread last showed that it lives.
    last_beat: Option<Moment>,
    node_eligible: bool,
}

/// When the first of the inputs came that the sync thread has not taken.
pub type OldestInput = Box<dyn Fn() -> Option<Instant> + Send + std::marker::Sync>;

impl Health {
    pub fn new(policy: HealthPolicy) -> Self {
        let state = State {
            last_synced: None,
            oldest_queued: None,
            last_beat: None,
            node_eligible: !policy.node_required,
        };
        Health {
            policy,
            readiness: Readiness::default(),
            state: Mutex::new(state),
            oldest_input: OnceLock::new(),
        }
    }

    /// Has inputs that nobody takes count against the proxy. Once.
    pub fn watch_inputs(&self, oldest: OldestInput) {
        let _ = self.oldest_input.set(oldest);
    }

    /// The sync thread lives: it says so at every turn, at least each second once it serves.
    pub fn beat(&self, now: Moment) {
        self.state().last_beat = Some(now);
    }

    /// How long ago the sync thread showed that it lives; None: not yet.
    pub fn heartbeat_age(&self, now: Moment) -> Option<Duration> {
        self.state().last_beat.map(|beat| now.since(beat))
    }

    /// How long the oldest input waits that the sync thread has not taken; zero when there is none.
    pub fn oldest_input_age(&self, now: Moment) -> Duration {
        let oldest = self.oldest_input.get().and_then(|oldest| oldest());
        oldest.map_or(Duration::ZERO, |at| now.monotonic.saturating_duration_since(at))
    }

    /// What still has to happen before the proxy is ready for the first time.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// An update has arrived that the kernel does not have yet.
    pub fn queued(&self, now: Moment) {
        self.state().oldest_queued.get_or_insert(now);
    }

    /// Everything that was queued is in the kernel.
    pub fn synced(&self, now: Moment) {
        let mut state = self.state();
        state.oldest_queued = None;
        state.last_synced = Some(now);
    }

    /// This node's Node object has changed; `None` when there is none.
    pub fn set_node(&self, node: Option<&Node>) {
        let eligible = match node {
            None => !self.policy.node_required,
            Some(node) => {
                !node.deleting && !node.taints.iter().any(|t| &*t.key == TO_BE_DELETED_TAINT)
            }
        };
        self.state().node_eligible = eligible;
    }

    /// Whether new connections may be sent to this node at all, as far as its Node object tells.
    pub fn node_eligible(&self) -> bool {
        self.state().node_eligible
    }

    /// Whether the proxy does its work, whatever the node's state.
    pub fn is_healthy(&self, now: Moment) -> bool {
        self.readiness.is_ready() && self.is_current(now)
    }

    /// Everything at once, for an answer.
    pub fn report(&self, now: Moment) -> Report {
        let pending = self.readiness.pending();
        let healthy = pending.is_empty() && self.is_current(now);
        let state = self.state();
        let last_updated = Timestamp(state.last_synced.map(|at| at.wall));
        let family = FamilyReport { last_updated, healthy };
        Report {
            last_updated,
            current_time: Timestamp(Some(now.wall)),
            node_eligible: Some(state.node_eligible),
            healthy,
            status: self.policy.families.iter().map(|f| (*f, family)).collect(),
            pending,
        }
    }

    /// Whether the sync thread lives and takes what comes, and the kernel takes what the thread writes.
    fn is_current(&self, now: Moment) -> bool {
        self.oldest_input_age(now) < self.timeout() && self.state().is_current(now, self.timeout())
    }

    /// How long an update may wait, and the sync thread be silent.
    fn timeout(&self) -> Duration {
        self.policy.sync_period * 2
    }

    /// A panic of another holder leaves nothing half-written here.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_current(&self, now: Moment, timeout: Duration) -> bool {
        self.last_synced.is_some()
            && self.oldest_queued.is_none_or(|queued| now.since(queued) < timeout)
            && self.last_beat.is_none_or(|beat| now.since(beat) < timeout)
    }
}

#[cfg(test)]
mod tests;
