//! The ways in for fuzzing: what [`Source`](super::Source) does with the content of files.

pub use super::decode::{Object, decode};
pub use super::split::{Format, Piece, split};
pub use super::store::Store;
