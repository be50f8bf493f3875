//! One snapshot: two route dumps and one address dump.

use super::{AddressError, LocalAddresses};
use crate::kernel::netlink::{Dumped, Error, Netlink, Options, request, retry};
use ipnet::IpNet;
use netlink_packet_core::{DecodeError, NLM_F_DUMP, NLM_F_REQUEST, ParseableParametrized};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RT_TABLE_LOCAL` of linux/rtnetlink.h.
const RT_TABLE_LOCAL: u8 = 255;
/// How often a dump that other writers interrupted is begun anew.
const ATTEMPTS: usize = 10;

/// Reads snapshots over a socket of its own, so that no event gets between the answers.
pub(super) struct Dumper(Netlink);

impl Dumper {
    /// Opens the socket in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Dumper, AddressError> {
        // With strict checking the kernel honours table and type of the request. An older kernel
        // dumps every table; the filter below sorts that out.
        let options = Options { strict: true, ..Options::default() };
        let socket = Netlink::open(NETLINK_ROUTE, &options);
        socket.map(Dumper).map_err(|source| AddressError::Socket { what: "dumps", source })
    }

    /// Reads the present state. Blocks for as long as the kernel needs.
    pub(super) fn snapshot(&mut self) -> Result<LocalAddresses, AddressError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.table = RT_TABLE_LOCAL;
            request.header.kind = RouteType::Local;
            let answers = self
                .dump(RouteNetlinkMessage::GetRoute(request))
                .map_err(|source| AddressError::Dump { what: "the local routing table", source })?;
            routes.extend(answers.into_iter().filter_map(|answer| route(answer, family)));
        }
        let answers = self
            .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
            .map_err(|source| AddressError::Dump { what: "the interface addresses", source })?;
        Ok(LocalAddresses::new(routes, answers.into_iter().filter_map(address)))
    }

    /// One complete dump; begun anew when the kernel says that the state changed meanwhile.
    fn dump(&mut self, what: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let request = request(what, NLM_F_REQUEST | NLM_F_DUMP);
        let attempt = || {
            let mut answers = Vec::new();
            let dumped = self.0.dump(request.clone(), |message| {
                answers.push(read(message.message_type, message.payload)?);
                Ok(())
            });
            match dumped {
                Ok(Dumped::Complete) => Ok(Some(answers)),
                Ok(Dumped::Interrupted) => Ok(None),
                // A table that was never written to does not exist: no address was ever set.
                Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Some(Vec::new())),
                Err(error) => Err(error),
            }
        };
        retry(ATTEMPTS, attempt)?.ok_or(Error::Interrupted { attempts: ATTEMPTS })
    }
}

/// Reads one message of a dump.
pub(super) fn read(message_type: u16, payload: &[u8]) -> Result<RouteNetlinkMessage, DecodeError> {
    RouteNetlinkMessage::parse_with_param(payload, message_type)
}

/// The destination, if it is a route of a family to this machine.
pub(super) fn route(message: RouteNetlinkMessage, family: AddressFamily) -> Option<IpNet> {
    match message {
        RouteNetlinkMessage::NewRoute(route) if route.header.address_family == family => {
            local_destination(&route)
        }
        _ => None,
    }
}

/// The address, if it is one of an interface.
pub(super) fn address(message: RouteNetlinkMessage) -> Option<IpAddr> {
    match message {
        RouteNetlinkMessage::NewAddress(address) => interface_address(&address),
        _ => None,
    }
}

/// The destination of a route of type local in the local table, else None. A kernel without
/// multiple IPv6 tables keeps local IPv6 routes in the main table.
fn local_destination(route: &RouteMessage) -> Option<IpNet> {
    let header = &route.header;
    if header.kind != RouteType::Local {
        return None;
    }
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let table = table.unwrap_or(u32::from(header.table));
    let v6 = header.address_family == AddressFamily::Inet6;
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    if table != u32::from(RT_TABLE_LOCAL) && !(v6 && table == main) {
        return None;
    }
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let unspecified =
        if v6 { Ipv6Addr::UNSPECIFIED.into() } else { IpAddr::from(Ipv4Addr::UNSPECIFIED) };
    IpNet::new(destination.unwrap_or(unspecified), header.destination_prefix_length).ok()
}

/// The node's own address: `IFA_LOCAL`, or `IFA_ADDRESS` where there is no peer (IPv6).
fn interface_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(found) => address = Some(*found),
            _ => {}
        }
    }
    address
}
