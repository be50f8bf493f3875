//! From Kubernetes API objects to [`crate::model`] types: what kube-proxy takes from a Service, an
//! EndpointSlice, the Node and a ServiceCIDR, and what it skips.
//!
//! An object goes in, a [`Reading`] comes out: a [`Change`] for the plan and the [`Problem`]s found on the
//! way, which a [`Reporter`] logs. Both sources use it, so the API server's objects and those of manifests
//! are judged alike; API server defaults are *not* applied here.
//!
//! A bad value harms no more than its own object, and as little of it as is safe:
//! - in a Service, a bad ClusterIP, port, protocol or affinity timeout makes the whole Service unserved (half of
//!   it would be wrong); a bad external or load balancer address is left out alone; a bad source range lets nobody
//!   in; an unknown policy counts as the default one;
//! - a Service that asks for more than its `budget` is cut;
//! - in a slice, a bad endpoint or port is left out alone.
//!
//! What a Service claims together with *another* Service is not judged here but in the plan.

mod annotations;
mod budget;
mod described;
mod endpoint_slice;
mod node;
mod problem;
mod service;
mod service_cidr;
mod special;
mod strings;

#[cfg(test)]
mod tests;

pub use described::{Ask, Described};
pub use problem::{ObjectKey, OnProblem, Problem, Reporter};
pub use strings::Interner;

use crate::model::{Change, ObjectName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::net::IpAddr;

/// How objects are read.
#[derive(Clone, Debug)]
pub struct Options {
    /// Feature gate `AllowServiceExternalIPs`: whether `spec.externalIPs` is served.
    pub allow_service_external_ips: bool,
    /// A specific `bindAddress`, which is this node's first address.
    pub bind_address: Option<IpAddr>,
    /// Told of invalid objects, beside the log.
    pub on_problem: OnProblem,
    /// Of which endpoints more is kept than addresses and conditions.
    pub described: Described,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            allow_service_external_ips: true,
            bind_address: None,
            on_problem: OnProblem::default(),
            described: Described::default(),
        }
    }
}

/// What was read from one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub key: ObjectKey,
    /// The object for the plan; its value is `None` when the object is not for this proxy or is
    /// unusable.
    pub change: Change,
    /// Empty for a sound object and for one that is skipped by rule.
    pub problems: Vec<Problem>,
}

/// Reads objects; holds the strings that they share.
#[derive(Debug, Default)]
pub struct Intake {
    options: Options,
    strings: Interner,
}

impl Intake {
    pub fn new(options: Options) -> Self {
        Intake { options, strings: Interner::default() }
    }

    /// An object is gone.
    pub fn forget(&mut self, key: &ObjectKey) {
        if let ObjectKey::Service(name) = key {
            self.options.described.forget(name);
        }
    }

    /// The name under which an object is known. An empty namespace counts as `default`, which the
    /// API server never sends and a manifest may leave out.
    pub fn name(&mut self, metadata: &ObjectMeta) -> ObjectName {
        let namespace = match metadata.namespace.as_deref() {
            None | Some("") => "default",
            Some(namespace) => namespace,
        };
        ObjectName {
            namespace: self.strings.text(namespace),
            name: self.strings.text(metadata.name.as_deref().unwrap_or_default()),
        }
    }
}

/// Whether an object carries a label, whatever its value (the selector `!key` refuses it).
fn has_label(metadata: &ObjectMeta, key: &str) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(key))
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// A list that may be absent or null.
fn items<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

/// Reads a port number of Kubernetes (an int32).
fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}
