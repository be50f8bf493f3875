//! NodePorts on 127.0.0.1 and ::1, served by a TCP proxy in this process.
//!
//! The kernel cannot translate connections to loopback without `route_localnet`, which would open
//! loopback services to the network. So where the configuration asks for localhost NodePorts, the
//! proxy listens on the NodePort itself and relays each connection to a usable endpoint of the
//! Service. TCP only; UDP and SCTP are rejected by the ruleset.
//!
//! [`run`] follows a list of [`LocalhostPort`]s. Which endpoints are usable (readiness, policies,
//! topology) is decided by whoever makes the list. A port without a usable endpoint has no
//! listener, so that connections are refused. Established connections live on whatever the list
//! says, until one side ends them; or nothing has come for a day, or there are too many and nothing has come over one
//! for longer than over any other.

mod connection;
mod manager;
mod relays;
mod service_port;

pub use manager::run;

use nft_table::Family;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One NodePort that is to be served on the loopback address of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalhostPort {
    /// The Service port as `namespace/name:port`; it owns the session affinity and names the port
    /// in messages.
    pub service_port: Arc<str>,
    pub family: Family,
    /// The NodePort, listened on at 127.0.0.1 or ::1.
    pub node_port: u16,
    /// The endpoints for new connections. With external policy Local these are local ones only.
    pub endpoints: Arc<[SocketAddr]>,
    /// Session affinity ClientIP: for how long after its last new connection a client address keeps its
    /// endpoint.
    pub affinity: Option<Duration>,
}

/// Hears what the proxy does; for metrics. Calls come from the task of [`run`].
pub trait Observer: Send {
    /// How many listeners are open now. Called after each change.
    fn listeners(&mut self, family: Family, open: usize);
    /// An attempt to open a listener failed. Each attempt counts.
    fn listener_failed(&mut self, family: Family);
}

/// Nobody is interested.
impl Observer for () {
    fn listeners(&mut self, _: Family, _: usize) {}
    fn listener_failed(&mut self, _: Family) {}
}
