//! The desired state of a table, and what of it the kernel does not have yet.
//!
//! Everything that is touched is remembered with the value that the kernel has. The difference is
//! therefore proportional to what was touched, whatever the size of the table, and touching a thing
//! back and forth leaves nothing to do. When it is unknown what the kernel has, after a start or a
//! refused transaction, [`Table::adopt`] compares with a [`Snapshot`] of it; where it is doubted in part,
//! [`Table::adopt_declarations`] and [`Table::observe`] put right what is believed.

mod adoption;
mod difference;
mod error;
#[cfg(test)]
mod history;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use adoption::{Snapshot, SnapshotSet};
pub use error::TableError;

use crate::shape::Shape;
use crate::{BaseChain, Chain, Key, Ownership, Set, Value};
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A set of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(u32);

/// A set, its elements, and what of them the kernel does not have yet.
#[derive(Debug)]
struct SetState {
    set: Set,
    shape: Shape,
    elements: HashMap<Key, Value, foldhash::fast::FixedState>,
    /// The kernel does not have the set: all of it is to be added, and nothing need be remembered.
    new: bool,
    /// The kernel has something in it that has to go and cannot be named: all of it is deleted and added again.
    rewritten: bool,
    /// What the kernel has under the keys that were touched.
    touched: HashMap<Key, Option<Value>, foldhash::fast::FixedState>,
    /// Packets find everything else by way of this one, so its elements come last.
    is_entrance: bool,
}

/// What the kernel has under the name of a chain that was touched.
#[derive(Debug)]
enum KernelChain {
    /// No such chain.
    Absent,
    /// The chain with these rules.
    Present(Chain),
    /// The chain, with some other rules.
    Different { base: Option<BaseChain> },
}

impl KernelChain {
    /// Where the chain is attached in the kernel; None if it is not there.
    fn base(&self) -> Option<Option<BaseChain>> {
        match self {
            KernelChain::Absent => None,
            KernelChain::Present(chain) => Some(chain.base),
            KernelChain::Different { base } => Some(*base),
        }
    }
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
    unused_chains: BTreeMap<Arc<str>, KernelChain>,
    unused_sets: BTreeSet<Arc<str>>,
    /// What stays may lead to them.
    keeps_unused: bool,
    in_kernel: InKernel,
    ownership: Ownership,
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
            unused_chains: BTreeMap::new(),
            unused_sets: BTreeSet::new(),
            keeps_unused: false,
            in_kernel: InKernel::Absent,
            ownership: Ownership::Nobody,
        }
    }

    /// Says who may change the table when it is added to the kernel; one that is there stays as it is.
    pub fn set_ownership(&mut self, ownership: Ownership) {
        self.ownership = ownership;
    }

    /// Whether the kernel has the table, as far as is believed.
    pub fn is_present(&self) -> bool {
        self.in_kernel == InKernel::Present
    }

    /// The name of the table, in family inet.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a set without elements.
    ///
    /// # Errors
    /// [`TableError::SetExists`]; [`TableError::Shape`] if there can be no such set.
    pub fn add_set(&mut self, set: Set) -> Result<SetId, TableError> {
        let name = set.name.clone();
        if self.set_ids.contains_key(&name) {
            return Err(TableError::SetExists(name));
        }
        set.check().map_err(|cause| TableError::Shape { set: name.clone(), cause })?;
        if self.unused_sets.remove(&name) {
            // Declared by who knows whom: it goes, and this one comes.
            self.removed_sets.insert(name.clone());
            self.delete_unused();
        }
        let id = SetId(self.sets.len() as u32);
        self.sets.push(Some(SetState {
            shape: Shape::of(&set),
            set,
            elements: HashMap::default(),
            new: true,
            rewritten: false,
            touched: HashMap::default(),
            is_entrance: false,
        }));
        self.set_ids.insert(name, id);
        self.touched_sets.insert(id);
        Ok(id)
    }

    /// Says that packets find everything else of this table by way of this map: its elements are added after
    /// those of all others, and deleted before them.
    pub fn set_entrance(&mut self, id: SetId) {
        if let Some(state) = self.sets.get_mut(id.0 as usize).and_then(Option::as_mut) {
            state.is_entrance = true;
        }
    }

    /// Removes a set with its elements, if it is there. No rule may refer to it any more when the
    /// difference is taken.
    pub fn remove_set(&mut self, id: SetId) {
        let Some(state) = self.sets.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.set_ids.remove(&state.set.name);
        self.touched_sets.remove(&id);
        if !state.new {
            self.removed_sets.insert(state.set.name);
            self.delete_unused();
        }
    }

    /// Adds a chain or gives it other rules. A chain that is attached elsewhere than before is made anew:
    /// no rule and no element that stays may lead to it.
    pub fn set_chain(&mut self, chain: Chain) {
        let (name, base) = (chain.name.clone(), chain.base);
        if self.chains.get(&name) == Some(&chain) {
            return;
        }
        self.chain_order.entry(name.clone()).or_insert_with(|| {
            self.next_order += 1;
            self.next_order
        });
        let before = self.chains.insert(name.clone(), chain);
        let in_kernel = self.touch_chain(name, before).base();
        if in_kernel.is_some_and(|before| before != base) {
            self.delete_unused();
        }
    }

    /// Removes a chain. No rule and no element may refer to it any more when the difference is taken.
    pub fn remove_chain(&mut self, name: &str) {
        if let Some(before) = self.chains.remove(name) {
            self.chain_order.remove(name);
            let in_kernel = self.touch_chain(before.name.clone(), Some(before)).base();
            if in_kernel.is_some() {
                self.delete_unused();
            }
        }
    }

    /// Says nothing of a chain any more, which is not attached to a hook: the kernel goes on with what it has of it, as
    /// one of the [unused](Table::has_unused). No rule and no element that is wanted may refer to it.
    pub fn disown_chain(&mut self, name: &str) {
        let Some(chain) = self.chains.remove(name) else { return };
        self.chain_order.remove(name);
        let name = chain.name.clone();
        let there = self.touched_chains.remove(&name).unwrap_or(KernelChain::Present(chain));
        if there.base().is_some() {
            self.unused_chains.insert(name, there);
        }
    }

    /// Remembers what the kernel has of a chain, which was `before` in the desired state.
    fn touch_chain(&mut self, name: Arc<str>, before: Option<Chain>) -> &KernelChain {
        let before = before.map(KernelChain::Present).or_else(|| self.unused_chains.remove(&name));
        self.touched_chains.entry(name).or_insert(before.unwrap_or(KernelChain::Absent))
    }

    /// Puts a value under a key, in the place of what was there.
    ///
    /// # Errors
    /// [`TableError::NoSet`], [`TableError::Dynamic`]; [`TableError::Shape`] if the key or the value is none
    /// of that set. Whether the chain of a verdict is there is left to the kernel.
    pub fn insert(&mut self, id: SetId, key: Key, value: Value) -> Result<(), TableError> {
        let state = self.sets.get_mut(id.0 as usize).and_then(Option::as_mut);
        let state = state.ok_or(TableError::NoSet)?;
        state.check(&key, &value)?;
        if state.new {
            state.elements.insert(key, value);
            return Ok(());
        }
        if state.elements.get(&key) == Some(&value) {
            return Ok(());
        }
        let before = state.elements.insert(key.clone(), value);
        state.touched.entry(key).or_insert(before);
        self.touched_sets.insert(id);
        Ok(())
    }

    /// Takes away what is under a key, if anything is.
    pub fn remove(&mut self, id: SetId, key: &Key) {
        let state = self.sets.get_mut(id.0 as usize).and_then(Option::as_mut);
        let Some(state) = state else { return };
        let Some(before) = state.elements.remove(key) else { return };
        if !state.new {
            state.touched.entry(key.clone()).or_insert(Some(before));
            self.touched_sets.insert(id);
        }
    }

    /// Makes a set hold just these elements. Of several with the same key the last one counts.
    ///
    /// # Errors
    /// As [`Table::insert`]; then nothing is changed.
    pub fn replace_elements(
        &mut self,
        id: SetId,
        elements: Vec<(Key, Value)>,
    ) -> Result<(), TableError> {
        let state = self.state(id).ok_or(TableError::NoSet)?;
        elements.iter().try_for_each(|(key, value)| state.check(key, value))?;
        let wanted: HashMap<Key, Value> = elements.into_iter().collect();
        let there = state.elements.keys();
        let gone: Vec<Key> = there.filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in &gone {
            self.remove(id, key);
        }
        wanted.into_iter().try_for_each(|(key, value)| self.insert(id, key, value))
    }

    fn state(&self, id: SetId) -> Option<&SetState> {
        self.sets.get(id.0 as usize)?.as_ref()
    }

    /// What is under a key.
    pub fn get(&self, id: SetId, key: &Key) -> Option<&Value> {
        self.state(id)?.elements.get(key)
    }

    /// The elements of a set, in no order; none of a set that was removed.
    pub fn elements(&self, id: SetId) -> impl Iterator<Item = (&Key, &Value)> {
        self.state(id).into_iter().flat_map(|state| state.elements.iter())
    }

    /// How many elements a set has.
    pub fn len(&self, id: SetId) -> usize {
        self.state(id).map_or(0, |state| state.elements.len())
    }

    /// The declaration of a set; None once it was removed.
    pub fn set(&self, id: SetId) -> Option<&Set> {
        self.state(id).map(|state| &state.set)
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

    /// Whether the kernel has a chain of this name, as far as is believed, whatever its rules are.
    pub fn is_chain_written(&self, name: &str) -> bool {
        match self.touched_chains.get(name) {
            Some(there) => there.base().is_some(),
            None => self.chains.contains_key(name),
        }
    }

    /// Whether the kernel has a chain just as it is here, as far as is believed.
    pub fn is_chain_as_written(&self, name: &str) -> bool {
        let Some(chain) = self.chains.get(name) else { return false };
        match self.touched_chains.get(name) {
            Some(there) => matches!(there, KernelChain::Present(there) if there == chain),
            None => true,
        }
    }

    /// Whether the kernel has a set, as far as is believed.
    pub fn is_set_written(&self, id: SetId) -> bool {
        self.state(id).is_some_and(|state| !state.new)
    }

    /// All chains, in the order in which they were added.
    pub fn chains(&self) -> Vec<&Chain> {
        let mut chains: Vec<&Chain> = self.chains.values().collect();
        chains.sort_by_key(|chain| self.chain_order.get(&chain.name));
        chains
    }

    /// The kernel has taken [`Table::changes`].
    pub fn committed(&mut self) {
        for id in std::mem::take(&mut self.touched_sets) {
            if let Some(state) = self.sets.get_mut(id.0 as usize).and_then(Option::as_mut) {
                state.new = false;
                state.rewritten = false;
                state.touched = HashMap::default();
            }
        }
        self.removed_sets.clear();
        self.touched_chains.clear();
        self.in_kernel = InKernel::Present;
    }
}

impl SetState {
    /// Whether the element is one that the set can have.
    #[inline]
    fn check(&self, key: &Key, value: &Value) -> Result<(), TableError> {
        if self.set.flags.dynamic {
            return Err(TableError::Dynamic(self.set.name.clone()));
        }
        let shape = &self.shape;
        let mut result = shape.check_key(key).and_then(|()| shape.check_value(value));
        if shape.is_interval {
            result = result.and_then(|()| self.set.check_range(key));
        }
        result.map_err(|cause| TableError::Shape { set: self.set.name.clone(), cause })
    }
}
