//! Settings that contradict the node's IP families: right each by itself, wrong together.
//!
//! This can be told only when the Node object is known, so it stands apart from the checks of
//! fields. As in kube-proxy most of it is advice; two contradictions end the program.

use super::{Config, DetectLocal, NodePortAddress};
use ipnet::IpNet;
use nft_table::Family;
use std::net::SocketAddr;

/// What the node is like.
#[derive(Clone, Copy, Debug)]
pub struct NodeFamilies<'a> {
    /// Family of the node's primary address.
    pub primary: Family,
    /// Whether the kernel has both families.
    pub dual_stack: bool,
    /// podCIDRs of the Node object.
    pub pod_cidrs: &'a [IpNet],
}

/// What does not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contradictions {
    /// Worth a warning each.
    pub advice: Vec<String>,
    /// Why the program cannot do its work at all.
    pub fatal: Vec<String>,
}

fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

/// Whether there are CIDRs and all are of this family.
fn only(cidrs: &[IpNet], family: Family) -> bool {
    !cidrs.is_empty() && cidrs.iter().all(|cidr| Family::of(&cidr.addr()) == family)
}

fn both(cidrs: &[IpNet]) -> bool {
    Family::BOTH.iter().all(|&family| cidrs.iter().any(|cidr| Family::of(&cidr.addr()) == family))
}

impl Config {
    /// What in this configuration does not fit a node with these families.
    pub fn contradictions(&self, node: NodeFamilies<'_>) -> Contradictions {
        let mut found = Contradictions::default();
        let (primary, wrong) = (node.primary, other(node.primary));
        let kind = if node.dual_stack { "primary" } else { "only" };
        let cluster_cidrs: Vec<IpNet> = Family::BOTH
            .iter()
            .filter_map(|&family| self.detect_local.cluster_cidr(family))
            .collect();

        if only(&cluster_cidrs, wrong) {
            let text = format!("this node is {primary}-{kind}, but clusterCIDR is {wrong}");
            if node.dual_stack { &mut found.advice } else { &mut found.fatal }.push(text);
        }
        if only(node.pod_cidrs, wrong) {
            let text = format!("this node is {primary}-{kind}, but its podCIDRs are only {wrong}");
            let is_used = self.detect_local == DetectLocal::NodeCidr;
            if is_used { &mut found.fatal } else { &mut found.advice }.push(text);
        }
        if !node.dual_stack {
            let is_wrong = |address: Option<SocketAddr>| {
                address.is_some_and(|a| Family::of(&a.ip()) == wrong && !a.ip().is_unspecified())
            };
            for (field, address) in [
                ("healthzBindAddress", self.healthz_bind_address),
                ("metricsBindAddress", self.metrics_bind_address),
            ] {
                if is_wrong(address) {
                    found
                        .advice
                        .push(format!("this node is {primary}-only, but {field} is {wrong}"));
                }
            }
        }
        let listed: Vec<IpNet> = self.node_port_addresses.cidrs();
        let looks_dual = both(&cluster_cidrs) || both(node.pod_cidrs);
        for (family, relevant) in [(wrong, looks_dual), (primary, true)] {
            if relevant && only(&listed, other(family)) && self.node_port_addresses.only_cidrs() {
                found.advice.push(format!(
                    "nodePortAddresses names only {} addresses, so NodePorts answer on every {family} \
                     address of this node",
                    other(family)
                ));
            }
        }
        found
    }
}

impl super::NodePortAddresses {
    fn cidrs(&self) -> Vec<IpNet> {
        let cidr = |entry: &NodePortAddress| match entry {
            NodePortAddress::Cidr(cidr) => Some(*cidr),
            _ => None,
        };
        self.entries().iter().filter_map(cidr).collect()
    }

    fn only_cidrs(&self) -> bool {
        self.entries().iter().all(|entry| matches!(entry, NodePortAddress::Cidr(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use Family::{V4, V6};

    fn check(line: &str, primary: Family, dual_stack: bool, pods: &str) -> Contradictions {
        let line = std::iter::once("kube-proxy").chain(line.split_whitespace());
        let flags = Flags::read(line).unwrap();
        let config = Config::resolve(&flags, None, || Ok("n".to_owned())).unwrap();
        let pod_cidrs: Vec<IpNet> =
            pods.split_whitespace().map(|cidr| cidr.parse().unwrap()).collect();
        config.contradictions(NodeFamilies { primary, dual_stack, pod_cidrs: &pod_cidrs })
    }

    #[test]
    fn what_fits_is_silent() {
        for line in [
            "",
            "--cluster-cidr=10.0.0.0/8",
            "--cluster-cidr=10.0.0.0/8,fd00::/48",
            "--nodeport-addresses=primary",
            "--nodeport-addresses=10.0.0.0/8",
        ] {
            assert_eq!(check(line, V4, false, "10.0.0.0/24"), Contradictions::default(), "{line}");
        }
    }

    #[test]
    fn a_cluster_cidr_of_the_wrong_family_is_fatal_on_a_single_stack_node() {
        let line = "--cluster-cidr=fd00::/48";
        let found = check(line, V4, false, "");
        assert_eq!(found.fatal, ["this node is IPv4-only, but clusterCIDR is IPv6"]);
        let found = check(line, V4, true, "");
        assert_eq!(found.advice, ["this node is IPv4-primary, but clusterCIDR is IPv6"]);
        assert!(found.fatal.is_empty());
        // In another mode the field says nothing.
        let line = "--cluster-cidr=fd00::/48 --detect-local-mode=NodeCIDR";
        assert_eq!(check(line, V4, false, ""), Contradictions::default());
    }

    #[test]
    fn pod_cidrs_of_the_wrong_family_are_fatal_where_they_are_used() {
        let found = check("--detect-local-mode=NodeCIDR", V6, true, "10.0.0.0/24");
        assert_eq!(found.fatal, ["this node is IPv6-primary, but its podCIDRs are only IPv4"]);
        assert_eq!(check("", V6, true, "10.0.0.0/24").advice.len(), 1);
        assert_eq!(
            check("--detect-local-mode=NodeCIDR", V4, true, "10.0.0.0/24 fd00::/64").fatal.len(),
            0
        );
    }

    #[test]
    fn server_addresses_of_a_family_that_is_not_there() {
        let line = "--healthz-bind-address=[fd00::1]:1 --metrics-bind-address=[::]:1";
        let found = check(line, V4, false, "");
        assert_eq!(found.advice, ["this node is IPv4-only, but healthzBindAddress is IPv6"]);
        assert_eq!(check(line, V4, true, ""), Contradictions::default());
    }

    #[test]
    fn a_family_left_unrestricted_is_pointed_out() {
        let found = check("--nodeport-addresses=10.0.0.0/8", V4, true, "10.0.0.0/24 fd00::/64");
        assert_eq!(found.advice.len(), 1);
        assert!(found.advice[0].ends_with("every IPv6 address of this node"), "{found:?}");
        let found = check("--nodeport-addresses=10.0.0.0/8", V6, true, "");
        assert!(found.advice[0].ends_with("every IPv6 address of this node"), "{found:?}");
    }
}
