//! Forgets clients that session affinity remembers on endpoints which are gone.
//!
//! Packets write to these maps, so they are never known: a client may expire, or be dumped twice, or be remembered
//! anew by a packet that was on its way when its endpoint went. So it is done in transactions of their own, after
//! the one that others wait for; what fails is done again; and it ends when nothing was found once all packets
//! that were on their way have arrived.

use super::Engine;
use crate::kernel::nft::Kernel;
use crate::plan::Backend;
use crate::plan::layout::TABLE;
use hashbrown::HashSet;
use nft_table::{Key, Operation, Set, Transaction, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A packet that was on its way at a commit has arrived after this time.
const ON_THE_WAY: Duration = Duration::from_millis(40);

/// The wait after an attempt that failed.
const RETRY: Duration = Duration::from_millis(20);

/// Clients in one transaction.
const CLIENTS: usize = 4096;

/// Maps that may remember endpoints which are gone.
#[derive(Debug, Default)]
pub(super) struct Forget(BTreeMap<Arc<str>, Task>);

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
    pub fn note(&mut self, purges: BTreeMap<Arc<str>, Vec<Backend>>, now: Instant) {
        let task = |kept| Task { kept, quiet: now + ON_THE_WAY, next: now };
        self.0.extend(purges.into_iter().map(|(map, kept)| (map, task(kept))));
    }
}

impl<K: Kernel> Engine<K> {
    /// When there is something to forget.
    pub fn forget_time(&self) -> Option<Instant> {
        self.forget.0.values().map(|task| task.next).min()
    }

    /// Forgets what is due, of one map; a large one takes the kernel some time.
    pub fn forget_clients(&mut self, now: Instant) {
        let due = self.forget.0.iter().filter(|(_, task)| task.next <= now);
        let Some((map, task)) = due.min_by_key(|(_, task)| task.next) else { return };
        let (map, kept) = (map.clone(), task.kept.iter().map(Backend::to_value).collect());
        let done = self.forget_in(&map, &kept);
        let Some(task) = self.forget.0.get_mut(&map) else { return };
        match done {
            Ok(()) if now >= task.quiet => drop(self.forget.0.remove(&map)),
            Ok(()) => task.next = task.quiet,
            Err(error) => {
                tracing::debug!("clients of {map} on endpoints that are gone: {error}");
                task.next = Instant::now() + RETRY;
            }
        }
    }

    fn forget_in(
        &mut self,
        map: &str,
        kept: &HashSet<Value>,
    ) -> Result<(), crate::kernel::nft::Error> {
        let table = self.planner.table();
        let there = table.set_id(map).filter(|id| table.is_in_kernel(*id));
        let Some(set) = there.and_then(|id| table.set(id)).cloned() else { return Ok(()) };
        let clients = self.kernel.elements(TABLE, &set)?;
        let stale: Vec<Key> = clients
            .into_iter()
            .filter(|(_, value)| !kept.contains(value))
            .map(|(key, _)| key)
            .collect();
        stale.chunks(CLIENTS).try_for_each(|keys| self.delete_clients(&set, keys))
    }

    /// Deletes clients, whether they are still there or not.
    fn delete_clients(&mut self, set: &Set, keys: &[Key]) -> Result<(), crate::kernel::nft::Error> {
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
        self.kernel.commit(&Transaction { table: TABLE, operations: vec![operation] })
    }
}
