//! Those who are told what the sync thread has done.

use super::{actions, rejected, settings};
use crate::config::{Config, Source};
use crate::health::{Health, HealthPolicy, PendingTask, ServiceChecks};
use crate::kernel::addresses::available_families;
use crate::kernel::conntrack::ConntrackCleaner;
use crate::localhost;
use crate::metrics::Metrics;
use crate::sync::{FollowUp, Observers};
use anyhow::Context;
use nft_table::Family;
use std::path::Path;
use std::sync::Arc;
use std::thread;
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

    /// Starts those who work after a commit. The first commit ends the start-up task `pending`.
    pub fn for_sync(&self, config: &Config, pending: PendingTask) -> anyhow::Result<Observers> {
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
            tokio::spawn(localhost::run(ports, Listeners(self.metrics.clone())));
        }
        Ok(Observers {
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            follow_up: FollowUp {
                conntrack,
                checks: self.checks.clone(),
                localhost,
                localhost_families,
            },
            first_sync: Some(Box::new(move || {
                drop(pending);
                remove_leftovers();
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

/// On a thread of its own: tens of thousands of old chains take the kernel seconds.
fn remove_leftovers() {
    let work = || {
        if let Err(error) = actions::remove_leftovers() {
            tracing::warn!("{error:#}");
        }
    };
    if let Err(error) = thread::Builder::new().name("leftovers".into()).spawn(work) {
        tracing::warn!("cannot look for leftovers of other modes: {error}");
    }
}
