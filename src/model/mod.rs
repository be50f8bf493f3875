//! What the proxy knows of the cluster, in Kubernetes' words and as small as it can be.
//!
//! The sources (`manifests`, `api`) turn API objects into these types with [`crate::intake`] and send
//! [`Change`]s; the plan reads nothing else. No tokio, no kube, no netlink here.
//! Names that occur thousands of times (node names, zones, namespaces) are shared `Arc<str>`s.

mod address;
mod endpoints;
mod limits;
mod node;
mod service;
mod weights;

pub use address::{parse_cidr, parse_ip};
pub use endpoints::{Conditions, Endpoint, EndpointPort, EndpointSlice, Hints};
pub use limits::Limits;
pub use nft_table::Family;
pub use node::{Node, Taint, address_of, node_addresses};
pub use service::{Algorithm, Protocol, Service, ServicePort, ServiceType, TABLE_SIZES};
pub use weights::{Description, Weights};

use ipnet::IpNet;
use std::fmt;
use std::sync::Arc;

/// `namespace/name` of a namespaced object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        ObjectName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One change of one object, as a source saw it. `None` means the object is gone
/// (or is not for this proxy, which comes to the same).
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Service(ObjectName, Option<Box<Service>>),
    EndpointSlice(ObjectName, Option<Box<EndpointSlice>>),
    /// This node's own Node object.
    Node(Option<Box<Node>>),
    /// The CIDRs of the ServiceCIDR object of this name.
    ServiceCidr(Arc<str>, Option<Vec<IpNet>>),
}
