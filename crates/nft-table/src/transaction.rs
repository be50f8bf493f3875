//! The difference of two states, as operations that the kernel takes all together or not at all.

use super::{Chain, Count, Key, Lifetime, Rule, Set, SetData, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Who may change a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Everybody who may change nftables.
    #[default]
    Nobody,
    /// Only the socket that added it; the table stays when the socket is closed, and can then be owned anew (flags `owner`
    /// and `persist`, Linux 6.9).
    OwnedPersistent,
}

/// One operation on the table. Elements are grouped by set, so that a message carries many of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation<'a> {
    /// Adds the table, if it is not there; an orphaned one becomes owned.
    AddTable(Ownership),
    /// Deletes the table with all that is in it.
    DeleteTable,
    /// Deletes the rules of a chain.
    FlushChain(&'a str),
    /// Deletes a chain, which must be empty. Nothing may lead to it.
    DeleteChain(&'a str),
    /// Deletes a set or map with its elements. No rule may look into it.
    DeleteSet(&'a str),
    /// Adds a set or map without elements.
    AddSet(&'a Set),
    /// Adds a chain without its rules.
    AddChain(&'a Chain),
    /// Adds a rule behind those of a chain.
    AddRule {
        /// Name of the chain.
        chain: &'a str,
        /// The rule.
        rule: &'a Rule,
    },
    /// Deletes all elements of a set.
    FlushSet(&'a Set),
    /// Deletes elements. All of them must be there.
    DeleteElements {
        /// The declaration of their set.
        set: &'a Set,
        /// Their keys.
        keys: Vec<&'a Key>,
    },
    /// Deletes those of the elements that are there. Needs Linux 6.3.
    DestroyElements {
        /// The declaration of their set.
        set: &'a Set,
        /// Their keys.
        keys: Vec<&'a Key>,
    },
    /// Adds elements. None of them may be there with another value.
    AddElements {
        /// The declaration of their set.
        set: &'a Set,
        /// Their keys and values.
        elements: Vec<(&'a Key, &'a Value)>,
    },
    /// Adds elements to a dynamic set as if a rule had done so a while ago. What is there already with the same value
    /// stays, with the lifetime that it has or, from Linux 6.12 on, with the new one.
    AddExpiring {
        /// The declaration of their set.
        set: &'a Set,
        /// Their keys and values, and how long they stay.
        elements: Vec<(&'a Key, &'a Value, Lifetime)>,
    },
}

#[expect(clippy::len_without_is_empty, reason = "it is never empty")]
impl Operation<'_> {
    /// Whether it adds elements to a data map.
    pub(crate) fn is_data(&self) -> bool {
        matches!(self, Operation::AddElements { set, .. } | Operation::AddExpiring { set, .. }
            if matches!(set.data, SetData::Fields(_)))
    }

    /// How many things it changes: elements, or one.
    pub fn len(&self) -> usize {
        match self {
            Operation::DeleteElements { keys, .. } | Operation::DestroyElements { keys, .. } => {
                keys.len()
            }
            Operation::AddElements { elements, .. } => elements.len(),
            Operation::AddExpiring { elements, .. } => elements.len(),
            _ => 1,
        }
    }
}

/// Operations in an order in which each finds what it refers to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction<'a> {
    /// Name of the table, in family inet.
    pub table: &'a str,
    /// What is done, in this order. What another library or program needs in the same transaction can be put in
    /// anywhere.
    pub operations: Vec<Operation<'a>>,
    /// What elements that it adds have counted already; the others begin at 0.
    pub counts: Arc<Counts>,
}

/// What elements have counted, by the name of their set and their key.
pub type Counts = HashMap<Arc<str>, HashMap<Key, Count>>;

impl<'a> Transaction<'a> {
    /// Operations on the table of a name.
    pub fn new(table: &'a str, operations: Vec<Operation<'a>>) -> Transaction<'a> {
        Transaction { table, operations, counts: Arc::default() }
    }

    /// A part of it.
    pub(crate) fn part(&self, operations: Vec<Operation<'a>>) -> Transaction<'a> {
        Transaction { table: self.table, operations, counts: self.counts.clone() }
    }
}

impl Transaction<'_> {
    /// Whether it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many objects and elements it adds, changes or deletes.
    pub fn len(&self) -> usize {
        self.operations.iter().map(Operation::len).sum()
    }
}
