//! The desired state of a table, and what of it the kernel does not have yet.
//!
//! Everything that is touched is remembered with the value that the kernel has. The difference is
//! therefore proportional to what was touched, whatever the size of the table, and touching a thing
//! back and forth leaves nothing to do. When it is unknown what the kernel has, after a start or a
//! refused transaction, [`Table::adopt`] compares with a [`Snapshot`] of it.

mod adoption;
mod difference;

pub use adoption::{Snapshot, SnapshotSet};

use crate::{Chain, Key, Set, Value};
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A set of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(u32);

/// A set, its elements, and what of them the kernel does not have yet.
#[derive(Debug)]
struct SetState {
    set: Set,
    elements: HashMap<Key, Value, foldhash::fast::FixedState>,
    /// The kernel does not have the set: all of it is to be added, and nothing need be remembered.
    new: bool,
    /// What the kernel has under the keys that were touched.
    touched: HashMap<Key, Option<Value>, foldhash::fast::FixedState>,
}

/// What the kernel has under the name of a chain that was touched.
#[derive(Debug)]
enum KernelChain {
    /// No such chain.
    Absent,
    /// The chain with these rules.
    Present(Chain),
    /// The chain, with some other rules.
    Different,
}

/// The desired state of a table in family inet.
#[derive(Debug)]
pub struct Table {
    name: Arc<str>,
    sets: Vec<Option<SetState>>,
    set_ids: HashMap<Arc<str>, SetId>,
    /// Sets with something to write.
    touched_sets: BTreeSet<SetId>,
    /// Names of sets that the kernel has and should not.
    removed_sets: BTreeSet<Arc<str>>,
    chains: HashMap<Arc<str>, Chain>,
    /// Order in which the chains were added, for listings.
    chain_order: HashMap<Arc<str>, u64>,
    next_order: u64,
    touched_chains: HashMap<Arc<str>, KernelChain>,
    /// Chains and sets that the kernel has, from an earlier run, and nobody asked for.
    leftover_chains: BTreeSet<Arc<str>>,
    leftover_sets: BTreeSet<Arc<str>>,
    in_kernel: InKernel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InKernel {
    Absent,
    Present,
    /// A table of another layout, to be replaced.
    Other,
}

impl Table {
    /// An empty table that the kernel does not have.
    pub fn new(name: impl Into<Arc<str>>) -> Table {
        Table {
            name: name.into(),
            sets: Vec::new(),
            set_ids: HashMap::new(),
            touched_sets: BTreeSet::new(),
            removed_sets: BTreeSet::new(),
            chains: HashMap::new(),
            chain_order: HashMap::new(),
            next_order: 0,
            touched_chains: HashMap::new(),
            leftover_chains: BTreeSet::new(),
            leftover_sets: BTreeSet::new(),
            in_kernel: InKernel::Absent,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a set. Its name must be new: a set does not change its declaration.
    pub fn add_set(&mut self, set: Set) -> SetId {
        let id = SetId(self.sets.len() as u32);
        let name = set.name.clone();
        self.sets.push(Some(SetState {
            set,
            elements: HashMap::default(),
            new: true,
            touched: HashMap::default(),
        }));
        if self.leftover_sets.remove(&name) {
            // Declared by who knows whom: it goes, and this one comes.
            self.removed_sets.insert(name.clone());
            self.delete_leftovers();
        }
        let before = self.set_ids.insert(name.clone(), id);
        assert!(before.is_none(), "set {name} is there already");
        self.touched_sets.insert(id);
        id
    }

    /// Removes a set with its elements. No rule may refer to it any more when the difference is taken.
    pub fn remove_set(&mut self, id: SetId) {
        let Some(state) = self.sets[id.0 as usize].take() else { return };
        self.set_ids.remove(&state.set.name);
        self.touched_sets.remove(&id);
        if !state.new {
            self.removed_sets.insert(state.set.name);
            self.delete_leftovers();
        }
    }

    /// Adds a chain or gives it other rules.
    pub fn set_chain(&mut self, chain: Chain) {
        let name = chain.name.clone();
        if self.chains.get(&name) == Some(&chain) {
            return;
        }
        self.chain_order.entry(name.clone()).or_insert_with(|| {
            self.next_order += 1;
            self.next_order
        });
        let before = self.chains.insert(name.clone(), chain);
        self.touch_chain(name, before);
    }

    /// Removes a chain. No rule and no element may refer to it any more when the difference is taken.
    pub fn remove_chain(&mut self, name: &str) {
        if let Some(before) = self.chains.remove(name) {
            self.chain_order.remove(name);
            self.touch_chain(before.name.clone(), Some(before));
            if !matches!(self.touched_chains.get(name), Some(KernelChain::Absent)) {
                self.delete_leftovers();
            }
        }
    }

    fn touch_chain(&mut self, name: Arc<str>, before: Option<Chain>) {
        let before = match before {
            None if self.leftover_chains.remove(&name) => KernelChain::Different,
            before => before.map_or(KernelChain::Absent, KernelChain::Present),
        };
        self.touched_chains.entry(name).or_insert(before);
    }

    /// Puts a value under a key.
    pub fn insert(&mut self, id: SetId, key: Key, value: Value) {
        let state = self.sets[id.0 as usize].as_mut().expect("the set was not removed");
        if state.new {
            state.elements.insert(key, value);
            return;
        }
        if state.elements.get(&key) == Some(&value) {
            return;
        }
        let before = state.elements.insert(key.clone(), value);
        state.touched.entry(key).or_insert(before);
        self.touched_sets.insert(id);
    }

    /// Takes away what is under a key.
    pub fn remove(&mut self, id: SetId, key: &Key) {
        let state = self.sets[id.0 as usize].as_mut().expect("the set was not removed");
        let Some(before) = state.elements.remove(key) else { return };
        if !state.new {
            state.touched.entry(key.clone()).or_insert(Some(before));
            self.touched_sets.insert(id);
        }
    }

    /// Makes a set hold just these elements.
    pub fn replace_elements(&mut self, id: SetId, elements: Vec<(Key, Value)>) {
        let wanted: HashMap<Key, Value> = elements.into_iter().collect();
        let there = self.elements(id).map(|(key, _)| key);
        let gone: Vec<Key> = there.filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in &gone {
            self.remove(id, key);
        }
        for (key, value) in wanted {
            self.insert(id, key, value);
        }
    }

    /// What is under a key.
    pub fn get(&self, id: SetId, key: &Key) -> Option<&Value> {
        self.sets[id.0 as usize].as_ref()?.elements.get(key)
    }

    /// The elements of a set, in no order.
    pub fn elements(&self, id: SetId) -> impl Iterator<Item = (&Key, &Value)> {
        self.sets[id.0 as usize].iter().flat_map(|state| state.elements.iter())
    }

    /// How many elements a set has.
    pub fn len(&self, id: SetId) -> usize {
        self.sets[id.0 as usize].as_ref().map_or(0, |state| state.elements.len())
    }

    /// The declaration of a set.
    pub fn set(&self, id: SetId) -> Option<&Set> {
        self.sets[id.0 as usize].as_ref().map(|state| &state.set)
    }

    /// The set of a name.
    pub fn set_id(&self, name: &str) -> Option<SetId> {
        self.set_ids.get(name).copied()
    }

    /// All sets, in the order in which they were added.
    pub fn sets(&self) -> impl Iterator<Item = (SetId, &Set)> {
        self.sets.iter().enumerate().filter_map(|(index, state)| {
            state.as_ref().map(|state| (SetId(index as u32), &state.set))
        })
    }

    /// The chain of a name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.get(name)
    }

    /// All chains, in the order in which they were added.
    pub fn chains(&self) -> Vec<&Chain> {
        let mut chains: Vec<&Chain> = self.chains.values().collect();
        chains.sort_by_key(|chain| self.chain_order[&chain.name]);
        chains
    }

    /// The kernel has taken [`Table::changes`].
    pub fn committed(&mut self) {
        for id in std::mem::take(&mut self.touched_sets) {
            if let Some(state) = self.sets[id.0 as usize].as_mut() {
                state.new = false;
                state.touched = HashMap::default();
            }
        }
        self.removed_sets.clear();
        self.touched_chains.clear();
        self.in_kernel = InKernel::Present;
    }
}
