//! Which entries are stale. Pure.

use super::entry::Flow;
use hashbrown::HashMap;
use nft_table::Family;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What a client addresses: the original destination of a conntrack entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UdpFrontend {
    /// A ClusterIP, external IP or load balancer VIP and its port.
    Address(IpAddr, u16),
    /// A NodePort: this port on any address of the family.
    NodePort(Family, u16),
}

impl UdpFrontend {
    pub fn family(&self) -> Family {
        match self {
            UdpFrontend::Address(address, _) => Family::of(address),
            UdpFrontend::NodePort(family, _) => *family,
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            UdpFrontend::Address(_, port) | UdpFrontend::NodePort(_, port) => *port,
        }
    }
}

/// A UDP frontend that changed or went, and where its flows may still go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleCheck {
    pub frontend: UdpFrontend,
    /// Address and port of every serving endpoint of the Service port: ready, or terminating but
    /// still serving, whatever policies and topology say (a flow that works is not moved). Empty
    /// when there is none, or when the frontend went. All frontends of a Service port can share it.
    pub serving: Arc<BTreeSet<(IpAddr, u16)>>,
}

/// The checks of one pass. A later check of the same frontend replaces an earlier one.
#[derive(Debug, Default)]
pub(super) struct Rule {
    checks: HashMap<UdpFrontend, Arc<BTreeSet<(IpAddr, u16)>>>,
}

impl Rule {
    pub(super) fn extend(&mut self, checks: impl IntoIterator<Item = StaleCheck>) {
        self.checks.extend(checks.into_iter().map(|check| (check.frontend, check.serving)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }

    pub(super) fn frontends(&self, family: Family) -> impl Iterator<Item = &UdpFrontend> {
        self.checks.keys().filter(move |frontend| frontend.family() == family)
    }

    /// Takes the checks of one family off the list.
    pub(super) fn remove_family(&mut self, family: Family) {
        self.checks.retain(|frontend, _| frontend.family() != family);
    }

    /// Whether the entry of a UDP flow has to go. A frontend by address wins over a NodePort of
    /// the same number, as in the ruleset; that can only be told when both are in this pass.
    pub(super) fn is_stale(&self, flow: &Flow) -> bool {
        let (address, port) = flow.original_destination;
        let by_address = UdpFrontend::Address(address, port);
        let by_port = UdpFrontend::NodePort(Family::of(&address), port);
        self.checks
            .get(&by_address)
            .or_else(|| self.checks.get(&by_port))
            .is_some_and(|serving| !serving.contains(&flow.reply_source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> (IpAddr, u16) {
        let parsed: std::net::SocketAddr = text.parse().unwrap();
        (parsed.ip(), parsed.port())
    }

    fn flow(destination: &str, reply: &str) -> Flow {
        Flow { original_destination: at(destination), reply_source: at(reply) }
    }

    fn check(frontend: UdpFrontend, serving: &[&str]) -> StaleCheck {
        StaleCheck { frontend, serving: Arc::new(serving.iter().map(|text| at(text)).collect()) }
    }

    fn address(text: &str) -> UdpFrontend {
        let (address, port) = at(text);
        UdpFrontend::Address(address, port)
    }

    fn rule(checks: impl IntoIterator<Item = StaleCheck>) -> Rule {
        let mut rule = Rule::default();
        rule.extend(checks);
        rule
    }

    #[test]
    fn entries_of_serving_endpoints_stay() {
        let rule = rule([check(address("10.96.0.10:53"), &["10.244.1.2:53", "10.244.2.2:5353"])]);
        assert!(!rule.is_stale(&flow("10.96.0.10:53", "10.244.1.2:53")));
        assert!(!rule.is_stale(&flow("10.96.0.10:53", "10.244.2.2:5353")));
    }

    #[test]
    fn entries_of_other_endpoints_or_ports_and_untranslated_ones_go() {
        let rule = rule([check(address("10.96.0.10:53"), &["10.244.1.2:53"])]);
        assert!(rule.is_stale(&flow("10.96.0.10:53", "10.244.9.9:53")));
        assert!(rule.is_stale(&flow("10.96.0.10:53", "10.244.1.2:54")));
        assert!(rule.is_stale(&flow("10.96.0.10:53", "10.96.0.10:53")));
    }

    #[test]
    fn other_destinations_are_not_looked_at() {
        let rule = rule([check(address("10.96.0.10:53"), &[])]);
        assert!(rule.is_stale(&flow("10.96.0.10:53", "10.244.1.2:53")));
        assert!(!rule.is_stale(&flow("10.96.0.10:54", "10.244.1.2:53")));
        assert!(!rule.is_stale(&flow("10.96.0.11:53", "10.244.1.2:53")));
    }

    #[test]
    fn a_nodeport_matches_any_address_of_its_family() {
        let rule = rule([check(UdpFrontend::NodePort(Family::V4, 30053), &["10.244.1.2:53"])]);
        assert!(rule.is_stale(&flow("192.0.2.10:30053", "10.244.9.9:53")));
        assert!(rule.is_stale(&flow("198.51.100.1:30053", "198.51.100.1:30053")));
        assert!(!rule.is_stale(&flow("192.0.2.10:30053", "10.244.1.2:53")));
        assert!(!rule.is_stale(&flow("[2001:db8::10]:30053", "[2001:db8::9]:53")));
    }

    #[test]
    fn a_frontend_by_address_wins_over_a_nodeport() {
        let rule = rule([
            check(UdpFrontend::NodePort(Family::V4, 30053), &["10.244.1.2:53"]),
            check(address("203.0.113.1:30053"), &["10.244.7.7:99"]),
        ]);
        assert!(!rule.is_stale(&flow("203.0.113.1:30053", "10.244.7.7:99")));
        assert!(rule.is_stale(&flow("203.0.113.1:30053", "10.244.1.2:53")));
        assert!(!rule.is_stale(&flow("192.0.2.10:30053", "10.244.1.2:53")));
    }

    #[test]
    fn the_latest_check_of_a_frontend_counts() {
        let frontend = address("[2001:db8:96::10]:53");
        let mut rule = rule([check(frontend, &["[2001:db8:244::1]:53"])]);
        rule.extend([check(frontend, &["[2001:db8:244::2]:53"])]);
        assert!(rule.is_stale(&flow("[2001:db8:96::10]:53", "[2001:db8:244::1]:53")));
        assert!(!rule.is_stale(&flow("[2001:db8:96::10]:53", "[2001:db8:244::2]:53")));
        assert_eq!(rule.frontends(Family::V6).count(), 1);
        rule.remove_family(Family::V6);
        assert!(rule.is_empty());
    }
}
