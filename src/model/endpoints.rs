//! An EndpointSlice, reduced to what a proxy needs.

use super::{Description, Family, ObjectName, Protocol};
use std::net::IpAddr;
use std::sync::Arc;

/// `endpoints[].conditions` with the defaults of nil applied: ready and serving true,
/// terminating false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conditions {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Conditions { ready: true, serving: true, terminating: false }
    }
}

/// `endpoints[].hints`: for which zones and nodes an endpoint is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hints {
    /// `forZones[].name`
    pub zones: Vec<Arc<str>>,
    /// `forNodes[].name`
    pub nodes: Vec<Arc<str>>,
}

/// One entry of `endpoints`; of its addresses the first one counts (as in kube-proxy).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub conditions: Conditions,
    /// `nodeName`; None when absent or empty.
    pub node_name: Option<Arc<str>>,
    /// None when there are no hints.
    pub hints: Option<Arc<Hints>>,
}

impl Endpoint {
    /// The zones that it is meant for; empty when there is no hint.
    pub fn zone_hints(&self) -> &[Arc<str>] {
        self.hints.as_ref().map(|hints| &hints.zones[..]).unwrap_or_default()
    }

    /// The nodes that it is meant for; empty when there is no hint.
    pub fn node_hints(&self) -> &[Arc<str>] {
        self.hints.as_ref().map(|hints| &hints.nodes[..]).unwrap_or_default()
    }
}

/// One entry of `ports`; ports without a number are dropped at intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Matches the name of the Service port, "" for the only port.
    pub name: Arc<str>,
    pub protocol: Protocol,
    /// Port on the endpoint; never 0.
    pub port: u16,
}

/// An EndpointSlice of a Service, address type IPv4 or IPv6.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    pub name: ObjectName,
    /// Value of the label `kubernetes.io/service-name`; the Service is in the slice's namespace.
    pub service: Arc<str>,
    pub family: Family,
    /// In the order of [`EndpointSlice::sort_ports`] where there are many.
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
    /// What weights go by, for each endpoint; empty where nobody asks for it.
    pub described: Box<[Description]>,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`, in nanoseconds since 1970:
    /// start of the network programming latency.
    pub trigger_time: Option<i64>,
}

impl EndpointSlice {
    /// From so many ports on they are searched and not just looked at one after the other.
    const MANY_PORTS: usize = 16;

    /// Sorts the ports, for [`EndpointSlice::port`]. Of two that are the same the first stays the first.
    pub fn sort_ports(&mut self) {
        if self.ports.len() >= Self::MANY_PORTS {
            self.ports.sort_by(|a, b| (a.protocol, &a.name).cmp(&(b.protocol, &b.name)));
        }
    }

    /// The number that a port has here. The ports have to be sorted.
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let key = |port: &EndpointPort| (port.protocol, &*port.name) < (protocol, name);
        let is_it = |port: &&EndpointPort| port.protocol == protocol && &*port.name == name;
        let found = if self.ports.len() < Self::MANY_PORTS {
            self.ports.iter().find(is_it)
        } else {
            self.ports.get(self.ports.partition_point(key)).filter(is_it)
        };
        found.map(|port| port.port)
    }

    /// The Service that the slice belongs to.
    pub fn service_name(&self) -> ObjectName {
        ObjectName { namespace: self.name.namespace.clone(), name: self.service.clone() }
    }
}
