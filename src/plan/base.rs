//! The fixed part of table `inet kube-proxy`: base chains, rules, sets and maps that are the same for
//! one Service and for fifty thousand. `rulesets/base.nft` is this file in nft syntax.
//!
//! If you change anything here, running nodes replace their table at the next start: the kernel's
//! sets and chains are compared with these.

use crate::family::Family;
use crate::ruleset::{
    BaseChain, Chain, ChainType, Constant, DataType, Expression, Hook, Reject, Rule, Set, SetData,
    SetFlags, SetId, Statement, Table, Verdict,
};
use std::sync::Arc;

/// Name of the table, in family inet.
pub const TABLE: &str = "kube-proxy";

/// Protocols that a Service port can have. The match must stand before `ct original proto-dst` for
/// nft to parse its own listing.
const TRANSPORTS: &[u8] = &[6, 17, 132];

/// The chain that no-endpoint maps lead to: `reject` itself is not a verdict.
pub const REJECT_CHAIN: &str = "reject-connection";

/// The chain for external policy Local without an endpoint on this node.
pub const EXTERNAL_NONE_CHAIN: &str = "external-none";

/// The sets and maps of one family.
#[derive(Clone, Copy, Debug)]
pub struct FamilySets {
    pub service_ips: SetId,
    pub service_nodeports: SetId,
    pub short_circuit_services: SetId,
    pub short_circuit_nodeports: SetId,
    pub no_endpoint_services: SetId,
    pub no_endpoint_nodeports: SetId,
    pub remember_services: SetId,
    pub remember_nodeports: SetId,
    pub cluster_endpoints: SetId,
    pub nodeport_cluster_endpoints: SetId,
    pub local_endpoints: SetId,
    pub nodeport_local_endpoints: SetId,
    pub cluster_ips: SetId,
    pub nodeport_ips: SetId,
    pub service_cidrs: SetId,
    pub pod_sources: SetId,
    pub unmasqueraded_sources: SetId,
    pub masquerade_always: SetId,
    pub masquerade_always_nodeports: SetId,
    pub masquerade_from_node: SetId,
    pub masquerade_from_node_nodeports: SetId,
    pub hairpin: SetId,
    pub restricted_services: SetId,
    pub allowed_sources: SetId,
    pub localhost_ips: SetId,
    pub localhost_nodeports: SetId,
}

/// All fixed sets and maps.
#[derive(Clone, Copy, Debug)]
pub struct Sets {
    v4: FamilySets,
    v6: FamilySets,
    pub pod_interfaces: SetId,
    pub unmasqueraded_interfaces: SetId,
}

impl Sets {
    pub fn of(&self, family: Family) -> &FamilySets {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// The table without any Service.
pub fn table() -> (Table, Sets) {
    let mut table = Table::new(TABLE);
    let v4 = add_family_sets(&mut table, Family::V4);
    let v6 = add_family_sets(&mut table, Family::V6);
    let mut interfaces =
        |name: &str| table.add_set(set(name, &[DataType::InterfaceName], SetData::None, true));
    let pod_interfaces = interfaces("pod-interfaces");
    let unmasqueraded_interfaces = interfaces("unmasqueraded-interfaces");
    for chain in chains() {
        table.set_chain(chain);
    }
    (table, Sets { v4, v6, pod_interfaces, unmasqueraded_interfaces })
}

/// The digit that the names of a family's sets end in.
fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// The name of a set that exists once per family.
pub fn set_name(name: &str, family: Family) -> Arc<str> {
    format!("{name}{}", digit(family)).into()
}

/// The type of addresses of a family.
pub fn address_type(family: Family) -> DataType {
    match family {
        Family::V4 => DataType::Ipv4Address,
        Family::V6 => DataType::Ipv6Address,
    }
}

fn set(name: &str, key: &[DataType], data: SetData, interval: bool) -> Set {
    Set {
        name: name.into(),
        key: key.to_vec(),
        data,
        flags: SetFlags { interval, dynamic: false },
        type_of: None,
        size: None,
    }
}

fn add_family_sets(table: &mut Table, family: Family) -> FamilySets {
    use DataType::{InetProto, InetService, Slot};
    let address = address_type(family);
    let (vip, nodeport) = ([address, InetProto, InetService], [InetProto, InetService]);
    let mut add = |name: &str, key: &[DataType], data: SetData, interval: bool| {
        table.add_set(set(&set_name(name, family), key, data, interval))
    };
    let mut verdicts = |name: &str, key: &[DataType]| add(name, key, SetData::Verdict, false);
    let service_ips = verdicts("service-ips", &vip);
    let service_nodeports = verdicts("service-nodeports", &nodeport);
    let short_circuit_services = verdicts("short-circuit-services", &vip);
    let short_circuit_nodeports = verdicts("short-circuit-nodeports", &nodeport);
    let no_endpoint_services = verdicts("no-endpoint-services", &vip);
    let no_endpoint_nodeports = verdicts("no-endpoint-nodeports", &nodeport);
    let remember_services = verdicts("remember-services", &vip);
    let remember_nodeports = verdicts("remember-nodeports", &nodeport);

    let backend = SetData::Fields(vec![address, InetService]);
    let mut add_slots = |name: &str, key: &[DataType], expressions: Vec<Expression>| {
        let mut slots = set(&set_name(name, family), key, backend.clone(), false);
        // The number after mod only tells nft that the field is a slot number.
        let key = [expressions, vec![Expression::Random(2)]].concat();
        let data = vec![Expression::DestinationAddress(family), Expression::DestinationPort];
        slots.type_of = Some((key, data));
        table.add_set(slots)
    };
    let (vip_slot, nodeport_slot) =
        ([address, InetProto, InetService, Slot], [InetProto, InetService, Slot]);
    let cluster_endpoints = add_slots("cluster-endpoints", &vip_slot, vip_key(family));
    let nodeport_cluster_endpoints =
        add_slots("nodeport-cluster-endpoints", &nodeport_slot, nodeport_key());
    let local_endpoints = add_slots("local-endpoints", &vip_slot, vip_key(family));
    let nodeport_local_endpoints =
        add_slots("nodeport-local-endpoints", &nodeport_slot, nodeport_key());

    let mut add = |name: &str, key: &[DataType], interval: bool| {
        table.add_set(set(&set_name(name, family), key, SetData::None, interval))
    };
    FamilySets {
        service_ips,
        service_nodeports,
        short_circuit_services,
        short_circuit_nodeports,
        no_endpoint_services,
        no_endpoint_nodeports,
        remember_services,
        remember_nodeports,
        cluster_endpoints,
        nodeport_cluster_endpoints,
        local_endpoints,
        nodeport_local_endpoints,
        cluster_ips: add("cluster-ips", &[address], false),
        nodeport_ips: add("nodeport-ips", &[address], true),
        service_cidrs: add("service-cidrs", &[address], true),
        pod_sources: add("pod-sources", &[address], true),
        unmasqueraded_sources: add("unmasqueraded-sources", &[address], true),
        masquerade_always: add("masquerade-always", &vip, false),
        masquerade_always_nodeports: add("masquerade-always-nodeports", &nodeport, false),
        masquerade_from_node: add("masquerade-from-node", &vip, false),
        masquerade_from_node_nodeports: add("masquerade-from-node-nodeports", &nodeport, false),
        hairpin: add("hairpin", &[address, address], false),
        restricted_services: add("restricted-services", &vip, false),
        allowed_sources: add("allowed-sources", &[address, InetProto, InetService, address], true),
        localhost_ips: add("localhost-ips", &[address], true),
        localhost_nodeports: add("localhost-nodeports", &nodeport, false),
    }
}

/// `ip daddr . meta l4proto . th dport`: a frontend by address.
pub fn vip_key(family: Family) -> Vec<Expression> {
    vec![Expression::DestinationAddress(family), Expression::Protocol, Expression::DestinationPort]
}

/// `meta l4proto . th dport`: a NodePort.
pub fn nodeport_key() -> Vec<Expression> {
    vec![Expression::Protocol, Expression::DestinationPort]
}

fn chains() -> Vec<Chain> {
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
                if_new("localhost-check"),
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

/// NodePorts on loopback addresses are served by a proxy in user space, for TCP only; other protocols
/// are rejected. The sets are empty unless localhost NodePorts are asked for.
///
/// ```text
/// ip daddr @localhost-ips4 meta l4proto . th dport @localhost-nodeports4 reject with icmp port-unreachable
/// ```
fn localhost_check() -> Chain {
    let rule = |family| {
        Rule::new(vec![
            in_set(vec![Expression::DestinationAddress(family)], "localhost-ips", family),
            in_set(nodeport_key(), "localhost-nodeports", family),
            Statement::Reject(Reject::Family(family)),
        ])
    };
    Chain::regular("localhost-check", Family::BOTH.map(rule).to_vec())
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

impl FamilySets {
    /// Whether the key of a set begins with protocol and port: that of a NodePort.
    pub fn is_by_nodeport(&self, set: SetId) -> bool {
        [
            self.service_nodeports,
            self.short_circuit_nodeports,
            self.no_endpoint_nodeports,
            self.remember_nodeports,
            self.nodeport_cluster_endpoints,
            self.nodeport_local_endpoints,
            self.masquerade_always_nodeports,
            self.masquerade_from_node_nodeports,
            self.localhost_nodeports,
        ]
        .contains(&set)
    }

    /// Whether the key of a set begins with the address, protocol and port of a frontend.
    pub fn is_by_address(&self, set: SetId) -> bool {
        [
            self.service_ips,
            self.short_circuit_services,
            self.no_endpoint_services,
            self.remember_services,
            self.cluster_endpoints,
            self.local_endpoints,
            self.masquerade_always,
            self.masquerade_from_node,
            self.restricted_services,
            self.allowed_sources,
        ]
        .contains(&set)
    }
}
