//! Removes what other modes of kube-proxy left in nftables.
//!
//! That is the tables `ip kube-proxy` and `ip6 kube-proxy` of its own nftables mode, and the
//! `KUBE-*` chains that its iptables and ipvs modes made with iptables-nft in the tables `nat`,
//! `filter` and `mangle`, together with the rules of base chains that lead there. Chains of the
//! kubelet, everybody else's chains and rules, and the iptables tables themselves stay. What
//! iptables-legacy keeps is not in nftables: only its tables can be told ([`legacy_tables`]). What the ipvs mode has in
//! IPVS goes by [`remove_ipvs`]; its ipsets, to which no rule leads any more, stay.
//!
//! To be called once the own table serves, so that no moment is without rules. Everything goes in
//! one transaction, or a few when there is very much of it. The pieces: `names` knows which chains
//! are whose, `objects` what they are called, `inventory` lists what is there, `removal` decides (pure),
//! `batch` does it. Each knows only those before it, `batch` only the first two.

mod batch;
mod inventory;
mod ipvs;
mod legacy;
mod names;
mod objects;
mod removal;

pub use ipvs::{NodePorts, remove_ipvs};
pub use legacy::tables as legacy_tables;

use crate::kernel::netlink::{Error as NetlinkError, Netlink, Options, retry};
use batch::{Outcome, commit};
use inventory::Inventory;
use names::NFTABLES_TABLE;
use netlink_sys::protocols::NETLINK_NETFILTER;
use objects::{Object, Operation};
use removal::Removal;
use rustables::error::QueryError;
use std::collections::BTreeMap;
use std::io;
use tracing::debug;

/// How often the whole is tried: others may change their rules meanwhile, and what turns out to be
/// in use is left out of the next attempt.
const ATTEMPTS: usize = 10;
/// Room for refusals, in bytes.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The tables, in nft's words: `table ip kube-proxy`.
    pub tables: Vec<String>,
    /// How many chains.
    pub chains: usize,
    /// How many rules of base chains that led to them.
    pub rules: usize,
    /// Chains of kube-proxy that stay because somebody else's rules lead there, or because the
    /// kernel refused, in nft's words, each with the reason.
    pub kept: Vec<String>,
    /// Chains of others that drop what is forwarded and nobody accepts, in nft's words: `ip filter FORWARD`. What
    /// KUBE-FORWARD accepted is dropped there now, unless somebody else accepts it.
    pub dropping: Vec<String>,
}

impl Removed {
    /// There was nothing to remove.
    pub fn is_nothing(&self) -> bool {
        self.tables.is_empty() && self.chains == 0 && self.rules == 0
    }

    /// Adds what a transaction removed.
    fn count(&mut self, operations: &[Operation]) {
        for operation in operations {
            match operation {
                Operation::DeleteTable(family) => {
                    self.tables.push(format!("table {} {NFTABLES_TABLE}", objects::nft(*family)));
                }
                Operation::DeleteRule(..) => self.rules += 1,
                Operation::FlushChain(_) => {}
                Operation::DeleteChain(_) => self.chains += 1,
            }
        }
    }
}

/// Why leftovers could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum LeftoversError {
    #[error("cannot open a netlink socket to look for leftovers: {0}")]
    Socket(io::Error),
    #[error("cannot list {what} to look for leftovers of other kube-proxy modes: {source}")]
    List { what: &'static str, source: NetlinkError },
    #[error("cannot ask for {what} to look for leftovers of other kube-proxy modes: {source}")]
    Request { what: &'static str, source: QueryError },
    #[error("what the ipvs mode of kube-proxy left, {what}: {source}")]
    Ipvs { what: &'static str, source: NetlinkError },
    #[error("cannot remove leftovers of other kube-proxy modes: {0}")]
    Remove(NetlinkError),
    #[error("other programs kept changing their rules; leftovers of other kube-proxy modes remain")]
    Restless,
}

/// Finds and removes leftovers in the network namespace of the calling thread. Blocks for as long
/// as the kernel needs, which is seconds for tens of thousands of chains.
pub fn remove() -> Result<Removed, LeftoversError> {
    let options = Options { receive_buffer: Some(RECEIVE_BUFFER), ..Options::default() };
    let mut socket = Netlink::open(NETLINK_NETFILTER, &options).map_err(LeftoversError::Socket)?;
    let mut refused = BTreeMap::new();
    let mut removed = Removed::default();
    let attempt = || try_remove(&mut socket, &mut refused, &mut removed);
    let kept = retry(ATTEMPTS, attempt)?.ok_or(LeftoversError::Restless)?;
    removed.kept = kept;
    Ok(removed)
}

/// One attempt; returns what stays. None: others were faster, or the kernel refused something, which
/// is left out of the next attempt.
fn try_remove(
    socket: &mut Netlink,
    refused: &mut BTreeMap<Object, String>,
    removed: &mut Removed,
) -> Result<Option<Vec<String>>, LeftoversError> {
    let Some(inventory) = Inventory::read(socket)? else { return Ok(None) };
    removed.dropping.clone_from(&inventory.dropping);
    let removal = Removal::of(&inventory, refused);
    for operations in removal.transactions() {
        match commit(socket, operations).map_err(LeftoversError::Remove)? {
            Outcome::Committed => removed.count(operations),
            Outcome::Interrupted => return Ok(None),
            Outcome::Refused(refusals) => {
                for (operation, error) in refusals {
                    debug!(%operation, %error, "the kernel refuses to remove a leftover");
                    // What is gone already is not listed the next time.
                    if error.errno() != Some(libc::ENOENT) {
                        refused.insert(operation.object(), error.to_string());
                    }
                }
                return Ok(None);
            }
        }
    }
    Ok(Some(removal.kept()))
}
