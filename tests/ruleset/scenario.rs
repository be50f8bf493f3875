//! A table with something of everything in it: every kind of set, every statement, base chains.

use nft_table::{
    BaseChain, Chain, ChainType, Constant, Data, DataType, Expression, Family, Hook, Key, Reject,
    Rule, Set, SetData, SetFlags, Statement, Table, Value, Verdict,
};
use std::net::{IpAddr, Ipv4Addr};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn vip(address: &str, port: u16) -> Key {
    Key::builder().address(ip(address)).protocol(6).port(port).build()
}

fn vip_slot(address: &str, port: u16, slot: u32) -> Key {
    Key::builder().address(ip(address)).protocol(6).port(port).slot(slot).build()
}

/// Name of the table.
pub const TABLE: &str = "kube-proxy";

fn digit(family: Family) -> char {
    if family == Family::V4 { '4' } else { '6' }
}

/// A set without flags that is declared by types alone.
fn plain(name: String, key: &[DataType], data: SetData) -> Set {
    let flags = SetFlags::default();
    Set {
        name: name.into(),
        key: key.to_vec(),
        data,
        flags,
        type_of: None,
        size: None,
        counter: false,
    }
}

/// Each element counts.
fn counted(set: Set) -> Set {
    Set { counter: true, ..set }
}

fn interval(name: String, key: &[DataType]) -> Set {
    Set {
        flags: SetFlags { interval: true, dynamic: false, timeout: false },
        ..plain(name, key, SetData::None)
    }
}

/// The table without elements.
pub fn table() -> Table {
    use DataType::{InetProto, InetService, InterfaceName, Ipv4Address, Ipv6Address, Slot};
    let mut table = Table::new(TABLE);
    for family in Family::BOTH {
        let address = if family == Family::V4 { Ipv4Address } else { Ipv6Address };
        let name = |name: &str| format!("{name}{}", digit(family));
        let (vip, nodeport) = ([address, InetProto, InetService], [InetProto, InetService]);
        let daddr = Expression::DestinationAddress(family);
        let port = || vec![Expression::Protocol, Expression::DestinationPort];
        let slots = |name: String, key: &[DataType], start: Vec<Expression>| Set {
            type_of: Some((
                [start, vec![Expression::Random(2)]].concat(),
                vec![daddr, Expression::DestinationPort],
            )),
            ..plain(name, &[key, &[Slot]].concat(), SetData::Fields(vec![address, InetService]))
        };
        for set in [
            plain(name("service-ips"), &vip, SetData::Verdict),
            counted(plain(name("service-nodeports"), &nodeport, SetData::Verdict)),
            slots(name("cluster-endpoints"), &vip, [vec![daddr], port()].concat()),
            slots(name("local-endpoints"), &vip, [vec![daddr], port()].concat()),
            counted(slots(name("nodeport-cluster-endpoints"), &nodeport, port())),
            plain(name("cluster-ips"), &[address], SetData::None),
            plain(name("hairpin"), &[address, address], SetData::None),
            counted(plain(name("restricted-services"), &vip, SetData::None)),
            interval(name("nodeport-ips"), &[address]),
            interval(name("service-cidrs"), &[address]),
            interval(name("pod-sources"), &[address]),
            interval(name("everybody"), &[address]),
            interval(name("allowed-sources"), &[&vip[..], &[address]].concat()),
        ] {
            table.add_set(set).unwrap();
        }
    }
    table.add_set(interval("pod-interfaces".into(), &[InterfaceName])).unwrap();
    for chain in chains() {
        table.set_chain(chain);
    }
    table
}

fn chains() -> Vec<Chain> {
    use Statement::{Counter, Masquerade};
    let verdict = |verdict| Statement::Verdict(verdict);
    let matches =
        |expression, constant, negated| Statement::Match { expression, constant, negated };
    let v4 = Family::V4;
    let set = |key: &[Expression], name: &str, negated| Statement::InSet {
        key: key.to_vec(),
        set: name.into(),
        negated,
    };
    let network = |text: &str| Constant::Network(text.parse().unwrap());
    let (saddr, daddr) = (Expression::SourceAddress(v4), Expression::DestinationAddress(v4));
    let vip = [daddr, Expression::Protocol, Expression::DestinationPort];
    let saddr6 = Expression::SourceAddress(Family::V6);
    let rules = |rules: Vec<Vec<Statement>>| rules.into_iter().map(Rule::new).collect();
    let tcp = matches(Expression::Protocol, Constant::Protocol(6), false);
    let reject = vec![
        vec![tcp, Statement::Reject(Reject::TcpReset)],
        vec![Statement::Reject(Reject::Family(Family::V6))],
        vec![Counter, Statement::Reject(Reject::AnyFamily)],
    ];
    let local = |expression, negated| matches(expression, Constant::TypeLocal, negated);
    let pods = vec![
        vec![set(&[saddr], "pod-sources4", false), verdict(Verdict::Return)],
        vec![set(&[Expression::InputInterface], "pod-interfaces", false), verdict(Verdict::Accept)],
        vec![matches(saddr, network("10.244.0.0/16"), false), verdict(Verdict::Accept)],
        vec![matches(saddr, network("10.128.0.0/9"), true), verdict(Verdict::Drop)],
        vec![matches(daddr, network("192.0.2.1/32"), false), verdict(Verdict::Accept)],
        vec![matches(saddr6, network("fd00:10:244::/56"), false), verdict(Verdict::Accept)],
        vec![matches(saddr6, network("fd00:10:244::/61"), false), verdict(Verdict::Accept)],
        vec![
            matches(Expression::InputInterface, Constant::Interface("cni0".into()), false),
            verdict(Verdict::Return),
        ],
        vec![
            matches(Expression::OutputInterface, Constant::InterfacePrefix("cali".into()), true),
            local(Expression::SourceAddressType, true),
            verdict(Verdict::Return),
        ],
        vec![Masquerade],
    ];
    let original =
        [Expression::CtOriginalDestination(v4), Expression::Protocol, Expression::CtOriginalPort];
    let leaving = vec![
        vec![matches(Expression::CtStatus, Constant::StatusDnat, true), verdict(Verdict::Accept)],
        vec![set(&[saddr, daddr], "hairpin4", false), Masquerade],
        vec![
            Statement::ProtocolIn(&[6, 17, 132]),
            set(&original, "restricted-services4", false),
            verdict(Verdict::Jump("pods".into())),
        ],
    ];
    let services = vec![
        vec![
            set(&vip, "restricted-services4", false),
            set(&[&vip[..], &[saddr]].concat(), "allowed-sources4", true),
            verdict(Verdict::Drop),
        ],
        vec![Statement::VerdictMap { key: vip.into(), map: "service-ips4".into() }],
        vec![
            set(&[daddr], "cluster-ips4", false),
            local(Expression::DestinationAddressType, true),
            verdict(Verdict::Goto("reject-connection".into())),
        ],
    ];
    let nat = |hook, priority| BaseChain { chain_type: ChainType::Nat, hook, priority };
    let filter = BaseChain { chain_type: ChainType::Filter, hook: Hook::Forward, priority: 0 };
    let new = matches(Expression::CtState, Constant::StateNew, false);
    vec![
        Chain::regular("reject-connection", rules(reject)),
        Chain::regular("external-none", rules(vec![vec![verdict(Verdict::Drop)]])),
        Chain::regular("pods", rules(pods)),
        Chain::regular("services", rules(services)),
        Chain::base("forward", filter, rules(vec![vec![new, verdict(Verdict::Accept)]])),
        Chain::base(
            "prerouting",
            nat(Hook::Prerouting, -100),
            rules(vec![vec![verdict(Verdict::Jump("services".into()))]]),
        ),
        Chain::base("postrouting", nat(Hook::Postrouting, 100), rules(leaving)),
    ]
}

/// `dnat ip to ip daddr . meta l4proto . th dport . numgen random mod N map @cluster-endpoints4`
fn balancing(family: Family, modulus: u32, map: &str) -> Rule {
    let key = vec![
        Expression::DestinationAddress(family),
        Expression::Protocol,
        Expression::DestinationPort,
        Expression::Random(modulus),
    ];
    Rule::new(vec![Statement::Dnat { family, key, map: map.into() }])
}

fn family_match(family: Family) -> Statement {
    Statement::Match {
        expression: Expression::NetworkFamily,
        constant: Constant::Family(family),
        negated: false,
    }
}

/// `goto CHAIN`, as map data.
pub fn goto(chain: &str) -> Value {
    Value::verdict(Verdict::Goto(chain.into()), None)
}

/// The map and the chains of one Service with ClientIP affinity.
pub fn affinity(table: &mut Table, family: Family, name: &str) {
    let (address, digit) = match family {
        Family::V4 => (DataType::Ipv4Address, 4),
        Family::V6 => (DataType::Ipv6Address, 6),
    };
    let map = format!("affinity{digit}-{name}-cluster");
    let data = vec![Expression::DestinationAddress(family), Expression::DestinationPort];
    let map_declaration = Set {
        name: map.as_str().into(),
        key: vec![address],
        data: SetData::Fields(vec![address, DataType::InetService]),
        flags: SetFlags { interval: false, dynamic: true, timeout: true },
        type_of: Some((vec![Expression::SourceAddress(family)], data.clone())),
        size: None,
        counter: false,
    };
    table.add_set(map_declaration).unwrap();
    let update = Statement::Update {
        map: map.as_str().into(),
        key: vec![Expression::SourceAddress(family)],
        data,
        timeout_seconds: 10_800,
    };
    let remember = format!("affinity{digit}-{name}-remember");
    table.set_chain(Chain::regular(remember, vec![Rule::new(vec![update])]));
    let tcp = Statement::Match {
        expression: Expression::Protocol,
        constant: Constant::Protocol(6),
        negated: false,
    };
    let dnat = Statement::Dnat {
        family,
        key: vec![Expression::SourceAddress(family)],
        map: map.as_str().into(),
    };
    let goto = Statement::Verdict(Verdict::Goto("cluster-2".into()));
    table.set_chain(Chain::regular(map, vec![Rule::new(vec![tcp, dnat]), Rule::new(vec![goto])]));
}

/// The sets and the chain of one Service with limits.
pub fn limits(table: &mut Table, family: Family, name: &str) {
    let (address, digit) = match family {
        Family::V4 => (DataType::Ipv4Address, 4),
        Family::V6 => (DataType::Ipv6Address, 6),
    };
    let set = |role: &str| format!("limits{digit}-{name}/{role}");
    for (role, timeout) in [("new", true), ("open", false)] {
        let flags = SetFlags { interval: false, dynamic: true, timeout };
        let set = Set { flags, size: Some(1000), ..plain(set(role), &[address], SetData::None) };
        table.add_set(set).unwrap();
    }
    let key = || vec![Expression::SourceAddress(family)];
    let over = [
        Statement::RateOver {
            set: set("new").into(),
            key: key(),
            per_second: 20,
            burst: 40,
            timeout_seconds: 60,
        },
        Statement::ConnectionsOver { set: set("open").into(), key: key(), most: 100 },
    ];
    let refuse = || vec![Statement::Counter, Statement::Verdict(Verdict::Drop)];
    let rules = over.map(|over| Rule::new([vec![over], refuse()].concat())).into();
    table.set_chain(Chain::regular(set("over"), rules));
}

/// Services, networks, interfaces, an affinity and limits.
pub fn fill(table: &mut Table) {
    for count in [1, 2] {
        let rules = vec![
            balancing(Family::V4, count, "cluster-endpoints4"),
            balancing(Family::V4, 1, "cluster-endpoints4"),
            balancing(Family::V6, count, "cluster-endpoints6"),
            balancing(Family::V6, 1, "cluster-endpoints6"),
        ];
        table.set_chain(Chain::regular(format!("cluster-{count}"), rules));
        let nodeport = |family, digit: u8| {
            let key =
                vec![Expression::Protocol, Expression::DestinationPort, Expression::Random(count)];
            let map = format!("nodeport-cluster-endpoints{digit}").as_str().into();
            Rule::new(vec![family_match(family), Statement::Dnat { family, key, map }])
        };
        let rules = vec![nodeport(Family::V4, 4), nodeport(Family::V6, 6)];
        table.set_chain(Chain::regular(format!("nodeport-cluster-{count}"), rules));
    }
    let mut insert = |set: &str, key: Key, value: Value| {
        let id = table.set_id(set).unwrap();
        table.insert(id, key, value).unwrap();
    };
    let goto = |chain: &str| Verdict::Goto(chain.into());
    let frontend = |chain: &str, comment: &str| Value::verdict(goto(chain), Some(comment.into()));
    for (digit, address, endpoints) in [
        (4, "10.96.0.10", ["10.244.0.11", "10.244.0.12"]),
        (6, "fd00:10:96::a", ["fd00:10:244::11", "fd00:10:244::12"]),
    ] {
        let set = |name: &str| format!("{name}{digit}");
        insert(&set("service-ips"), vip(address, 80), frontend("cluster-2", "default/web:http"));
        insert(&set("cluster-ips"), Key::builder().address(ip(address)).build(), Value::Member);
        for (slot, endpoint) in endpoints.iter().enumerate() {
            let data = Value::Data(Data::address_port(ip(endpoint), 8080));
            insert(&set("cluster-endpoints"), vip_slot(address, 80, slot as u32), data);
            let pair = Key::builder().address(ip(endpoint)).address(ip(endpoint)).build();
            insert(&set("hairpin"), pair, Value::Member);
        }
        let nodeport = Key::builder().protocol(17).port(30_053).build();
        let drop = Value::verdict(Verdict::Drop, None);
        insert(&set("service-nodeports"), nodeport, drop);
        let jump = Value::verdict(Verdict::Jump("external-none".into()), Some("naïve/x:y".into()));
        insert(&set("service-ips"), vip(address, 443), jump);
    }
    let networks = [
        ("service-cidrs4", "10.96.0.0/16"),
        ("service-cidrs6", "fd00:10:96::/112"),
        // Side by side, the whole of it, its end, a single address.
        ("pod-sources4", "10.244.0.0/24"),
        ("pod-sources4", "10.244.1.0/24"),
        ("pod-sources4", "0.0.0.0/8"),
        ("pod-sources4", "255.255.255.255/32"),
        ("pod-sources4", "192.0.2.7/32"),
        ("everybody4", "0.0.0.0/0"),
        ("everybody6", "::/0"),
        ("nodeport-ips4", "192.0.2.1/32"),
        ("nodeport-ips6", "2001:db8::1/128"),
    ];
    for (set, network) in networks {
        insert(set, Key::builder().network(network.parse().unwrap()), Value::Member);
    }
    let interface = Key::builder().interface("cni0").unwrap();
    insert("pod-interfaces", interface.clone().to(interface), Value::Member);
    let prefix = Key::builder().interface_prefix("veth").unwrap();
    insert("pod-interfaces", prefix, Value::Member);
    let frontend = || Key::builder().address(ip("203.0.113.7")).protocol(6).port(443);
    insert("restricted-services4", frontend().build(), Value::Member);
    for network in ["198.51.100.0/24", "192.0.2.9/32"] {
        let key = frontend().network(network.parse().unwrap());
        insert("allowed-sources4", key, Value::Member);
    }
    affinity(table, Family::V4, "shop/cart/tcp/http");
    limits(table, Family::V4, "shop/api/tcp/http");
    limits(table, Family::V6, "shop/api/tcp/http");
}

/// That many elements: frontends with ten endpoints each.
pub fn fill_slots(table: &mut Table, elements: u32) {
    table.set_chain(Chain::regular("cluster-10", vec![]));
    let frontends = table.set_id("service-ips4").unwrap();
    let slots = table.set_id("cluster-endpoints4").unwrap();
    for service in 0..elements.div_ceil(11) {
        let address = IpAddr::from(Ipv4Addr::from(0x0a60_0000 + service));
        let key = || Key::builder().address(address).protocol(6).port(80);
        let comment = Some(format!("namespace/service-{service}:http").into());
        let verdict = Verdict::Goto("cluster-10".into());
        table.insert(frontends, key().build(), Value::verdict(verdict, comment)).unwrap();
        for slot in 0..10 {
            let endpoint = Ipv4Addr::from(0x0af4_0000 + service * 10 + slot);
            let data = Value::Data(Data::address_port(endpoint.into(), 8080));
            table.insert(slots, key().slot(slot).build(), data).unwrap();
        }
    }
}
