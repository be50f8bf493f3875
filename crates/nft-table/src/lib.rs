#![doc = include_str!("../README.md")]
//!
//! # The way of a change
//! ```text
//! Table (what should be)  --changes()-->  Transaction (operations)  --netlink-->  kernel
//!        ^                                      |
//!        +------------- committed() <-----------+
//! ```
//!
//! A [`Table`] holds the desired state and remembers, for everything that was touched, what the kernel
//! has; [`Table::changes`] is the difference, proportional to what was touched. Everything can be
//! rendered as nft syntax ([`text`]) and as netlink ([`netlink`]).

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod ahead;
mod behind;
mod chain;
mod data;
pub mod evaluate;
#[cfg(test)]
mod example;
mod expression;
mod family;
pub mod jhash;
pub mod netlink;
mod odds;
mod rule;
mod set;
mod shape;
mod stages;
mod table;
pub mod text;
mod transaction;

pub use chain::{BaseChain, Chain, ChainType, Hook};
pub use data::DataType;
pub use expression::{Constant, Expression, Hash, Hashed};
pub use family::Family;
pub use rule::{Reject, Rule, Statement, Verdict};
pub use set::{
    Count, DYNAMIC_SIZE, Data, Key, KeyBuilder, Lifetime, Set, SetData, SetFlags, Value,
    VerdictElement,
};
pub use shape::ShapeError;
pub use table::{SetId, Snapshot, SnapshotSet, Table, TableError};
pub use transaction::{Counts, Operation, Ownership, Transaction};
