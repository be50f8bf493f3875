//! Those who are told what the sync thread has done.

use super::sources::Events;
use super::{actions, lives, logging, rejected, settings};
use crate::causes::with_causes;
use crate::config::{Config, Source};
use crate::health::{Health, HealthPolicy, Moment, PendingTask, ServiceChecks};
use crate::kernel::addresses::available_families;
use crate::kernel::conntrack::ConntrackCleaner;
use crate::localhost;
use crate::metrics::Metrics;
use crate::sync::{FollowUp, InboxWatch, Observers};
use anyhow::Context;
use ipnet::IpNet;
use nft_table::Family;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::watch;

/// State that the sync thread writes and servers read.
#[derive(Clone)]
pub struct Shared {
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub checks: Arc<ServiceChecks>,
}

impl Shared {
    pub fn new(config: &Config) -> Shared {
        let available = available_families(Path::new("/proc"));
        let families: Vec<Family> =
            Family::BOTH.into_iter().filter(|family| available.has(*family)).collect();
        let metrics = Arc::new(Metrics::new(&families));
        settings::describe(&metrics, config);
        let health = Arc::new(Health::new(HealthPolicy {
            sync_period: config.sync_period,
            families,
            node_required: !matches!(config.source, Source::Manifests(_)),
        }));
        Shared { health, metrics, checks: Arc::default() }
    }

    /// Has the health of the sync thread show whether it takes what comes, and the metrics how it lives.
    pub fn watch(&self, inputs: InboxWatch) {
        self.health.watch_inputs(Box::new(move || inputs.oldest()));
        let (health, metrics) = (self.health.clone(), Arc::downgrade(&self.metrics));
        self.metrics.on_scrape(move || {
            let Some(metrics) = metrics.upgrade() else { return };
            let now = Moment::now();
            let heartbeat = health.heartbeat_age(now).unwrap_or_default();
            metrics.sync.show_life(heartbeat, health.oldest_input_age(now));
            metrics.log.dropped(logging::dropped_lines() as u64);
        });
    }

    /// Starts those who work after a commit. The first commit ends the start-up task `pending`.
    pub fn for_sync(
        &self,
        config: &Config,
        pending: PendingTask,
        events: Events,
    ) -> anyhow::Result<Observers> {
        let metrics = self.metrics.clone();
        let conntrack = ConntrackCleaner::start(move |report| {
            metrics.conntrack.reconciled(report.family, report.duration, report.deleted);
            if let Some(error) = &report.error {
                tracing::warn!("stale UDP flows may be left: {error}");
            }
        })
        .context("cannot clean conntrack")?;
        let (localhost, ports) = watch::channel(Arc::from([]));
        let localhost_families = settings::localhost_families(config);
        if !localhost_families.is_empty() {
            rejected::count(&self.metrics)?;
            let run = localhost::run(ports, Listeners(self.metrics.clone()));
            lives::spawn("localhost NodePorts", run);
        }
        let told = events.clone();
        let excluded = actions::excluded(config);
        Ok(Observers {
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            follow_up: FollowUp {
                conntrack,
                checks: self.checks.clone(),
                localhost,
                localhost_families,
            },
            short: Box::new(move |service, how, note| told.service_short(service, how, note)),
            refused: Box::new(move |service, reason| events.service_refused(service, reason)),
            first_sync: Some(Box::new(move || {
                drop(pending);
                remove_leftovers(excluded);
            })),
        })
    }
}

/// Counts the listeners of localhost NodePorts.
struct Listeners(Arc<Metrics>);

impl localhost::Observer for Listeners {
    fn listeners(&mut self, family: Family, open: usize) {
        self.0.localhost.set_listeners(family, open);
    }

    fn listener_failed(&mut self, family: Family) {
        self.0.localhost.creation_failed(family);
    }
}

/// The waits between attempts to remove leftovers.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(300);

/// On a thread of its own, for tens of thousands of old chains take the kernel seconds; until all is gone that can go.
fn remove_leftovers(excluded: Vec<IpNet>) {
    let work = move || {
        let mut wait = FIRST_WAIT;
        while let Err(error) = actions::remove_leftovers(&excluded) {
            let next = humantime::format_duration(wait);
            tracing::warn!(
                "leftovers of other modes stay for now, next attempt in {next}: {}",
                with_causes(error.as_ref())
            );
            thread::sleep(wait);
            wait = LAST_WAIT.min(wait * 2);
        }
    };
    if let Err(error) = thread::Builder::new().name("leftovers".into()).spawn(work) {
        tracing::warn!("cannot look for leftovers of other modes: {error}");
    }
}
