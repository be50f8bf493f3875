//! The difference of two states, as operations that the kernel takes all together or not at all.

use super::{Chain, Key, Rule, Set, Value};

/// One operation on the table. Elements are grouped by set, so that a message carries many of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation<'a> {
    AddTable,
    DeleteTable,
    /// Deletes the rules of a chain.
    FlushChain(&'a str),
    DeleteChain(&'a str),
    DeleteSet(&'a str),
    AddSet(&'a Set),
    /// Adds a chain without its rules.
    AddChain(&'a Chain),
    AddRule {
        chain: &'a str,
        rule: &'a Rule,
    },
    /// Deletes all elements of a set.
    FlushSet(&'a Set),
    DeleteElements {
        set: &'a Set,
        keys: Vec<&'a Key>,
    },
    AddElements {
        set: &'a Set,
        elements: Vec<(&'a Key, &'a Value)>,
    },
}

#[expect(clippy::len_without_is_empty, reason = "it is never empty")]
impl Operation<'_> {
    /// How many things it changes: elements, or one.
    pub fn len(&self) -> usize {
        match self {
            Operation::DeleteElements { keys, .. } => keys.len(),
            Operation::AddElements { elements, .. } => elements.len(),
            _ => 1,
        }
    }
}

/// Operations in an order in which each finds what it refers to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction<'a> {
    /// Name of the table, in family inet.
    pub table: &'a str,
    pub operations: Vec<Operation<'a>>,
}

impl Transaction<'_> {
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many objects and elements it adds, changes or deletes.
    pub fn len(&self) -> usize {
        self.operations.iter().map(Operation::len).sum()
    }
}
