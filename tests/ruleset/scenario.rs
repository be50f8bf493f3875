//! A base table with something of everything in it.

use nft_table::Family;
use nft_table::{
    Chain, Constant, Data, DataType, Expression, Key, Rule, Set, SetData, SetFlags, Statement,
    Table, Value, Verdict,
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
    table.add_set(Set {
        name: map.as_str().into(),
        key: vec![address],
        data: SetData::Fields(vec![address, DataType::InetService]),
        flags: SetFlags { interval: false, dynamic: true },
        type_of: Some((vec![Expression::SourceAddress(family)], data.clone())),
        size: Some(65_535),
    });
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

/// Services, networks, interfaces and an affinity in the base table.
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
        table.insert(id, key, value);
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
        insert(&set("no-endpoint-nodeports"), nodeport, drop);
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
        ("unmasqueraded-sources4", "0.0.0.0/0"),
        ("unmasqueraded-sources6", "::/0"),
        ("nodeport-ips4", "192.0.2.1/32"),
        ("nodeport-ips6", "2001:db8::1/128"),
    ];
    for (set, network) in networks {
        insert(set, Key::builder().network(network.parse().unwrap()), Value::Member);
    }
    let interface = Key::builder().interface("cni0").to(Key::builder().interface("cni0"));
    insert("pod-interfaces", interface, Value::Member);
    insert("pod-interfaces", Key::builder().interface_prefix("veth"), Value::Member);
    let frontend = || Key::builder().address(ip("203.0.113.7")).protocol(6).port(443);
    insert("restricted-services4", frontend().build(), Value::Member);
    for network in ["198.51.100.0/24", "192.0.2.9/32"] {
        let key = frontend().network(network.parse().unwrap());
        insert("allowed-sources4", key, Value::Member);
    }
    affinity(table, Family::V4, "shop/cart/tcp/http");
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
        table.insert(frontends, key().build(), Value::verdict(verdict, comment));
        for slot in 0..10 {
            let endpoint = Ipv4Addr::from(0x0af4_0000 + service * 10 + slot);
            let data = Value::Data(Data::address_port(endpoint.into(), 8080));
            table.insert(slots, key().slot(slot).build(), data);
        }
    }
}
