//! What the kernel has, read back: all of it after a start, and a part when it may be other than believed.

use super::{InKernel, KernelChain, SetId, SetState, Table};
use crate::netlink::SnapshotChain;
use crate::{Key, Set, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// What the kernel has of a set or map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotSet {
    /// The declaration as far as it can be read back; None where the kernel's differs from anything
    /// that [`Set`] can say.
    pub set: Option<Set>,
    /// Empty for a dynamic set, and where only declarations were read. A dump may lack some, or have others that are
    /// gone.
    pub elements: Vec<(Key, Value)>,
    /// How many elements the kernel counts, where it says so.
    pub count: Option<u32>,
    /// It holds an element that stands for all keys (`*` in nft).
    pub has_catch_all: bool,
}

/// What the kernel has of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Its named sets and maps, by name.
    pub sets: HashMap<Arc<str>, SnapshotSet>,
    /// Its chains, by name.
    pub chains: HashMap<Arc<str>, SnapshotChain>,
    /// It is set up in a way that this library has no word for, as with a flag.
    pub is_foreign: bool,
}

impl Table {
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
        self.unused_sets = snapshot.sets.into_keys().collect();
        self.adopt_chains(snapshot.chains);
        true
    }

    /// Compares with the chains that the kernel has.
    fn adopt_chains(&mut self, mut there: HashMap<Arc<str>, SnapshotChain>) {
        self.touched_chains.clear();
        for chain in self.chains.values() {
            let before = match there.remove(&chain.name) {
                None => KernelChain::Absent,
                Some(there) if there.has_rules_of(chain) => continue,
                Some(there) => KernelChain::Different { base: there.base },
            };
            self.touched_chains.insert(chain.name.clone(), before);
        }
        self.unused_chains.clear();
        for (name, there) in there {
            match there.base {
                None => {
                    self.unused_chains.insert(name, KernelChain::Different { base: None });
                }
                // Packets come there.
                base => {
                    self.touched_chains.insert(name, KernelChain::Different { base });
                }
            }
        }
    }

    /// Takes what the kernel has declared, read without elements, for what it has; of elements it goes on to be
    /// believed what was believed before. Returns the sets of which nothing was believed because they were thought
    /// not to be there: each of their elements has to be [observed](Table::observe). None: what is there is declared
    /// in another way, and is replaced as a whole.
    pub fn adopt_declarations(&mut self, mut there: Snapshot) -> Option<Vec<SetId>> {
        if !self.fits(&there) {
            self.forget_kernel();
            self.in_kernel = InKernel::Other;
            return None;
        }
        self.in_kernel = InKernel::Present;
        self.removed_sets.retain(|name| there.sets.remove(name).is_some());
        let mut unknown = Vec::new();
        for (index, slot) in self.sets.iter_mut().enumerate() {
            let Some(state) = slot else { continue };
            let id = SetId(index as u32);
            if self.removed_sets.contains(&state.set.name) {
                // What is there is the one to be removed.
                continue;
            }
            let is_there = there.sets.remove(&state.set.name).is_some();
            if is_there && state.new {
                state.adopt(Vec::new());
                unknown.push(id);
            } else if !is_there && !state.new {
                state.new = true;
                state.touched = Default::default();
            }
            if state.new || !state.touched.is_empty() {
                self.touched_sets.insert(id);
            }
        }
        self.unused_sets = there.sets.into_keys().collect();
        self.adopt_chains(there.chains);
        if !self.removed_sets.is_empty() {
            // What nobody asked for may look into them.
            self.delete_unused();
        }
        Some(unknown)
    }

    /// The keys under which the kernel has something, or is about to get or lose it, as far as is believed; none of a
    /// set that it does not have.
    pub fn believed_keys(&self, id: SetId) -> impl Iterator<Item = &Key> {
        let state = self.state(id).filter(|state| !state.new);
        state.into_iter().flat_map(|state| {
            let gone = state.touched.keys().filter(|key| !state.elements.contains_key(*key));
            state.elements.keys().chain(gone)
        })
    }

    /// What the kernel has and the table does not want, with the value that the kernel has.
    pub fn unwanted(&self) -> impl Iterator<Item = (SetId, &Key, &Value)> {
        let states = self.touched_sets.iter().filter_map(|id| Some((*id, self.state(*id)?)));
        states.flat_map(|(id, state)| {
            let gone = state.touched.iter().filter(|(key, _)| !state.elements.contains_key(*key));
            gone.filter_map(move |(key, before)| Some((id, key, before.as_ref()?)))
        })
    }

    /// Wants in a set what the kernel has in it, as far as is believed.
    pub fn keep_elements(&mut self, id: SetId) {
        let state = self.sets.get_mut(id.0 as usize).and_then(Option::as_mut);
        let Some(state) = state.filter(|state| !state.new) else { return };
        for (key, there) in std::mem::take(&mut state.touched) {
            match there {
                Some(value) => state.elements.insert(key, value),
                None => state.elements.remove(&key),
            };
        }
    }

    /// Takes for what the kernel has under a key what was just read there, with no doubt about it.
    pub fn observe(&mut self, id: SetId, key: &Key, there: Option<Value>) {
        let state = self.sets.get_mut(id.0 as usize).and_then(Option::as_mut);
        let Some(state) = state.filter(|state| !state.new) else { return };
        if state.elements.get(key) == there.as_ref() {
            state.touched.remove(key);
        } else {
            state.touched.insert(key.clone(), there);
            self.touched_sets.insert(id);
        }
    }

    /// The same for all elements of a set: it has these and no others.
    pub fn observe_all(&mut self, id: SetId, there: Vec<(Key, Value)>) {
        let state = self.sets.get_mut(id.0 as usize).and_then(Option::as_mut);
        let Some(state) = state.filter(|state| !state.new) else { return };
        state.touched = Default::default();
        state.adopt(there);
        if !state.touched.is_empty() {
            self.touched_sets.insert(id);
        }
    }

    /// The set has something in it that has no key, or that cannot be told: it is emptied and filled again.
    pub fn rewrite(&mut self, id: SetId) {
        let state = self.sets.get_mut(id.0 as usize).and_then(Option::as_mut);
        if let Some(state) = state.filter(|state| !state.new) {
            state.rewritten = true;
            self.touched_sets.insert(id);
        }
    }

    /// Whether the kernel has chains or sets from an earlier run that this state does not have. They
    /// do no harm: [`Table::changes`] leaves them alone until [`Table::delete_unused`].
    pub fn has_unused(&self) -> bool {
        let are_there = !self.unused_chains.is_empty() || !self.unused_sets.is_empty();
        are_there && !self.keeps_unused
    }

    /// Keeps them for now, because elements lead to them, or does so no more; also those that were about to be deleted.
    pub fn keep_unused(&mut self, keep: bool) {
        self.keeps_unused = keep;
        if !keep {
            return;
        }
        let is_replaced = |set: &Arc<str>| self.set_ids.contains_key(set);
        let (replaced, kept) =
            std::mem::take(&mut self.removed_sets).into_iter().partition(is_replaced);
        self.removed_sets = replaced;
        self.unused_sets.append(&mut { kept });
        // Those that are attached to a hook go: nothing leads there.
        let is_kept = |name: &Arc<str>, there: &mut KernelChain| {
            !self.chains.contains_key(name) && there.base() == Some(None)
        };
        self.unused_chains.extend(self.touched_chains.extract_if(is_kept));
    }

    /// Whether they are kept.
    pub fn keeps_unused(&self) -> bool {
        self.keeps_unused
    }

    /// Has the next [`Table::changes`] delete those of the chains whose names are such.
    pub fn delete_unused_chains(&mut self, is_such: impl Fn(&str) -> bool) {
        let such: Vec<Arc<str>> =
            self.unused_chains.keys().filter(|name| is_such(name)).cloned().collect();
        for name in such {
            if let Some(there) = self.unused_chains.remove(&name) {
                self.touched_chains.insert(name, there);
            }
        }
    }

    /// Whether the kernel has all sets and their elements as they should be, as far as is believed.
    pub fn has_all_elements(&self) -> bool {
        self.removed_sets.is_empty() && self.touched_states().next().is_none()
    }

    /// The keys of each set under which the kernel is to get or lose something.
    pub fn pending(&self) -> impl Iterator<Item = (SetId, Vec<Key>)> {
        let states = self.touched_sets.iter().filter_map(|id| Some((*id, self.state(*id)?)));
        states
            .filter(|(_, state)| !state.new)
            .map(|(id, state)| (id, state.touched.keys().cloned().collect()))
    }

    /// Has the next [`Table::changes`] delete them. A transaction of its own is best: before 6.2 the
    /// kernel refuses to delete what something led to a moment ago. At the latest they go with the
    /// first chain or set that is deleted, because they may lead to it; but not while they are
    /// [kept](Table::keep_unused).
    pub fn delete_unused(&mut self) {
        if self.keeps_unused {
            return;
        }
        self.touched_chains.extend(std::mem::take(&mut self.unused_chains));
        self.removed_sets.append(&mut self.unused_sets);
    }

    /// A set that the kernel has was to be deleted, and is not for now. To be called before
    /// [`Table::adopt_declarations`].
    pub fn keep_removed(&mut self, set: &str) {
        self.removed_sets.remove(set);
    }

    /// Whether the kernel has the set already.
    pub fn is_in_kernel(&self, id: SetId) -> bool {
        self.state(id).is_some_and(|state| !state.new)
    }

    /// As if the kernel had nothing.
    fn forget_kernel(&mut self) {
        self.in_kernel = InKernel::Absent;
        self.removed_sets.clear();
        self.unused_sets.clear();
        self.unused_chains.clear();
        for (index, slot) in self.sets.iter_mut().enumerate() {
            if let Some(state) = slot {
                state.new = true;
                state.rewritten = false;
                state.touched = Default::default();
                self.touched_sets.insert(SetId(index as u32));
            }
        }
        self.touched_chains =
            self.chains.keys().map(|name| (name.clone(), KernelChain::Absent)).collect();
    }

    /// Whether the snapshot can become this state piece by piece: what both have is declared alike.
    fn fits(&self, snapshot: &Snapshot) -> bool {
        let sets_fit = self.sets.iter().flatten().all(|state| {
            self.removed_sets.contains(&state.set.name)
                || snapshot
                    .sets
                    .get(&state.set.name)
                    .is_none_or(|there| there.set.as_ref() == Some(&state.set))
        });
        let chains_fit = self.chains.values().all(|chain| {
            let there = snapshot.chains.get(&chain.name);
            there.is_none_or(|there| there.base == chain.base && !there.is_foreign)
        });
        !snapshot.is_foreign && sets_fit && chains_fit
    }
}

impl SetState {
    /// Compares with the elements that the kernel has.
    fn adopt(&mut self, there: Vec<(Key, Value)>) {
        self.new = false;
        self.rewritten = false;
        let there: hashbrown::HashMap<Key, Value, foldhash::fast::FixedState> =
            there.into_iter().collect();
        let missing = self.elements.keys().filter(|key| !there.contains_key(*key));
        self.touched.extend(missing.map(|key| (key.clone(), None)));
        for (key, value) in there {
            if self.elements.get(&key) != Some(&value) {
                self.touched.insert(key, Some(value));
            }
        }
    }
}
