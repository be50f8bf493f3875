//! Source: the Kubernetes API. Services, EndpointSlices, this Node and ServiceCIDRs become batches of
//! [`Change`]s.
//!
//! Needs no more than the ClusterRole `system:node-proxier` grants. `kube` connects; each kind has a task of
//! its own ([`watch`]) that lists and watches (`reflector`) in protobuf or JSON (`encoding`), in which objects are
//! judged by [`crate::intake`] and passed on at once, so that nothing but names and versions is kept here. A batch
//! holds what had already arrived and never waits to grow.
//!
//! This room does not decide when to write to the kernel: it says [`Notice::Complete`] once the first
//! lists are complete, and after that only differences.

mod connection;
mod encoding;
mod events;
mod kind;
mod needed;
mod reflector;
mod watch;

#[cfg(test)]
mod tests;

pub use connection::{Call, ConnectionError, ConnectionOptions, Observer, connect};
pub use encoding::accept;
pub use events::{Event, EventSeverity, EventWriter, Regarding};
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use needed::Needed;

use crate::intake::{Ask, Described, Options as IntakeOptions};
use crate::model::Change;
use http::HeaderValue;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Client;
#[cfg(not(feature = "fuzzing"))]
use needed::Needed;
use reflector::Selectors;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use watch::{Done, Watch};

/// What the source says.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Changes in the order in which the server made them, within a kind. Never empty.
    Changes(Vec<Change>),
    /// Services and EndpointSlices have been listed completely, the Node where that was asked for, and
    /// the ServiceCIDRs unless that takes more than two seconds. Said once.
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
    /// What lists and watches are accepted in, see [`accept`].
    pub accept: HeaderValue,
    pub intake: IntakeOptions,
}

/// How long [`Notice::Complete`] waits for the list of ServiceCIDRs, which older servers do not have.
const PATIENCE: Duration = Duration::from_secs(2);

/// Starts the watches as tokio tasks, which end when the returned set is dropped. They never end by
/// themselves: one that does has panicked.
pub fn watch(client: &Client, options: &Options, sink: Sink) -> JoinSet<()> {
    let waiting = Arc::new(AtomicUsize::new(4));
    let done = {
        let sink = sink.clone();
        move || {
            if waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
                sink(Notice::Complete);
            }
        }
    };
    let node_listed = within(options.wait_for_node, done.clone());
    let cidrs_listed = within(PATIENCE, done.clone());
    let (tell, asks) = unbounded_channel();
    let intake =
        IntakeOptions { described: Described::asked(tell.clone()), ..options.intake.clone() };
    let new = |complete: Done| Watch::new(intake.clone(), sink.clone(), complete);
    let selectors = |labels: Option<&str>, fields: Option<&str>| Selectors {
        labels: labels.map(str::to_owned),
        fields: fields.map(str::to_owned),
    };
    let name = format!("metadata.name={}", options.node_name);
    let services =
        selectors(Some("!service.kubernetes.io/service-proxy-name"), Some("spec.clusterIP!=None"));
    let slices = selectors(Some("!service.kubernetes.io/headless"), None);
    let (c, a) = (|| client.clone(), || options.accept.clone());
    let mut tasks = JoinSet::new();
    // The small lists first: the drop rule and the detector then come with the first commit.
    tasks.spawn(new(cidrs_listed).run::<ServiceCIDR>(c(), a(), selectors(None, None)));
    tasks.spawn(new(node_listed).run::<Node>(c(), a(), selectors(None, Some(&name))));
    let services_listed = {
        let done = done.clone();
        move || {
            // After all that they ask for. Nobody reads slices any more when nobody listens.
            let _ = tell.send(Ask::AllRead);
            done();
        }
    };
    tasks.spawn(new(Box::new(services_listed)).run::<Needed<Service>>(c(), a(), services));
    let of_slices = new(Box::new(done)).asked(asks);
    tasks.spawn(of_slices.run::<Needed<EndpointSlice>>(c(), a(), slices));
    tasks
}

/// `done`, once: when it is called, or when that has been waited for long enough.
fn within(patience: Duration, done: impl Fn() + Clone + Send + Sync + 'static) -> Done {
    let once = Arc::new(Once::new());
    let done = move || once.call_once(&done);
    let too_late = done.clone();
    tokio::spawn(async move {
        tokio::time::sleep(patience).await;
        too_late();
    });
    Box::new(done)
}
