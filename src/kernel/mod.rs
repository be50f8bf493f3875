//! Sockets to the kernel: nftables transactions and dumps, addresses, conntrack, sysctls.
//!
//! Knows netlink and `/proc`, no Kubernetes and no plan. Whatever blocks runs on a thread of its own.

pub mod addresses;
pub mod conntrack;
mod datagram;
pub mod fake;
pub mod leftovers;
pub mod nft;
pub mod sysctl;

pub use nft::{Kernel, Nft};
