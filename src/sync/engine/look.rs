//! What the kernel has, as far as it is in doubt.
//!
//! The first time everything is read, to keep what an earlier run left as it is. Later something is in doubt
//! after a refusal, or when somebody else changed the table. Then the cheapest is looked at first: whether the table
//! is the one that it was; what is declared, and rules; elements that were about to change, by key; and
//! where there is reason to, whole sets: each element that should be there by key, and if the kernel counts more than
//! those, a dump for the others.
//!
//! Nothing here needs a quiet namespace. A dump of elements is never relied on: it says where to look.

use super::Engine;
use super::stand::There;
use crate::kernel::nft::{Error, Fault, Kernel, OnTouch, Touched};
use crate::metrics::kernel::Rebuild;
use crate::plan::is_this_layout;
use crate::plan::layout::TABLE;
use crate::sync::replacement;
use hashbrown::HashSet;
use nft_table::{Key, Set, SetId, Snapshot, SnapshotSet, Value};
use std::collections::{BTreeMap, BTreeSet};

/// How often a set is looked at again where not all was seen that the kernel counts.
const TRIES: u8 = 5;

/// How much is known of the kernel's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    /// Nothing was ever read.
    #[default]
    Nothing,
    /// What is believed may be wrong.
    Doubtful,
    Sure,
}

/// What is to be looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    known: Known,
    /// Sets of which any element may be other than believed, and how often that was looked into.
    sets: BTreeMap<SetId, u8>,
    /// All of them.
    all: bool,
    /// What is declared may be other than believed.
    declared: bool,
}

impl Looks {
    /// What is believed is right, but perhaps for some elements.
    pub fn is_sure(&self) -> bool {
        self.known == Known::Sure
    }

    /// Nothing is in doubt.
    pub fn is_done(&self) -> bool {
        self.is_sure() && !self.declared && self.sets.is_empty()
    }

    /// What is believed may be wrong: a transaction failed, or somebody changed what is declared.
    pub fn doubt(&mut self) {
        if self.known == Known::Sure {
            self.known = Known::Doubtful;
        }
    }

    /// Any element may be other than believed, too.
    pub fn doubt_all(&mut self) {
        self.doubt();
        self.all = true;
    }
}

impl<K: Kernel> Engine<K> {
    /// Somebody else changed something. Whether a sync is needed at once; [`Engine::look_at_next`] sees to elements.
    pub fn touched(&mut self, touched: &Touched) -> bool {
        if touched.everything || touched.table {
            self.looks.doubt_all();
        }
        if touched.rules {
            self.looks.doubt();
        }
        for set in &touched.sets {
            match self.planner.table().set_id(set) {
                Some(id) => drop(self.looks.sets.insert(id, 0)),
                None => self.looks.doubt(),
            }
        }
        !self.looks.is_sure()
    }

    /// Has changes that others make told, from now on.
    ///
    /// # Errors
    /// They cannot be told.
    pub fn watch(&mut self, on_touch: OnTouch) -> Result<(), Error> {
        self.kernel.watch(TABLE, on_touch)?;
        self.note_missed_events();
        Ok(())
    }

    /// What is believed of the kernel may be wrong.
    pub fn doubt(&mut self) {
        self.looks.doubt();
    }

    /// Notes what may have happened while nobody listened.
    pub(super) fn note_missed_events(&mut self) {
        if self.kernel.missed_events() {
            self.looks.sets.extend(self.planner.table().sets().map(|(id, _)| (id, 0)));
            self.looks.declared = true;
        }
    }

    /// Whether there are sets to be looked at.
    pub fn has_looks(&self) -> bool {
        self.looks.is_sure() && !self.looks.is_done()
    }

    /// Looks at one thing, a set or what is declared. Whether there is something to put right.
    ///
    /// # Errors
    /// The kernel does not answer; then it is looked at again.
    pub fn look_at_next(&mut self) -> Result<bool, Error> {
        if std::mem::take(&mut self.looks.declared) {
            self.looks.doubt();
            return Ok(true);
        }
        let Some((id, _)) = self.looks.sets.first_key_value() else { return Ok(false) };
        let id = *id;
        let declared = self.kernel.declarations(TABLE)?;
        let name = self.planner.table().set(id).map(|set| &set.name);
        let count = declared.zip(name).and_then(|(there, name)| there.sets.get(name)?.count);
        self.compare_whole(id, count)?;
        let is_other = !self.planner.table().changes().is_empty();
        if is_other {
            self.planner.note_absence();
            self.planner.plan_all_next();
        }
        Ok(is_other)
    }

    /// Finds out what the kernel has. Says why the table has to be written from nothing, if so.
    pub(super) fn look(&mut self) -> Result<Option<Rebuild>, Error> {
        let is_first = self.looks.known == Known::Nothing;
        // Until it has succeeded: what was looked at in part is believed in part.
        self.looks.doubt();
        let rebuilt = match self.stand()? {
            There::Nothing => self.nothing_there(),
            There::Other => self.replace()?,
            There::Ours { .. } if is_first => self.read()?,
            There::Ours { is_same } => {
                // For as long as it takes until all of it was read.
                self.looks.all |= !is_same;
                self.look_again()?
            }
        };
        self.looks.known = Known::Sure;
        Ok(rebuilt)
    }

    fn nothing_there(&mut self) -> Option<Rebuild> {
        self.standing.lost();
        self.planner.table_mut().adopt(None);
        self.planner.note_absence();
        self.looks.sets.clear();
        self.looks.all = false;
        Some(if self.running { Rebuild::Lost } else { Rebuild::Absent })
    }

    /// Reads all that an earlier run left.
    fn read(&mut self) -> Result<Option<Rebuild>, Error> {
        let Some(declared) = self.kernel.declarations(TABLE)? else {
            return Ok(self.nothing_there());
        };
        if !is_this_layout(&declared) {
            return self.replace();
        }
        self.claim(&declared)?;
        let Some(snapshot) = self.kernel.snapshot(TABLE)? else { return Ok(self.nothing_there()) };
        self.planner.learn_from(&snapshot);
        self.planner.know_sets(&snapshot);
        self.planner.plan();
        let doubtful: Vec<_> = snapshot
            .sets
            .iter()
            .filter(|(_, set)| {
                let known = set.set.as_ref().is_some_and(|set| !set.flags.dynamic);
                set.has_catch_all || (known && !is_complete(set))
            })
            .map(|(name, _)| name.clone())
            .collect();
        let counts: BTreeMap<_, _> =
            snapshot.sets.iter().map(|(name, set)| (name.clone(), set.count)).collect();
        if !self.planner.table_mut().adopt(Some(snapshot)) {
            return self.replace();
        }
        self.end_others();
        for name in doubtful {
            if let Some(id) = self.planner.table().set_id(&name) {
                let count = counts.get(&name).copied().flatten();
                self.compare_whole(id, count)?;
            }
        }
        Ok(None)
    }

    /// Looks at what is in doubt.
    fn look_again(&mut self) -> Result<Option<Rebuild>, Error> {
        let Some(declared) = self.kernel.declarations(TABLE)? else {
            return Ok(self.nothing_there());
        };
        self.claim(&declared)?;
        let counts: BTreeMap<_, _> =
            declared.sets.iter().map(|(name, set)| (name.clone(), set.count)).collect();
        if is_this_layout(&declared) {
            self.planner.know_sets(&declared);
        }
        let Some(unknown) = self.planner.table_mut().adopt_declarations(declared) else {
            return self.replace();
        };
        if !self.planner.table().changes().is_empty() {
            // Something was away, and packets with it.
            self.planner.note_absence();
        }
        // What is there and nobody asked for was put there by somebody else.
        self.planner.table_mut().delete_unused();
        let mut whole: BTreeSet<SetId> = unknown.into_iter().collect();
        if self.looks.all {
            whole.extend(self.planner.table().sets().map(|(id, _)| id));
        }
        // Nothing is known of some until that has succeeded.
        self.looks.all |= !whole.is_empty();
        if self.looks.all {
            self.planner.plan_all_next();
        }
        for id in whole {
            let name = self.planner.table().set(id).map(|set| set.name.clone());
            let count = name.and_then(|name| counts.get(&name).copied().flatten());
            self.compare_whole(id, count)?;
        }
        self.looks.all = false;
        self.compare_pending()?;
        if self.planner.table().has_all_elements() {
            // The answer was lost, but not the transaction.
            self.planner.committed();
        }
        Ok(None)
    }

    /// Compares the elements that are about to change with those that the kernel has under their keys.
    fn compare_pending(&mut self) -> Result<(), Error> {
        let pending: Vec<(SetId, Set, Vec<Key>)> = self
            .planner
            .table()
            .pending()
            .filter_map(|(id, keys)| Some((id, self.planner.table().set(id)?.clone(), keys)))
            .collect();
        for (id, set, keys) in pending {
            if set.flags.interval {
                self.compare(id, None)?;
            } else {
                self.compare_keys(id, &set, &keys)?;
            }
        }
        Ok(())
    }

    /// Compares all elements of a set, now and if need be once more: while the kernel makes room in a hash, no dump
    /// has all.
    fn compare_whole(&mut self, id: SetId, count: Option<u32>) -> Result<(), Error> {
        let tries = self.looks.sets.get(&id).copied().unwrap_or_default();
        if self.compare(id, count)? || tries >= TRIES {
            self.looks.sets.remove(&id);
        } else {
            self.looks.sets.insert(id, tries + 1);
        }
        Ok(())
    }

    /// Compares all elements of a set. With what the kernel counts, it need not be dumped if all is there. Whether all
    /// was seen that the kernel counts.
    fn compare(&mut self, id: SetId, count: Option<u32>) -> Result<bool, Error> {
        let table = self.planner.table();
        let there = table.set(id).filter(|_| table.is_in_kernel(id));
        let Some(set) = there.filter(|set| !set.flags.dynamic).cloned() else { return Ok(true) };
        if self.kernel.has_catch_all(TABLE, &set)? {
            self.planner.table_mut().rewrite(id);
        }
        if set.flags.interval {
            let there = self.kernel.elements(TABLE, &set)?;
            self.planner.table_mut().observe_all(id, there);
            return Ok(true);
        }
        let believed: Vec<Key> = self.planner.table().believed_keys(id).cloned().collect();
        let found = self.compare_keys(id, &set, &believed)?;
        if count.is_some_and(|count| count as usize == found) {
            return Ok(true);
        }
        let believed: HashSet<Key> = believed.into_iter().collect();
        let dumped = self.kernel.elements(TABLE, &set)?.into_iter().map(|(key, _)| key);
        let others: HashSet<Key> = dumped.filter(|key| !believed.contains(key)).collect();
        let others: Vec<Key> = others.into_iter().collect();
        let all = found + self.compare_keys(id, &set, &others)?;
        Ok(count.is_none_or(|count| count as usize == all))
    }

    /// Compares what is under these keys; returns how many there are in the kernel.
    fn compare_keys(&mut self, id: SetId, set: &Set, keys: &[Key]) -> Result<usize, Error> {
        let keys: Vec<&Key> = keys.iter().collect();
        let there: Vec<Option<Value>> = self.kernel.lookup(TABLE, set, &keys)?;
        let found = there.iter().flatten().count();
        for (key, value) in keys.into_iter().zip(there) {
            self.planner.table_mut().observe(id, key, value);
        }
        Ok(found)
    }

    /// Makes room for the table where there is one that cannot become it piece by piece.
    fn replace(&mut self) -> Result<Option<Rebuild>, Error> {
        let Some(old): Option<Snapshot> = self.kernel.declarations(TABLE)? else {
            return Ok(self.nothing_there());
        };
        self.claim(&old)?;
        self.planner.plan();
        self.planner.note_absence();
        self.planner.hold_refusals(true);
        self.has_interim = true;
        self.standing.lost();
        self.looks.sets.clear();
        self.looks.all = false;
        let made = replacement::make_room(&mut self.kernel, &old, self.planner.table_mut());
        if let Err(error) = made {
            if error.fault() == Fault::Nobody {
                return Err(error);
            }
            tracing::warn!("the table is replaced in one transaction: {error}");
            let other = Snapshot { is_foreign: true, ..Snapshot::default() };
            self.planner.table_mut().adopt(Some(other));
        }
        Ok(Some(if self.running { Rebuild::Drift } else { Rebuild::Layout }))
    }
}

/// Whether a dump has all that the kernel counts; some may be there twice.
fn is_complete(set: &SnapshotSet) -> bool {
    let Some(count) = set.count.filter(|_| !set.set.as_ref().is_some_and(|s| s.flags.interval))
    else {
        return true;
    };
    let keys: HashSet<&Key> = set.elements.iter().map(|(key, _)| key).collect();
    keys.len() == count as usize
}
