//! What the kernel has, read back: after a start or a refused transaction.

use super::{InKernel, KernelChain, SetId, SetState, Table};
use crate::netlink::SnapshotChain;
use crate::{Key, Set, Value};
use std::collections::HashMap;
use std::sync::Arc;

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
    /// Its named sets and maps, by name.
    pub sets: HashMap<Arc<str>, SnapshotSet>,
    /// Its chains, by name.
    pub chains: HashMap<Arc<str>, SnapshotChain>,
    /// It is set up in a way that this library has no word for, as with a policy other than accept.
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
        for chain in self.chains.values() {
            let before = match snapshot.chains.remove(&chain.name) {
                None => KernelChain::Absent,
                Some(there) if there.has_rules_of(chain) => {
                    self.touched_chains.remove(&chain.name);
                    continue;
                }
                Some(there) => KernelChain::Different { base: there.base },
            };
            self.touched_chains.insert(chain.name.clone(), before);
        }
        self.unused_chains = snapshot.chains.into_keys().collect();
        true
    }

    /// Whether the kernel has chains or sets from an earlier run that this state does not have. They
    /// do no harm: [`Table::changes`] leaves them alone until [`Table::delete_unused`].
    pub fn has_unused(&self) -> bool {
        !self.unused_chains.is_empty() || !self.unused_sets.is_empty()
    }

    /// Has the next [`Table::changes`] delete them. A transaction of its own is best: before 6.2 the
    /// kernel refuses to delete what something led to a moment ago. At the latest they go with the
    /// first chain or set that is deleted, because they may lead to it.
    pub fn delete_unused(&mut self) {
        for name in std::mem::take(&mut self.unused_chains) {
            self.touched_chains.insert(name, KernelChain::Different { base: None });
        }
        self.removed_sets.append(&mut self.unused_sets);
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
    /// Compares with the elements that the kernel has.
    fn adopt(&mut self, there: Vec<(Key, Value)>) {
        self.new = false;
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
