//! Transactions that are committed in stages: those that load a new table, and those of which a part has to come
//! [`ahead`](super::ahead) of the rest or [`behind`](super::behind) it.
//!
//! The kernel keeps a hash set in a table that a worker replaces by a larger one as elements come
//! (`lib/rhashtable.c`). One long transaction leaves that worker no time: the tables queue up, and every
//! insertion looks through all of them, which takes most of the kernel's time at 500,000 elements. And while a
//! transaction is taken, nobody else on the machine can change nftables. So a large new table comes in several
//! transactions, for each map as large as all before it, and none too large.
//!
//! What packets find last comes first ([`Table::changes`](crate::Table::changes) has the order), so a packet
//! finds nothing, or all that belongs to what it finds.

use super::{Operation, Transaction};
use std::collections::HashSet;
use std::ops::Range;

/// Elements in the first stage of a map. A table that has no more than that is loaded at once.
const FIRST: usize = 4096;

/// Elements in one stage at most: some 20 ms.
const MOST: usize = 16_384;

impl<'a> Transaction<'a> {
    /// Whether it loads a table in stages: one that is not there, and a large one.
    pub fn is_staged(&self) -> bool {
        matches!(self.operations.first(), Some(Operation::AddTable(_)))
            && !self.operations.contains(&Operation::DeleteTable)
            && self.len() > FIRST
    }

    /// Splits a transaction that makes a table which is not there, or of which something has to come before or after
    /// the rest, into transactions to be committed one after the other; any other stays whole.
    ///
    /// Unless it [loads a table](Transaction::is_staged), no packet that was being evaluated when one of them was
    /// committed may still be so when the next one is.
    pub fn stages(&self) -> Vec<Transaction<'a>> {
        if !self.is_staged() {
            return self.in_order();
        }
        let is_elements = |operation: &&Operation<'_>| {
            matches!(operation, Operation::AddElements { .. } | Operation::AddExpiring { .. })
        };
        let first = self.operations.iter().position(|operation| is_elements(&operation));
        let (declared, elements) = self.operations.split_at(first.unwrap_or(self.operations.len()));
        let mut stages = Stages { whole: self, stages: Vec::new(), room: 0 };
        stages.begin(declared.to_vec());
        let is_data = |operation: &&Operation<'_>| operation.is_data();
        let data: Vec<&Operation<'a>> = elements.iter().filter(is_data).collect();
        // The first parts of all data maps, then the second ones: no map grows twice in one stage.
        let (mut start, mut size) = (0, FIRST);
        while data.iter().any(|operation| operation.len() > start) {
            stages.room = 0;
            data.iter().for_each(|operation| stages.add(operation, start, size));
            start += size;
            size = (size * 2).min(MOST);
        }
        // What leads to them comes in its own order.
        stages.room = 0;
        for operation in elements.iter().filter(|operation| !is_data(operation)) {
            let (mut start, mut size) = (0, FIRST);
            while start < operation.len() {
                stages.add(operation, start, size);
                start += size;
                size = (size * 2).min(MOST);
            }
        }
        stages.stages
    }

    /// Whether a part of it comes last, because packets under way may still ask for it.
    pub fn has_last_part(&self) -> bool {
        self.is_change() && self.split_behind().is_some()
    }

    /// Whether it changes a table that is there, and replaces no set: then all that uses it comes at once.
    fn is_change(&self) -> bool {
        let adds_table = |operation: &Operation<'_>| matches!(operation, Operation::AddTable(_));
        !self.operations.iter().any(adds_table) && !self.replaces_sets()
    }

    /// A change in the order that packets under way need.
    fn in_order(&self) -> Vec<Transaction<'a>> {
        if !self.is_change() {
            return vec![self.clone()];
        }
        let (ahead, rest) = match self.split_ahead() {
            Some([ahead, rest]) => (Some(ahead), rest),
            None => (None, self.clone()),
        };
        let (rest, behind) = match rest.split_behind() {
            Some([rest, behind]) => (rest, Some(behind)),
            None => (rest, None),
        };
        let mut parts: Vec<Transaction<'a>> =
            ahead.into_iter().chain([rest]).chain(behind).collect();
        if let Some(guard) = self.guard() {
            for part in parts.iter_mut().filter(|part| part.operations.first() != Some(guard)) {
                part.operations.insert(0, guard.clone());
            }
        }
        parts
    }

    /// A chain that is flushed first of all and stays empty is there to make a transaction fail where it is not there.
    fn guard(&self) -> Option<&Operation<'a>> {
        let (first, others) = self.operations.split_first()?;
        let Operation::FlushChain(guard) = first else { return None };
        let is_changed = |operation: &Operation<'_>| match operation {
            Operation::DeleteChain(chain) | Operation::AddRule { chain, .. } => chain == guard,
            _ => false,
        };
        (!others.iter().any(is_changed)).then_some(first)
    }

    fn replaces_sets(&self) -> bool {
        let gone = |operation: &Operation<'a>| match operation {
            Operation::DeleteSet(name) => Some(*name),
            _ => None,
        };
        let gone: HashSet<&str> = self.operations.iter().filter_map(gone).collect();
        let comes_back = |operation: &Operation<'_>| matches!(operation, Operation::AddSet(set) if gone.contains(&*set.name));
        self.operations.iter().any(comes_back)
    }
}

/// Stages that are being filled.
struct Stages<'s, 'a> {
    whole: &'s Transaction<'a>,
    stages: Vec<Transaction<'a>>,
    /// How many elements the last one has room for.
    room: usize,
}

impl<'a> Stages<'_, 'a> {
    fn begin(&mut self, operations: Vec<Operation<'a>>) {
        self.stages.push(self.whole.part(operations));
        self.room = MOST;
    }

    /// Adds so many elements of an operation from `start` on, as far as it has them.
    fn add(&mut self, operation: &Operation<'a>, start: usize, size: usize) {
        let range = start.min(operation.len())..operation.len().min(start + size);
        let len = range.len();
        let Some(part) = part(operation, range).filter(|_| len > 0) else { return };
        match self.stages.last_mut() {
            Some(last) if len <= self.room => last.operations.push(part),
            _ => self.begin(vec![part]),
        }
        self.room -= len.min(self.room);
    }
}

/// The operation on some of its elements, if it adds elements.
fn part<'a>(operation: &Operation<'a>, range: Range<usize>) -> Option<Operation<'a>> {
    match operation {
        Operation::AddElements { set, elements } => {
            Some(Operation::AddElements { set, elements: elements.get(range)?.to_vec() })
        }
        Operation::AddExpiring { set, elements } => {
            Some(Operation::AddExpiring { set, elements: elements.get(range)?.to_vec() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::with_slots;
    use crate::{Data, Key, Lifetime, Ownership, Table, Value};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn table(slots: u32) -> Table {
        with_slots(slots).table
    }

    #[test]
    fn data_come_in_growing_stages_and_what_leads_to_them_last() {
        let table = table(50_000);
        let whole = table.changes();
        let stages = whole.stages();
        let sizes: Vec<usize> = stages[1..stages.len() - 1].iter().map(Transaction::len).collect();
        assert_eq!(sizes, [4096, 8192, 16384, 16384, 50_000 - 45_056]);
        let is_elements =
            |operation: &Operation<'_>| matches!(operation, Operation::AddElements { .. });
        assert!(!stages[0].operations.iter().any(is_elements));
        assert!(stages.last().unwrap().operations.iter().all(is_elements));
        let all: Vec<Operation<'_>> =
            stages.iter().flat_map(|stage| stage.operations.clone()).collect();
        let len =
            |operations: &[Operation<'_>]| operations.iter().map(Operation::len).sum::<usize>();
        assert_eq!(len(&all), whole.len(), "all of it, and nothing twice");
        assert_eq!(stages.last().unwrap().len(), 1, "the frontend");
    }

    #[test]
    fn expiring_elements_come_in_stages_as_well() {
        let table = table(5000);
        let clients = table.set(table.set_id("clients").unwrap()).unwrap();
        let value = Value::Data(Data::address_port(Ipv4Addr::new(10, 244, 0, 1).into(), 8080));
        let hour = Duration::from_secs(3600);
        let lifetime = Lifetime { timeout: hour, expires: hour };
        let key = |client| Key::builder().address(Ipv4Addr::from(client).into()).build();
        let keys: Vec<Key> = (0..40_000_u32).map(key).collect();
        let elements: Vec<_> = keys.iter().map(|key| (key, &value, lifetime)).collect();
        let mut whole = table.changes();
        // Before the frontend.
        let add = Operation::AddExpiring { set: clients, elements: elements.clone() };
        whole.operations.insert(whole.operations.len() - 1, add);
        let stages = whole.stages();
        let sizes: Vec<usize> = stages[1..].iter().map(Transaction::len).collect();
        assert_eq!(sizes, [4096 + 4096, 904 + 8192, 16384, 40_000 - 28_672, 1]);
        let operations = stages.iter().flat_map(|stage| &stage.operations);
        let staged = operations.flat_map(|operation| match operation {
            Operation::AddExpiring { elements, .. } => elements.clone(),
            _ => Vec::new(),
        });
        assert!(staged.eq(elements), "all of them, in their order");
    }

    #[test]
    fn what_replaces_something_or_is_small_stays_whole() {
        let small = table(100);
        assert_eq!(small.changes().stages(), [small.changes()]);
        let large = table(50_000);
        let mut replacing = large.changes();
        replacing
            .operations
            .splice(1..1, [Operation::DeleteTable, Operation::AddTable(Ownership::Nobody)]);
        assert_eq!(replacing.stages().len(), 1);
        let adding = Transaction::new("t", large.changes().operations.split_off(1));
        assert_eq!(adding.stages().len(), 1);
    }
}
