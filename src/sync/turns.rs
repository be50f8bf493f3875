//! The loop of the sync thread: each turn takes what has come, and does what is due.

use super::engine::{Committed, Engine, Transactions};
use super::inbox::{Inbox, Inputs, Waited};
use super::pace::Pace;
use super::{Input, Observers, Options};
use crate::health::Moment;
use crate::kernel::nft::{Error, Kernel, Touched};
use crate::metrics::kernel::Rebuild;
use crate::metrics::sync::{SyncKind, TrafficPolicy};
use crate::model::Change;
use crate::plan::layout::{SetName, TABLE};
use nft_table::Family;
use prometheus::{IntCounter, IntGauge};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// How often it is made sure that the table is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until nobody can send anything to `inbox` any more. The rules stay in the kernel.
///
/// # Errors
/// [`Error::Superseded`]: another process writes the table from now on.
pub fn run<K: Kernel>(
    kernel: K,
    options: Options,
    inbox: Inbox,
    observers: Observers,
) -> Result<(), Error> {
    let pace = Pace::new(options.min_sync_period, options.sync_period);
    let engine = Engine::new(kernel, options.settings, options.select_nodeports, options.own_table);
    let elements = &observers.metrics.kernel;
    let gauge = |name: SetName| (name, elements.elements(&name.nft()));
    let gauges = SetName::all().map(gauge).collect();
    let looked = Instant::now();
    Loop {
        engine,
        pace,
        observers,
        gauges,
        inbox,
        complete: false,
        looked,
        listens: false,
        waits_for: None,
    }
    .run()
}

struct Loop<K> {
    engine: Engine<K>,
    pace: Pace,
    observers: Observers,
    /// The size of every set and map that can be there.
    gauges: BTreeMap<SetName, IntGauge>,
    inbox: Inbox,
    /// The source has sent its first state.
    complete: bool,
    /// When it was last made sure that the table is there.
    looked: Instant,
    /// Changes that others make are told.
    listens: bool,
    /// What is waited for, to be said once.
    waits_for: Option<String>,
}

impl<K: Kernel> Loop<K> {
    fn run(mut self) -> Result<(), Error> {
        loop {
            match self.inbox.wait(self.wake_time()) {
                // What has come meanwhile goes into the same transaction.
                Waited::Inputs(inputs) => self.take(*inputs),
                Waited::TimeOut => {}
                Waited::Closed => return Ok(()),
            }
            self.observers.health.beat(Moment::now());
            if self.complete {
                self.work()?;
            }
            self.observers.health.beat(Moment::now());
        }
    }

    /// Does what is due, the most urgent first. However often there is something new, each turn does one piece of what can
    /// wait, too.
    fn work(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if now >= self.looked + LOOK {
            self.look(now);
        }
        if self.engine.quarantine_time().is_some_and(|time| time <= now)
            && self.engine.release_quarantined(now)
        {
            self.queue();
        }
        if self.pace.is_due(now) {
            self.sync()?;
        }
        if self.engine.forget_time().is_some_and(|time| time <= Instant::now()) {
            self.engine.forget_clients(Instant::now());
        }
        if self.engine.has_looks() {
            self.look_at_next();
        }
        if self.pace.is_time_to_tidy(now) {
            self.tidy(now);
        }
        self.pace.note_unused(self.engine.has_unused(), now);
        Ok(())
    }

    /// When there is something to do even if nothing arrives.
    fn wake_time(&self) -> Option<Instant> {
        if !self.complete {
            return None;
        }
        let looks = self.engine.has_looks().then(Instant::now);
        [
            self.pace.due_time(),
            self.engine.forget_time(),
            looks,
            self.pace.tidy_time(),
            self.engine.quarantine_time(),
            Some(self.looked + LOOK),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn take(&mut self, mut inputs: Inputs) {
        // Before what is new: the answer is about what the kernel has.
        for question in std::mem::take(&mut inputs.questions) {
            question.answer(&self.engine.view());
        }
        let metrics = &self.observers.metrics;
        metrics.sync.endpoint_changes.seen(inputs.slice_changes);
        metrics.sync.service_changes.seen(inputs.service_changes);
        let changes = inputs.take_changes();
        let mut has_news = inputs.complete || !changes.is_empty();
        self.complete |= inputs.complete;
        let mut must_listen = false;
        for change in changes {
            if let Change::Node(node) = &change {
                self.observers.health.set_node(node.as_deref());
                must_listen = true;
            }
            self.engine.apply(change);
        }
        if let Some(addresses) = inputs.addresses {
            self.engine.set_addresses(addresses);
            (has_news, must_listen) = (true, true);
        }
        if must_listen {
            self.listen();
        }
        if has_news {
            self.queue();
        }
        if !inputs.touched.is_nothing() {
            self.touched(&inputs.touched);
        }
    }

    /// Somebody else changed the table: that is put right at once.
    fn touched(&mut self, touched: &Touched) {
        let by = touched
            .by
            .as_ref()
            .map(|process| format!("process {} ({})", process.pid, process.name));
        let by = by.unwrap_or_else(|| "somebody".to_owned());
        tracing::warn!("{by} changed table inet {TABLE}; it is put right");
        self.observers.metrics.kernel.touched();
        if self.engine.touched(touched) {
            self.pace.repair(Instant::now());
        }
    }

    /// Health check node ports follow the node's addresses.
    fn listen(&self) {
        let (selection, addresses) = self.engine.nodeport_selection();
        self.observers.follow_up.listen_on(selection, addresses);
    }

    fn queue(&mut self) {
        self.pace.queue(Instant::now());
        self.observers.health.queued(Moment::now());
        self.observers.metrics.sync.queued(SystemTime::now());
    }

    fn sync(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        let span = tracing::debug_span!("sync", operations = tracing::field::Empty).entered();
        let synced = self.engine.sync();
        self.tell_transactions();
        match synced {
            Ok(committed) => {
                span.record("operations", committed.operations);
                self.pace.succeeded(Instant::now());
                self.waits_for = None;
                self.succeeded(committed, start.elapsed());
                if self.engine.has_postponed() {
                    // What has come meanwhile goes into the next transaction as well.
                    self.pace.repair(Instant::now());
                }
            }
            Err(error @ Error::Superseded { .. }) => return Err(error),
            Err(error @ Error::Owned { .. }) => {
                let reason = error.to_string();
                if self.waits_for.as_ref() != Some(&reason) {
                    tracing::warn!("{reason}");
                }
                self.waits_for = Some(reason);
                self.pace.waiting(Instant::now());
            }
            Err(error) => {
                self.observers.metrics.sync.failed();
                let retry = humantime::format_duration(self.pace.failed(Instant::now()));
                tracing::error!(
                    "the kernel keeps its last state, next attempt in {retry}: {error}"
                );
            }
        }
        Ok(())
    }

    /// Has the metrics say what became of each transaction.
    fn tell_transactions(&mut self) {
        let metrics = &self.observers.metrics.kernel;
        let Transactions { committed, refused } = self.engine.take_transactions();
        committed.iter().for_each(|(operations, took)| metrics.committed(*operations, *took));
        refused.iter().for_each(|(fault, errno)| metrics.refused(fault.name(), errno));
    }

    fn succeeded(&mut self, committed: Committed, took: Duration) {
        let Observers { health, metrics, follow_up, first_sync, refused, short } =
            &mut self.observers;
        health.synced(Moment::now());
        let nodeport_networks = self.engine.nodeport_networks().to_vec();
        follow_up.committed(self.engine.effects(), nodeport_networks);
        if let Some(first_sync) = first_sync.take() {
            first_sync();
        }
        let kind = if committed.full { SyncKind::Full } else { SyncKind::Partial };
        metrics.sync.committed(kind, took, SystemTime::now());
        metrics.kernel.planned(committed.planning);
        metrics.kernel.quarantined.set(committed.quarantined as i64);
        if let Some(reason) = committed.rebuilt {
            metrics.kernel.rebuilt(reason);
            if reason == Rebuild::Lost {
                tracing::warn!("table inet {TABLE} was gone; it has been written again");
            }
        }
        for (family, trigger) in &committed.triggers {
            if let Some(latency) = since(*trigger) {
                metrics.sync.programmed(*family, latency);
            }
        }
        let planner = self.engine.planner();
        let counts = planner.counts();
        metrics.objects.services.set(counts.services as i64);
        metrics.objects.limited_services.set(counts.limited_services as i64);
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
        for (service, reason) in &committed.refused {
            refused(service, reason);
        }
        for (service, how, note) in &committed.short {
            short(service, *how, note);
        }
        log_commit(&committed, counts.services, took);
        self.watch();
    }

    /// Where others may change the table, it has to be known when they do.
    fn watch(&mut self) {
        if self.listens || self.engine.owns_table() {
            return;
        }
        let inbox = self.inbox.sender();
        let on_touch = Box::new(move |touched| inbox.send(Input::Touched(touched)));
        match self.engine.watch(on_touch) {
            Ok(()) => self.listens = true,
            Err(error) => tracing::warn!("changes by other programs are noticed late: {error}"),
        }
    }

    /// Events may be lost, and a table that is owned is safe only as long as the kernel keeps to its word.
    fn look(&mut self, now: Instant) {
        self.looked = now;
        if self.engine.has_lost_table() {
            self.pace.repair(now);
        }
    }

    fn look_at_next(&mut self) {
        match self.engine.look_at_next() {
            Ok(false) => {}
            Ok(true) => self.pace.repair(Instant::now()),
            Err(error) => {
                tracing::warn!("cannot read table inet {TABLE}: {error}");
                self.engine.doubt();
                self.pace.failed(Instant::now());
            }
        }
    }

    /// Deletes what nothing leads to any more.
    fn tidy(&mut self, now: Instant) {
        self.pace.tidied(now);
        let deleted = self.engine.delete_unused();
        self.tell_transactions();
        if let Err(error) = deleted {
            self.observers.metrics.sync.cleanup_failures.each(IntCounter::inc);
            tracing::warn!("cannot delete chains that are not used any more: {error}");
            self.queue();
        }
    }
}

/// How long ago a time in nanoseconds since 1970 is; None when it is in the future.
fn since(nanoseconds: i64) -> Option<Duration> {
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds.try_into().ok()?);
    SystemTime::now().duration_since(at).ok()
}

/// A line for every table that was compared as a whole; single changes are for debugging.
fn log_commit(committed: &Committed, services: usize, took: Duration) {
    let shown =
        |time: Duration| humantime::format_duration(Duration::from_micros(time.as_micros() as u64));
    let took = shown(took);
    let operations = committed.operations;
    if committed.full {
        tracing::info!("{services} Services are in the kernel: {operations} operations in {took}");
    } else {
        let [planning, writing] = [committed.planning, committed.writing].map(shown);
        tracing::debug!(
            "{operations} operations in {took}: planning {planning}, writing {writing}"
        );
    }
}
