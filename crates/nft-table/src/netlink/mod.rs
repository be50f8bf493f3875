//! Transactions as netlink messages, and what the kernel dumps as the types of this library.
//!
//! Opens no socket. After a [`Batch`] the kernel holds byte for byte what it would hold after nft 1.0.6 had
//! loaded the same declarations, so that nft lists it as its own.
//!
//! Elements are the hot path: they are written into the batch one by one, and read from dumps without
//! anything in between. The few other messages go through the types of `netlink-packet-netfilter`.

mod ask;
mod batch;
mod declarations;
pub mod dump;
mod elements;
mod expressions;
pub mod numbers;
mod snapshot;
mod subject;
#[cfg(test)]
mod tests;
mod userdata;
pub mod walk;
mod writer;

pub use ask::{elements_by_key, the_catch_all};
pub use batch::{Batch, EncodeError};
pub use snapshot::{AnonymousSets, SnapshotChain};
pub use subject::Subject;
pub use writer::{Open, OpenMessage, Writer};
