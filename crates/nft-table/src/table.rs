//! The desired state of a table, and what of it the kernel does not have yet.
//!
//! Everything that is touched is remembered with the value that the kernel has. The difference is
//! therefore proportional to what was touched, whatever the size of the table, and touching a thing
//! back and forth leaves nothing to do. When it is unknown what the kernel has, after a start or a
//! refused transaction, [`Table::adopt`] compares with a [`Snapshot`] of it.

use super::netlink::SnapshotChain;
use super::{Chain, Key, Operation, Rule, Set, SetData, Transaction, Value};
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A set of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(u32);

/// What the kernel has of a set or map.
#[derive(Clone, Debug)]
pub struct SnapshotSet {
    /// The declaration as far as it can be read back; None where the kernel's differs from anything
    /// that [`Set`] can say.
    pub set: Option<Set>,
    /// Empty for a dynamic set.
    pub elements: Vec<(Key, Value)>,
}

/// What the kernel has of the table.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub sets: HashMap<Arc<str>, SnapshotSet>,
    pub chains: HashMap<Arc<str>, SnapshotChain>,
    /// It is set up in a way that this library has no word for, as with a policy other than accept.
    pub is_foreign: bool,
}

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

static DIFFERENT: KernelChain = KernelChain::Different;

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

    /// What brings the kernel from what it has to this state.
    pub fn changes(&self) -> Transaction<'_> {
        let mut operations = Vec::new();
        match self.in_kernel {
            InKernel::Present => {}
            InKernel::Absent => operations.push(Operation::AddTable),
            // AddTable first: deleting needs the table to be there.
            InKernel::Other => operations.extend([
                Operation::AddTable,
                Operation::DeleteTable,
                Operation::AddTable,
            ]),
        }
        self.push_deletions(&mut operations);
        self.push_additions(&mut operations);
        Transaction { table: &self.name, operations }
    }

    /// Deletions come first, and users before what they use.
    fn push_deletions<'a>(&'a self, operations: &mut Vec<Operation<'a>>) {
        for state in self.touched_states().filter(|state| !state.new) {
            if state.set.is_plain_interval() {
                operations.push(Operation::FlushSet(&state.set));
                continue;
            }
            let mut keys: Vec<&Key> = state
                .touched
                .iter()
                .filter(|(key, before)| {
                    before.is_some() && state.elements.get(*key) != before.as_ref()
                })
                .map(|(key, _)| key)
                .collect();
            if !keys.is_empty() {
                keys.sort_unstable();
                operations.push(Operation::DeleteElements { set: &state.set, keys });
            }
        }
        let touched = self.touched_chains_in_order();
        for (name, _) in touched.iter().filter(|(name, before)| self.has_stale_rules(name, before))
        {
            operations.push(Operation::FlushChain(name));
        }
        // Rules lead to sets, and verdicts in sets lead to chains.
        operations.extend(self.removed_sets.iter().map(|name| Operation::DeleteSet(name)));
        for (name, before) in &touched {
            if !matches!(before, KernelChain::Absent) && !self.chains.contains_key(*name) {
                operations.push(Operation::DeleteChain(name));
            }
        }
    }

    /// Additions come last, and what is used before its users.
    fn push_additions<'a>(&'a self, operations: &mut Vec<Operation<'a>>) {
        for state in self.touched_states().filter(|state| state.new) {
            operations.push(Operation::AddSet(&state.set));
        }
        let touched = self.touched_chains_in_order();
        let wanted: Vec<(&Chain, &KernelChain)> = touched
            .iter()
            .filter_map(|(name, before)| self.chains.get(*name).map(|chain| (chain, *before)))
            .collect();
        for (chain, before) in &wanted {
            if matches!(before, KernelChain::Absent) {
                operations.push(Operation::AddChain(chain));
            }
        }
        // Before the elements: binding a rule to a map makes the kernel walk what is in it.
        for (chain, before) in wanted {
            if !matches!(before, KernelChain::Present(same) if same == chain) {
                let rules = chain.rules.iter();
                operations
                    .extend(rules.map(|rule| Operation::AddRule { chain: &chain.name, rule }));
            }
        }
        // Data first, as verdicts lead to them.
        let is_data = |state: &&SetState| matches!(state.set.data, SetData::Fields(_));
        let data = self.touched_states().filter(is_data);
        let others = self.touched_states().filter(|state| !is_data(state));
        for state in data.chain(others) {
            let elements = state.added();
            if !elements.is_empty() {
                operations.push(Operation::AddElements { set: &state.set, elements });
            }
        }
    }

    fn has_stale_rules(&self, name: &str, before: &KernelChain) -> bool {
        match before {
            KernelChain::Absent => false,
            KernelChain::Present(chain) => self.chains.get(name) != Some(chain),
            KernelChain::Different => true,
        }
    }

    fn touched_states(&self) -> impl Iterator<Item = &SetState> {
        self.touched_sets.iter().filter_map(|id| self.sets[id.0 as usize].as_ref()).filter(
            |state| {
                // A set that was touched back to what it was has nothing to write.
                state.new
                    || state
                        .touched
                        .iter()
                        .any(|(key, before)| state.elements.get(key) != before.as_ref())
            },
        )
    }

    fn touched_chains_in_order(&self) -> Vec<(&str, &KernelChain)> {
        let mut touched: Vec<(&str, &KernelChain)> = self
            .touched_chains
            .iter()
            .filter(|(name, before)| match before {
                KernelChain::Absent => self.chains.contains_key(*name),
                KernelChain::Present(chain) => self.chains.get(*name) != Some(chain),
                KernelChain::Different => true,
            })
            .map(|(name, before)| (&**name, before))
            .collect();
        touched.extend(self.users_of_replaced_sets().map(|chain| (&*chain.name, &DIFFERENT)));
        touched.sort_unstable_by_key(|(name, _)| (self.chain_order.get(*name), *name));
        touched
    }

    /// Chains that stay as they are, but for a set that their rules look into: it is deleted and added
    /// again, so they have to let go of it and take it up again.
    fn users_of_replaced_sets(&self) -> impl Iterator<Item = &Chain> {
        let is_replaced =
            |set: &Arc<str>| self.removed_sets.contains(set) && self.set_ids.contains_key(set);
        let any = self.removed_sets.iter().any(is_replaced);
        let chains = any.then(|| self.chains.values()).into_iter().flatten();
        chains.filter(move |chain| {
            let stays = match self.touched_chains.get(&chain.name) {
                None => true,
                Some(KernelChain::Present(before)) => before == *chain,
                Some(KernelChain::Absent | KernelChain::Different) => false,
            };
            stays && chain.rules.iter().flat_map(Rule::sets).any(is_replaced)
        })
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

    /// Takes a snapshot for what the kernel has; None: it has no such table. Afterwards
    /// [`Table::changes`] is the difference to the snapshot. Returns whether that is less than the
    /// whole table: false when the kernel has none, or one of another layout, which is replaced.
    pub fn adopt(&mut self, snapshot: Option<Snapshot>) -> bool {
        self.forget_kernel();
        let Some(mut snapshot) = snapshot else { return false };
        if !self.fits(&snapshot) {
            self.in_kernel = InKernel::Other;
            return false;
        }
        self.in_kernel = InKernel::Present;
        for (index, slot) in self.sets.iter_mut().enumerate() {
            let Some(state) = slot else { continue };
            if let Some(there) = snapshot.sets.remove(&state.set.name) {
                state.adopt(there.elements);
                if state.touched.is_empty() {
                    self.touched_sets.remove(&SetId(index as u32));
                }
            }
        }
        self.leftover_sets = snapshot.sets.into_keys().collect();
        for chain in self.chains.values() {
            let before = match snapshot.chains.remove(&chain.name) {
                None => KernelChain::Absent,
                Some(there) if there.has_rules_of(chain) => {
                    self.touched_chains.remove(&chain.name);
                    continue;
                }
                Some(_) => KernelChain::Different,
            };
            self.touched_chains.insert(chain.name.clone(), before);
        }
        self.leftover_chains = snapshot.chains.into_keys().collect();
        true
    }

    /// Whether the kernel has chains or sets from an earlier run that this state does not have. They
    /// do no harm: [`Table::changes`] leaves them alone until [`Table::delete_leftovers`].
    pub fn has_leftovers(&self) -> bool {
        !self.leftover_chains.is_empty() || !self.leftover_sets.is_empty()
    }

    /// Has the next [`Table::changes`] delete them. A transaction of its own is best: before 6.2 the
    /// kernel refuses to delete what something led to a moment ago. At the latest they go with the
    /// first chain or set that is deleted, because they may lead to it.
    pub fn delete_leftovers(&mut self) {
        for name in std::mem::take(&mut self.leftover_chains) {
            self.touched_chains.insert(name, KernelChain::Different);
        }
        self.removed_sets.append(&mut self.leftover_sets);
    }

    /// Whether the kernel has the set already.
    pub fn is_in_kernel(&self, id: SetId) -> bool {
        self.sets[id.0 as usize].as_ref().is_some_and(|state| !state.new)
    }

    /// As if the kernel had nothing.
    fn forget_kernel(&mut self) {
        self.in_kernel = InKernel::Absent;
        self.removed_sets.clear();
        self.leftover_sets.clear();
        self.leftover_chains.clear();
        for (index, slot) in self.sets.iter_mut().enumerate() {
            if let Some(state) = slot {
                state.new = true;
                state.touched = HashMap::default();
                self.touched_sets.insert(SetId(index as u32));
            }
        }
        self.touched_chains =
            self.chains.keys().map(|name| (name.clone(), KernelChain::Absent)).collect();
    }

    /// Whether the snapshot can become this state piece by piece: what both have is declared alike.
    fn fits(&self, snapshot: &Snapshot) -> bool {
        let sets_fit = self.sets.iter().flatten().all(|state| {
            snapshot
                .sets
                .get(&state.set.name)
                .is_none_or(|there| there.set.as_ref() == Some(&state.set))
        });
        let chains_fit = self.chains.values().all(|chain| {
            snapshot.chains.get(&chain.name).is_none_or(|there| there.base == chain.base)
        });
        let no_other_hooks = snapshot
            .chains
            .iter()
            .all(|(name, there)| there.base.is_none() || self.chains.contains_key(name));
        !snapshot.is_foreign && sets_fit && chains_fit && no_other_hooks
    }
}

impl SetState {
    /// What the kernel is to get, sorted; but a new hash set, which can be large, in no order.
    fn added(&self) -> Vec<(&Key, &Value)> {
        let mut added: Vec<(&Key, &Value)> = if self.new || self.set.is_plain_interval() {
            self.elements.iter().collect()
        } else {
            let changed = |(key, before): (_, &Option<Value>)| {
                let value = self.elements.get(key)?;
                (before.as_ref() != Some(value)).then_some((key, value))
            };
            self.touched.iter().filter_map(changed).collect()
        };
        if !self.new || self.set.flags.interval {
            added.sort_unstable_by_key(|(key, _)| *key);
        }
        added
    }

    /// Compares with the elements that the kernel has.
    fn adopt(&mut self, there: Vec<(Key, Value)>) {
        self.new = false;
        let there: HashMap<Key, Value, foldhash::fast::FixedState> = there.into_iter().collect();
        let missing = self.elements.keys().filter(|key| !there.contains_key(*key));
        self.touched.extend(missing.map(|key| (key.clone(), None)));
        for (key, value) in there {
            if self.elements.get(&key) != Some(&value) {
                self.touched.insert(key, Some(value));
            }
        }
    }
}
