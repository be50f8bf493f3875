//! A drop-in replacement for Kubernetes' kube-proxy that is native to nftables.
//!
//! Data flows one way: a source ([`manifests`] or [`api`]) reads API objects, [`intake`] turns them into
//! [`model`] types, and the [`plan`] turns those into what one table is to hold (a [`nft_table::Table`]).
//! The difference to what the kernel holds becomes one netlink transaction. `ARCHITECTURE.md` has the map.

pub mod answers;
pub mod api;
pub mod app;
pub mod causes;
pub mod cli;
pub mod config;
pub mod explain;
pub mod health;
pub mod http;
pub mod intake;
pub mod kernel;
pub mod localhost;
pub mod manifests;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod sync;
