//! A packet on its way through small tables; and tables that make no sense, which the kernel would not take.

use nft_table::evaluate::{EvaluateError, Machine, Outcome, Packet, evaluate};
use nft_table::{
    BaseChain, Chain, ChainType, Constant, Data, DataType, Expression, Family, Hook, Key, Rule,
    Set, SetData, SetFlags, Statement, Table, Value, Verdict,
};
use std::collections::HashMap;
use std::net::Ipv4Addr;

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FRONTEND: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

/// A table whose first chain for packets that come in has a rule of these statements.
fn table(statements: Vec<Statement>) -> Table {
    let mut table = Table::new("t");
    let base = BaseChain { chain_type: ChainType::Nat, hook: Hook::Prerouting, priority: -100 };
    table.set_chain(Chain::base("incoming", base, vec![Rule::new(statements)]));
    table
}

fn add(table: &mut Table, name: &str, data: SetData, elements: Vec<(Key, Value)>) {
    let set = Set {
        name: name.into(),
        key: vec![DataType::Ipv4Address],
        data,
        flags: SetFlags::default(),
        type_of: None,
        size: None,
        counter: false,
    };
    let id = table.add_set(set).unwrap();
    table.replace_elements(id, elements).unwrap();
}

fn key(address: Ipv4Addr) -> Key {
    Key::builder().address(address.into()).build()
}

fn send(table: &Table) -> Result<Outcome, EvaluateError> {
    let packet = Packet {
        source: CLIENT.into(),
        destination: FRONTEND.into(),
        protocol: 6,
        source_port: None,
        port: 80,
        input: Some("eth0".into()),
    };
    let mut machine = Machine {
        is_local: &|_| false,
        random: &mut |below| below - 1,
        learned: &mut HashMap::new(),
    };
    evaluate(table, packet, &mut machine)
}

fn daddr() -> Vec<Expression> {
    vec![Expression::DestinationAddress(Family::V4)]
}

fn dnat() -> Statement {
    Statement::Dnat { family: Family::V4, key: daddr(), map: "map".into() }
}

fn verdict_map() -> Statement {
    Statement::VerdictMap { key: daddr(), map: "map".into() }
}

#[test]
fn a_packet_goes_where_a_map_sends_it() {
    let mut table = table(vec![dnat()]);
    let endpoint = Value::Data(Data::address_port(ENDPOINT.into(), 8080));
    let fields = vec![DataType::Ipv4Address, DataType::InetService];
    add(&mut table, "map", SetData::Fields(fields), vec![(key(FRONTEND), endpoint)]);
    let expected = Outcome::Passed {
        destination: ENDPOINT.into(),
        port: 8080,
        translated: true,
        masqueraded: false,
    };
    assert_eq!(send(&table), Ok(expected));
}

#[test]
fn an_element_says_what_becomes_of_a_packet() {
    let mut table = table(vec![verdict_map()]);
    let goto = Value::verdict(Verdict::Goto("refuse".into()), None);
    add(&mut table, "map", SetData::Verdict, vec![(key(FRONTEND), goto)]);
    assert_eq!(send(&table), Err(EvaluateError::NoChain("refuse".into())));
    let reject = Statement::Reject(nft_table::Reject::AnyFamily);
    table.set_chain(Chain::regular("refuse", vec![Rule::new(vec![reject])]));
    assert_eq!(send(&table), Ok(Outcome::Rejected));
    let map = table.set_id("map").unwrap();
    table.insert(map, key(FRONTEND), Value::verdict(Verdict::Drop, None)).unwrap();
    assert_eq!(send(&table), Ok(Outcome::Dropped));
}

#[test]
fn what_is_not_there_is_an_error() {
    assert_eq!(send(&table(vec![verdict_map()])), Err(EvaluateError::NoSet("map".into())));
    let jump = Statement::Verdict(Verdict::Jump("nowhere".into()));
    assert_eq!(send(&table(vec![jump])), Err(EvaluateError::NoChain("nowhere".into())));
}

#[test]
fn a_circle_is_an_error() {
    let jump = || Statement::Verdict(Verdict::Jump("circle".into()));
    let mut table = table(vec![jump()]);
    table.set_chain(Chain::regular("circle", vec![Rule::new(vec![jump()])]));
    assert_eq!(send(&table), Err(EvaluateError::Loop("circle".into())));
}

#[test]
fn a_key_of_another_set_is_an_error() {
    let longer = [daddr(), vec![Expression::Protocol]].concat();
    let mut table = table(vec![Statement::VerdictMap { key: longer, map: "map".into() }]);
    add(&mut table, "map", SetData::Verdict, Vec::new());
    assert_eq!(send(&table), Err(EvaluateError::Key { set: "map".into(), len: 8 }));
}

#[test]
fn a_key_of_what_no_set_has_is_an_error() {
    for expression in [Expression::CtState, Expression::Random(0)] {
        let look_up = Statement::VerdictMap { key: vec![expression], map: "map".into() };
        assert_eq!(send(&table(vec![look_up])), Err(EvaluateError::NoKey(expression)));
    }
}

#[test]
fn a_map_without_ports_translates_nothing() {
    let mut table = table(vec![dnat()]);
    let data = Value::Data(Data::new(&ENDPOINT.octets()).unwrap());
    let fields = vec![DataType::Ipv4Address];
    add(&mut table, "map", SetData::Fields(fields), vec![(key(FRONTEND), data)]);
    assert_eq!(send(&table), Err(EvaluateError::NoAddress("map".into())));
}

#[test]
fn a_comparison_of_different_things_is_an_error() {
    let (expression, constant) = (Expression::CtState, Constant::NoInterface);
    let compare = Statement::Match { expression, constant, negated: false };
    let error = send(&table(vec![compare])).unwrap_err();
    assert_eq!(error.to_string(), "ct state is not compared with 0");
}
