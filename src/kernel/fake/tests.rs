//! The kernel in memory refuses what the real one refuses.

use super::*;
use crate::kernel::nft::Cause;
use nft_table::{
    DataType, Operation, Ownership, Rule, SetData, SetFlags, Statement, Table, Verdict,
};

fn key(port: u16) -> Key {
    Key::builder().protocol(6).port(port).build()
}

fn goto(chain: &str) -> Value {
    Value::verdict(Verdict::Goto(chain.into()), None)
}

/// A map from protocol and port to a verdict, and a chain to go to.
fn table() -> Table {
    let mut table = Table::new("t");
    let ports = Set {
        name: "ports".into(),
        key: vec![DataType::InetProto, DataType::InetService],
        data: SetData::Verdict,
        flags: SetFlags { interval: false, dynamic: false, timeout: false },
        type_of: None,
        size: None,
        counter: false,
    };
    table.add_set(ports).unwrap();
    let accept = Rule::new(vec![Statement::Verdict(Verdict::Accept)]);
    table.set_chain(Chain::regular("chain", vec![accept]));
    table
}

/// The table, committed.
fn committed() -> (FakeKernel, Table) {
    let (mut kernel, mut table) = (FakeKernel::new(), table());
    kernel.commit(&table.changes()).unwrap();
    table.committed();
    (kernel, table)
}

#[test]
fn a_snapshot_is_what_was_committed() {
    let (mut kernel, _) = committed();
    let mut again = table();
    again.adopt(kernel.snapshot("t").unwrap());
    assert!(again.changes().is_empty(), "{:#?}", again.changes());
}

#[test]
fn a_refused_transaction_changes_nothing() {
    let (mut kernel, mut table) = committed();
    let map = table.set_id("ports").unwrap();
    table.insert(map, key(1), goto("chain")).unwrap();
    table.insert(map, key(2), goto("nowhere")).unwrap();
    let error = kernel.commit(&table.changes()).unwrap_err();
    let [refusal] = error.refusals() else { panic!("{error}") };
    assert_eq!(refusal.key.as_ref(), Some(&key(2)));
    assert_eq!(refusal.cause, Cause::NotFound);
    assert_eq!(kernel.get("t", "ports", &key(1)), None);
    assert_eq!(kernel.commits(), 1);
}

#[test]
fn what_a_test_tells_to_refuse_is_refused() {
    let (mut kernel, mut table) = committed();
    kernel.refuse("ports", key(1), libc::ENOMEM);
    let map = table.set_id("ports").unwrap();
    table.insert(map, key(1), goto("chain")).unwrap();
    let error = kernel.commit(&table.changes()).unwrap_err();
    assert_eq!(error.refusals()[0].set.as_deref(), Some("ports"));
    kernel.refuse_nothing();
    kernel.commit(&table.changes()).unwrap();
}

#[test]
fn what_expires_is_gone_when_its_time_has_passed() {
    let mut kernel = FakeKernel::new();
    let clients = Set {
        name: "clients".into(),
        key: vec![DataType::InetService],
        data: SetData::None,
        flags: SetFlags { interval: false, dynamic: true, timeout: true },
        type_of: None,
        size: Some(10),
        counter: false,
    };
    let ports = Set { name: "ports".into(), flags: SetFlags::default(), ..clients.clone() };
    let seconds = Duration::from_secs;
    let lifetime = |expires| Lifetime { timeout: seconds(100), expires: seconds(expires) };
    let key = |port| Key::builder().port(port).build();
    let (first, second) = (key(1), key(2));
    let member = &Value::Member;
    let elements = vec![(&first, member, lifetime(50)), (&second, member, lifetime(80))];
    let operations = vec![
        Operation::AddTable(Ownership::Nobody),
        Operation::AddSet(&clients),
        Operation::AddSet(&ports),
        Operation::AddExpiring { set: &clients, elements },
    ];
    kernel.commit(&Transaction::new("t", operations)).unwrap();
    kernel.put("t", "clients", key(3), Value::Member);
    kernel.pass(seconds(60));
    let left = [(second.clone(), Value::Member, lifetime(20))];
    assert_eq!(kernel.expiring("t", &clients).unwrap(), left);
    assert_eq!(kernel.elements("t", &clients).unwrap().len(), 2);

    let elements = vec![(&first, member, lifetime(50))];
    let operations = vec![Operation::AddExpiring { set: &ports, elements }];
    let error = kernel.commit(&Transaction::new("t", operations)).unwrap_err();
    assert_eq!(error.refusals()[0].key.as_ref(), Some(&first), "{error}");
}

#[test]
fn a_chain_in_use_is_not_deleted() {
    let (mut kernel, mut table) = committed();
    let map = table.set_id("ports").unwrap();
    table.insert(map, key(1), goto("chain")).unwrap();
    kernel.commit(&table.changes()).unwrap();
    table.committed();
    table.remove_chain("chain");
    let error = kernel.commit(&table.changes()).unwrap_err();
    assert_eq!(error.refusals()[0].cause, Cause::InUse);
}
