//! What elements have counted goes on with what comes in their place.
//!
//! A frontend that comes to lead elsewhere, and an endpoint that comes to stand in another slot, is deleted and added
//! again, and the kernel would count the new element from 0. The counts are the kernel's alone, so that they outlive this
//! process; what comes between reading and committing is not counted. How many were served is not how many were refused:
//! while a frontend has no endpoints, what it served before is set aside here.

use crate::kernel::nft::Kernel;
use crate::plan::layout::{Bank, SetKind, SetName};
use crate::plan::{Aside, Outcome, outcome};
use hashbrown::{HashMap, HashSet};
use nft_table::{Count, Counts, Key, Operation, Set, Transaction, Value};

/// What a transaction means for counts; to be used once it is committed.
#[derive(Debug, Default)]
pub struct Carried {
    /// Frontends with what is set aside of them from then on.
    aside: Vec<((SetName, Key), [Count; Outcome::ALL.len()])>,
    /// Frontends that are gone.
    gone: Vec<(SetName, Key)>,
    /// Maps that are gone with all of theirs.
    gone_maps: Vec<SetName>,
}

impl Carried {
    /// The kernel has taken the transaction.
    pub fn note(self, aside: &mut Aside) {
        for (frontend, counts) in self.aside {
            if counts.iter().all(|count| *count == Count::default()) {
                aside.remove(&frontend);
            } else {
                aside.insert(frontend, counts);
            }
        }
        for frontend in &self.gone {
            aside.remove(frontend);
        }
        if !self.gone_maps.is_empty() {
            aside.retain(|(map, _), _| !self.gone_maps.contains(map));
        }
    }
}

/// Reads what elements have counted that a transaction replaces.
pub fn carry<K: Kernel>(
    kernel: &mut K,
    aside: &Aside,
    transaction: &Transaction<'_>,
) -> (Counts, Carried) {
    let mut reader = Reader { kernel, table: transaction.table, counts: Counts::new() };
    let mut carried = Carried::default();
    let added = Added::of(transaction);
    let mut slots = HashMap::new();
    for operation in &transaction.operations {
        let Operation::DeleteElements { set, keys } = operation else {
            if let Operation::DeleteSet(name) = operation {
                carried.gone_maps.extend(SetName::parse(name));
            }
            continue;
        };
        let Some(name) = counted(set) else { continue };
        if is_slots(name) {
            let stay = |key: &&&Key| added.slots_of.contains(&(first(name), start(key)));
            let keys = keys.iter().filter(stay).copied().collect();
            for (key, value, count) in reader.read(set, keys) {
                *slots.entry((first(name), start(key), value)).or_insert(Count::default()) += count;
            }
            continue;
        }
        let (again, gone): (Vec<&Key>, Vec<&Key>) =
            keys.iter().partition(|key| added.frontends.contains_key(&(name, **key)));
        if !aside.is_empty() {
            carried.gone.extend(gone.into_iter().map(|key| (name, key.clone())));
        }
        for (key, value, count) in reader.read(set, again) {
            let (before, after) = (outcome(&value), outcome(added.frontends[&(name, key)]));
            if before == after {
                reader.put(set, key, count);
                continue;
            }
            let frontend = (name, key.clone());
            let mut counts = aside.get(&frontend).copied().unwrap_or_default();
            counts[before as usize] = count;
            reader.put(set, key, std::mem::take(&mut counts[after as usize]));
            carried.aside.push((frontend, counts));
        }
    }
    for (name, set, key, value) in added.slots {
        // Of several slots of an endpoint the first one goes on.
        if let Some(count) = slots.remove(&(first(name), start(key), value.clone())) {
            reader.put(set, key, count);
        }
    }
    (reader.counts, carried)
}

/// What a transaction adds to sets that count.
#[derive(Default)]
struct Added<'a> {
    frontends: HashMap<(SetName, &'a Key), &'a Value>,
    slots: Vec<(SetName, &'a Set, &'a Key, &'a Value)>,
    /// The frontends that get slots, by the map in the first bank.
    slots_of: HashSet<(SetName, &'a [u8])>,
}

impl<'a> Added<'a> {
    fn of(transaction: &Transaction<'a>) -> Added<'a> {
        let mut added = Added::default();
        for operation in &transaction.operations {
            let Operation::AddElements { set, elements } = operation else { continue };
            let Some(name) = counted(set) else { continue };
            if is_slots(name) {
                let starts = elements.iter().map(|(key, _)| (first(name), start(key)));
                added.slots_of.extend(starts);
                added.slots.extend(elements.iter().map(|(key, value)| (name, *set, *key, *value)));
            } else {
                let frontends = elements.iter().map(|(key, value)| ((name, *key), *value));
                added.frontends.extend(frontends);
            }
        }
        added
    }
}

struct Reader<'a, K> {
    kernel: &'a mut K,
    table: &'a str,
    counts: Counts,
}

impl<K: Kernel> Reader<'_, K> {
    /// What the kernel has under keys. What cannot be read is not carried: that is no reason to serve nobody.
    fn read<'k>(&mut self, set: &Set, keys: Vec<&'k Key>) -> Vec<(&'k Key, Value, Count)> {
        if keys.is_empty() {
            return Vec::new();
        }
        match self.kernel.counts(self.table, set, &keys) {
            Ok(there) => {
                let found = keys.into_iter().zip(there);
                found
                    .filter_map(|(key, there)| there.map(|(value, count)| (key, value, count)))
                    .collect()
            }
            Err(error) => {
                tracing::warn!("what map {} has counted is lost in part: {error}", set.name);
                Vec::new()
            }
        }
    }

    fn put(&mut self, set: &Set, key: &Key, count: Count) {
        if count != Count::default() {
            self.counts.entry(set.name.clone()).or_default().insert(key.clone(), count);
        }
    }
}

/// The name of a set that counts.
fn counted(set: &Set) -> Option<SetName> {
    if set.counter { SetName::parse(&set.name) } else { None }
}

fn is_slots(name: SetName) -> bool {
    SetKind::SLOTS.contains(&name.kind)
}

fn first(name: SetName) -> SetName {
    name.in_bank(Bank(0))
}

/// The frontend that a slot is of.
fn start(key: &Key) -> &[u8] {
    &key.0[..key.0.len().saturating_sub(4)]
}
