//! What a table takes and what it refuses, and what comes of what nobody asked for.

use super::model::Model;
use crate::example::{example, frontend, with_slots};
use crate::{
    BaseChain, Chain, ChainType, Data, Hook, Key, Operation, ShapeError, Table, TableError, Value,
    Verdict,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is wrong with the shape of an element.
fn cause(result: Result<(), TableError>) -> ShapeError {
    match result {
        Err(TableError::Shape { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

fn drop_with(comment: &str) -> Value {
    Value::verdict(Verdict::Drop, Some(comment.into()))
}

#[test]
fn a_set_of_a_taken_name_is_refused_until_the_other_is_removed() {
    let mut example = example();
    let table = &mut example.table;
    let set = table.set(example.frontends).unwrap().clone();
    assert_eq!(table.add_set(set.clone()), Err(TableError::SetExists("frontends".into())));
    table.remove_set(example.frontends);
    let again = table.add_set(set).unwrap();
    assert_ne!(again, example.frontends);
    assert_eq!(table.set_id("frontends"), Some(again));
}

#[test]
fn a_set_that_cannot_be_is_refused() {
    let mut table = example().table;
    let there = table.set(table.set_id("slots").unwrap()).unwrap().clone();
    let count = table.sets().count();
    let mut refused = |change: fn(&mut crate::Set)| {
        let mut set = there.clone();
        set.name = "new".into();
        change(&mut set);
        let refused = table.add_set(set);
        assert!(matches!(refused, Err(TableError::Shape { .. })), "{refused:?}");
        assert_eq!(table.sets().count(), count);
    };
    refused(|set| set.name = "".into());
    refused(|set| set.name = "n\0".into());
    refused(|set| set.name = "n".repeat(256).into());
    refused(|set| set.key.clear());
    refused(|set| set.key = vec![set.key[0]; 6]);
    refused(|set| set.data = crate::SetData::Fields(vec![crate::DataType::Ipv6Address; 2]));
    refused(|set| set.type_of.as_mut().unwrap().0.truncate(1));
}

#[test]
fn elements_of_another_shape_are_refused() {
    let mut example = with_slots(1);
    let (frontends, slots) = (example.frontends, example.slots);
    let table = &mut example.table;
    let before = table.to_string();
    let [networks, allowed] = ["networks", "allowed"].map(|name| table.set_id(name).unwrap());
    let address = |last: u8| Key::builder().address(Ipv4Addr::new(10, 0, 0, last).into());
    let data = |address: IpAddr| Value::Data(Data::address_port(address, 80));
    let v6 = Key::builder().address(Ipv6Addr::LOCALHOST.into());

    let refused = table.insert(frontends, address(1).build(), drop_with("short"));
    assert_eq!(cause(refused), ShapeError::Key { len: 4, expected: 12 });
    let refused = table.insert(networks, address(1).build(), Value::Member);
    assert_eq!(cause(refused), ShapeError::Key { len: 4, expected: 8 });
    let refused = table.insert(networks, v6.clone().to(v6), Value::Member);
    assert_eq!(cause(refused), ShapeError::Key { len: 32, expected: 8 });
    let refused = table.insert(networks, address(2).to(address(1)), Value::Member);
    assert_eq!(cause(refused), ShapeError::Range);
    // Each field of a range counts, and not the whole of it.
    let port = |port, last| Key::builder().port(port).address(Ipv4Addr::new(10, 0, 0, last).into());
    let refused = table.insert(allowed, port(80, 9).to(port(90, 1)), Value::Member);
    assert_eq!(cause(refused), ShapeError::Range);

    let slot = || frontend(1).slot(7).build();
    let v6_data = data(Ipv6Addr::LOCALHOST.into());
    let refused = table.insert(slots, slot(), v6_data);
    assert_eq!(cause(refused), ShapeError::Data { len: 20, expected: 8 });
    for value in [Value::Member, drop_with("a verdict")] {
        assert_eq!(cause(table.insert(slots, slot(), value)), ShapeError::Value);
    }
    for value in [Value::Member, data(Ipv4Addr::LOCALHOST.into())] {
        assert_eq!(cause(table.insert(frontends, frontend(9).build(), value)), ShapeError::Value);
    }
    for comment in ["x".repeat(129), "\"".into(), "\n".into()] {
        let refused = table.insert(frontends, frontend(9).build(), drop_with(&comment));
        assert_eq!(cause(refused), ShapeError::Comment);
    }
    let nowhere = Value::verdict(Verdict::Goto("".into()), None);
    let refused = table.insert(frontends, frontend(9).build(), nowhere);
    assert_eq!(cause(refused), ShapeError::Name("".into()));
    assert_eq!(table.to_string(), before);
}

#[test]
fn a_replacement_with_one_wrong_element_changes_nothing() {
    let mut example = with_slots(3);
    let before = example.table.to_string();
    let elements =
        vec![(frontend(2).build(), drop_with("right")), (frontend(3).build(), Value::Member)];
    assert!(example.table.replace_elements(example.frontends, elements).is_err());
    assert_eq!(example.table.to_string(), before);
}

#[test]
fn a_set_that_is_not_there_takes_and_has_nothing() {
    let mut example = with_slots(1);
    let table = &mut example.table;
    table.remove_set(example.frontends);
    let key = frontend(1).build();
    let refused = table.insert(example.frontends, key.clone(), drop_with(""));
    assert_eq!(refused, Err(TableError::NoSet));
    let refused = table.replace_elements(example.frontends, Vec::new());
    assert_eq!(refused, Err(TableError::NoSet));
    // An id of another table.
    let mut other = Table::new("other");
    assert_eq!(other.insert(example.slots, key.clone(), drop_with("")), Err(TableError::NoSet));
    for table in [table, &mut other] {
        table.remove(example.frontends, &key);
        table.remove_set(example.frontends);
        assert_eq!(table.get(example.frontends, &key), None);
        assert_eq!(table.elements(example.frontends).count(), 0);
        assert_eq!(table.len(example.frontends), 0);
        assert_eq!(table.set(example.frontends), None);
        assert!(!table.is_in_kernel(example.frontends));
    }
}

#[test]
fn only_rules_fill_a_dynamic_set() {
    let mut table = example().table;
    let clients = table.set_id("clients").unwrap();
    let key = Key::builder().address(Ipv4Addr::LOCALHOST.into()).build();
    let data = Value::Data(Data::address_port(Ipv4Addr::LOCALHOST.into(), 80));
    assert_eq!(table.insert(clients, key, data), Err(TableError::Dynamic("clients".into())));
}

#[test]
fn names_of_interfaces_and_data_are_not_cut_off() {
    assert!(Key::builder().interface(&"x".repeat(15)).is_ok());
    for name in [String::new(), "x".repeat(16), "a\0b".into()] {
        let refused = ShapeError::Interface(name.as_str().into());
        assert_eq!(Key::builder().interface(&name).unwrap_err(), refused);
        assert_eq!(Key::builder().interface_prefix(&name).unwrap_err(), refused);
    }
    assert_eq!(Data::new(&[1; Data::MAX]).unwrap().bytes(), [1; Data::MAX]);
    assert_eq!(Data::new(&[1; 21]), Err(ShapeError::DataTooLong(21)));
}

#[test]
fn what_leads_to_a_chain_that_moves_goes_with_it() {
    let hook = BaseChain { chain_type: ChainType::Filter, hook: Hook::Input, priority: 0 };
    let jump = Verdict::Jump("target".into());
    let jump = crate::Rule::new(vec![crate::Statement::Verdict(jump)]);
    let mut earlier = Table::new("t");
    earlier.set_chain(Chain::regular("target", Vec::new()));
    earlier.set_chain(Chain::regular("leftover", vec![jump]));
    let mut kernel = Model::default();
    kernel.commit(&earlier.changes()).unwrap();

    let mut table = Table::new("t");
    table.set_chain(Chain::regular("target", Vec::new()));
    assert!(table.adopt(kernel.snapshot()));
    assert!(table.changes().is_empty() && table.has_unused());
    table.set_chain(Chain::base("target", hook, Vec::new()));
    let changes = table.changes();
    assert!(changes.operations.contains(&Operation::DeleteChain("leftover")), "{changes:?}");
    kernel.commit(&changes).unwrap();
    assert_eq!(kernel.0.unwrap().chains["target"].0, Some(hook));
}
