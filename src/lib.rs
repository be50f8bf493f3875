//! A drop-in replacement for Kubernetes' kube-proxy that is native to nftables.
//!
//! Data flows one way: a source (`manifests` or `api`) reads API objects, [`intake`] turns them into
//! [`model`] types, the [`plan`] turns those into elements and rules of a [`nft_table::Table`], the
//! difference to what the kernel holds becomes one netlink transaction.

pub mod api;
pub mod app;
pub mod config;
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
