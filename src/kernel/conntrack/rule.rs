//! Which entries are stale. Pure.

use super::entry::Flow;
use hashbrown::HashMap;
use ipnet::IpNet;
use nft_table::Family;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What a client addresses: the original destination of a conntrack entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowFrontend {
    /// A ClusterIP, external IP or load balancer VIP and its port.
    Address(IpAddr, u16),
    /// A NodePort: this port on the addresses of the family that NodePorts answer on.
    NodePort(Family, u16),
}

impl FlowFrontend {
    pub fn family(&self) -> Family {
        match self {
            FlowFrontend::Address(address, _) => Family::of(address),
            FlowFrontend::NodePort(family, _) => *family,
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            FlowFrontend::Address(_, port) | FlowFrontend::NodePort(_, port) => *port,
        }
    }
}

/// A frontend that came, changed or went, and where its flows may still go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleCheck {
    /// The IANA number of the protocol.
    pub protocol: u8,
    pub frontend: FlowFrontend,
    pub flows: StaleFlows,
}

/// Which flows of a frontend are stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaleFlows {
    /// Those to anywhere but address and port of a serving endpoint of the Service port: ready, or terminating but
    /// still serving, whatever policies and topology say (a flow that works is not moved). None are serving
    /// when the frontend went. All frontends of a Service port can share it. For UDP.
    Elsewhere(Arc<BTreeSet<(IpAddr, u16)>>),
    /// Those to endpoints that are gone, by address and port, and untranslated ones. For TCP, where that is asked for: the
    /// next packet of a client then finds no connection, and is answered with a reset.
    Gone(Arc<BTreeSet<(IpAddr, u16)>>),
    /// Those that nobody translated and nobody answered: they began while nothing was known of the frontend.
    Untranslated,
}

/// The checks of one pass. A later check of the same frontend replaces an earlier one, but what is gone is gone.
#[derive(Debug, Default)]
pub(super) struct Rule {
    checks: HashMap<(u8, FlowFrontend), StaleFlows>,
    /// What NodePorts answer on.
    nodeport_networks: Vec<IpNet>,
}

impl Rule {
    pub(super) fn extend(
        &mut self,
        checks: impl IntoIterator<Item = StaleCheck>,
        nodeport_networks: Vec<IpNet>,
    ) {
        self.nodeport_networks = nodeport_networks;
        for StaleCheck { protocol, frontend, flows } in checks {
            self.put((protocol, frontend), flows);
        }
    }

    fn put(&mut self, key: (u8, FlowFrontend), flows: StaleFlows) {
        let flows = match (self.checks.remove(&key), flows) {
            (Some(StaleFlows::Gone(gone)), StaleFlows::Untranslated) => StaleFlows::Gone(gone),
            (Some(StaleFlows::Gone(gone)), StaleFlows::Gone(more)) => {
                StaleFlows::Gone(Arc::new(&*gone | &*more))
            }
            (_, flows) => flows,
        };
        self.checks.insert(key, flows);
    }

    /// Takes in all checks of another list, which are later ones.
    pub(super) fn append(&mut self, later: &mut Rule) {
        for (key, flows) in std::mem::take(&mut later.checks) {
            self.put(key, flows);
        }
        self.nodeport_networks = std::mem::take(&mut later.nodeport_networks);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }

    /// Frontends of a family, with their protocols.
    pub(super) fn frontends(&self, family: Family) -> impl Iterator<Item = &(u8, FlowFrontend)> {
        self.checks.keys().filter(move |(_, frontend)| frontend.family() == family)
    }

    /// The protocols of these.
    pub(super) fn protocols(&self, family: Family) -> BTreeSet<u8> {
        self.frontends(family).map(|(protocol, _)| *protocol).collect()
    }

    /// Whether of a protocol nothing but flows that nobody translated and answered is stale.
    pub(super) fn is_about_untranslated(&self, protocol: u8) -> bool {
        let mut checks = self.checks.iter().filter(|((of, _), _)| *of == protocol);
        checks.all(|(_, flows)| *flows == StaleFlows::Untranslated)
    }

    /// Takes the checks of one family off the list.
    pub(super) fn remove_family(&mut self, family: Family) {
        self.checks.retain(|(_, frontend), _| frontend.family() != family);
    }

    fn is_nodeport_address(&self, address: &IpAddr) -> bool {
        self.nodeport_networks.iter().any(|network| network.contains(address))
    }

    /// Whether the entry of a flow has to go. A frontend by address wins over a NodePort of
    /// the same number, as in the ruleset; that can only be told when both are in this pass.
    pub(super) fn is_stale(&self, flow: &Flow) -> bool {
        let (address, port) = flow.original_destination;
        let by_address = (flow.protocol, FlowFrontend::Address(address, port));
        let by_port = (flow.protocol, FlowFrontend::NodePort(Family::of(&address), port));
        let nodeport = || self.checks.get(&by_port).filter(|_| self.is_nodeport_address(&address));
        match self.checks.get(&by_address).or_else(nodeport) {
            Some(StaleFlows::Elsewhere(serving)) => !serving.contains(&flow.reply_source),
            Some(StaleFlows::Gone(gone)) if gone.contains(&flow.reply_source) => true,
            Some(StaleFlows::Gone(_) | StaleFlows::Untranslated) => {
                !flow.is_answered && flow.reply_source == flow.original_destination
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> (IpAddr, u16) {
        let parsed: std::net::SocketAddr = text.parse().unwrap();
        (parsed.ip(), parsed.port())
    }

    const UDP: u8 = 17;
    const TCP: u8 = 6;

    fn flow(destination: &str, reply: &str) -> Flow {
        Flow {
            protocol: UDP,
            original_destination: at(destination),
            reply_source: at(reply),
            is_answered: true,
        }
    }

    fn check(frontend: FlowFrontend, serving: &[&str]) -> StaleCheck {
        let serving = Arc::new(serving.iter().map(|text| at(text)).collect());
        StaleCheck { protocol: UDP, frontend, flows: StaleFlows::Elsewhere(serving) }
    }

    fn address(text: &str) -> FlowFrontend {
        let (address, port) = at(text);
        FlowFrontend::Address(address, port)
    }

    #[test]
    fn what_is_gone_stays_on_the_list_and_nothing_else_goes() {
        let check = |flows| StaleCheck { protocol: TCP, frontend: address("10.96.0.1:80"), flows };
        let gone = |endpoint| check(StaleFlows::Gone(Arc::new([at(endpoint)].into())));
        let mut rule = rule([gone("10.1.0.1:8080"), gone("10.1.0.2:8080")]);
        let mut later = Rule::default();
        later.extend([check(StaleFlows::Untranslated)], own());
        rule.append(&mut later);
        let to = |reply| Flow { protocol: TCP, ..flow("10.96.0.1:80", reply) };
        assert!(rule.is_stale(&to("10.1.0.1:8080")) && rule.is_stale(&to("10.1.0.2:8080")));
        // Another endpoint, another port of it, and who serves the address itself.
        for reply in ["10.1.0.3:8080", "10.1.0.1:8081", "10.96.0.1:80"] {
            assert!(!rule.is_stale(&to(reply)), "{reply}");
        }
        let unanswered = Flow { is_answered: false, ..to("10.96.0.1:80") };
        assert!(rule.is_stale(&unanswered));
        let elsewhere = Flow { protocol: TCP, ..flow("10.96.0.2:80", "10.1.0.1:8080") };
        assert!(!rule.is_stale(&elsewhere));
    }

    fn rule(checks: impl IntoIterator<Item = StaleCheck>) -> Rule {
        let mut rule = Rule::default();
        rule.extend(checks, own());
        rule
    }

    /// Networks of this node's addresses.
    fn own() -> Vec<IpNet> {
        ["192.0.2.0/24", "203.0.113.0/24"].map(|network| network.parse().unwrap()).into()
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
    fn of_tcp_only_what_nobody_translated_or_answered_goes() {
        let frontend = address("10.96.0.10:80");
        let check = StaleCheck { protocol: TCP, frontend, flows: StaleFlows::Untranslated };
        let rule = rule([check]);
        let untranslated = flow("10.96.0.10:80", "10.96.0.10:80");
        let begun = Flow { protocol: TCP, is_answered: false, ..untranslated };
        assert!(rule.is_stale(&begun));
        assert!(!rule.is_stale(&Flow { is_answered: true, ..begun }));
        assert!(!rule.is_stale(&Flow { reply_source: at("10.244.1.2:80"), ..begun }));
        assert!(!rule.is_stale(&Flow { protocol: UDP, ..begun }), "of another protocol");
        assert!(rule.is_about_untranslated(TCP));
    }

    #[test]
    fn other_destinations_are_not_looked_at() {
        let rule = rule([check(address("10.96.0.10:53"), &[])]);
        assert!(rule.is_stale(&flow("10.96.0.10:53", "10.244.1.2:53")));
        assert!(!rule.is_stale(&flow("10.96.0.10:54", "10.244.1.2:53")));
        assert!(!rule.is_stale(&flow("10.96.0.11:53", "10.244.1.2:53")));
    }

    #[test]
    fn a_nodeport_is_on_addresses_of_this_node_only() {
        let rule = rule([check(FlowFrontend::NodePort(Family::V4, 30053), &["10.244.1.2:53"])]);
        assert!(rule.is_stale(&flow("192.0.2.10:30053", "10.244.9.9:53")));
        assert!(rule.is_stale(&flow("203.0.113.1:30053", "203.0.113.1:30053")));
        assert!(!rule.is_stale(&flow("198.51.100.1:30053", "198.51.100.1:30053")), "passes by");
        assert!(!rule.is_stale(&flow("192.0.2.10:30053", "10.244.1.2:53")));
        assert!(!rule.is_stale(&flow("[2001:db8::10]:30053", "[2001:db8::9]:53")));
    }

    #[test]
    fn a_frontend_by_address_wins_over_a_nodeport() {
        let rule = rule([
            check(FlowFrontend::NodePort(Family::V4, 30053), &["10.244.1.2:53"]),
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
        rule.extend([check(frontend, &["[2001:db8:244::2]:53"])], own());
        assert!(rule.is_stale(&flow("[2001:db8:96::10]:53", "[2001:db8:244::1]:53")));
        assert!(!rule.is_stale(&flow("[2001:db8:96::10]:53", "[2001:db8:244::2]:53")));
        assert_eq!(rule.frontends(Family::V6).count(), 1);
        rule.remove_family(Family::V6);
        assert!(rule.is_empty());
    }
}
