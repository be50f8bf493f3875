//! A small table with something of everything, for the tests of this crate: `10.96.0.1:80` leads to one of its
//! slots, clients that came before go where they were, and one network is kept out.

use crate::{
    BaseChain, Chain, ChainType, Constant, DataType, Expression, Family, Hook, Key, KeyBuilder,
    Reject, Rule, Set, SetData, SetFlags, SetId, Statement, Table, Value, Verdict,
};
use std::net::Ipv4Addr;

/// The table, and the sets that tests put elements into.
pub struct Example {
    pub table: Table,
    /// Address, protocol and port to a verdict.
    pub frontends: SetId,
    /// The same with a slot number to an endpoint.
    pub slots: SetId,
}

pub fn frontend(number: u32) -> KeyBuilder {
    Key::builder().address(Ipv4Addr::from(0x0a60_0000 + number).into()).protocol(6).port(80)
}

/// No frontend and no slot yet.
pub fn example() -> Example {
    use DataType::{InetProto, InetService, InterfaceName, Ipv4Address, Slot};
    let v4 = Family::V4;
    let daddr = || Expression::DestinationAddress(v4);
    let vip = || vec![daddr(), Expression::Protocol, Expression::DestinationPort];
    let slot = || [vip(), vec![Expression::Random(2)]].concat();
    let endpoint = || vec![daddr(), Expression::DestinationPort];
    let mut table = Table::new("example");
    let mut add = |name: &str, key: &[DataType], data, interval, type_of| {
        let flags = SetFlags { interval, dynamic: false, timeout: false };
        table
            .add_set(Set {
                name: name.into(),
                key: key.to_vec(),
                data,
                flags,
                type_of,
                size: None,
                counter: false,
            })
            .unwrap()
    };
    let fields = || SetData::Fields(vec![Ipv4Address, InetService]);
    let frontends =
        add("frontends", &[Ipv4Address, InetProto, InetService], SetData::Verdict, false, None);
    let slot_key = [Ipv4Address, InetProto, InetService, Slot];
    let slots = add("slots", &slot_key, fields(), false, Some((slot(), endpoint())));
    add("networks", &[Ipv4Address], SetData::None, true, None);
    add("interfaces", &[InterfaceName], SetData::None, true, None);
    add("allowed", &[InetService, Ipv4Address], SetData::None, true, None);
    table
        .add_set(Set {
            name: "clients".into(),
            key: vec![Ipv4Address],
            data: fields(),
            flags: SetFlags { interval: false, dynamic: true, timeout: true },
            type_of: Some((vec![Expression::SourceAddress(v4)], endpoint())),
            size: Some(1000),
            counter: false,
        })
        .unwrap();

    for (name, timeout) in [("rates", true), ("connections", false)] {
        table
            .add_set(Set {
                name: name.into(),
                key: vec![Ipv4Address],
                data: SetData::None,
                flags: SetFlags { interval: false, dynamic: true, timeout },
                type_of: None,
                size: Some(1000),
                counter: false,
            })
            .unwrap();
    }

    let saddr = || vec![Expression::SourceAddress(v4)];
    let goto = |chain: &str| Statement::Verdict(Verdict::Goto(chain.into()));
    let dnat = |key, map: &str| Statement::Dnat { family: v4, key, map: map.into() };
    let not_translated = Statement::Match {
        expression: Expression::CtStatus,
        constant: Constant::StatusDnat,
        negated: true,
    };
    let base = |hook, priority| BaseChain { chain_type: ChainType::Nat, hook, priority };
    let outside = Statement::InSet { key: saddr(), set: "networks".into(), negated: true };
    let remember = Statement::Update {
        map: "clients".into(),
        key: saddr(),
        data: endpoint(),
        timeout_seconds: 60,
    };
    let over = [
        Statement::RateOver {
            set: "rates".into(),
            key: saddr(),
            per_second: 20,
            burst: 40,
            timeout_seconds: 60,
        },
        Statement::ConnectionsOver { set: "connections".into(), key: saddr(), most: 100 },
    ];
    let over = over.map(|over| Rule::new(vec![over, goto("refuse")])).into();
    for chain in [
        Chain::regular("limits", over),
        Chain::regular(
            "refuse",
            vec![Rule::new(vec![Statement::Counter, Statement::Reject(Reject::AnyFamily)])],
        ),
        Chain::regular("balance-2", vec![Rule::new(vec![dnat(slot(), "slots")])]),
        Chain::regular(
            "sticky",
            vec![Rule::new(vec![dnat(saddr(), "clients")]), Rule::new(vec![goto("balance-2")])],
        ),
        Chain::base(
            "incoming",
            base(Hook::Prerouting, -100),
            vec![
                Rule::new(vec![outside, Statement::Verdict(Verdict::Drop)]),
                Rule::new(vec![Statement::VerdictMap { key: vip(), map: "frontends".into() }]),
            ],
        ),
        Chain::base(
            "leaving",
            base(Hook::Postrouting, 100),
            vec![
                Rule::new(vec![not_translated, Statement::Verdict(Verdict::Return)]),
                Rule::new(vec![remember]),
                Rule::new(vec![Statement::ProtocolIn(&[6, 17]), Statement::Masquerade]),
            ],
        ),
    ] {
        table.set_chain(chain);
    }
    Example { table, frontends, slots }
}

/// A frontend that leads to this many slots.
pub fn with_slots(count: u32) -> Example {
    let mut example = example();
    let verdict = Value::verdict(Verdict::Goto("balance-2".into()), Some("web".into()));
    example.table.insert(example.frontends, frontend(1).build(), verdict).unwrap();
    for slot in 0..count {
        let endpoint = Ipv4Addr::from(0x0af4_0000 + slot).into();
        let data = Value::Data(crate::Data::address_port(endpoint, 8080));
        example.table.insert(example.slots, frontend(1).slot(slot).build(), data).unwrap();
    }
    example
}
