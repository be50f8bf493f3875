//! By which way packets of an address come in.

use super::AddressError;
use crate::kernel::netlink::{Netlink, Options, request};
use netlink_packet_core::{NLM_F_REQUEST, ParseableParametrized};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_indextoname;
use std::net::IpAddr;

/// Where an address is, seen from this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is the machine's own.
    Own,
    /// Packets to it leave by this interface, so its own most likely come in there.
    By(String),
    /// There is no route to it.
    Nowhere,
}

/// Asks the routing tables of the network namespace of the calling thread for the way to an address.
///
/// # Errors
/// The kernel does not answer.
pub fn way_to(address: IpAddr) -> Result<Way, AddressError> {
    let socket = Netlink::open(NETLINK_ROUTE, &Options::default());
    let mut socket = socket.map_err(|source| AddressError::Socket { what: "a route", source })?;
    let mut message = RouteMessage::default();
    let (family, bits, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = bits;
    message.attributes.push(RouteAttribute::Destination(destination));
    let question = request(RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST);
    let mut way = Way::Nowhere;
    let answered = socket.get(question, |message| {
        let read = RouteNetlinkMessage::parse_with_param(message.payload, message.message_type)?;
        let RouteNetlinkMessage::NewRoute(route) = read else { return Ok(()) };
        let mut attributes = route.attributes.iter();
        let out = attributes.find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => if_indextoname(*index).ok(),
            _ => None,
        });
        way = match (route.header.kind, out) {
            (RouteType::Local, _) => Way::Own,
            (RouteType::Unicast, Some(name)) => Way::By(name.to_string_lossy().into_owned()),
            _ => Way::Nowhere,
        };
        Ok(())
    });
    match answered {
        Ok(()) => Ok(way),
        // "Network is unreachable", or a route that says so.
        Err(error)
            if matches!(
                error.errno(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
            ) =>
        {
            Ok(Way::Nowhere)
        }
        Err(source) => Err(AddressError::Dump { what: "a route", source }),
    }
}
