//! The chains that are not shared balancing chains, with those of their rules that something uses.
//!
//! | hook | chain | its rules |
//! |---|---|---|
//! | prerouting | `nat-prerouting` | sources that may not connect are dropped; frontends by address; the rest of the family, `from-outside4` |
//! | output | `nat-output` | the same, `from-node4` |
//! | postrouting | `nat-postrouting` | what was translated: remembered, and masqueraded or not |
//! | input | `nat-input` | what was translated and ends here: remembered |

use super::{Balancing, SetKind, SetName, digit, nodeport_key, vip_key};
use crate::model::Protocol;
use crate::plan::pods::{Pods, loopback};
use nft_table::{
    BaseChain, Chain, ChainType, Constant, Expression, Family, Hook, Reject, Rule, Statement,
    Verdict,
};

/// Refuses a connection: `reject` itself is no verdict that a map can hold.
pub const REJECT: &str = "reject-connection";
/// The chain that gives every flow the node's address as its source.
pub const MASQUERADE_ALWAYS: &str = "masquerade-always";
/// The chain that gives the node's address to what the node itself has sent, and to endpoints that reach themselves.
pub const MASQUERADE_FROM_NODE: &str = "masquerade-from-node";

/// Protocols that a Service port can have. The match must stand before `ct original proto-dst` for
/// nft to parse its own listing.
const TRANSPORTS: &[u8] = &[6, 17, 132];

/// What is configured and in use, as far as rules depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// The sets that have elements.
    pub sets: Vec<SetName>,
    /// The balancing chains in use whose rules are made here ([`Kind::is_single`](super::Kind::is_single)).
    pub chains: Vec<Balancing>,
    pub pods: Pods,
    /// Masquerade every flow to a ClusterIP.
    pub masquerade_all: bool,
    /// Refuse nobody for now: the table is not complete yet, so that who is not found may well be served.
    pub hold_refusals: bool,
}

impl Uses {
    fn has(&self, kind: SetKind, family: Family) -> bool {
        self.sets.contains(&SetName::new(kind, family))
    }
}

/// The chains at hooks, all that there can be: name and hook.
const NAT_PREROUTING: (&str, BaseChain) = nat("nat-prerouting", Hook::Prerouting, -100);
const NAT_OUTPUT: (&str, BaseChain) = nat("nat-output", Hook::Output, -100);
const NAT_INPUT: (&str, BaseChain) = nat("nat-input", Hook::Input, 100);
const NAT_POSTROUTING: (&str, BaseChain) = nat("nat-postrouting", Hook::Postrouting, 100);

const fn nat(name: &str, hook: Hook, priority: i32) -> (&str, BaseChain) {
    (name, BaseChain { chain_type: ChainType::Nat, hook, priority })
}

/// Whether a chain of this name at a hook is one of this layout.
pub fn is_base_chain(name: &str, base: &BaseChain) -> bool {
    let known = [NAT_PREROUTING, NAT_OUTPUT, NAT_INPUT, NAT_POSTROUTING];
    known.iter().any(|(known, there)| *known == name && there == base)
}

/// All chains that there should be.
pub fn chains(uses: &Uses) -> Vec<Chain> {
    let mut chains = vec![reject_connection()];
    let external = [SetKind::ExternalServices, SetKind::ExternalNodeports];
    let is_external = |family| external.iter().any(|kind| uses.has(*kind, family));
    if Family::BOTH.into_iter().any(is_external) {
        chains.push(Chain::regular(MASQUERADE_ALWAYS, vec![rule([Statement::Masquerade])]));
        chains.push(Chain::regular(MASQUERADE_FROM_NODE, masquerade_from_node(uses)));
    }
    for family in Family::BOTH {
        let of_family = Rules { uses, family };
        for chain in uses.chains.iter().filter(|chain| chain.family == family) {
            chains.push(Chain::regular(chain.to_string(), of_family.external_reject()));
        }
        if uses.has(SetKind::LocalhostNodeports, family) {
            chains.push(Chain::regular(localhost_chain(family), of_family.localhost()));
        }
        for (name, rules) in [
            (name("from-outside", family), of_family.outside()),
            (name("from-node", family), of_family.node()),
            (name("masquerade-cluster-ip", family), of_family.masquerade_cluster_ip()),
            (name("masquerading", family), of_family.masquerading()),
        ] {
            if !rules.is_empty() {
                chains.push(Chain::regular(name, rules));
            }
        }
    }
    let both = Family::BOTH.map(|family| Rules { uses, family });
    let at = |(name, base): (&str, BaseChain), rules: Vec<Rule>| Chain::base(name, base, rules);
    chains.push(at(NAT_PREROUTING, both.iter().flat_map(Rules::prerouting).collect()));
    chains.push(at(NAT_OUTPUT, both.iter().flat_map(Rules::output).collect()));
    // This rule is always there, and with it an expression that has the kernel track connections.
    let not_translated = || vec![not_translated()];
    let remember: Vec<Rule> = both.iter().flat_map(Rules::remember).collect();
    if !remember.is_empty() {
        let rules = [not_translated(), remember.clone()].concat();
        chains.push(at(NAT_INPUT, rules));
    }
    let rules = [
        not_translated(),
        remember,
        both.iter().flat_map(Rules::to_cluster_ip).collect(),
        both.iter().flat_map(Rules::to_masquerading).collect(),
    ];
    chains.push(at(NAT_POSTROUTING, rules.concat()));
    chains
}

/// The rules for frontends whose clients keep their address. What the node sends came in by no interface, and so did what
/// passes from one port of a bridge to another: the routing table is asked about these only.
///
/// ```text
/// ip saddr . ip daddr @hairpin4 masquerade fully-random
/// iif 0 fib saddr type local masquerade fully-random
/// ```
fn masquerade_from_node(uses: &Uses) -> Vec<Rule> {
    let hairpin = Family::BOTH.into_iter().flat_map(|family| Rules { uses, family }.hairpin());
    let no_input = matches(Expression::InputInterfaceIndex, Constant::NoInterface);
    let from_node = rule([no_input, source_is_local(), Statement::Masquerade]);
    hairpin.chain([from_node]).collect()
}

/// What [`localhost_chain`] counts, in the order of its rules.
pub const REJECTED_AT_LOCALHOST: [Protocol; 2] = [Protocol::Udp, Protocol::Sctp];

/// The chain that rejects what comes to localhost NodePorts and is not TCP.
pub fn localhost_chain(family: Family) -> String {
    name("localhost", family)
}

fn name(name: &str, family: Family) -> String {
    format!("{name}{}", digit(family))
}

fn rule<const N: usize>(statements: [Statement; N]) -> Rule {
    Rule::new(statements.into())
}

fn matches(expression: Expression, constant: Constant) -> Statement {
    Statement::Match { expression, constant, negated: false }
}

fn is_not(expression: Expression, constant: Constant) -> Statement {
    Statement::Match { expression, constant, negated: true }
}

fn verdict(verdict: Verdict) -> Statement {
    Statement::Verdict(verdict)
}

fn goto(chain: impl Into<std::sync::Arc<str>>) -> Statement {
    verdict(Verdict::Goto(chain.into()))
}

fn source_is_local() -> Statement {
    matches(Expression::SourceAddressType, Constant::TypeLocal)
}

/// ```text
/// ct status ! dnat accept
/// ```
fn not_translated() -> Rule {
    rule([is_not(Expression::CtStatus, Constant::StatusDnat), verdict(Verdict::Accept)])
}

/// A reset for TCP: the kernel does not limit them, and IPv6 clients take them at once.
///
/// ```text
/// meta l4proto tcp reject with tcp reset
/// reject
/// ```
fn reject_connection() -> Chain {
    let tcp = matches(Expression::Protocol, Constant::Protocol(Protocol::Tcp.number()));
    let rules = vec![
        rule([tcp, Statement::Reject(Reject::TcpReset)]),
        rule([Statement::Reject(Reject::AnyFamily)]),
    ];
    Chain::regular(REJECT, rules)
}

/// `meta l4proto . ct original proto-dst`
fn original_nodeport() -> Vec<Expression> {
    vec![Expression::Protocol, Expression::CtOriginalPort]
}

/// The rules of one family.
struct Rules<'a> {
    uses: &'a Uses,
    family: Family,
}

impl Rules<'_> {
    fn has(&self, kind: SetKind) -> bool {
        self.uses.has(kind, self.family)
    }

    fn in_set(&self, key: Vec<Expression>, kind: SetKind) -> Statement {
        Statement::InSet { key, set: SetName::new(kind, self.family).nft(), negated: false }
    }

    fn vmap(&self, key: Vec<Expression>, kind: SetKind) -> Statement {
        Statement::VerdictMap { key, map: SetName::new(kind, self.family).nft() }
    }

    fn is_family(&self) -> Statement {
        matches(Expression::NetworkFamily, Constant::Family(self.family))
    }

    fn daddr(&self) -> Vec<Expression> {
        vec![Expression::DestinationAddress(self.family)]
    }

    fn original_daddr(&self) -> Vec<Expression> {
        vec![Expression::CtOriginalDestination(self.family)]
    }

    /// `ct original ip daddr . meta l4proto . ct original proto-dst`
    fn original_vip(&self) -> Vec<Expression> {
        [self.original_daddr(), original_nodeport()].concat()
    }

    /// ```text
    /// ip daddr . meta l4proto . th dport @restricted-services4 ip daddr . meta l4proto . th dport . ip saddr != @allowed-sources4 drop
    /// ip daddr . meta l4proto . th dport vmap @service-ips4
    /// ```
    ///
    /// An `ip` match implies the family, so these stand in the base chain itself.
    fn by_address(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.has(SetKind::RestrictedServices) {
            let mut statements =
                vec![self.in_set(vip_key(self.family), SetKind::RestrictedServices)];
            if self.has(SetKind::AllowedSources) {
                let source = vec![Expression::SourceAddress(self.family)];
                statements.push(Statement::InSet {
                    key: [vip_key(self.family), source].concat(),
                    set: SetName::new(SetKind::AllowedSources, self.family).nft(),
                    negated: true,
                });
            }
            statements.push(verdict(Verdict::Drop));
            rules.push(Rule::new(statements));
        }
        if self.has(SetKind::ServiceIps) {
            rules.push(rule([self.vmap(vip_key(self.family), SetKind::ServiceIps)]));
        }
        rules
    }

    fn prerouting(&self) -> Vec<Rule> {
        let mut rules = self.by_address();
        if !self.outside().is_empty() {
            rules.push(rule([self.is_family(), goto(name("from-outside", self.family))]));
        }
        rules
    }

    fn output(&self) -> Vec<Rule> {
        let mut rules = self.by_address();
        if !self.node().is_empty() {
            rules.push(rule([self.is_family(), goto(name("from-node", self.family))]));
        }
        rules
    }

    /// What has no frontend of that address. A ClusterIP that is bound on this machine is its own.
    ///
    /// ```text
    /// ip daddr @nodeport-ips4 meta l4proto . th dport vmap @service-nodeports4
    /// ip daddr @cluster-ips4 fib daddr type != local goto reject-connection
    /// ip daddr @service-cidrs4 fib daddr type != local drop
    /// ```
    fn outside(&self) -> Vec<Rule> {
        let not_local = || is_not(Expression::DestinationAddressType, Constant::TypeLocal);
        let mut rules = self.nodeports(SetKind::ServiceNodeports);
        for (kind, end) in self.nobody() {
            rules.push(rule([self.in_set(self.daddr(), kind), not_local(), end]));
        }
        rules
    }

    /// What the node itself sends to an address that is no frontend.
    fn node(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.has(SetKind::LocalhostNodeports) {
            let to_loopback = matches(
                Expression::DestinationAddress(self.family),
                Constant::Network(loopback(self.family)),
            );
            rules.push(rule([to_loopback, goto(localhost_chain(self.family))]));
        }
        rules.extend(self.nodeports(SetKind::ServiceNodeports));
        for (kind, end) in self.nobody() {
            rules.push(rule([self.in_set(self.daddr(), kind), end]));
        }
        rules
    }

    fn nodeports(&self, map: SetKind) -> Vec<Rule> {
        let in_use = self.has(map);
        let to_node = self.to_node(self.daddr()).filter(|_| in_use);
        to_node.map(|to_node| rule([to_node, self.vmap(nodeport_key(), map)])).collect()
    }

    /// Matches what goes to an address of NodePorts, for each of the sets that those are in.
    fn to_node(&self, daddr: Vec<Expression>) -> impl Iterator<Item = Statement> {
        let sets = [SetKind::NodeportIps, SetKind::NodeportNetworks].into_iter();
        sets.filter(|kind| self.has(*kind)).map(move |kind| self.in_set(daddr.clone(), kind))
    }

    /// Addresses that are for Services alone: other ports of a ClusterIP, and ClusterIPs of nobody.
    fn nobody(&self) -> impl Iterator<Item = (SetKind, Statement)> {
        [(SetKind::ClusterIps, goto(REJECT)), (SetKind::ServiceCidrs, verdict(Verdict::Drop))]
            .into_iter()
            .filter(|(kind, _)| self.has(*kind) && !self.uses.hold_refusals)
    }

    /// As in kube-proxy, a frontend without endpoints does not come before NodePorts.
    ///
    /// ```text
    /// ip daddr @nodeport-ips4 meta l4proto . th dport vmap @service-nodeports4
    /// goto reject-connection
    /// ```
    fn external_reject(&self) -> Vec<Rule> {
        let mut rules = self.nodeports(SetKind::ServiceNodeports);
        rules.push(rule([goto(REJECT)]));
        rules
    }

    /// NodePorts on loopback addresses are served by a proxy in user space, for TCP only; other protocols
    /// are counted and rejected.
    ///
    /// ```text
    /// meta l4proto . th dport @localhost-nodeports4 meta l4proto udp counter packets 0 bytes 0 reject
    /// ```
    fn localhost(&self) -> Vec<Rule> {
        let of = |protocol: Protocol| {
            rule([
                self.in_set(nodeport_key(), SetKind::LocalhostNodeports),
                matches(Expression::Protocol, Constant::Protocol(protocol.number())),
                Statement::Counter,
                Statement::Reject(Reject::AnyFamily),
            ])
        };
        REJECTED_AT_LOCALHOST.map(of).into()
    }

    /// ```text
    /// ct original ip daddr @affinity-ips4 meta l4proto { tcp, udp, sctp } ct original ip daddr . meta l4proto . ct original proto-dst vmap @remember-services4
    /// ct original ip daddr @nodeport-ips4 meta l4proto { tcp, udp, sctp } meta l4proto . ct original proto-dst vmap @remember-nodeports4
    /// ```
    fn remember(&self) -> Vec<Rule> {
        self.by_original(SetKind::RememberServices, SetKind::RememberNodeports)
    }

    /// Verdict maps that are asked for the original destination. Whether an address is in one at all is asked first: all
    /// flows that were translated come by, and most of them are in none.
    fn by_original(&self, by_address: SetKind, by_nodeport: SetKind) -> Vec<Rule> {
        let transports = || Statement::ProtocolIn(TRANSPORTS);
        let mut rules = Vec::new();
        let addresses = by_address.addresses().filter(|addresses| self.has(*addresses));
        if let Some(addresses) = addresses.filter(|_| self.has(by_address)) {
            rules.push(rule([
                self.in_set(self.original_daddr(), addresses),
                transports(),
                self.vmap(self.original_vip(), by_address),
            ]));
        }
        if self.has(by_nodeport) {
            rules.extend(self.to_node(self.original_daddr()).map(|to_node| {
                rule([to_node, transports(), self.vmap(original_nodeport(), by_nodeport)])
            }));
        }
        rules
    }

    /// ```text
    /// ct original ip daddr @cluster-ips4 goto masquerade-cluster-ip4
    /// ```
    fn to_cluster_ip(&self) -> Vec<Rule> {
        if self.masquerade_cluster_ip().is_empty() {
            return Vec::new();
        }
        let is_cluster_ip = self.in_set(self.original_daddr(), SetKind::ClusterIps);
        vec![rule([is_cluster_ip, goto(name("masquerade-cluster-ip", self.family))])]
    }

    fn to_masquerading(&self) -> Vec<Rule> {
        if self.masquerading().is_empty() {
            return Vec::new();
        }
        vec![rule([self.is_family(), goto(name("masquerading", self.family))])]
    }

    /// An endpoint that reaches itself through a Service.
    fn hairpin(&self) -> Vec<Rule> {
        if !self.has(SetKind::Hairpin) {
            return Vec::new();
        }
        let itself = vec![
            Expression::SourceAddress(self.family),
            Expression::DestinationAddress(self.family),
        ];
        vec![rule([self.in_set(itself, SetKind::Hairpin), Statement::Masquerade])]
    }

    /// Flows to a ClusterIP are masqueraded unless they come from a pod.
    ///
    /// ```text
    /// ip saddr != 10.244.0.0/16 masquerade fully-random
    /// ip saddr . ip daddr @hairpin4 masquerade fully-random
    /// ```
    ///
    /// Where pods are known by their interface, the first of them is for pods on a bridge whose packets pass
    /// through the hooks of IP (br_netfilter): from one port of the bridge to another, postrouting knows no
    /// input interface, and the output interface is the bridge.
    ///
    /// ```text
    /// ip saddr . ip daddr @hairpin4 masquerade fully-random
    /// iif 0 oifname "cni0" fib saddr type != local accept
    /// iifname "cni0" accept
    /// masquerade fully-random
    /// ```
    fn masquerade_cluster_ip(&self) -> Vec<Rule> {
        if !self.has(SetKind::ClusterIps) {
            return Vec::new();
        }
        if self.uses.masquerade_all {
            return vec![rule([Statement::Masquerade])];
        }
        let accept = || verdict(Verdict::Accept);
        // Without a detector nobody is masqueraded.
        let Some(pods) = self.uses.pods.source(self.family) else {
            return self.hairpin();
        };
        if let Statement::Match {
            expression: source @ Expression::SourceAddress(_),
            constant,
            ..
        } = pods
        {
            let masquerade = rule([is_not(source, constant), Statement::Masquerade]);
            return [vec![masquerade], self.hairpin()].concat();
        }
        let mut rules = self.hairpin();
        if let Some(interface) = self.uses.pods.interface() {
            rules.push(rule([
                matches(Expression::InputInterfaceIndex, Constant::NoInterface),
                matches(Expression::OutputInterface, interface.clone()),
                is_not(Expression::SourceAddressType, Constant::TypeLocal),
                accept(),
            ]));
        }
        rules.push(rule([pods, accept()]));
        rules.push(rule([Statement::Masquerade]));
        rules
    }

    /// What was not sent to a ClusterIP. `ct status dnat` is also true for what others translate, as host
    /// ports, so only what is known by its original destination is masqueraded.
    ///
    /// ```text
    /// ct original ip daddr @external-ips4 ... vmap @external-services4
    /// ct original ip daddr @nodeport-ips4 ... vmap @external-nodeports4
    /// ```
    fn masquerading(&self) -> Vec<Rule> {
        self.by_original(SetKind::ExternalServices, SetKind::ExternalNodeports)
    }
}
