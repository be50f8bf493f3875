//! A table of another layout, as an upgrade finds it, is replaced while it serves.
//!
//! Its sets have names that this layout needs for others, and one transaction for all of a large table would
//! hold up everybody else who changes nftables. So the new table is first written beside the old one, under another
//! name; then the old one goes, piece by piece; then the new one is written under its own name; and at last the one
//! beside it goes. Whichever table sees a packet first, the packet is served alike.

use crate::kernel::nft::{Error, Kernel};
use crate::plan::layout::{INTERIM, TABLE};
use nft_table::{Operation, Snapshot, Transaction};
use std::sync::Arc;

/// Writes `whole`, the transaction that makes the table, beside the old one, and deletes the old one.
///
/// # Errors
/// The kernel refuses it; then the old table is as it was.
pub fn make_room<K: Kernel>(
    kernel: &mut K,
    old: &Snapshot,
    whole: &Transaction<'_>,
) -> Result<(), Error> {
    delete_interim(kernel)?;
    let interim = Transaction { table: INTERIM, operations: whole.operations.clone() };
    if let Err(error) = kernel.commit(&interim) {
        delete_interim(kernel)?;
        return Err(error);
    }
    delete(kernel, TABLE, old)
}

/// Deletes the table beside, if it is there.
pub fn delete_interim<K: Kernel>(kernel: &mut K) -> Result<(), Error> {
    match kernel.declarations(INTERIM)? {
        Some(there) => delete(kernel, INTERIM, &there),
        None => Ok(()),
    }
}

/// Deletes a table in transactions that hold nobody up: first all rules, so that nothing looks into a set any
/// more, then one set after the other.
fn delete<K: Kernel>(kernel: &mut K, table: &str, there: &Snapshot) -> Result<(), Error> {
    let flush = there.chains.keys().map(|chain| Operation::FlushChain(chain));
    let is_base = |chain: &&Arc<str>| there.chains[*chain].base.is_some();
    let unhook = there.chains.keys().filter(is_base).map(|chain| Operation::DeleteChain(chain));
    kernel.commit(&Transaction { table, operations: flush.chain(unhook).collect() })?;
    for set in there.sets.keys() {
        kernel.commit(&Transaction { table, operations: vec![Operation::DeleteSet(set)] })?;
    }
    kernel.commit(&Transaction { table, operations: vec![Operation::DeleteTable] })
}
