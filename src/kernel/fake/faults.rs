//! What goes wrong, as a test plans it.

use super::FakeKernel;
use super::table::{FakeElement, FakeTable};
use crate::kernel::nft::{Error, Refusal, Refusals, Touched};
use nft_table::{Chain, Key, Set, SetData, Transaction, Value, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Something that goes wrong with one call of the kernel, or just before it.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A transaction is refused with an errno, because of one of its operations, or as a whole.
    Refuse { errno: i32, operation: Option<usize> },
    /// A transaction is taken, and the answer is lost.
    LoseAnswer,
    /// A transaction is not taken, and nobody says so.
    LoseTransaction,
    /// A dump of elements lacks every so manieth, and has the others twice.
    Gap(usize),
    /// A request that reads fails.
    FailRead(i32),
    /// Somebody else changes something first.
    Tamper(Tamper),
}

/// What another program does to a table.
#[derive(Clone, Debug)]
pub enum Tamper {
    /// Commits something elsewhere.
    Elsewhere,
    DeleteTable,
    /// Deletes all rules.
    FlushRules,
    /// Puts back what was there when it was [saved](FakeKernel::save).
    Reload,
    AddChain,
    /// Does something with the element of a number in the set of a number.
    DeleteElement(usize, usize),
    ChangeElement(usize, usize),
    AddElement(usize, u8),
    AddCatchAll(usize),
}

impl FakeKernel {
    /// From now on each call of the kernel goes wrong in one of these ways, one after the other; None: it does not.
    pub fn plan_faults(&mut self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.faults.extend(faults);
    }

    /// Whether all faults that were planned have happened.
    pub fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Nothing goes wrong any more.
    pub fn forget_faults(&mut self) {
        self.faults.clear();
    }

    /// Remembers a table, as somebody does who saves the ruleset.
    pub fn save(&mut self, table: &str) {
        self.saved = self.tables.get(table).map(|there| (table.to_owned(), there.clone()));
    }

    /// What others did to a table since the last call: what its events say.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// The next fault; what somebody else does first is done.
    pub(super) fn next_fault(&mut self, table: &str) -> Option<Fault> {
        match self.faults.pop_front().flatten() {
            Some(Fault::Tamper(tamper)) => {
                self.tamper(table, &tamper);
                None
            }
            fault => fault,
        }
    }

    /// Does what another program would do to a table, as far as it may.
    pub fn tamper(&mut self, name: &str, tamper: &Tamper) {
        self.generation += 1;
        if let Tamper::Reload = tamper {
            return self.reload();
        }
        let Some(table) = self.tables.get_mut(name) else { return };
        // The kernel refuses it.
        if table.owner.is_some() {
            return;
        }
        match tamper {
            Tamper::Elsewhere | Tamper::Reload => {}
            Tamper::DeleteTable => {
                self.tables.remove(name);
                self.touched.table = true;
            }
            Tamper::FlushRules => {
                table.chains.values_mut().for_each(|chain| chain.rules.clear());
                self.touched.rules = true;
            }
            Tamper::AddChain => {
                let chain = Chain::regular("foreign", Vec::new());
                table.chains.insert(chain.name.clone(), chain);
                self.touched.rules = true;
            }
            Tamper::DeleteElement(set, element) => {
                let Some((name, elements)) = elements_of(table, *set) else { return };
                let key = elements.keys().nth(element % elements.len().max(1)).cloned();
                key.map(|key| elements.remove(&key));
                self.touched.sets.insert(name);
            }
            Tamper::ChangeElement(set, element) => {
                let Some((name, elements)) = elements_of(table, *set) else { return };
                let at = element % elements.len().max(1);
                if let Some(element) = elements.values_mut().nth(at)
                    && let Value::Verdict(_) = element.value
                {
                    element.value = Value::verdict(Verdict::Drop, None);
                }
                self.touched.sets.insert(name);
            }
            Tamper::AddElement(set, byte) => {
                let Some((name, elements)) = elements_of(table, *set) else { return };
                // Like one that is there, but for a byte of the key.
                let Some((key, element)) = elements.iter().next() else { return };
                let mut key = Key(key.0.clone());
                key.0[0] = *byte;
                let element = FakeElement { lifetime: None, ..element.clone() };
                elements.entry(key).or_insert(element);
                self.touched.sets.insert(name);
            }
            Tamper::AddCatchAll(set) => {
                let Some((name, _)) = elements_of(table, *set) else { return };
                table.catch_alls.insert(name.clone());
                self.touched.sets.insert(name);
            }
        }
    }

    fn reload(&mut self) {
        let Some((name, saved)) = self.saved.clone() else { return };
        if self.tables.get(&name).is_some_and(|there| there.owner.is_some()) {
            return;
        }
        self.next_handle += 1;
        let plain = FakeTable { handle: self.next_handle, owner: None, persists: false, ..saved };
        self.tables.insert(name, plain);
        self.touched.table = true;
        self.touched.rules = true;
    }
}

type Elements = BTreeMap<Key, FakeElement>;

/// The elements of a set that packets do not write to and that holds no ranges.
fn elements_of(table: &mut FakeTable, number: usize) -> Option<(Arc<str>, &mut Elements)> {
    let is_plain =
        |set: &Set| !(set.flags.dynamic || set.flags.interval && set.data == SetData::None);
    let names: Vec<Arc<str>> =
        table.sets.iter().filter(|(_, (set, _))| is_plain(set)).map(|(n, _)| n.clone()).collect();
    let name = names.get(number % names.len().max(1))?.clone();
    let (_, elements) = table.sets.get_mut(&name)?;
    Some((name, elements))
}

/// The refusal of an operation of a transaction, or of all of it.
pub(super) fn refusal(
    transaction: &Transaction<'_>,
    errno: i32,
    operation: Option<usize>,
) -> Error {
    let count = transaction.operations.len().max(1);
    let subject = operation.and_then(|number| transaction.operations.get(number % count));
    let refusal = match subject {
        Some(operation) => Refusal::new(transaction.table, operation, Some(0), errno),
        None => Refusal::of_batch(transaction.table, errno),
    };
    Error::Refused(Refusals(vec![refusal]))
}

/// As a dump is while a set changes: it lacks some and has others twice.
pub(super) fn gapped<T: Clone>(elements: Vec<T>, every: usize) -> Vec<T> {
    let every = every.max(2);
    let kept = elements.iter().enumerate().filter(|(index, _)| index % every != 0);
    let mut kept: Vec<T> = kept.map(|(_, element)| element.clone()).collect();
    kept.extend(kept.clone());
    kept
}
