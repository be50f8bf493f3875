//! `nodePortAddresses`: which of this node's addresses answer on NodePorts.
//!
//! Entries are CIDRs and the keywords `primary`, `localhost` and `all`. They are judged per family:
//! a family for which nothing is listed is not restricted. `primary` means the addresses of the
//! Node object (or bindAddress), which come and go, so it is kept as a keyword and expanded when
//! the addresses are known, by [`NodePortAddresses::matching`].

use super::document::KubeProxyConfiguration;
use super::gates::{FeatureGates, LOCALHOST_NODE_PORTS};
use super::problems::Problems;
use crate::model::parse_cidr;
use ipnet::IpNet;
use nft_table::Family;
use std::net::IpAddr;

/// What one entry of the list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortAddress {
    /// `primary`: the node's own addresses, one per family.
    Primary,
    /// `localhost`: 127.0.0.0/8 and ::1, served by a proxy in this process.
    Localhost,
    /// `all`: 0.0.0.0/0 and ::/0.
    All,
    Cidr(IpNet),
}

impl NodePortAddress {
    pub(super) fn parse(text: &str) -> Option<NodePortAddress> {
        match text {
            "primary" => Some(NodePortAddress::Primary),
            "localhost" => Some(NodePortAddress::Localhost),
            "all" => Some(NodePortAddress::All),
            _ => parse_cidr(text).map(NodePortAddress::Cidr),
        }
    }
}

/// The addresses of one family that answer on NodePorts and health check node ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortMatch {
    /// Every local address except 127.0.0.0/8 and ::1.
    All,
    /// Local addresses inside these CIDRs. Loopback CIDRs are included where they are listed:
    /// health check node ports are bound there too, the kernel's NodePort path leaves them out.
    Within(Vec<IpNet>),
}

/// The validated list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortAddresses {
    entries: Vec<NodePortAddress>,
    /// Whether a loopback CIDR asks for localhost NodePorts as the keyword does
    /// (feature gate KubeProxyNFTablesLocalhostNodePorts).
    loopback_cidrs_count: bool,
}

impl NodePortAddresses {
    /// An empty list means `primary`.
    pub(super) fn new(mut entries: Vec<NodePortAddress>, loopback_cidrs_count: bool) -> Self {
        if entries.is_empty() {
            entries.push(NodePortAddress::Primary);
        }
        NodePortAddresses { entries, loopback_cidrs_count }
    }

    /// The entries as listed, never none.
    pub fn entries(&self) -> &[NodePortAddress] {
        &self.entries
    }

    /// Which addresses of a family match on a node with this primary address in the family.
    /// A loopback address (a node whose address is not known) is no primary address.
    pub fn matching(&self, family: Family, primary: Option<IpAddr>) -> NodePortMatch {
        let primary = primary.filter(|ip| Family::of(ip) == family && !ip.is_loopback());
        let mut cidrs = Vec::new();
        for entry in &self.entries {
            let cidr = match *entry {
                NodePortAddress::All => return NodePortMatch::All,
                NodePortAddress::Primary => match primary {
                    Some(ip) => IpNet::from(ip),
                    None => continue,
                },
                NodePortAddress::Localhost => loopback(family),
                NodePortAddress::Cidr(cidr) if Family::of(&cidr.addr()) != family => continue,
                NodePortAddress::Cidr(cidr) if cidr.prefix_len() == 0 => return NodePortMatch::All,
                NodePortAddress::Cidr(cidr) => cidr,
            };
            if !cidrs.contains(&cidr) {
                cidrs.push(cidr);
            }
        }
        if cidrs.is_empty() { NodePortMatch::All } else { NodePortMatch::Within(cidrs) }
    }

    /// Whether all addresses of a family match for the only reason that the node's primary one is not known.
    pub fn lacks_primary(&self, family: Family) -> bool {
        let is_all = |entry: &NodePortAddress| match entry {
            NodePortAddress::All => true,
            NodePortAddress::Cidr(cidr) => {
                Family::of(&cidr.addr()) == family && cidr.prefix_len() == 0
            }
            NodePortAddress::Primary | NodePortAddress::Localhost => false,
        };
        self.entries.contains(&NodePortAddress::Primary) && !self.entries.iter().any(is_all)
    }

    /// Whether NodePorts answer on the loopback addresses of a family: the keyword `localhost`, or
    /// a loopback CIDR while the feature gate allows it. `all` and 0.0.0.0/0 do not ask for it.
    pub fn localhost(&self, family: Family) -> bool {
        self.entries.iter().any(|entry| match entry {
            NodePortAddress::Localhost => true,
            NodePortAddress::Cidr(cidr) => {
                self.loopback_cidrs_count
                    && Family::of(&cidr.addr()) == family
                    && cidr.addr().is_loopback()
            }
            NodePortAddress::Primary | NodePortAddress::All => false,
        })
    }
}

pub(super) fn check(
    document: &KubeProxyConfiguration,
    gates: &FeatureGates,
    problems: &mut Problems,
) -> NodePortAddresses {
    let list = document.node_port_addresses.as_deref().unwrap_or_default();
    let mut entries = Vec::new();
    for (index, text) in list.iter().enumerate() {
        let field = format!("nodePortAddresses[{index}]");
        match NodePortAddress::parse(text) {
            None => {
                let detail =
                    "must be a valid CIDR or one of the keywords 'primary', 'localhost', 'all'";
                problems.invalid(&field, text, detail);
            }
            Some(NodePortAddress::Cidr(cidr)) => entries.push(NodePortAddress::Cidr(cidr)),
            Some(keyword) if entries.contains(&keyword) => problems.duplicate(&field, text),
            Some(keyword) => entries.push(keyword),
        }
    }
    NodePortAddresses::new(entries, gates.enabled(LOCALHOST_NODE_PORTS))
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert([127, 0, 0, 0].into(), 8),
        Family::V6 => IpNet::new_assert(std::net::Ipv6Addr::LOCALHOST.into(), 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Family::{V4, V6};

    fn list(text: &str, gate: bool) -> NodePortAddresses {
        let entries = text.split_whitespace().map(|entry| NodePortAddress::parse(entry).unwrap());
        NodePortAddresses::new(entries.collect(), gate)
    }

    fn within(cidrs: &[&str]) -> NodePortMatch {
        NodePortMatch::Within(cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect())
    }

    #[test]
    fn families_are_judged_apart() {
        let four = Some("10.0.0.5".parse().unwrap());
        let six = Some("fd00::5".parse().unwrap());
        let loopback = Some("127.0.0.1".parse().unwrap());
        let all = || NodePortMatch::All;
        for (text, family, primary, expected) in [
            ("", V4, four, within(&["10.0.0.5/32"])),
            ("primary", V4, four, within(&["10.0.0.5/32"])),
            ("primary", V6, six, within(&["fd00::5/128"])),
            ("primary", V6, None, all()),
            ("primary", V4, loopback, all()),
            ("all", V4, four, all()),
            ("primary all", V6, six, all()),
            ("0.0.0.0/0", V4, four, all()),
            ("0.0.0.0/0", V6, six, all()),
            ("10.0.0.0/8", V4, four, within(&["10.0.0.0/8"])),
            ("10.0.0.0/8", V6, six, all()),
            ("primary 10.0.0.0/8", V4, four, within(&["10.0.0.5/32", "10.0.0.0/8"])),
            ("localhost", V4, four, within(&["127.0.0.0/8"])),
            ("localhost primary", V6, six, within(&["::1/128", "fd00::5/128"])),
            ("localhost all", V4, four, all()),
        ] {
            assert_eq!(list(text, false).matching(family, primary), expected, "{text} {family}");
        }
    }

    #[test]
    fn localhost_is_asked_for_by_keyword_or_by_gate_and_cidr() {
        for (text, gate, four, six) in [
            ("", true, false, false),
            ("all", true, false, false),
            ("0.0.0.0/0 ::/0", true, false, false),
            ("localhost", false, true, true),
            ("primary localhost", false, true, true),
            ("127.0.0.0/8", false, false, false),
            ("127.0.0.0/8", true, true, false),
            ("127.0.0.1/32 ::1/128", true, true, true),
        ] {
            let list = list(text, gate);
            assert_eq!((list.localhost(V4), list.localhost(V6)), (four, six), "{text} {gate}");
        }
    }
}
