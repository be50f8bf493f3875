//! Loading a new table in stages.
//!
//! The kernel keeps a hash set in a table that a worker replaces by a larger one as elements come
//! (`lib/rhashtable.c`). One long transaction leaves that worker no time: the tables queue up, and every
//! insertion looks through all of them, which takes most of the kernel's time at 500,000 elements. So the
//! data of a new table come in several transactions, each about as large as all before it.
//!
//! Until the last stage the table leads nowhere: data maps are asked only by way of verdicts, and those
//! come last, with all members of sets, in one transaction.

use super::{Operation, SetData, Transaction};

/// Elements in the first stage of a map. A table that has no more than that is loaded at once.
const FIRST: usize = 4096;

impl<'a> Transaction<'a> {
    /// Whether [`Transaction::stages`] splits it: it makes a table that is not there, a large one.
    pub fn is_staged(&self) -> bool {
        self.operations.first() == Some(&Operation::AddTable)
            && !self.operations.contains(&Operation::DeleteTable)
            && self.len() > FIRST
    }

    /// Splits a transaction that makes a table which is not there into transactions to be committed one
    /// after the other; any other stays whole.
    pub fn stages(&self) -> Vec<Transaction<'a>> {
        let is_data = |operation: &Operation<'_>| {
            matches!(operation, Operation::AddElements { set, .. }
                if matches!(set.data, SetData::Fields(_)))
        };
        let is_new = self.operations.first() == Some(&Operation::AddTable)
            && !self.operations.contains(&Operation::DeleteTable);
        let data = self.operations.iter().position(is_data);
        let Some(data) = data.filter(|_| is_new && self.len() > FIRST) else {
            return vec![self.clone()];
        };
        let stage = |operations| Transaction { table: self.table, operations };
        let mut stages = vec![stage(self.operations[..data].to_vec())];
        let mut last = Vec::new();
        for operation in &self.operations[data..] {
            match operation {
                Operation::AddElements { set, elements } if is_data(operation) => {
                    let mut left = &elements[..];
                    let mut size = FIRST;
                    while !left.is_empty() {
                        let (now, later) = left.split_at(left.len().min(size));
                        let elements = now.to_vec();
                        stages.push(stage(vec![Operation::AddElements { set, elements }]));
                        left = later;
                        size *= 2;
                    }
                }
                other => last.push(other.clone()),
            }
        }
        stages.push(stage(last));
        stages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;
    use crate::example::with_slots;

    fn table(slots: u32) -> Table {
        with_slots(slots).table
    }

    #[test]
    fn data_come_in_growing_stages_and_what_leads_to_them_last() {
        let table = table(50_000);
        let whole = table.changes();
        let stages = whole.stages();
        let sizes: Vec<usize> = stages[1..stages.len() - 1].iter().map(Transaction::len).collect();
        assert_eq!(sizes, [4096, 8192, 16384, 50_000 - 28_672]);
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
    fn what_replaces_something_or_is_small_stays_whole() {
        let small = table(100);
        assert_eq!(small.changes().stages(), [small.changes()]);
        let large = table(50_000);
        let mut replacing = large.changes();
        replacing.operations.splice(1..1, [Operation::DeleteTable, Operation::AddTable]);
        assert_eq!(replacing.stages().len(), 1);
        let adding =
            Transaction { table: "t", operations: large.changes().operations.split_off(1) };
        assert_eq!(adding.stages().len(), 1);
    }
}
