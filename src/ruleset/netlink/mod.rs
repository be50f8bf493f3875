//! Transactions as netlink messages, and what the kernel dumps as the types of this library.

mod snapshot;

pub use snapshot::SnapshotChain;
