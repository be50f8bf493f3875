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
    /// Best first, see [`node_addresses`].
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
    /// The node's address of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        address_of(&self.addresses, family)
    }

    /// The family of the node's first address; IPv4 where none is known.
    pub fn primary_family(&self) -> Family {
        self.addresses.first().map_or(Family::V4, Family::of)
    }
}

/// Which addresses are this node's own, best first. The one rule for all that asks: a specific
/// bindAddress comes before everything, then the InternalIPs of the Node object and then its
/// ExternalIPs, in the order that `of_node` has them. The first of all says which family is primary,
/// and the first of a family is the node's address in it ([`address_of`]).
pub fn node_addresses(bind_address: Option<IpAddr>, of_node: &[IpAddr]) -> Vec<IpAddr> {
    let others = of_node.iter().copied().filter(|ip| Some(*ip) != bind_address);
    bind_address.into_iter().chain(others).collect()
}

/// The node's address of a family, where it has one.
pub fn address_of(addresses: &[IpAddr], family: Family) -> Option<IpAddr> {
    addresses.iter().copied().find(|ip| Family::of(ip) == family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Family::{V4, V6};

    #[test]
    fn the_first_address_of_each_family_counts_unless_bind_address_is_specific() {
        for (bind, node, primary, v4, v6) in [
            (None, "", V4, None, None),
            (None, "10.0.0.1 fd00::1 10.0.0.2", V4, Some("10.0.0.1"), Some("fd00::1")),
            (None, "fd00::1 10.0.0.2", V6, Some("10.0.0.2"), Some("fd00::1")),
            (Some("192.0.2.1"), "fd00::1 10.0.0.2", V4, Some("192.0.2.1"), Some("fd00::1")),
            (Some("10.0.0.2"), "10.0.0.1 10.0.0.2", V4, Some("10.0.0.2"), None),
            (Some("2001:db8::1"), "", V6, None, Some("2001:db8::1")),
        ] {
            let address = |text: Option<&str>| text.map(|text| text.parse().unwrap());
            let of_node: Vec<IpAddr> =
                node.split_whitespace().map(|ip| ip.parse().unwrap()).collect();
            let node = Node {
                name: "n".into(),
                addresses: node_addresses(address(bind), &of_node),
                zone: None,
                pod_cidrs: Vec::new(),
                taints: Vec::new(),
                deleting: false,
            };
            let found = (node.primary_family(), node.address(V4), node.address(V6));
            assert_eq!(found, (primary, address(v4), address(v6)), "{bind:?} {of_node:?}");
        }
    }
}
