//! Stale conntrack entries: found and removed, so that flows leave endpoints that are gone, and flows that began
//! before anybody translated them find endpoints.
//!
//! A UDP flow keeps going where its conntrack entry says for as long as packets come, whatever the
//! ruleset says by now. So after a commit, for each UDP frontend that changed or went, the entries
//! with that original destination whose reply source is not a serving endpoint are deleted; the
//! next packet of such a flow is then translated anew. Entries that were never translated count
//! too (their reply source is the frontend itself): the client was there before the Service.
//! The rule looks only at what remains, so it needs no history and serves after a start as well.
//!
//! Of TCP and SCTP only entries go that nobody translated and nobody answered, of frontends that have just come or that
//! were away with the table: the client's next attempt would follow such an entry for up to two minutes. A connection
//! that was answered, or that leads to an endpoint, is never touched.
//!
//! [`ConntrackCleaner`] works on a thread of its own, so that programming never waits for a dump.
//! The pieces: `rule` decides (pure), `filter` narrows down what the kernel dumps (pure),
//! `entry` reads a dumped message, `socket` talks to the kernel.

mod cleaner;
mod count;
mod entry;
mod filter;
mod rule;
mod socket;

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing {
    //! The way in for fuzzing.

    /// Reads the payload of a message as an entry.
    pub fn read(payload: &[u8]) {
        let entry = super::entry::Entry(payload.get(4..).unwrap_or_default());
        let _ = (entry.flow(), entry.key());
    }
}

pub use cleaner::ConntrackCleaner;
pub use count::count;
pub use rule::{FlowFrontend, StaleCheck, StaleFlows};

use crate::kernel::netlink::Error as NetlinkError;
use nft_table::Family;
use std::io;
use std::time::Duration;

/// What one pass over the entries of one family did; for metrics and logs.
#[derive(Debug)]
pub struct CleanReport {
    pub family: Family,
    /// How many frontends were checked.
    pub frontends: usize,
    /// How many entries the kernel returned. With kernel-side filters few beyond the stale ones.
    pub dumped: usize,
    /// How many stale entries were deleted (those that expired meanwhile do not count).
    pub deleted: usize,
    /// From the start of the dump to the end of the last deletion.
    pub duration: Duration,
    /// Why entries may be left. The same frontends are checked again later.
    pub error: Option<ConntrackError>,
}

/// Whether the kernel answers conntrack requests; loads its modules where they are not loaded yet.
/// The conntrack sysctls exist only afterwards.
pub fn probe() -> Result<(), ConntrackError> {
    socket::ConntrackSocket::open()?.probe()
}

/// Why conntrack entries cannot be read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    #[error("cannot open a netfilter netlink socket: {0}")]
    Socket(io::Error),
    #[error(
        "the kernel does not answer conntrack requests: {source} \
         (CAP_NET_ADMIN and the kernel module nf_conntrack_netlink are needed)"
    )]
    Unavailable { source: NetlinkError },
    #[error(
        "cannot list {family} conntrack entries: {source} \
         (CAP_NET_ADMIN and the kernel module nf_conntrack_netlink are needed)"
    )]
    Dump { family: Family, source: NetlinkError },
    #[error("cannot delete {failed} stale {family} conntrack entries, the first one: {source}")]
    Delete { family: Family, failed: usize, source: NetlinkError },
    #[error("cannot start the thread that removes stale conntrack entries: {0}")]
    Thread(io::Error),
}
