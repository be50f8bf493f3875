//! The metrics of this process: typed handles, resolved once, and the text that is scraped.
//!
//! Names, labels and buckets of what upstream's kube-proxy has are upstream's (Kubernetes
//! `pkg/proxy/metrics`), so that dashboards and alerts keep working; what it lacks stands in
//! [`kernel`] and [`objects`]. Call sites hold a handle and never name a metric or a label.
//! Go's own metrics (`go_*`) have no counterpart here.

mod build;
pub mod client;
pub mod conntrack;
mod family;
pub mod kernel;
pub mod localhost;
pub mod log;
pub mod objects;
pub mod probes;
mod process;
mod register;
pub mod service_ports;
pub mod sync;

pub use build::{BuildInfo, FeatureStage};
pub use family::PerFamily;

use crate::model::Family;
use prometheus::{Encoder, Registry, TextEncoder};
use register::Register;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// Every metric of the process.
pub struct Metrics {
    pub sync: sync::Sync,
    /// Connections: served, refused, dropped.
    pub connections: service_ports::ServicePorts<3>,
    /// Refusals of clients that were over a limit: of new connections, of open ones.
    pub over_limits: service_ports::ServicePorts<2>,
    pub conntrack: conntrack::Conntrack,
    pub probes: probes::Probes,
    pub localhost: localhost::LocalhostNodePorts,
    pub kernel: kernel::Kernel,
    pub objects: objects::Objects,
    pub client: client::Client,
    pub log: log::Log,
    build: build::Build,
    names: Vec<String>,
    registry: Registry,
    slis: Registry,
    scrape_hooks: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

impl Metrics {
    /// Registers everything. Series that have the label `ip_family` exist for `families` only.
    pub fn new(families: &[Family]) -> Self {
        let (registry, slis) = (Registry::new(), Registry::new());
        let names = RefCell::default();
        let register = Register { registry: &registry, families, names: &names };
        let of_slis = Register { registry: &slis, families, names: &RefCell::default() };
        process::register(&register);
        let mut metrics = Metrics {
            sync: sync::Sync::new(&register),
            connections: service_ports::connections(&register),
            over_limits: service_ports::over_limits(&register),
            conntrack: conntrack::Conntrack::new(&register),
            localhost: localhost::LocalhostNodePorts::new(&register),
            kernel: kernel::Kernel::new(&register),
            objects: objects::Objects::new(&register),
            client: client::Client::new(&register),
            log: log::Log::new(&register),
            build: build::Build::new(&register),
            probes: probes::Probes::new(&register, &of_slis),
            scrape_hooks: Mutex::default(),
            names: Vec::new(),
            registry: registry.clone(),
            slis: slis.clone(),
        };
        metrics.names = names.take();
        metrics
    }

    /// The names of all metrics of `/metrics`, whether they have series yet or not.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// `kubernetes_build_info`: what this binary is.
    pub fn set_build_info(&self, info: &BuildInfo) {
        self.build.set_info(info);
    }

    /// `kubernetes_feature_enabled`: one feature gate.
    pub fn set_feature(&self, name: &str, stage: FeatureStage, enabled: bool) {
        self.build.set_feature(name, stage, enabled);
    }

    /// Adds something to do before each scrape, for values that are fetched rather than counted.
    /// It may block for a short time.
    pub fn on_scrape(&self, hook: impl Fn() + Send + 'static) {
        self.hooks().push(Box::new(hook));
    }

    /// The body of `/metrics`, in Prometheus' text format 0.0.4. May block, see
    /// [`Metrics::on_scrape`].
    pub fn render(&self) -> String {
        for hook in self.hooks().iter() {
            hook();
        }
        encode(&self.registry)
    }

    /// The body of `/metrics/slis`.
    pub fn render_slis(&self) -> String {
        encode(&self.slis)
    }

    fn hooks(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Fn() + Send>>> {
        self.scrape_hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(registry: &Registry) -> String {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).expect("metrics of ours are valid");
    String::from_utf8(text).expect("metrics of ours are UTF-8")
}

#[cfg(test)]
mod tests;
