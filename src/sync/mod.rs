//! The one thread that owns the plan and writes to the kernel.
//!
//! ```text
//! sources, kernel events --Input--> thread: Planner --Transaction--> Kernel
//!                                      |
//!                                      +--> health, metrics
//! ```
//!
//! * `follow_up`: what follows outside the table, see below
//! * `engine`: one sync, from what changed to what is committed, with everything that can go wrong
//! * `pace`: when to sync: at once, but no more often than `minSyncPeriod`, and later after a failure
//! * `quarantine`: Services that the kernel refused, and when to try them again
//!
//! Nothing is written before the source has said [`Input::Complete`].
//!
//! # What follows from a commit
//!
//! After every sync that went well, in this order. The sync thread waits for none of the others.
//!
//! | What follows | Who sees to it | Where it happens |
//! |---|---|---|
//! | Memory is given back after a full sync; released Services leave the quarantine | [`Engine::sync`] | sync thread |
//! | The proxy counts as healthy | [`Health::synced`]; servers read it | sync thread |
//! | Stale UDP flows are deleted from conntrack | [`FollowUp::committed`], [`ConntrackCleaner`] | thread `conntrack` |
//! | Health check node ports open, close and count anew | [`FollowUp::committed`], `http::service_checks` | tasks of the runtime |
//! | Localhost NodePorts open, close and change endpoints | [`FollowUp::committed`], [`localhost::run`] | tasks of the runtime |
//! | What other modes of kube-proxy left is removed; after the first sync only | [`Observers::first_sync`], [`leftovers::remove`] | thread `leftovers` |
//! | Metrics and the log say what was done, how long it took, and what there is | here, from [`Committed`] and the plan | sync thread |
//! | Chains and sets that nothing leads to any more are deleted, after two quiet seconds | [`Engine::delete_unused`] | sync thread |
//!
//! What [`FollowUp::committed`] passes on comes from [`Effects`], which the planner keeps in step and which
//! is taken only here. After a failed sync nothing follows but a later attempt: the kernel's error arrives
//! here as it was made, and is logged and counted.
//!
//! [`ConntrackCleaner`]: crate::kernel::conntrack::ConntrackCleaner
//! [`Effects`]: crate::plan::Effects
//! [`leftovers::remove`]: crate::kernel::leftovers::remove
//! [`localhost::run`]: crate::localhost::run

mod engine;
mod follow_up;
mod pace;
mod quarantine;
mod replacement;

pub use engine::{Committed, Engine};
pub use follow_up::FollowUp;

use crate::health::{Health, Moment};
use crate::kernel::addresses::{LocalAddresses, NodePortSelection};
use crate::kernel::nft::{Error, Kernel};
use crate::metrics::Metrics;
use crate::metrics::sync::{SyncKind, TrafficPolicy};
use crate::model::{Change, Node};
use crate::plan::Settings;
use crate::plan::layout::{SetName, TABLE};
use nft_table::Family;
use pace::Pace;
use prometheus::{IntCounter, IntGauge};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

/// How often it is made sure that the table is still there.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Objects changed.
    Changes(Vec<Change>),
    /// The source has sent everything that there was at start.
    Complete,
    /// The addresses of this machine changed.
    Addresses(LocalAddresses),
}

/// Which addresses NodePorts answer on, as far as it depends on the Node object.
pub type SelectNodePorts = Box<dyn Fn(Option<&Node>) -> NodePortSelection + Send>;

/// What the operator configured for the thread.
pub struct Options {
    pub settings: Settings,
    pub select_nodeports: SelectNodePorts,
    /// The least time from the end of a sync to the next one; zero: none.
    pub min_sync_period: Duration,
    /// The longest time to wait before a failed sync is tried again.
    pub sync_period: Duration,
}

/// Whom the thread tells.
pub struct Observers {
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub follow_up: FollowUp,
    /// Called once, after the first sync that succeeded.
    pub first_sync: Option<Box<dyn FnOnce() + Send>>,
}

/// Runs until all senders of `inputs` are gone. The rules stay in the kernel.
pub fn run<K: Kernel>(kernel: K, options: Options, inputs: Receiver<Input>, observers: Observers) {
    let pace = Pace::new(options.min_sync_period, options.sync_period);
    let engine = Engine::new(kernel, options.settings, options.select_nodeports);
    let elements = &observers.metrics.kernel;
    let gauge = |name: SetName| (name, elements.elements(&name.nft()));
    let gauges = SetName::all().map(gauge).collect();
    Loop { engine, pace, observers, gauges, complete: false, looked: Instant::now() }.run(&inputs);
}

struct Loop<K> {
    engine: Engine<K>,
    pace: Pace,
    observers: Observers,
    /// The size of every set and map that can be there.
    gauges: BTreeMap<SetName, IntGauge>,
    /// The source has sent its first state.
    complete: bool,
    /// When it was last made sure that the table is there.
    looked: Instant,
}

impl<K: Kernel> Loop<K> {
    fn run(mut self, inputs: &Receiver<Input>) {
        loop {
            let input = match self.wake_time() {
                None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(time) => inputs.recv_timeout(time.saturating_duration_since(Instant::now())),
            };
            match input {
                Ok(input) => {
                    self.take(input);
                    // What has queued up meanwhile goes into the same transaction.
                    while let Ok(input) = inputs.try_recv() {
                        self.take(input);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if !self.complete {
                continue;
            }
            if now >= self.looked + LOOK {
                self.look(now);
            }
            if self.pace.is_due(now) {
                self.sync();
            } else if self.pace.is_idle(now) {
                self.tidy(now);
            }
        }
    }

    /// When there is something to do even if nothing arrives.
    fn wake_time(&self) -> Option<Instant> {
        if !self.complete {
            return None;
        }
        if let Some(due) = self.pace.due_time() {
            return Some(due);
        }
        let idle = self.pace.idle_time()?;
        let tidy = self.engine.has_unused().then_some(idle);
        let release = self.engine.quarantine_time().map(|time| time.max(idle));
        [tidy, release, Some(self.looked + LOOK)].into_iter().flatten().min()
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Complete => {
                self.complete = true;
                self.pace.queue(Instant::now());
            }
            Input::Changes(changes) => {
                let metrics = &self.observers.metrics;
                let slices = changes.iter().filter(|c| matches!(c, Change::EndpointSlice(..)));
                metrics.sync.endpoint_changes.seen(slices.count());
                let services = changes.iter().filter(|c| matches!(c, Change::Service(..)));
                metrics.sync.service_changes.seen(services.count());
                for change in changes {
                    let node = match &change {
                        Change::Node(node) => Some(node.clone()),
                        _ => None,
                    };
                    self.engine.apply(change);
                    if let Some(node) = node {
                        self.observers.health.set_node(node.as_deref());
                        self.listen();
                    }
                }
                self.queue();
            }
            Input::Addresses(addresses) => {
                self.engine.set_addresses(addresses);
                self.listen();
                self.queue();
            }
        }
    }

    /// Health check node ports follow the node's addresses.
    fn listen(&self) {
        let (selection, addresses) = self.engine.nodeport_selection();
        self.observers.follow_up.listen_on(&selection, addresses);
    }

    fn queue(&mut self) {
        self.pace.queue(Instant::now());
        self.observers.health.queued(Moment::now());
        self.observers.metrics.sync.queued(SystemTime::now());
    }

    fn sync(&mut self) {
        let start = Instant::now();
        let span = tracing::debug_span!("sync", operations = tracing::field::Empty).entered();
        match self.engine.sync() {
            Ok(committed) => {
                span.record("operations", committed.operations);
                self.pace.succeeded(Instant::now());
                self.succeeded(committed, start.elapsed());
            }
            Err(error) => {
                let metrics = &self.observers.metrics;
                metrics.sync.failed();
                metrics.kernel.refused(errno_name(&error));
                let retry = humantime::format_duration(self.pace.failed(Instant::now()));
                tracing::error!(
                    "the kernel keeps its last state, next attempt in {retry}: {error}"
                );
            }
        }
    }

    fn succeeded(&mut self, committed: Committed, took: Duration) {
        let Observers { health, metrics, follow_up, first_sync } = &mut self.observers;
        health.synced(Moment::now());
        follow_up.committed(self.engine.effects());
        if let Some(first_sync) = first_sync.take() {
            first_sync();
        }
        let kind = if committed.full { SyncKind::Full } else { SyncKind::Partial };
        metrics.sync.committed(kind, took, SystemTime::now());
        metrics.kernel.planned(committed.planning);
        if committed.operations > 0 {
            metrics.kernel.committed(committed.operations, committed.writing);
        }
        metrics.kernel.quarantined.set(committed.quarantined as i64);
        if let Some(reason) = committed.rebuilt {
            metrics.kernel.rebuilt(reason);
        }
        for (family, trigger) in &committed.triggers {
            if let Some(latency) = since(*trigger) {
                metrics.sync.programmed(*family, latency);
            }
        }
        let planner = self.engine.planner();
        let counts = planner.counts();
        metrics.objects.services.set(counts.services as i64);
        metrics.objects.endpoints.set(counts.endpoints as i64);
        metrics.objects.duplicate_frontends.set(counts.lost_frontends as i64);
        for (name, count) in planner.element_counts() {
            self.gauges[&name].set(count as i64);
        }
        for family in Family::BOTH {
            let counts = self.engine.effects().no_local_endpoints(family);
            let set = |policy, count| metrics.sync.set_no_local_endpoints(policy, family, count);
            set(TrafficPolicy::Internal, counts.internal);
            set(TrafficPolicy::External, counts.external);
        }
        log_commit(&committed, counts.services, took);
    }

    /// `nft flush ruleset`, which the firewall of a distribution may do at its reload, takes our table
    /// with it.
    fn look(&mut self, now: Instant) {
        self.looked = now;
        if self.engine.has_lost_table() {
            tracing::warn!("somebody deleted table inet {TABLE}; it is written again");
            self.queue();
        }
    }

    /// In quiet times: lets Services out of quarantine, deletes what nothing leads to any more.
    fn tidy(&mut self, now: Instant) {
        if self.engine.release_quarantined(now) {
            self.queue();
        } else if self.engine.has_unused()
            && let Err(error) = self.engine.delete_unused()
        {
            self.observers.metrics.sync.cleanup_failures.each(IntCounter::inc);
            tracing::warn!("cannot delete chains that are not used any more: {error}");
            self.queue();
        }
    }
}

/// The errno of what the kernel refused first, for the metric.
fn errno_name(error: &Error) -> &'static str {
    match error.refusals().first().map_or(0, |refusal| refusal.errno) {
        0 => "none",
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ENOMEM => "ENOMEM",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        _ => "other",
    }
}

/// How long ago a time in nanoseconds since 1970 is; None when it is in the future.
fn since(nanoseconds: i64) -> Option<Duration> {
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds.try_into().ok()?);
    SystemTime::now().duration_since(at).ok()
}

/// A line for every table that was compared as a whole; single changes are for debugging.
fn log_commit(committed: &Committed, services: usize, took: Duration) {
    let took = humantime::format_duration(Duration::from_micros(took.as_micros() as u64));
    let operations = committed.operations;
    if committed.full {
        tracing::info!("{services} Services are in the kernel: {operations} operations in {took}");
    } else {
        tracing::debug!("{operations} operations in {took}");
    }
}
