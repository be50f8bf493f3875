//! A table of another layout, as an upgrade finds it, is replaced while it serves.
//!
//! Its sets have names that this layout needs for others, and one transaction for all of a large table would
//! hold up everybody else who changes nftables. So the new table is first written beside the old one, under another
//! name; then the old one goes, piece by piece; then the new one is written under its own name; and at last the one
//! beside it goes. Whichever table sees a packet first, the packet is served alike. What session affinity remembers
//! is carried along.

use crate::kernel::nft::{Error, Kernel};
use crate::plan::is_this_layout;
use crate::plan::layout::{INTERIM, TABLE};
use nft_table::{Key, Lifetime, Operation, Set, SetData, Snapshot, Table, Transaction, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// Clients in one transaction at most.
const CLIENTS: usize = 8192;

/// Slots in one transaction at most.
const SLOTS: usize = 16_384;

/// So many slots may be left in an old map when it is deleted: some 70 ms.
const LEFT: usize = 350_000;

/// How often clients of a map are carried, while others keep connecting, before they are given up.
const TRIES: usize = 3;

/// Writes the planned table beside the old one, and deletes the old one.
///
/// # Errors
/// The kernel refuses it; then the old table is as it was.
pub fn make_room<K: Kernel>(
    kernel: &mut K,
    old: &Snapshot,
    planned: &mut Table,
) -> Result<(), Error> {
    // A run that was killed may have left one, and nobody else may be serving.
    let there = kernel.snapshot(INTERIM)?.filter(is_this_layout);
    if there.is_none() {
        delete_table(kernel, INTERIM)?;
    }
    planned.adopt(there);
    let interim = Transaction::new(INTERIM, planned.changes().operations);
    let committed = kernel.commit(&interim);
    planned.adopt(None);
    // Whatever of it is there may serve already, and goes when the table itself does.
    committed?;
    carry_clients(kernel, TABLE, old, INTERIM, planned);
    unhook(kernel, TABLE, old)?;
    thin_out(kernel, old, planned);
    delete(kernel, TABLE, old)
}

/// The planned table is there: deletes the one beside, if there is one.
///
/// # Errors
/// The kernel does not delete it.
pub fn clear_up<K: Kernel>(kernel: &mut K, planned: &Table) -> Result<(), Error> {
    let Some(interim) = kernel.declarations(INTERIM)? else { return Ok(()) };
    carry_clients(kernel, INTERIM, &interim, TABLE, planned);
    unhook(kernel, INTERIM, &interim)?;
    delete(kernel, INTERIM, &interim)
}

/// Deletes a table that may be serving, if it is there: first all rules, then the rest.
///
/// In one transaction a packet that is under way would still meet the rules, but find no element in a map any more
/// (`nft_map_deactivate`), while those of plain sets are there to the end: it would be refused as one to a port that no
/// Service has.
///
/// # Errors
/// The kernel does not delete it, as when another process owns it.
pub fn delete_table<K: Kernel>(kernel: &mut K, table: &str) -> Result<bool, Error> {
    let Some(there) = kernel.declarations(table)? else { return Ok(false) };
    unhook(kernel, table, &there)?;
    delete(kernel, table, &there)?;
    Ok(true)
}

/// Carries what session affinity remembers from one table to another, as far as it can be done: who is forgotten
/// gets an endpoint like a new client.
fn carry_clients<K: Kernel>(
    kernel: &mut K,
    from: &str,
    there: &Snapshot,
    to: &str,
    planned: &Table,
) {
    for (name, old) in &there.sets {
        let Some(old) = old.set.as_ref().filter(|set| set.flags.dynamic) else { continue };
        let new = planned.set_id(&present_name(name)).and_then(|id| planned.set(id));
        let Some(new) = new.filter(|new| is_alike(old, new)) else { continue };
        let tries =
            |_| carry(kernel, (from, old), (to, new)).map_err(|error| tracing::debug!("{error}"));
        if !(0..TRIES).map(tries).any(|result| result.is_ok()) {
            tracing::warn!("session affinity of {name} begins anew");
        }
    }
}

/// The name that a map of session affinity has in this layout. In the first one the role stood behind a hyphen.
fn present_name(name: &str) -> String {
    let roles = [("-cluster", "/cluster"), ("-local", "/local")];
    let changed = roles.into_iter().find_map(|(old, new)| {
        Some(format!("{}{new}", name.strip_suffix(old).filter(|_| name.starts_with("affinity"))?))
    });
    changed.unwrap_or_else(|| name.to_owned())
}

fn is_alike(old: &Set, new: &Set) -> bool {
    new.flags.dynamic && new.is_map() && (&old.key, &old.data) == (&new.key, &new.data)
}

fn carry<K: Kernel>(
    kernel: &mut K,
    (from, old): (&str, &Set),
    (to, new): (&str, &Set),
) -> Result<(), Error> {
    // Who has connected meanwhile is remembered already, perhaps elsewhere.
    let known: HashSet<Key> = kernel.elements(to, new)?.into_iter().map(|(key, _)| key).collect();
    let mut clients: Vec<(Key, Value, Lifetime)> = kernel.expiring(from, old)?;
    clients.retain(|(key, ..)| !known.contains(key));
    for clients in clients.chunks(CLIENTS) {
        let elements = clients.iter().map(|(key, value, life)| (key, value, *life)).collect();
        let operations = vec![Operation::AddExpiring { set: new, elements }];
        kernel.commit(&Transaction::new(to, operations))?;
    }
    Ok(())
}

/// Deletes all rules of a table: packets do not come there any more, and nothing looks into a set.
fn unhook<K: Kernel>(kernel: &mut K, table: &str, there: &Snapshot) -> Result<(), Error> {
    let flush = there.chains.keys().map(|chain| Operation::FlushChain(chain));
    let is_base = |chain: &&Arc<str>| there.chains[*chain].base.is_some();
    let delete = there.chains.keys().filter(is_base).map(|chain| Operation::DeleteChain(chain));
    kernel.commit(&Transaction::new(table, flush.chain(delete).collect()))
}

/// Deletes slots of the old table in parts, as far as they are the planned ones, which nearly all are. The first
/// layout had them in one map, and the kernel looks at all that is left in it when it is deleted.
fn thin_out<K: Kernel>(kernel: &mut K, old: &Snapshot, planned: &Table) {
    let slots = planned
        .sets()
        .filter(|(_, set)| matches!(set.data, SetData::Fields(_)) && !set.flags.dynamic);
    let mut left = LEFT;
    for (id, set) in slots {
        let name = set.name.split('.').next().unwrap_or_default();
        let Some((name, _)) = old.sets.get_key_value(name) else { continue };
        // Its slots are of another type, but of the same size.
        let set = Set { name: name.clone(), ..set.clone() };
        let spared = left.min(planned.len(id));
        left -= spared;
        let keys: Vec<&Key> = planned.elements(id).map(|(key, _)| key).skip(spared).collect();
        for keys in keys.chunks(SLOTS) {
            let operations = vec![Operation::DeleteElements { set: &set, keys: keys.to_vec() }];
            if let Err(error) = kernel.commit(&Transaction::new(TABLE, operations)) {
                tracing::debug!("some slots of the old table are other ones: {error}");
            }
        }
    }
}

/// Deletes a table without rules in transactions that hold nobody up: one set after the other.
fn delete<K: Kernel>(kernel: &mut K, table: &str, there: &Snapshot) -> Result<(), Error> {
    for set in there.sets.keys() {
        kernel.commit(&Transaction::new(table, vec![Operation::DeleteSet(set)]))?;
    }
    kernel.commit(&Transaction::new(table, vec![Operation::DeleteTable]))
}
