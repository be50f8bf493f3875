//! What the kernel is asked to dump: as little as possible, in few dumps. Pure.
//!
//! Every dump walks the whole hash table, but one of whose entries the kernel's filter drops nearly
//! all takes about a sixth of the time of one that sends them all (100,000 UDP entries, Linux 6.18:
//! 24 and 131 ms in the kernel alone). So a few ports are asked for one by one, many with one dump
//! of all entries of the protocol. The caller checks every entry again, so a kernel that ignores the filter
//! only makes it slower.

use super::rule::FlowFrontend;
use nft_table::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// The most ports that are dumped one by one.
const PORTS: usize = 4;

/// One dump: the entries of a family and a protocol, of one original destination port or all, of one
/// original destination address (IPv4 only) or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DumpFilter {
    pub(super) family: Family,
    /// The IANA number.
    pub(super) protocol: u8,
    /// Only those that nobody translated and nobody answered.
    pub(super) untranslated: bool,
    pub(super) port: Option<u16>,
    pub(super) address: Option<Ipv4Addr>,
}

impl DumpFilter {
    /// Everything of a protocol.
    pub(super) fn all(family: Family, protocol: u8, untranslated: bool) -> DumpFilter {
        DumpFilter { family, protocol, untranslated, port: None, address: None }
    }

    /// The dumps that find all entries of these frontends, which are all of this family and protocol.
    pub(super) fn covering<'a>(
        family: Family,
        protocol: u8,
        untranslated: bool,
        frontends: impl IntoIterator<Item = &'a FlowFrontend>,
    ) -> Vec<DumpFilter> {
        let mut ports: BTreeMap<u16, BTreeSet<&FlowFrontend>> = BTreeMap::new();
        for frontend in frontends {
            ports.entry(frontend.port()).or_default().insert(frontend);
            if ports.len() > PORTS {
                return vec![DumpFilter::all(family, protocol, untranslated)];
            }
        }
        ports
            .into_iter()
            .map(|(port, frontends)| {
                let address = match frontends.first() {
                    // Not for IPv6: ctnetlink_filter_match_tuple() up to Linux 6.18 at least has
                    // the comparison the wrong way round and leaves out just the entries asked for.
                    Some(FlowFrontend::Address(IpAddr::V4(address), _)) if frontends.len() == 1 => {
                        Some(*address)
                    }
                    _ => None,
                };
                DumpFilter { family, protocol, untranslated, port: Some(port), address }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, port: u16) -> FlowFrontend {
        FlowFrontend::Address(text.parse().unwrap(), port)
    }

    fn covering(frontends: &[FlowFrontend]) -> Vec<(Option<u16>, Option<Ipv4Addr>)> {
        DumpFilter::covering(Family::V4, 17, false, frontends)
            .into_iter()
            .map(|filter| (filter.port, filter.address))
            .collect()
    }

    #[test]
    fn one_frontend_is_asked_for_by_address_and_port() {
        assert_eq!(
            covering(&[address("10.96.0.10", 53)]),
            [(Some(53), Some("10.96.0.10".parse().unwrap()))]
        );
    }

    #[test]
    fn an_ipv6_frontend_is_asked_for_by_port_only() {
        assert_eq!(covering(&[address("2001:db8:96::a", 53)]), [(Some(53), None)]);
    }

    #[test]
    fn frontends_that_share_a_port_take_one_dump() {
        assert_eq!(
            covering(&[address("10.96.0.10", 53), address("203.0.113.1", 53)]),
            [(Some(53), None)]
        );
        assert_eq!(
            covering(&[address("10.96.0.10", 53), FlowFrontend::NodePort(Family::V4, 53)]),
            [(Some(53), None)]
        );
    }

    #[test]
    fn a_nodeport_is_asked_for_by_port_only() {
        assert_eq!(
            covering(&[FlowFrontend::NodePort(Family::V4, 30053), address("10.96.0.10", 53)]),
            [(Some(53), Some("10.96.0.10".parse().unwrap())), (Some(30053), None)]
        );
    }

    #[test]
    fn many_ports_take_one_dump_of_everything() {
        let many: Vec<_> = (0..50).map(|i| address("10.96.0.10", 1000 + i)).collect();
        assert_eq!(covering(&many), [(None, None)]);
        assert_eq!(covering(&[]), []);
    }
}
