//! The chains and their rules.

use super::{EXTERNAL_NONE_CHAIN, LOCALHOST_CHAIN, REJECT_CHAIN, set_name};
use crate::model::Protocol;
use nft_table::Family;
use nft_table::{
    BaseChain, Chain, ChainType, Constant, Expression, Hook, Reject, Rule, Statement, Verdict,
};

/// Protocols that a Service port can have. The match must stand before `ct original proto-dst` for
/// nft to parse its own listing.
const TRANSPORTS: &[u8] = &[6, 17, 132];

/// `ip daddr . meta l4proto . th dport`: a frontend by address.
pub fn vip_key(family: Family) -> Vec<Expression> {
    vec![Expression::DestinationAddress(family), Expression::Protocol, Expression::DestinationPort]
}

/// `meta l4proto . th dport`: a NodePort.
pub fn nodeport_key() -> Vec<Expression> {
    vec![Expression::Protocol, Expression::DestinationPort]
}

pub(super) fn chains() -> Vec<Chain> {
    let hook = |name: &str, chain_type, hook, priority, rules| {
        Chain::base(name, BaseChain { chain_type, hook, priority }, rules)
    };
    let new = || matches(Expression::CtState, Constant::StateNew);
    let if_new = |chain: &str| Rule::new(vec![new(), jump(chain)]);
    let always = |chain: &str| Rule::new(vec![jump(chain)]);
    // ct state new ct status dnat jump affinity-record
    let remember = || {
        let dnat = matches(Expression::CtStatus, Constant::StatusDnat);
        Rule::new(vec![new(), dnat, jump("affinity-record")])
    };
    use ChainType::{Filter, Nat};
    use Hook::*;
    vec![
        // reject
        Chain::regular(REJECT_CHAIN, vec![Rule::new(vec![Statement::Reject(Reject::AnyFamily)])]),
        Chain::regular(EXTERNAL_NONE_CHAIN, external_rules(Verdict::Accept)),
        masquerade_cluster_ip(),
        firewall_check(),
        services(),
        service_endpoints_check(),
        nodeport_endpoints_check(),
        cluster_ips_check(),
        localhost_check(),
        masquerading(),
        affinity_record(),
        hook(
            "filter-prerouting-pre-dnat",
            Filter,
            Prerouting,
            -110,
            vec![if_new("firewall-check")],
        ),
        hook("filter-output-pre-dnat", Filter, Output, -110, vec![if_new("firewall-check")]),
        hook(
            "filter-input",
            Filter,
            Input,
            0,
            vec![
                if_new("nodeport-endpoints-check"),
                if_new("service-endpoints-check"),
                if_new(LOCALHOST_CHAIN),
            ],
        ),
        hook(
            "filter-forward",
            Filter,
            Forward,
            0,
            vec![if_new("service-endpoints-check"), if_new("cluster-ips-check")],
        ),
        hook(
            "filter-output",
            Filter,
            Output,
            0,
            vec![if_new("service-endpoints-check"), if_new("cluster-ips-check")],
        ),
        hook("nat-prerouting", Nat, Prerouting, -100, vec![always("services")]),
        hook("nat-output", Nat, Output, -100, vec![always("services")]),
        hook("remember-prerouting", Filter, Prerouting, -99, vec![remember()]),
        hook("remember-output", Filter, Output, -99, vec![remember()]),
        hook("nat-postrouting", Nat, Postrouting, 100, vec![always("masquerading")]),
    ]
}

fn matches(expression: Expression, constant: Constant) -> Statement {
    Statement::Match { expression, constant, negated: false }
}

fn jump(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Jump(chain.into()))
}

fn in_set(key: Vec<Expression>, name: &str, family: Family) -> Statement {
    Statement::InSet { key, set: set_name(name, family), negated: false }
}

fn vmap(key: Vec<Expression>, name: &str, family: Family) -> Statement {
    Statement::VerdictMap { key, map: set_name(name, family) }
}

/// The first rules of what external policy Local leads to: pods and the node itself are not outside
/// and go back to the short circuit, everybody else gets `outside`.
///
/// ```text
/// ip saddr @pod-sources4 return
/// ip6 saddr @pod-sources6 return
/// iifname @pod-interfaces return
/// fib saddr type local return
/// goto local-2
/// ```
pub fn external_rules(outside: Verdict) -> Vec<Rule> {
    let mut rules = sources("pod-sources", "pod-interfaces");
    rules.push(Rule::new(vec![
        matches(Expression::SourceAddressType, Constant::TypeLocal),
        Statement::Verdict(Verdict::Return),
    ]));
    rules.push(Rule::new(vec![Statement::Verdict(outside)]));
    rules
}

/// Returns for what comes from these addresses and interfaces.
fn sources(addresses: &str, interfaces: &str) -> Vec<Rule> {
    let returns = |statement| Rule::new(vec![statement, Statement::Verdict(Verdict::Return)]);
    let from = |family| returns(in_set(vec![Expression::SourceAddress(family)], addresses, family));
    let interface = Statement::InSet {
        key: vec![Expression::InputInterface],
        set: interfaces.into(),
        negated: false,
    };
    vec![from(Family::V4), from(Family::V6), returns(interface)]
}

/// Flows to a ClusterIP are masqueraded unless they come from a pod.
///
/// The first rule is for pods on a bridge whose packets pass through the hooks of IP (br_netfilter):
/// from one port of the bridge to another, postrouting knows no input interface, and the output
/// interface is the bridge.
///
/// ```text
/// iif 0 oifname @unmasqueraded-interfaces fib saddr type != local return
/// ```
fn masquerade_cluster_ip() -> Chain {
    let mut rules = vec![Rule::new(vec![
        matches(Expression::InputInterfaceIndex, Constant::NoInterface),
        Statement::InSet {
            key: vec![Expression::OutputInterface],
            set: "unmasqueraded-interfaces".into(),
            negated: false,
        },
        Statement::Match {
            expression: Expression::SourceAddressType,
            constant: Constant::TypeLocal,
            negated: true,
        },
        Statement::Verdict(Verdict::Return),
    ])];
    rules.extend(sources("unmasqueraded-sources", "unmasqueraded-interfaces"));
    rules.push(Rule::new(vec![Statement::Masquerade]));
    Chain::regular("masquerade-cluster-ip", rules)
}

/// loadBalancerSourceRanges:
///
/// ```text
/// ip daddr . meta l4proto . th dport @restricted-services4 ip daddr . meta l4proto . th dport . ip saddr != @allowed-sources4 drop
/// ```
fn firewall_check() -> Chain {
    let rule = |family: Family| {
        let source = vec![Expression::SourceAddress(family)];
        Rule::new(vec![
            in_set(vip_key(family), "restricted-services", family),
            Statement::InSet {
                key: [vip_key(family), source].concat(),
                set: set_name("allowed-sources", family),
                negated: true,
            },
            Statement::Verdict(Verdict::Drop),
        ])
    };
    Chain::regular("firewall-check", Family::BOTH.map(rule).to_vec())
}

/// The way of every new flow: frontends by address, then NodePorts.
///
/// ```text
/// ip daddr . meta l4proto . th dport vmap @service-ips4
/// ip daddr . meta l4proto . th dport vmap @short-circuit-services4
/// ip daddr @nodeport-ips4 meta l4proto . th dport vmap @service-nodeports4
/// ip daddr @nodeport-ips4 meta l4proto . th dport vmap @short-circuit-nodeports4
/// ```
fn services() -> Chain {
    let by_address = ["service-ips", "short-circuit-services"];
    let by_nodeport = ["service-nodeports", "short-circuit-nodeports"];
    let mut rules = Vec::new();
    for family in Family::BOTH {
        rules.extend(by_address.map(|map| Rule::new(vec![vmap(vip_key(family), map, family)])));
    }
    for family in Family::BOTH {
        rules.extend(by_nodeport.map(|map| nodeport_rule(family, map)));
    }
    Chain::regular("services", rules)
}

fn nodeport_rule(family: Family, map: &str) -> Rule {
    Rule::new(vec![
        in_set(vec![Expression::DestinationAddress(family)], "nodeport-ips", family),
        vmap(nodeport_key(), map, family),
    ])
}

/// Rejects or drops what is for a Service without a usable endpoint.
fn service_endpoints_check() -> Chain {
    let rule = |family| Rule::new(vec![vmap(vip_key(family), "no-endpoint-services", family)]);
    Chain::regular("service-endpoints-check", Family::BOTH.map(rule).to_vec())
}

/// The same for NodePorts.
fn nodeport_endpoints_check() -> Chain {
    let rule = |family| nodeport_rule(family, "no-endpoint-nodeports");
    Chain::regular("nodeport-endpoints-check", Family::BOTH.map(rule).to_vec())
}

/// What still has a ClusterIP as its destination behind nat is for a port that no Service has; what
/// has another address of a ServiceCIDR is for nobody.
///
/// ```text
/// ip daddr @cluster-ips4 reject with icmp port-unreachable
/// ip daddr @service-cidrs4 drop
/// ```
fn cluster_ips_check() -> Chain {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        let daddr = || vec![Expression::DestinationAddress(family)];
        let reject = Statement::Reject(Reject::Family(family));
        rules.push(Rule::new(vec![in_set(daddr(), "cluster-ips", family), reject]));
        let drop = Statement::Verdict(Verdict::Drop);
        rules.push(Rule::new(vec![in_set(daddr(), "service-cidrs", family), drop]));
    }
    Chain::regular("cluster-ips-check", rules)
}

/// What [`LOCALHOST_CHAIN`] counts, in the order of its rules.
pub const REJECTED_AT_LOCALHOST: [(Family, Protocol); 4] = [
    (Family::V4, Protocol::Udp),
    (Family::V4, Protocol::Sctp),
    (Family::V6, Protocol::Udp),
    (Family::V6, Protocol::Sctp),
];

/// NodePorts on loopback addresses are served by a proxy in user space, for TCP only; other protocols
/// are counted and rejected. The sets are empty unless localhost NodePorts are asked for.
///
/// ```text
/// ip daddr @localhost-ips4 meta l4proto . th dport @localhost-nodeports4 meta l4proto udp counter packets 0 bytes 0 reject with icmp port-unreachable
/// ```
fn localhost_check() -> Chain {
    let rule = |(family, protocol): (Family, Protocol)| {
        Rule::new(vec![
            in_set(vec![Expression::DestinationAddress(family)], "localhost-ips", family),
            in_set(nodeport_key(), "localhost-nodeports", family),
            Statement::Match {
                expression: Expression::Protocol,
                constant: Constant::Protocol(protocol.number()),
                negated: false,
            },
            Statement::Counter,
            Statement::Reject(Reject::Family(family)),
        ])
    };
    Chain::regular(LOCALHOST_CHAIN, REJECTED_AT_LOCALHOST.map(rule).to_vec())
}

/// `meta l4proto { tcp, udp, sctp } ct original ip daddr . meta l4proto . ct original proto-dst`
fn original_vip(family: Family) -> Vec<Expression> {
    vec![
        Expression::CtOriginalDestination(family),
        Expression::Protocol,
        Expression::CtOriginalPort,
    ]
}

fn original_nodeport() -> Vec<Expression> {
    vec![Expression::Protocol, Expression::CtOriginalPort]
}

/// Decides from the original tuple of the connection, so that no mark is needed.
///
/// ```text
/// ct status ! dnat return
/// ip saddr . ip daddr @hairpin4 masquerade fully-random
/// ct original ip daddr @cluster-ips4 goto masquerade-cluster-ip
/// ... @masquerade-always4 masquerade fully-random
/// ... @masquerade-from-node4 fib saddr type local masquerade fully-random
/// ... and the same for NodePorts
/// ```
fn masquerading() -> Chain {
    let mut rules = vec![Rule::new(vec![
        Statement::Match {
            expression: Expression::CtStatus,
            constant: Constant::StatusDnat,
            negated: true,
        },
        Statement::Verdict(Verdict::Return),
    ])];
    let from_node = || matches(Expression::SourceAddressType, Constant::TypeLocal);
    for family in Family::BOTH {
        let to_itself =
            vec![Expression::SourceAddress(family), Expression::DestinationAddress(family)];
        rules.push(Rule::new(vec![in_set(to_itself, "hairpin", family), Statement::Masquerade]));
        let daddr = || vec![Expression::CtOriginalDestination(family)];
        rules.push(Rule::new(vec![
            in_set(daddr(), "cluster-ips", family),
            Statement::Verdict(Verdict::Goto("masquerade-cluster-ip".into())),
        ]));
        let by_address = |name: &str| {
            vec![Statement::ProtocolIn(TRANSPORTS), in_set(original_vip(family), name, family)]
        };
        let by_nodeport = |name: &str| {
            vec![
                in_set(daddr(), "nodeport-ips", family),
                Statement::ProtocolIn(TRANSPORTS),
                in_set(original_nodeport(), name, family),
            ]
        };
        for (always, from_node_only) in [
            (by_address("masquerade-always"), by_address("masquerade-from-node")),
            (
                by_nodeport("masquerade-always-nodeports"),
                by_nodeport("masquerade-from-node-nodeports"),
            ),
        ] {
            rules.push(Rule::new([always, vec![Statement::Masquerade]].concat()));
            rules.push(Rule::new(
                [from_node_only, vec![from_node(), Statement::Masquerade]].concat(),
            ));
        }
    }
    Chain::regular("masquerading", rules)
}

/// Session affinity: leads to the chain of the Service that remembers the chosen endpoint.
fn affinity_record() -> Chain {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        rules.push(Rule::new(vec![
            Statement::ProtocolIn(TRANSPORTS),
            vmap(original_vip(family), "remember-services", family),
        ]));
        rules.push(Rule::new(vec![
            in_set(vec![Expression::CtOriginalDestination(family)], "nodeport-ips", family),
            Statement::ProtocolIn(TRANSPORTS),
            vmap(original_nodeport(), "remember-nodeports", family),
        ]));
    }
    Chain::regular("affinity-record", rules)
}
