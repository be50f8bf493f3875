//! Where NodePorts answer and health check servers listen: pure functions of a snapshot.

use super::LocalAddresses;
use ipnet::IpNet;
use nft_table::Family;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What `nodePortAddresses` says for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FamilySelection {
    /// No restriction: every local address.
    All,
    /// Only addresses inside one of these networks.
    Cidrs(Vec<IpNet>),
}

/// What `nodePortAddresses` says, per family. CIDRs of the other family are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortSelection {
    pub v4: FamilySelection,
    pub v6: FamilySelection,
}

impl NodePortSelection {
    /// No restriction in either family.
    pub const ALL: NodePortSelection =
        NodePortSelection { v4: FamilySelection::All, v6: FamilySelection::All };

    fn family(&self, family: Family) -> &FamilySelection {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// The networks whose addresses are this node's for NodePorts, both families: sorted, aggregated,
/// without overlap (they become the elements of an interval set) and without loopback.
///
/// Unrestricted: all local routes. Restricted: interface addresses and local routes, cut to the
/// listed CIDRs.
pub fn nodeport_networks(selection: &NodePortSelection, local: &LocalAddresses) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for family in Family::BOTH {
        let routes = local.local_routes.iter().copied().filter(|net| family_of(net) == family);
        match selection.family(family) {
            FamilySelection::All => networks.extend(routes),
            FamilySelection::Cidrs(cidrs) => {
                let addresses = local.interface_addresses.iter().copied().filter(|address| {
                    Family::of(address) == family && !loopback(family).contains(address)
                });
                for net in addresses.map(IpNet::from).chain(routes) {
                    networks.extend(cidrs.iter().filter_map(|cidr| intersection(&net, cidr)));
                }
            }
        }
    }
    let mut networks = IpNet::aggregate(&networks);
    networks.sort();
    networks
}

/// The addresses of one family to which a health check server binds: the unspecified address when
/// there is no restriction, else every interface address and every local route of one address
/// inside a listed CIDR. Loopback counts here when a CIDR holds it. Link-local IPv6 addresses are
/// left out, since nobody can bind to one without naming an interface.
pub fn health_port_addresses(
    selection: &NodePortSelection,
    family: Family,
    local: &LocalAddresses,
) -> Vec<IpAddr> {
    let cidrs = match selection.family(family) {
        FamilySelection::All => {
            return vec![match family {
                Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
                Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
            }];
        }
        FamilySelection::Cidrs(cidrs) => cidrs,
    };
    let routes = local.local_routes.iter().filter(|net| net.prefix_len() == net.max_prefix_len());
    let found: BTreeSet<IpAddr> = local
        .interface_addresses
        .iter()
        .copied()
        .chain(routes.map(IpNet::addr))
        .filter(|address| Family::of(address) == family && !link_local(address))
        .filter(|address| cidrs.iter().any(|cidr| cidr.contains(address)))
        .collect();
    found.into_iter().collect()
}

/// The part of a route that is loopback.
pub(super) fn loopback_part(route: IpNet) -> Option<IpNet> {
    intersection(&route, &loopback(family_of(&route)))
}

/// The rest of a route without its loopback part.
pub(super) fn without_loopback(route: IpNet) -> Vec<IpNet> {
    let hole = loopback(family_of(&route));
    let mut rest = Vec::new();
    let mut around = route;
    loop {
        if hole.contains(&around) {
            break;
        }
        if !around.contains(&hole) {
            rest.push(around);
            break;
        }
        // The hole lies in one half: keep the other one and go on with this one.
        let Ok(halves) = around.subnets(around.prefix_len() + 1) else { break };
        for half in halves {
            if half.contains(&hole) {
                around = half;
            } else {
                rest.push(half);
            }
        }
    }
    rest
}

/// What two networks have in common. Of two prefixes one holds the other, or they are disjoint.
fn intersection(one: &IpNet, other: &IpNet) -> Option<IpNet> {
    if one.contains(other) {
        Some(other.trunc())
    } else if other.contains(one) {
        Some(one.trunc())
    } else {
        None
    }
}

/// 127.0.0.0/8 or ::1/128.
fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        Family::V6 => IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
    }
}

fn family_of(net: &IpNet) -> Family {
    Family::of(&net.addr())
}

fn link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn local(routes: &[&str], addresses: &[&str]) -> LocalAddresses {
        LocalAddresses::new(nets(routes), addresses.iter().map(|a| a.parse().unwrap()))
    }

    fn node() -> LocalAddresses {
        local(
            &[
                "127.0.0.0/8",
                "127.0.0.1/32",
                "192.0.2.10/32",
                "192.0.2.11/32",
                "203.0.113.0/28",
                "198.51.100.7/32",
                "::1/128",
                "2001:db8::10/128",
                "fe80::1/128",
            ],
            &["127.0.0.1", "192.0.2.10", "192.0.2.11", "::1", "2001:db8::10", "fe80::1"],
        )
    }

    fn cidrs(v4: &[&str], v6: &[&str]) -> NodePortSelection {
        NodePortSelection {
            v4: FamilySelection::Cidrs(nets(v4)),
            v6: FamilySelection::Cidrs(nets(v6)),
        }
    }

    #[test]
    fn loopback_is_kept_apart() {
        let node = node();
        assert_eq!(node.loopback_routes, nets(&["127.0.0.0/8", "127.0.0.1/32", "::1/128"]));
        assert!(node.local_routes.iter().all(|net| !net.addr().is_loopback()));
        assert_eq!(node.interface_addresses.len(), 6);
    }

    #[test]
    fn unrestricted_means_all_local_routes_aggregated() {
        assert_eq!(
            nodeport_networks(&NodePortSelection::ALL, &node()),
            nets(&[
                "192.0.2.10/31",
                "198.51.100.7/32",
                "203.0.113.0/28",
                "2001:db8::10/128",
                "fe80::1/128"
            ])
        );
    }

    #[test]
    fn restricted_means_addresses_and_routes_inside_the_cidrs() {
        let selection = cidrs(&["192.0.2.10/32", "203.0.113.4/30", "127.0.0.0/8"], &["::/0"]);
        assert_eq!(
            nodeport_networks(&selection, &node()),
            nets(&["192.0.2.10/32", "203.0.113.4/30", "2001:db8::10/128", "fe80::1/128"])
        );
    }

    #[test]
    fn a_family_without_a_matching_cidr_has_no_networks() {
        let selection = NodePortSelection {
            v4: FamilySelection::Cidrs(nets(&["10.0.0.0/8", "2001:db8::/32"])),
            v6: FamilySelection::Cidrs(vec![]),
        };
        assert_eq!(nodeport_networks(&selection, &node()), []);
    }

    #[test]
    fn an_address_that_has_no_local_route_counts_when_listed() {
        // As an interface that is in a VRF, or one that is still checking for duplicates.
        let node = local(&[], &["192.0.2.10"]);
        assert_eq!(
            nodeport_networks(&cidrs(&["192.0.2.0/24"], &[]), &node),
            nets(&["192.0.2.10/32"])
        );
        assert_eq!(nodeport_networks(&NodePortSelection::ALL, &node), []);
    }

    #[test]
    fn an_anyip_route_is_cut_around_loopback() {
        let node = local(&["0.0.0.0/0", "::/0"], &[]);
        let networks = nodeport_networks(&NodePortSelection::ALL, &node);
        let holds = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            networks.iter().filter(|net| net.contains(&address)).count()
        };
        for inside in ["0.0.0.1", "126.255.255.255", "128.0.0.0", "::", "::2", "2001:db8::1"] {
            assert_eq!(holds(inside), 1, "{inside}");
        }
        for outside in ["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"] {
            assert_eq!(holds(outside), 0, "{outside}");
        }
        assert_eq!(node.loopback_routes, nets(&["127.0.0.0/8", "::1/128"]));
    }

    #[test]
    fn health_ports_count_listed_loopback() {
        let all = NodePortSelection::ALL;
        assert_eq!(health_port_addresses(&all, Family::V4, &node()), [IpAddr::from([0, 0, 0, 0])]);
        assert_eq!(
            health_port_addresses(&all, Family::V6, &node()),
            [IpAddr::from(Ipv6Addr::UNSPECIFIED)]
        );
        let selection = cidrs(&["127.0.0.0/8", "198.51.100.0/24", "203.0.113.0/24"], &["::/0"]);
        assert_eq!(
            health_port_addresses(&selection, Family::V4, &node()),
            ["127.0.0.1", "198.51.100.7"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert_eq!(
            health_port_addresses(&selection, Family::V6, &node()),
            ["::1", "2001:db8::10"].map(|a| a.parse::<IpAddr>().unwrap())
        );
    }

    #[test]
    fn snapshots_of_the_same_state_are_equal() {
        let one = local(&["192.0.2.1/32", "192.0.2.9/24"], &["192.0.2.1", "10.0.0.1"]);
        let two = local(
            &["192.0.2.0/24", "192.0.2.1/32", "192.0.2.1/32"],
            &["10.0.0.1", "192.0.2.1", "10.0.0.1"],
        );
        assert_eq!(one, two);
    }
}
