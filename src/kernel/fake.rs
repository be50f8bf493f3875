//! A kernel in memory, for tests of what stands above.
//!
//! It refuses what the real one refuses of the operations of the ruleset library: references to what is not
//! there, deletion of what is in use, an element that is there with another value, overlapping
//! ranges; and what a test tells it to refuse. It evaluates no packets, and its time passes when a test says so.

use crate::kernel::NetlinkError;
use crate::kernel::nft::{Error, Kernel, Refusal, Refusals};
use nft_table::netlink::SnapshotChain;
use nft_table::{
    Chain, Key, Lifetime, Operation, Rule, Set, Snapshot, SnapshotSet, Transaction, Value,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A kernel without packets.
#[derive(Debug, Default)]
pub struct FakeKernel {
    tables: BTreeMap<String, FakeTable>,
    generation: u32,
    commits: usize,
    refused: BTreeMap<(String, Key), i32>,
    failures: Vec<Error>,
}

#[derive(Clone, Debug, Default)]
struct FakeTable {
    sets: BTreeMap<Arc<str>, (Set, BTreeMap<Key, FakeElement>)>,
    chains: BTreeMap<Arc<str>, Chain>,
}

#[derive(Clone, Debug)]
struct FakeElement {
    value: Value,
    /// None if it never expires.
    lifetime: Option<Lifetime>,
}

impl FakeKernel {
    pub fn new() -> FakeKernel {
        FakeKernel::default()
    }

    /// From now on refuses an element of a set with an errno.
    pub fn refuse(&mut self, set: &str, key: Key, errno: i32) {
        self.refused.insert((set.to_owned(), key), errno);
    }

    /// From now on refuses only what is wrong.
    pub fn refuse_nothing(&mut self) {
        self.refused.clear();
    }

    /// Fails the next commit with this error, whatever it holds.
    pub fn fail_next(&mut self, error: Error) {
        self.failures.insert(0, error);
    }

    /// How many transactions were committed.
    pub fn commits(&self) -> usize {
        self.commits
    }

    /// Deletes a table behind the program's back.
    pub fn delete_table(&mut self, table: &str) {
        self.tables.remove(table);
        self.generation += 1;
    }

    /// Puts an element into a set behind the program's back: what a rule does to a dynamic set.
    pub fn put(&mut self, table: &str, set: &str, key: Key, value: Value) {
        let table = self.tables.get_mut(table).expect("the table is there");
        let (_, elements) = table.sets.get_mut(set).expect("the set is there");
        elements.insert(key, FakeElement { value, lifetime: None });
    }

    /// Lets time pass: elements expire.
    pub fn pass(&mut self, time: Duration) {
        let sets = self.tables.values_mut().flat_map(|table| table.sets.values_mut());
        for (_, elements) in sets {
            elements.retain(|_, element| {
                let Some(lifetime) = &mut element.lifetime else { return true };
                lifetime.expires = lifetime.expires.saturating_sub(time);
                !lifetime.expires.is_zero()
            });
        }
    }

    /// The value under a key.
    pub fn get(&self, table: &str, set: &str, key: &Key) -> Option<&Value> {
        self.tables.get(table)?.sets.get(set)?.1.get(key).map(|element| &element.value)
    }

    fn set(&self, table: &str, set: &Set) -> Result<&BTreeMap<Key, FakeElement>, Error> {
        let there = self.tables.get(table).and_then(|table| table.sets.get(&set.name));
        there.map(|(_, elements)| elements).ok_or_else(|| Error::Request {
            request: format!("reading the elements of set inet {table} {}", set.name),
            source: NetlinkError::of_errno(libc::ENOENT),
        })
    }

    /// The chain of a name.
    pub fn chain(&self, table: &str, chain: &str) -> Option<&Chain> {
        self.tables.get(table)?.chains.get(chain)
    }
}

impl Kernel for FakeKernel {
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        if let Some(error) = self.failures.pop() {
            return Err(error);
        }
        if transaction.is_empty() {
            return Ok(());
        }
        let mut attempt = Attempt {
            table: self.tables.get(transaction.table).cloned(),
            name: transaction.table,
            refused: &self.refused,
            refusals: Vec::new(),
        };
        for operation in &transaction.operations {
            attempt.apply(operation);
        }
        let Attempt { table, refusals, .. } = attempt;
        if !refusals.is_empty() {
            return Err(Error::Refused(Refusals(refusals)));
        }
        match table {
            Some(table) => self.tables.insert(transaction.table.to_owned(), table),
            None => self.tables.remove(transaction.table),
        };
        self.generation += 1;
        self.commits += 1;
        Ok(())
    }

    fn snapshot(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        let Some(table) = self.tables.get(table) else { return Ok(None) };
        let mut snapshot = Snapshot::default();
        for (name, (set, elements)) in &table.sets {
            let elements = if set.flags.dynamic { Vec::new() } else { pairs(elements) };
            let set = SnapshotSet { set: Some(set.clone()), elements };
            snapshot.sets.insert(name.clone(), set);
        }
        for (name, chain) in &table.chains {
            snapshot.chains.insert(name.clone(), SnapshotChain::of(chain));
        }
        Ok(Some(snapshot))
    }

    fn declarations(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        let mut snapshot = self.snapshot(table)?;
        for set in snapshot.iter_mut().flat_map(|snapshot| snapshot.sets.values_mut()) {
            set.elements = Vec::new();
        }
        Ok(snapshot)
    }

    fn has_table(&mut self, table: &str) -> Result<bool, Error> {
        Ok(self.tables.contains_key(table))
    }

    fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value)>, Error> {
        self.set(table, set).map(pairs)
    }

    fn expiring(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value, Lifetime)>, Error> {
        let expiring = |(key, element): (&Key, &FakeElement)| {
            Some((key.clone(), element.value.clone(), element.lifetime?))
        };
        Ok(self.set(table, set)?.iter().filter_map(expiring).collect())
    }

    fn generation(&mut self) -> Result<u32, Error> {
        Ok(self.generation)
    }
}

fn pairs(elements: &BTreeMap<Key, FakeElement>) -> Vec<(Key, Value)> {
    elements.iter().map(|(key, element)| (key.clone(), element.value.clone())).collect()
}

/// A transaction on a copy of the table.
struct Attempt<'a> {
    name: &'a str,
    table: Option<FakeTable>,
    refused: &'a BTreeMap<(String, Key), i32>,
    refusals: Vec<Refusal>,
}

impl Attempt<'_> {
    fn refuse(&mut self, operation: &Operation<'_>, element: Option<usize>, errno: i32) {
        self.refusals.push(Refusal::new(self.name, operation, element, errno));
    }

    fn apply(&mut self, operation: &Operation<'_>) {
        match (operation, &mut self.table) {
            (Operation::AddTable, table) => {
                table.get_or_insert_default();
            }
            (Operation::DeleteTable, table @ Some(_)) => *table = None,
            (_, None) => self.refuse(operation, None, libc::ENOENT),
            (Operation::AddElements { set, elements }, Some(_)) => {
                let elements = elements.iter().map(|(key, value)| (*key, *value, None));
                self.add_elements(operation, &set.name, elements);
            }
            (Operation::AddExpiring { set, elements }, Some(_)) => {
                let elements =
                    elements.iter().map(|(key, value, life)| (*key, *value, Some(*life)));
                self.add_elements(operation, &set.name, elements);
            }
            (Operation::DeleteElements { set, keys }, Some(table)) => {
                let there = table.sets.get_mut(&set.name);
                let missing = there.map_or(Some(0), |(_, elements)| {
                    keys.iter().position(|key| elements.remove(*key).is_none())
                });
                if let Some(index) = missing {
                    self.refuse(operation, Some(index), libc::ENOENT);
                }
            }
            (_, Some(table)) => {
                if let Err(errno) = table.change(operation) {
                    self.refuse(operation, None, errno);
                }
            }
        }
    }

    fn add_elements<'b>(
        &mut self,
        operation: &Operation<'_>,
        set: &str,
        elements: impl Iterator<Item = (&'b Key, &'b Value, Option<Lifetime>)>,
    ) {
        for (index, (key, value, lifetime)) in elements.enumerate() {
            if let Err(errno) = self.add_element(set, key, value, lifetime) {
                self.refuse(operation, Some(index), errno);
                // The kernel looks no further in a message.
                break;
            }
        }
    }

    fn add_element(
        &mut self,
        set: &str,
        key: &Key,
        value: &Value,
        lifetime: Option<Lifetime>,
    ) -> Result<(), i32> {
        if let Some(errno) = self.refused.get(&(set.to_owned(), key.clone())) {
            return Err(*errno);
        }
        let table = self.table.as_mut().ok_or(libc::ENOENT)?;
        if let Value::Verdict(element) = value
            && element.verdict.chain().is_some_and(|chain| !table.chains.contains_key(chain))
        {
            return Err(libc::ENOENT);
        }
        let (set, elements) = table.sets.get_mut(set).ok_or(libc::ENOENT)?;
        if lifetime.is_some() && !set.flags.dynamic {
            return Err(libc::EINVAL);
        }
        if set.size.is_some_and(|size| elements.len() >= size as usize) {
            return Err(libc::ENFILE);
        }
        let overlaps = |other: &Key| {
            let (first, last) = key.0.split_at(set.key_len());
            let (other_first, other_last) = other.0.split_at(set.key_len());
            other != key && first <= other_last && other_first <= last
        };
        if set.is_plain_interval() && elements.keys().any(overlaps) {
            return Err(libc::EEXIST);
        }
        let element = FakeElement { value: value.clone(), lifetime };
        match elements.insert(key.clone(), element) {
            Some(before) if before.value != *value => Err(libc::EEXIST),
            _ => Ok(()),
        }
    }
}

impl FakeTable {
    /// Operations on sets, chains and rules.
    fn change(&mut self, operation: &Operation<'_>) -> Result<(), i32> {
        match operation {
            Operation::AddSet(set) => match self.sets.get(&set.name) {
                Some((there, _)) if there != *set => Err(libc::EEXIST),
                Some(_) => Ok(()),
                None => {
                    self.sets.insert(set.name.clone(), ((*set).clone(), BTreeMap::new()));
                    Ok(())
                }
            },
            Operation::DeleteSet(name) => {
                let in_use = self.rules().any(|rule| rule.sets().any(|set| &**set == *name));
                if in_use {
                    return Err(libc::EBUSY);
                }
                self.sets.remove(*name).map(drop).ok_or(libc::ENOENT)
            }
            Operation::FlushSet(set) => {
                self.sets.get_mut(&set.name).ok_or(libc::ENOENT)?.1.clear();
                Ok(())
            }
            Operation::AddChain(chain) => match self.chains.get(&chain.name) {
                Some(there) if there.base != chain.base => Err(libc::EEXIST),
                Some(_) => Ok(()),
                None => {
                    let empty = Chain { rules: Vec::new(), ..(*chain).clone() };
                    self.chains.insert(chain.name.clone(), empty);
                    Ok(())
                }
            },
            Operation::FlushChain(name) => {
                self.chains.get_mut(*name).ok_or(libc::ENOENT)?.rules.clear();
                Ok(())
            }
            Operation::DeleteChain(name) => {
                if self.is_used(name) {
                    return Err(libc::EBUSY);
                }
                self.chains.remove(*name).map(drop).ok_or(libc::ENOENT)
            }
            Operation::AddRule { chain, rule } => {
                let sets_there = rule.sets().all(|set| self.sets.contains_key(set));
                let chains_there = rule.chains().all(|chain| self.chains.contains_key(chain));
                let chain = self.chains.get_mut(*chain).ok_or(libc::ENOENT)?;
                if !sets_there || !chains_there {
                    return Err(libc::ENOENT);
                }
                chain.rules.push((*rule).clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.chains.values().flat_map(|chain| &chain.rules)
    }

    /// Whether a rule or an element leads to a chain.
    fn is_used(&self, name: &str) -> bool {
        let by_rule = self.rules().any(|rule| rule.chains().any(|chain| &**chain == name));
        let leads_there = |element: &FakeElement| match &element.value {
            Value::Verdict(element) => {
                element.verdict.chain().is_some_and(|chain| &**chain == name)
            }
            _ => false,
        };
        by_rule || self.sets.values().any(|(_, elements)| elements.values().any(leads_there))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::nft::Cause;
    use nft_table::{DataType, SetData, SetFlags, Statement, Table, Verdict};

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
            flags: SetFlags { interval: false, dynamic: false },
            type_of: None,
            size: None,
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
            flags: SetFlags { interval: false, dynamic: true },
            type_of: None,
            size: Some(10),
        };
        let ports = Set { name: "ports".into(), flags: SetFlags::default(), ..clients.clone() };
        let seconds = Duration::from_secs;
        let lifetime = |expires| Lifetime { timeout: seconds(100), expires: seconds(expires) };
        let key = |port| Key::builder().port(port).build();
        let (first, second) = (key(1), key(2));
        let member = &Value::Member;
        let elements = vec![(&first, member, lifetime(50)), (&second, member, lifetime(80))];
        let operations = vec![
            Operation::AddTable,
            Operation::AddSet(&clients),
            Operation::AddSet(&ports),
            Operation::AddExpiring { set: &clients, elements },
        ];
        kernel.commit(&Transaction { table: "t", operations }).unwrap();
        kernel.put("t", "clients", key(3), Value::Member);
        kernel.pass(seconds(60));
        let left = [(second.clone(), Value::Member, lifetime(20))];
        assert_eq!(kernel.expiring("t", &clients).unwrap(), left);
        assert_eq!(kernel.elements("t", &clients).unwrap().len(), 2);

        let elements = vec![(&first, member, lifetime(50))];
        let operations = vec![Operation::AddExpiring { set: &ports, elements }];
        let error = kernel.commit(&Transaction { table: "t", operations }).unwrap_err();
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
}
