//! Forgets clients that session affinity remembers on endpoints which are gone.
//!
//! Packets write to these maps, so they are never known: a client may expire, or be dumped twice, or be remembered
//! anew by a packet that was on its way when its endpoint went. So it is done in transactions of their own, after
//! the one that others wait for; what fails is done again; and it ends when nothing was found once all packets
//! that were on their way have arrived.
//!
//! Where the kernel can delete what may not be there, those that are known go together with their endpoint, so
//! that nobody is sent there in between. Large maps are left out of that: reading them takes time.

use super::Engine;
use crate::kernel::nft::{Error, Kernel};
use crate::plan::Backend;
use crate::plan::layout::TABLE;
use hashbrown::HashSet;
use nft_table::{Key, Operation, Set, Transaction, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A packet that was on its way at a commit has arrived after this time.
const ON_THE_WAY: Duration = Duration::from_millis(40);

/// The wait after an attempt that failed.
const RETRY: Duration = Duration::from_millis(20);

/// Clients in one transaction.
const CLIENTS: usize = 4096;

/// The same where one that expires meanwhile has all of them refused.
const FEWER: usize = 64;

/// The most clients of a map that is read before a commit: some 5 ms.
const FEW: usize = 8192;

/// Maps that may remember endpoints which are gone.
#[derive(Debug, Default)]
pub(super) struct Forget {
    tasks: BTreeMap<Arc<str>, Task>,
    /// Maps that had many clients when they were read last.
    large: BTreeSet<Arc<str>>,
}

/// The maps that may remember endpoints which are gone, each with the endpoints that may stay.
pub(super) type Purges = BTreeMap<Arc<str>, Vec<Backend>>;

#[derive(Debug)]
struct Task {
    /// The endpoints that may stay.
    kept: Vec<Backend>,
    /// When what has been on its way has arrived.
    quiet: Instant,
    /// When to look next.
    next: Instant,
}

impl Forget {
    pub fn note(&mut self, purges: Purges, now: Instant) {
        let task = |kept| Task { kept, quiet: now + ON_THE_WAY, next: now };
        self.tasks.extend(purges.into_iter().map(|(map, kept)| (map, task(kept))));
    }
}

impl<K: Kernel> Engine<K> {
    /// When there is something to forget.
    pub fn forget_time(&self) -> Option<Instant> {
        self.forget.tasks.values().map(|task| task.next).min()
    }

    /// Forgets what is due, of one map; a large one takes the kernel some time.
    pub fn forget_clients(&mut self, now: Instant) {
        let due = self.forget.tasks.iter().filter(|(_, task)| task.next <= now);
        let Some((map, task)) = due.min_by_key(|(_, task)| task.next) else { return };
        let (map, kept) = (map.clone(), task.kept.iter().map(Backend::to_value).collect());
        let done = self.forget_in(&map, &kept);
        let Some(task) = self.forget.tasks.get_mut(&map) else { return };
        match done {
            Ok(()) if now >= task.quiet => drop(self.forget.tasks.remove(&map)),
            Ok(()) => task.next = task.quiet,
            Err(error) => {
                tracing::debug!("clients of {map} on endpoints that are gone: {error}");
                task.next = Instant::now() + RETRY;
            }
        }
    }

    /// Clients that are to be forgotten together with what is about to be committed, by map; as far as they can be told
    /// soon.
    pub(super) fn known_stale(&mut self, purges: &Purges) -> Vec<(Arc<str>, Vec<Key>)> {
        if purges.is_empty() || !self.standing.has_destroy(&mut self.kernel).unwrap_or(false) {
            return Vec::new();
        }
        let mut stale = Vec::new();
        for (map, kept) in purges {
            if self.forget.large.contains(map) {
                continue;
            }
            let kept = kept.iter().map(Backend::to_value).collect();
            // What cannot be read now is read later.
            if let Ok(keys) = self.stale_in(map, &kept) {
                stale.push((map.clone(), keys));
            }
        }
        stale.retain(|(_, keys)| !keys.is_empty());
        stale
    }

    /// The clients that a map remembers on other endpoints than these.
    fn stale_in(&mut self, map: &Arc<str>, kept: &HashSet<Value>) -> Result<Vec<Key>, Error> {
        let table = self.planner.table();
        let there = table.set_id(map).filter(|id| table.is_in_kernel(*id));
        let Some(set) = there.and_then(|id| table.set(id)) else { return Ok(Vec::new()) };
        let clients = self.kernel.elements(TABLE, set)?;
        if clients.len() > FEW {
            self.forget.large.insert(map.clone());
        } else {
            self.forget.large.remove(map);
        }
        let stale = clients.into_iter().filter(|(_, value)| !kept.contains(value));
        Ok(stale.map(|(key, _)| key).collect())
    }

    fn forget_in(&mut self, map: &Arc<str>, kept: &HashSet<Value>) -> Result<(), Error> {
        let stale = self.stale_in(map, kept)?;
        let table = self.planner.table();
        let set = table.set_id(map).and_then(|id| table.set(id)).cloned();
        let Some(set) = set.filter(|_| !stale.is_empty()) else { return Ok(()) };
        let most = if self.standing.has_destroy(&mut self.kernel)? { CLIENTS } else { FEWER };
        stale.chunks(most).try_for_each(|keys| self.delete_clients(&set, keys))
    }

    /// Deletes clients, whether they are still there or not.
    fn delete_clients(&mut self, set: &Set, keys: &[Key]) -> Result<(), Error> {
        let all: Vec<&Key> = keys.iter().collect();
        let there = self.kernel.lookup(TABLE, set, &all)?;
        let keys: Vec<&Key> = all
            .into_iter()
            .zip(there)
            .filter(|(_, value)| value.is_some())
            .map(|(key, _)| key)
            .collect();
        if keys.is_empty() {
            return Ok(());
        }
        let operation = match self.standing.has_destroy(&mut self.kernel)? {
            true => Operation::DestroyElements { set, keys },
            false => Operation::DeleteElements { set, keys },
        };
        self.kernel.commit(&Transaction::new(TABLE, vec![operation]))
    }
}
