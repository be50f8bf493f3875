//! The HTTP servers: health, metrics, and the health check node ports of Services.
//!
//! They only read what other rooms publish ([`crate::health`], [`crate::metrics`]) and never hold
//! anything up: a server that cannot bind is reported and tried again while the proxy goes on, unless
//! `bindAddressHardFail` is set.
//! Everything is HTTP/1.1 without TLS or authentication, as upstream serves it.

mod accept;
mod answer;
mod bind;
mod connections;
pub mod health;
pub mod metrics;
mod server;
pub mod service_checks;
mod status;

pub use server::{BindError, Server};
