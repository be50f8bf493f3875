//! What is given to the program by fuzzing, and what has to hold whatever that is.
//!
//! Each module has one function that a target of the same name calls; it panics where something does not hold. Only
//! `plan` makes its inputs out of bytes, the others read them as the program does.

pub mod cluster;
pub mod config;
pub mod manifests;
mod model;
pub mod netlink;
pub mod objects;
pub mod plan;
