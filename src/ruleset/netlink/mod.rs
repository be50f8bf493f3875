//! Transactions as netlink messages, and what the kernel dumps as the types of this library.
//!
//! Opens no socket. What is written here is byte for byte what nft 1.0.6 sends for the same declarations,
//! so that every nft can list it.

mod batch;
mod declarations;
pub mod dump;
mod elements;
mod expressions;
pub mod numbers;
mod place;
mod snapshot;
#[cfg(test)]
mod tests;
mod userdata;
pub mod walk;
mod writer;

pub use batch::Batch;
pub use place::Place;
pub use snapshot::{AnonymousSets, SnapshotChain};
pub use writer::Writer;
