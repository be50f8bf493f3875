//! The addresses of this node, as the kernel has them, and what follows from them.
//!
//! [`AddressWatch`] follows rtnetlink events and hands out a [`LocalAddresses`] whenever one differs
//! from the one before. [`nodeport_networks`] and [`health_port_addresses`] are pure: they turn a
//! snapshot and the configured restriction into the networks on which NodePorts answer and the
//! addresses on which health check servers listen.
//!
//! A *local route* is a destination of type `local` in the local routing table. Most of them stand
//! for an interface address, but clouds also install load balancer IPs as bare routes, without an
//! address, and prefixes are possible. nft's `fib daddr type local` asks the same table.
//! Multicast, anycast and broadcast destinations are of other types, so they never appear.

mod dump;
mod families;
mod networks;
mod route;
mod watch;

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing {
    //! The way in for fuzzing.

    use super::{LocalAddresses, dump};
    use netlink_packet_route::AddressFamily;

    /// Reads a message as a route or an address.
    pub fn read(message_type: u16, payload: &[u8]) {
        let Ok(answer) = dump::read(message_type, payload) else { return };
        let families = [AddressFamily::Inet, AddressFamily::Inet6];
        let routes = families.into_iter().filter_map(|family| dump::route(answer.clone(), family));
        LocalAddresses::new(routes, dump::address(answer.clone()));
    }
}

pub use families::{FamilyAvailability, available_families};
pub use networks::{FamilySelection, NodePortSelection, health_port_addresses, nodeport_networks};
pub use route::{Way, way_to};
pub use watch::AddressWatch;

use crate::kernel::netlink::Error as NetlinkError;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// What the kernel holds at one moment. Sorted and without duplicates, so that two snapshots of
/// the same state are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// Destinations of type `local`, both families, outside 127.0.0.0/8 and ::1.
    pub local_routes: Vec<IpNet>,
    /// Destinations of type `local` inside 127.0.0.0/8 and ::1.
    pub loopback_routes: Vec<IpNet>,
    /// Addresses of all interfaces, up or down, loopback included.
    pub interface_addresses: Vec<IpAddr>,
}

impl LocalAddresses {
    /// Sorts out what a dump returned. A route that holds all of loopback, as an AnyIP route
    /// `local 0.0.0.0/0` does, is cut so that `local_routes` never matches loopback.
    pub fn new(
        routes: impl IntoIterator<Item = IpNet>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> LocalAddresses {
        let mut local = BTreeSet::new();
        let mut loopback = BTreeSet::new();
        for route in routes {
            let route = route.trunc();
            local.extend(networks::without_loopback(route));
            loopback.extend(networks::loopback_part(route));
        }
        let addresses: BTreeSet<IpAddr> = addresses.into_iter().collect();
        LocalAddresses {
            local_routes: local.into_iter().collect(),
            loopback_routes: loopback.into_iter().collect(),
            interface_addresses: addresses.into_iter().collect(),
        }
    }
}

/// Why the kernel's addresses cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("cannot open an rtnetlink socket for {what}: {source}")]
    Socket { what: &'static str, source: io::Error },
    #[error("cannot read {what} from the kernel: {source}")]
    Dump { what: &'static str, source: NetlinkError },
    #[error("cannot start the thread that follows the kernel's addresses: {0}")]
    Thread(io::Error),
}
