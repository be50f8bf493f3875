//! A kernel in memory, for tests of what stands above.
//!
//! It refuses what the real one refuses of the operations of the ruleset library: references to what is not
//! there, deletion of what is in use, an element that is there with another value, overlapping
//! ranges; and what a test tells it to refuse. It evaluates no packets, and its time passes when a test says so.

//!
//! * `table`: a table, and what transactions do to it
//! * `faults`: what goes wrong, and what other programs do, as a test plans it

mod faults;
mod table;
#[cfg(test)]
mod tests;

pub use faults::{Fault, Tamper};

use super::nft::{Error, Kernel, OnTouch, Refusals, TableInfo, Touched};
use crate::kernel::NetlinkError;
use faults::{gapped, refusal};
use nft_table::netlink::SnapshotChain;
use nft_table::{Chain, Count, Key, Lifetime, Set, Snapshot, SnapshotSet, Transaction, Value};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use table::{Attempt, FakeElement, FakeTable};

/// A kernel without packets.
#[derive(Debug)]
pub struct FakeKernel {
    tables: BTreeMap<String, FakeTable>,
    generation: u32,
    commits: usize,
    refused: BTreeMap<(String, Key), i32>,
    missing_modules: Vec<&'static str>,
    failures: Vec<Error>,
    port: u32,
    next_handle: u64,
    can_own: bool,
    faults: VecDeque<Option<Fault>>,
    saved: Option<(String, FakeTable)>,
    touched: Touched,
    journal: Option<Vec<Commit>>,
}

/// What all tables together held under the keys of one kind of set, before a commit and after it.
#[derive(Clone, Debug)]
pub struct Commit {
    pub before: BTreeMap<Key, Value>,
    pub after: BTreeMap<Key, Value>,
}

impl Default for FakeKernel {
    fn default() -> FakeKernel {
        FakeKernel {
            tables: BTreeMap::new(),
            generation: 0,
            commits: 0,
            refused: BTreeMap::new(),
            missing_modules: Vec::new(),
            failures: Vec::new(),
            port: 1,
            next_handle: 0,
            can_own: true,
            faults: VecDeque::new(),
            saved: None,
            touched: Touched::default(),
            journal: None,
        }
    }
}

impl FakeKernel {
    pub fn new() -> FakeKernel {
        FakeKernel::default()
    }

    /// A kernel that does not know owners of tables.
    pub fn without_ownership() -> FakeKernel {
        FakeKernel { can_own: false, ..FakeKernel::default() }
    }

    /// The process that had this kernel's socket has ended; another one takes it up.
    pub fn next_process(&mut self) {
        for table in self.tables.values_mut().filter(|table| table.owner == Some(self.port)) {
            table.owner = None;
        }
        self.port += 1;
    }

    /// The commits since the last call, by what they did to the sets of a name in all tables.
    pub fn take_journal(&mut self) -> Vec<Commit> {
        self.journal.replace(Vec::new()).unwrap_or_default()
    }

    /// What the sets that packets come to first hold, in all tables. The first table that has a key counts.
    fn entrances(&self) -> BTreeMap<Key, Value> {
        let sets = self.tables.values().rev().filter_map(|table| {
            // Without rules no packet gets there.
            let is_hooked = table.chains.values().any(|c| c.base.is_some() && !c.rules.is_empty());
            table.sets.get("service-ips4").filter(|_| is_hooked)
        });
        let elements = sets.flat_map(|(_, elements)| elements);
        elements.map(|(key, element)| (key.clone(), element.value.clone())).collect()
    }

    /// Another process owns a table, or nobody does.
    pub fn set_owner(&mut self, table: &str, owner: Option<u32>) {
        if let Some(table) = self.tables.get_mut(table) {
            table.owner = owner;
        }
    }

    /// From now on refuses an element of a set with an errno.
    pub fn refuse(&mut self, set: &str, key: Key, errno: i32) {
        self.refused.insert((set.to_owned(), key), errno);
    }

    /// From now on has not these modules: `nft_hash`, `nft_limit`, `nft_connlimit`.
    pub fn lack(&mut self, modules: &[&'static str]) {
        self.missing_modules = modules.to_vec();
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

    /// Whether there is a table.
    pub fn has_table(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// What a table holds, without the flags and numbers that the kernel gives it.
    pub fn content(&self, table: &str) -> Option<Snapshot> {
        self.tables.get(table).map(|table| snapshot(table, true))
    }

    /// Puts an element into a set behind the program's back: what a rule does to a dynamic set.
    pub fn put(&mut self, table: &str, set: &str, key: Key, value: Value) {
        let table = self.tables.get_mut(table).expect("the table is there");
        let (_, elements) = table.sets.get_mut(set).expect("the set is there");
        let count = Count::default();
        elements.insert(key, FakeElement { value, lifetime: None, count });
    }

    /// Packets come: an element counts them.
    pub fn count(&mut self, table: &str, set: &str, key: &Key, packets: u64) {
        let table = self.tables.get_mut(table).expect("the table is there");
        let (set, elements) = table.sets.get_mut(set).expect("the set is there");
        let element = elements.get_mut(key).filter(|_| set.counter).expect("it counts");
        element.count += Count { packets, bytes: 60 * packets };
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
        let error = || read_error(&format!("reading set inet {table} {}", set.name), libc::ENOENT);
        there.map(|(_, elements)| elements).ok_or_else(error)
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
        transaction.stages().iter().try_for_each(|stage| self.commit_stage(stage))
    }

    fn trial(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        self.attempt(transaction).map(|_| ())
    }

    fn snapshot(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        let every = self.before_read(table)?;
        let Some(there) = self.tables.get(table) else { return Ok(None) };
        let mut snapshot = snapshot(there, true);
        for set in snapshot.sets.values_mut() {
            let is_hash = set.set.as_ref().is_some_and(|set| !set.flags.interval);
            if let Some(every) = every.filter(|_| is_hash) {
                set.elements = gapped(std::mem::take(&mut set.elements), every);
            }
        }
        Ok(Some(snapshot))
    }

    fn declarations(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        self.before_read(table)?;
        Ok(self.tables.get(table).map(|table| snapshot(table, false)))
    }

    fn table(&mut self, table: &str) -> Result<Option<TableInfo>, Error> {
        self.before_read(table)?;
        Ok(self.tables.get(table).map(|table| TableInfo {
            handle: table.handle,
            persists: table.persists,
            owner: table.owner,
            is_dormant: false,
        }))
    }

    fn port(&self) -> u32 {
        self.port
    }

    fn lookup(
        &mut self,
        table: &str,
        set: &Set,
        keys: &[&Key],
    ) -> Result<Vec<Option<Value>>, Error> {
        self.before_read(table)?;
        let there = self.set(table, set)?;
        let value = |key: &&Key| there.get(*key).map(|element| element.value.clone());
        Ok(keys.iter().map(value).collect())
    }

    fn counts(
        &mut self,
        table: &str,
        set: &Set,
        keys: &[&Key],
    ) -> Result<Vec<Option<(Value, Count)>>, Error> {
        self.before_read(table)?;
        let there = self.set(table, set)?;
        let counted =
            |key: &&Key| there.get(*key).map(|element| (element.value.clone(), element.count));
        Ok(keys.iter().map(counted).collect())
    }

    fn has_catch_all(&mut self, table: &str, set: &Set) -> Result<bool, Error> {
        self.set(table, set)?;
        Ok(self.tables[table].catch_alls.contains(&set.name))
    }

    fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value)>, Error> {
        let every = self.before_read(table)?;
        let there = pairs(self.set(table, set)?);
        Ok(match every {
            Some(every) if !set.flags.dynamic && !set.flags.interval => gapped(there, every),
            _ => there,
        })
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

    fn watch(&mut self, _table: &str, _on_touch: OnTouch) -> Result<(), Error> {
        Ok(())
    }

    fn missed_events(&mut self) -> bool {
        false
    }

    fn supports_ownership(&mut self) -> Result<bool, Error> {
        Ok(self.can_own)
    }

    fn supports_destroy(&mut self) -> Result<bool, Error> {
        Ok(true)
    }
}

impl FakeKernel {
    /// Lets go wrong what is planned. How a dump is to be spoilt, if so.
    fn before_read(&mut self, table: &str) -> Result<Option<usize>, Error> {
        match self.next_fault(table) {
            Some(Fault::FailRead(errno)) => Err(read_error("reading", errno)),
            Some(Fault::Gap(every)) => Ok(Some(every)),
            _ => Ok(None),
        }
    }

    fn commit_stage(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        if transaction.operations.is_empty() {
            return Ok(());
        }
        let fault = self.next_fault(transaction.table);
        match fault {
            Some(Fault::Refuse { errno, operation }) => {
                return Err(refusal(transaction, errno, operation));
            }
            Some(Fault::LoseTransaction) => return Err(Error::AnswerLost),
            _ => {}
        }
        let (table, next_handle) = self.attempt(transaction)?;
        let before = self.journal.is_some().then(|| self.entrances());
        match table {
            Some(table) => self.tables.insert(transaction.table.to_owned(), table),
            None => self.tables.remove(transaction.table),
        };
        self.next_handle = next_handle;
        self.generation += 1;
        self.commits += 1;
        if let Some(before) = before {
            let after = self.entrances();
            self.journal.get_or_insert_default().push(Commit { before, after });
        }
        if matches!(fault, Some(Fault::LoseAnswer)) { Err(Error::AnswerLost) } else { Ok(()) }
    }

    /// What becomes of the table, and of the numbers of tables.
    fn attempt(&self, transaction: &Transaction<'_>) -> Result<(Option<FakeTable>, u64), Error> {
        let sets = self.tables.values().flat_map(|table| &table.sets);
        let there: Vec<(&Key, &Value)> = sets
            .filter(|(name, _)| self.refused.keys().any(|(set, _)| **set == ***name))
            .flat_map(|(_, (_, elements))| elements.iter().map(|(key, e)| (key, &e.value)))
            .collect();
        let mut attempt = Attempt {
            there: &there,
            table: self.tables.get(transaction.table).cloned(),
            name: transaction.table,
            port: self.port,
            next_handle: self.next_handle,
            counts: &transaction.counts,
            refused: &self.refused,
            missing_modules: &self.missing_modules,
            refusals: Vec::new(),
        };
        for operation in &transaction.operations {
            attempt.apply(operation);
        }
        let Attempt { table, refusals, next_handle, .. } = attempt;
        if refusals.is_empty() {
            Ok((table, next_handle))
        } else {
            Err(Error::Refused(Refusals(refusals)))
        }
    }
}

fn read_error(request: &str, errno: i32) -> Error {
    Error::Request { request: request.to_owned(), source: NetlinkError::of_errno(errno) }
}

fn snapshot(table: &FakeTable, with_elements: bool) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, (set, elements)) in &table.sets {
        let elements_of = || if set.flags.dynamic { Vec::new() } else { pairs(elements) };
        let set = SnapshotSet {
            set: Some(set.clone()),
            elements: if with_elements { elements_of() } else { Vec::new() },
            count: Some(elements.len() as u32),
            has_catch_all: with_elements && table.catch_alls.contains(name),
        };
        snapshot.sets.insert(name.clone(), set);
    }
    for (name, chain) in &table.chains {
        snapshot.chains.insert(name.clone(), SnapshotChain::of(chain));
    }
    snapshot
}

fn pairs(elements: &BTreeMap<Key, FakeElement>) -> Vec<(Key, Value)> {
    elements.iter().map(|(key, element)| (key.clone(), element.value.clone())).collect()
}
