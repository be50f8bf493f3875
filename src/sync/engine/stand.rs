//! Whose the table is.
//!
//! Where the kernel can (Linux 6.9), the table has the flags `owner` and `persist`: nobody else changes it or flushes
//! it while this process lives, and it outlives the process. A process that finds it owned by another one waits.
//!
//! Elsewhere, or if the operator wants it so, everybody may write to it. Then an empty chain with a number in its name
//! tells writers apart: each transaction begins by flushing the chain of its writer, which does nothing where the chain
//! is there, and fails where a later writer has put its own in the place. The older writer ends then. Who comes later
//! takes a higher number than all that it finds, so that a ruleset which somebody saved and loads again is not taken
//! for a later writer.

use super::Engine;
use crate::kernel::nft::{Error, Kernel, describe_owner};
use crate::plan::layout::TABLE;
use nft_table::{Chain, Operation, Ownership, Snapshot, Transaction};
use std::sync::Arc;
use std::time::SystemTime;

/// Names of the chains that tell writers apart begin with this.
const WRITER: &str = "writer-";

/// What is there under the name of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    /// A table that may be changed piece by piece; whether it is the one that was there before.
    Ours {
        is_same: bool,
    },
    /// A table that cannot be owned as it is.
    Other,
}

/// What is known of who writes to the table.
#[derive(Debug)]
pub(super) struct Standing {
    wants_to_own: bool,
    /// What the kernel can, once it was asked.
    can_own: Option<bool>,
    can_destroy: Option<bool>,
    /// The kernel's number of the table, which no other one gets.
    handle: Option<u64>,
    /// The number of this writer, where others may write, too, and the chain that shows it.
    number: u64,
    chain: Arc<str>,
    /// The chain is in the kernel.
    has_claimed: bool,
}

impl Standing {
    pub fn new(wants_to_own: bool) -> Standing {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let number = u64::try_from(now.as_nanos()).unwrap_or_default();
        Standing {
            wants_to_own,
            can_own: None,
            can_destroy: None,
            handle: None,
            number,
            chain: chain_of(number),
            has_claimed: false,
        }
    }

    /// Whether the kernel keeps others away.
    pub fn owns(&self) -> bool {
        self.wants_to_own && self.can_own == Some(true)
    }

    /// Has a transaction fail if somebody else has become the writer.
    pub fn fence<'a>(&'a self, transaction: &mut Transaction<'a>) {
        if self.has_claimed {
            transaction.operations.insert(0, Operation::FlushChain(&self.chain));
        }
    }

    /// A transaction was taken.
    pub fn committed(&mut self) {
        self.has_claimed = !self.owns();
    }

    /// The table is not there any more.
    pub fn lost(&mut self) {
        self.handle = None;
        self.has_claimed = false;
    }

    /// Whether elements can be deleted that may be gone.
    pub fn has_destroy<K: Kernel>(&mut self, kernel: &mut K) -> Result<bool, Error> {
        match self.can_destroy {
            Some(can) => Ok(can),
            None => Ok(*self.can_destroy.insert(kernel.supports_destroy()?)),
        }
    }
}

impl<K: Kernel> Engine<K> {
    /// Finds out whose the table is, and becomes its owner where that can be.
    ///
    /// # Errors
    /// [`Error::Owned`] by another process.
    pub(super) fn stand(&mut self) -> Result<There, Error> {
        let standing = &mut self.standing;
        if standing.wants_to_own && standing.can_own.is_none() {
            standing.can_own = Some(self.kernel.supports_ownership()?);
        }
        let owns = standing.owns();
        let table = self.planner.table_mut();
        table.set_ownership(if owns { Ownership::OwnedPersistent } else { Ownership::Nobody });
        if !owns {
            table.set_chain(Chain::regular(standing.chain.clone(), Vec::new()));
        }
        let Some(there) = self.kernel.table(TABLE)? else { return Ok(There::Nothing) };
        match there.owner {
            Some(owner) if owner != self.kernel.port() => {
                return Err(Error::Owned { table: TABLE.to_owned(), by: describe_owner(owner) });
            }
            None if owns && there.persists => {
                let operations = vec![Operation::AddTable(Ownership::OwnedPersistent)];
                self.kernel.commit(&Transaction::new(TABLE, operations))?;
            }
            None if owns => return Ok(There::Other),
            _ => {}
        }
        let before = self.standing.handle.replace(there.handle);
        Ok(There::Ours { is_same: before == Some(there.handle) })
    }

    /// A table was added.
    pub(super) fn note_handle(&mut self) {
        // A kernel that does not answer is asked again when the table is looked at.
        self.standing.handle = self.kernel.table(TABLE).ok().flatten().map(|there| there.handle);
    }

    /// Looks at who else writes to the table. From the next transaction on, this is the one writer.
    ///
    /// # Errors
    /// [`Error::Superseded`] if somebody began to do so later.
    pub(super) fn claim(&mut self, there: &Snapshot) -> Result<(), Error> {
        if self.standing.owns() {
            return Ok(());
        }
        let others = || there.chains.keys().filter_map(|chain| number_of(chain));
        let is_there = there.chains.contains_key(&self.standing.chain);
        let latest = others().max().unwrap_or_default();
        if self.standing.has_claimed && latest > self.standing.number {
            return Err(Error::Superseded { table: TABLE.to_owned() });
        }
        if !is_there && latest >= self.standing.number {
            let standing = &mut self.standing;
            standing.number = latest.saturating_add(1);
            let before = std::mem::replace(&mut standing.chain, chain_of(standing.number));
            let table = self.planner.table_mut();
            table.remove_chain(&before);
            table.set_chain(Chain::regular(standing.chain.clone(), Vec::new()));
        }
        self.standing.has_claimed &= is_there;
        Ok(())
    }

    /// Takes the chains of other writers away.
    pub(super) fn end_others(&mut self) {
        let is_other = |chain: &str| number_of(chain).is_some();
        self.planner.table_mut().delete_unused_chains(is_other);
    }

    /// Whether the kernel keeps others away from the table; known after the first sync.
    pub fn owns_table(&self) -> bool {
        self.standing.owns()
    }

    /// Whether the table is still the one that was written. Asking takes microseconds.
    pub fn has_lost_table(&mut self) -> bool {
        if !self.looks.is_sure() {
            return false;
        }
        // A kernel that does not answer is the next sync's to report.
        let Ok(there) = self.kernel.table(TABLE) else { return false };
        let is_lost = there.is_none_or(|there| {
            Some(there.handle) != self.standing.handle
                || there.owner.is_some_and(|owner| owner != self.kernel.port())
        });
        if is_lost {
            self.looks.doubt();
        }
        is_lost
    }
}

fn chain_of(number: u64) -> Arc<str> {
    format!("{WRITER}{number:016x}").into()
}

/// The number of the writer that a chain shows, if it is such a chain.
fn number_of(chain: &str) -> Option<u64> {
    chain.strip_prefix(WRITER).and_then(|number| u64::from_str_radix(number, 16).ok())
}
