//! Source: the Kubernetes API. Services, EndpointSlices, this Node and ServiceCIDRs become batches of
//! [`Change`]s.
//!
//! Needs no more than the ClusterRole `system:node-proxier` grants. `kube` connects, lists and watches;
//! each kind has a task of its own ([`watch`]), in which objects are judged by [`crate::intake`] and
//! passed on at once, so that nothing but names and versions is kept here. A batch holds what had
//! already arrived and never waits to grow. Requests and responses are JSON.
//!
//! This room does not decide when to write to the kernel: it says [`Notice::Complete`] once the first
//! lists are complete, and after that only differences.

mod connection;
mod events;
mod kind;
mod needed;
mod watch;

#[cfg(test)]
mod tests;

pub use connection::{Call, ConnectionError, ConnectionOptions, Observer, connect};
pub use events::{Event, EventSeverity, EventWriter, Regarding};
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use needed::Needed;

use crate::intake::Options as IntakeOptions;
use crate::model::Change;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Client;
use kube::runtime::watcher::Config as Selectors;
#[cfg(not(feature = "fuzzing"))]
use needed::Needed;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::task::JoinSet;
use watch::{Done, Watch};

/// What the source says.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Changes in the order in which the server made them, within a kind. Never empty.
    Changes(Vec<Change>),
    /// Services and EndpointSlices have been listed completely, and the Node where that was asked
    /// for. Said once.
    Complete,
}

/// Receives the notices, from several tasks.
pub type Sink = Arc<dyn Fn(Notice) + Send + Sync>;

/// What to watch.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this node; its Node object is watched.
    pub node_name: String,
    /// How long [`Notice::Complete`] waits for the list of this Node, which may be empty, besides those
    /// of Services and EndpointSlices; zero: it does not wait for it.
    pub wait_for_node: Duration,
    pub intake: IntakeOptions,
}

/// Starts the watches as tokio tasks, which end when the returned set is dropped. They never end by
/// themselves: one that does has panicked.
pub fn watch(client: &Client, options: &Options, sink: Sink) -> JoinSet<()> {
    let waiting = Arc::new(AtomicUsize::new(3));
    let done = {
        let sink = sink.clone();
        move || {
            if waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
                sink(Notice::Complete);
            }
        }
    };
    // The Node counts once: when it is listed, or when it has been waited for long enough.
    let node_once = Once::new();
    let node_listed: Arc<dyn Fn() + Send + Sync> = {
        let done = done.clone();
        Arc::new(move || node_once.call_once(&done))
    };
    let (patience, too_late) = (options.wait_for_node, node_listed.clone());
    tokio::spawn(async move {
        tokio::time::sleep(patience).await;
        too_late();
    });
    let new = |complete: Done| Watch::new(options.intake.clone(), sink.clone(), complete);
    let all = Selectors::default;
    let services =
        all().labels("!service.kubernetes.io/service-proxy-name").fields("spec.clusterIP!=None");
    let slices = all().labels("!service.kubernetes.io/headless");
    let node = all().fields(&format!("metadata.name={}", options.node_name));
    let c = || client.clone();
    let mut tasks = JoinSet::new();
    // The small lists first: the drop rule and the detector then come with the first commit.
    tasks.spawn(new(Box::new(|| {})).run::<ServiceCIDR>(c(), all()));
    tasks.spawn(new(Box::new(move || node_listed())).run::<Node>(c(), node));
    tasks.spawn(new(Box::new(done.clone())).run::<Needed<Service>>(c(), services));
    tasks.spawn(new(Box::new(done)).run::<Needed<EndpointSlice>>(c(), slices));
    tasks
}
