//! Which addresses are this node's own: those of its Node object, or bindAddress.

use super::Config;
use nft_table::Family;
use std::net::IpAddr;

/// This node's address in each family, where it is known, and the family that comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Family of the node's first address, or of a specific bindAddress; IPv4 when nothing is known.
    pub primary_family: Family,
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
}

impl NodeAddresses {
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

impl Config {
    /// This node's addresses, from those of its Node object (InternalIPs first, then ExternalIPs, as
    /// [`Node::addresses`](crate::model::Node) has them). A specific bindAddress stands for the
    /// address of its family and makes that family the primary one.
    pub fn node_addresses(&self, addresses: &[IpAddr]) -> NodeAddresses {
        let first = |family| addresses.iter().copied().find(|ip| Family::of(ip) == family);
        let mut found = NodeAddresses {
            primary_family: addresses.first().map_or(Family::V4, Family::of),
            v4: first(Family::V4),
            v6: first(Family::V6),
        };
        if let Some(ip) = self.node_ip_override {
            found.primary_family = Family::of(&ip);
            match found.primary_family {
                Family::V4 => found.v4 = Some(ip),
                Family::V6 => found.v6 = Some(ip),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use Family::{V4, V6};

    #[test]
    fn the_first_address_of_each_family_counts_unless_overridden() {
        for (bind, node, primary, v4, v6) in [
            ("0.0.0.0", "", V4, None, None),
            ("0.0.0.0", "10.0.0.1 fd00::1 10.0.0.2", V4, Some("10.0.0.1"), Some("fd00::1")),
            ("0.0.0.0", "fd00::1 10.0.0.2", V6, Some("10.0.0.2"), Some("fd00::1")),
            ("::", "10.0.0.1", V4, Some("10.0.0.1"), None),
            ("192.0.2.1", "fd00::1 10.0.0.2", V4, Some("192.0.2.1"), Some("fd00::1")),
            ("2001:db8::1", "", V6, None, Some("2001:db8::1")),
        ] {
            let flags = Flags::read(["kube-proxy", "--bind-address", bind]).unwrap();
            let config = Config::resolve(&flags, None, || Ok("n".to_owned())).unwrap();
            let node: Vec<IpAddr> = node.split_whitespace().map(|ip| ip.parse().unwrap()).collect();
            let address = |text: Option<&str>| text.map(|text| text.parse().unwrap());
            let expected =
                NodeAddresses { primary_family: primary, v4: address(v4), v6: address(v6) };
            assert_eq!(config.node_addresses(&node), expected, "{bind} {node:?}");
        }
    }
}
