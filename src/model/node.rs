//! This node's own Node object, reduced to what a proxy needs.

use super::Family;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// A taint of the node; only key and effect matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: Arc<str>,
    pub effect: Arc<str>,
}

/// This node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: Arc<str>,
    /// `status.addresses` of type InternalIP, then ExternalIP, in their order.
    pub addresses: Vec<IpAddr>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `spec.podCIDRs`, or `spec.podCIDR` where that is all there is.
    pub pod_cidrs: Vec<IpNet>,
    pub taints: Vec<Taint>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
}

impl Node {
    /// The node's address of a family: the first InternalIP, else the first ExternalIP.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::of(ip) == family)
    }
}
