//! What this program asks of the kernel: nftables transactions and dumps, addresses, conntrack, sysctls.
//!
//! Everything over netlink goes through one module, `netlink`; the rest is files in `/proc` and `/sys`.
//! No API object and nothing of the plan gets here. What this room knows of Kubernetes is words and
//! names: [`addresses`] that NodePorts answer on, the frontends and endpoints of UDP flows in
//! [`conntrack`], the tables and chains of kube-proxy's other modes in [`leftovers`].
//!
//! [`addresses`] and [`conntrack`] do their work on threads of their own. Everything else blocks whoever
//! calls it for as long as the kernel needs: mostly microseconds, but [`leftovers`] may take seconds.

pub mod addresses;
pub mod conntrack;
pub mod fake;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod leftovers;
mod netlink;
pub mod nft;
pub mod sysctl;

pub use netlink::Error as NetlinkError;
pub use nft::{Kernel, Nft};
