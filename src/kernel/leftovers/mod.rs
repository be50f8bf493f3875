//! Removes what other modes of kube-proxy left in nftables.
//!
//! That is the tables `ip kube-proxy` and `ip6 kube-proxy` of its own nftables mode, and the
//! `KUBE-*` chains that its iptables and ipvs modes made with iptables-nft in the tables `nat`,
//! `filter` and `mangle`, together with the rules of base chains that lead there. Chains of the
//! kubelet, everybody else's chains and rules, and the iptables tables themselves stay. What
//! iptables-legacy keeps is not in nftables and cannot be seen from here, nor ipsets and IPVS.
//!
//! To be called once the own table serves, so that no moment is without rules. Everything goes in
//! one transaction, or a few when there is very much of it. The pieces: `names` knows which chains
//! are whose, `inventory` lists what is there, `removal` decides (pure), `batch` does it.

mod batch;
mod inventory;
mod names;
mod removal;

use batch::{BatchError, Batches};
use inventory::Inventory;
use removal::{Object, Removal};
use std::collections::BTreeMap;
use std::io;
use tracing::debug;

/// How often the whole is tried: others may change their rules meanwhile, and what turns out to be
/// in use is left out of the next attempt.
const ATTEMPTS: usize = 10;

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
}

impl Removed {
    /// There was nothing to remove.
    pub fn is_nothing(&self) -> bool {
        self.tables.is_empty() && self.chains == 0 && self.rules == 0
    }
}

/// Why leftovers could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum LeftoversError {
    #[error("cannot open a netfilter netlink socket to look for leftovers: {0}")]
    Socket(io::Error),
    #[error("cannot list {what} to look for leftovers of other kube-proxy modes: {source}")]
    List { what: &'static str, source: io::Error },
    #[error("cannot remove leftovers of other kube-proxy modes: {0}")]
    Remove(io::Error),
    #[error("other programs kept changing their rules; leftovers of other kube-proxy modes remain")]
    Restless,
}

/// Finds and removes leftovers in the network namespace of the calling thread. Blocks for as long
/// as the kernel needs, which is seconds for tens of thousands of chains.
pub fn remove() -> Result<Removed, LeftoversError> {
    let mut batches = Batches::open().map_err(LeftoversError::Socket)?;
    let mut refused: BTreeMap<Object, String> = BTreeMap::new();
    let mut removed = Removed::default();
    for _ in 0..ATTEMPTS {
        let inventory = match Inventory::read(&mut batches) {
            Ok(inventory) => inventory,
            Err(LeftoversError::List { source, .. })
                if source.raw_os_error() == Some(libc::EINTR) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let removal = Removal::of(&inventory, &refused);
        let mut failed = false;
        for operations in removal.transactions() {
            match batches.commit(operations) {
                Ok(()) => removed.count(operations),
                Err(BatchError::Refused(refusals)) => {
                    failed = true;
                    for (operation, error) in refusals {
                        debug!(%operation, %error, "the kernel refuses to remove a leftover");
                        // What is gone already is not listed the next time.
                        if error.raw_os_error() != Some(libc::ENOENT) {
                            refused.insert(operation.object(), error.to_string());
                        }
                    }
                    break;
                }
                Err(BatchError::Failed(error)) if error.raw_os_error() == Some(libc::EINTR) => {
                    failed = true;
                    break;
                }
                Err(BatchError::Failed(error)) => return Err(LeftoversError::Remove(error)),
            }
        }
        if !failed {
            removed.kept = removal.kept();
            return Ok(removed);
        }
    }
    Err(LeftoversError::Restless)
}
