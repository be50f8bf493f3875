//! Which addresses NodePorts answer on, as the Node comes, changes and goes.

use crate::config::{Config, NodePortAddresses, NodePortMatch};
use crate::kernel::addresses::{FamilySelection, NodePortSelection};
use crate::model::{Node, address_of, node_addresses};
use nft_table::Family;
use std::net::IpAddr;

/// What `nodePortAddresses` says, for a Node that may not be known. Whoever deletes a Node, or takes its addresses
/// away, must not open NodePorts on every address of the machine: what was known last goes on to count.
pub struct NodePortSelector {
    addresses: NodePortAddresses,
    bind_address: Option<IpAddr>,
    /// Without an API server there may never be a Node.
    needs_no_node: bool,
    /// The address of each family that was known last.
    known: [Option<IpAddr>; Family::BOTH.len()],
    /// What was selected when an address was known.
    last: Option<NodePortSelection>,
}

impl NodePortSelector {
    /// For a source that may have no Node at all, as a directory of manifests: then NodePorts answer everywhere, as
    /// upstream has it where no address is known.
    pub fn new(config: &Config) -> NodePortSelector {
        NodePortSelector {
            addresses: config.node_port_addresses.clone(),
            bind_address: config.node_ip_override,
            needs_no_node: true,
            known: [None; Family::BOTH.len()],
            last: None,
        }
    }

    /// For an API server, where each node has a Node sooner or later.
    pub fn of_a_cluster(config: &Config) -> NodePortSelector {
        NodePortSelector { needs_no_node: false, ..NodePortSelector::new(config) }
    }

    /// The selection for a Node; the same as before for one that is gone or has no address. Before any is known, nothing
    /// is selected in place of its primary address.
    pub fn select(&mut self, node: Option<&Node>) -> NodePortSelection {
        let of_node = node.map_or(&[][..], |node| &node.addresses);
        let own = node_addresses(self.bind_address, of_node);
        if node.is_none() && self.needs_no_node {
            self.known = [None; Family::BOTH.len()];
            self.last = None;
        }
        if own.is_empty()
            && let Some(last) = &self.last
        {
            return last.clone();
        }
        for family in Family::BOTH {
            let known = &mut self.known[family as usize];
            *known = address_of(&own, family).or(*known);
        }
        let is_unknown = own.is_empty() && !self.needs_no_node;
        let of = |family| match self.addresses.matching(family, self.known[family as usize]) {
            NodePortMatch::All if is_unknown && self.addresses.lacks_primary(family) => {
                FamilySelection::Cidrs(Vec::new())
            }
            NodePortMatch::All => FamilySelection::All,
            NodePortMatch::Within(cidrs) => FamilySelection::Cidrs(cidrs),
        };
        let selection = NodePortSelection { v4: of(Family::V4), v6: of(Family::V6) };
        if !own.is_empty() {
            self.last = Some(selection.clone());
        }
        selection
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use FamilySelection::{All, Cidrs};

    fn selector(flags: &[&str]) -> NodePortSelector {
        NodePortSelector { needs_no_node: false, ..without_cluster(flags) }
    }

    fn without_cluster(flags: &[&str]) -> NodePortSelector {
        let always = ["kube-proxy", "--hostname-override", "node"];
        let flags = Flags::read(always.iter().chain(flags).copied()).expect("flags");
        let config = Config::resolve(&flags, None, || Ok("node".into())).expect("configuration");
        NodePortSelector::new(&config)
    }

    fn node(addresses: &[&str]) -> Node {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Node {
            name: "node".into(),
            addresses,
            zone: None,
            pod_cidrs: Vec::new(),
            taints: Vec::new(),
            deleting: false,
        }
    }

    fn only(cidr: &str) -> FamilySelection {
        Cidrs(vec![cidr.parse().unwrap()])
    }

    #[test]
    fn a_node_that_goes_or_loses_its_addresses_opens_nothing() {
        let mut nodeports = selector(&[]);
        let nothing = NodePortSelection { v4: Cidrs(Vec::new()), v6: Cidrs(Vec::new()) };
        assert_eq!(nodeports.select(None), nothing, "none is known yet");
        assert_eq!(nodeports.select(Some(&node(&[]))), nothing);
        let both = NodePortSelection { v4: only("192.0.2.10/32"), v6: only("2001:db8::10/128") };
        let dual = node(&["192.0.2.10", "2001:db8::10"]);
        assert_eq!(nodeports.select(Some(&dual)), both);
        assert_eq!(nodeports.select(None), both);
        assert_eq!(nodeports.select(Some(&node(&[]))), both);
        let other = NodePortSelection { v4: only("192.0.2.11/32"), ..both };
        assert_eq!(nodeports.select(Some(&node(&["192.0.2.11"]))), other, "IPv6 stays as it was");
    }

    #[test]
    fn a_family_that_a_node_never_had_is_not_restricted() {
        let mut nodeports = selector(&[]);
        let v4 = NodePortSelection { v4: only("192.0.2.10/32"), v6: All };
        assert_eq!(nodeports.select(Some(&node(&["192.0.2.10"]))), v4);
        assert_eq!(nodeports.select(None), v4);
    }

    #[test]
    fn what_the_node_has_no_part_in_counts_without_it() {
        let mut nodeports = selector(&["--nodeport-addresses", "198.51.100.0/24"]);
        let networks = NodePortSelection { v4: only("198.51.100.0/24"), v6: All };
        assert_eq!(nodeports.select(None), networks);
        let mut nodeports = without_cluster(&[]);
        for node in [None, Some(node(&["192.0.2.10", "2001:db8::10"])), None] {
            let is_open = nodeports.select(node.as_ref()) == NodePortSelection::ALL;
            assert_eq!(is_open, node.is_none(), "there may never be a Node");
        }
    }
}
