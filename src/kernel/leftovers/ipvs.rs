//! What the ipvs mode of kube-proxy left: virtual servers, and the device that had their addresses.
//!
//! Others use IPVS, too (keepalived). A virtual server is kube-proxy's if its address is one of its device, or if it
//! is a NodePort of a Service on another address of this machine; never if its address is in `ipvs.excludeCIDRs`.
//! Where there is no such device, that mode was not there, and IPVS is not asked for: that would load its module.

use super::LeftoversError;
use crate::kernel::netlink::{Dumped, Netlink, Options, request, retry};
use ipnet::IpNet;
use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkSerializable,
    ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlMessage};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::LinkMessage;
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use nft_table::netlink::walk::attributes;
use nix::net::if_::if_nametoindex;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The device of kube-proxy's ipvs mode.
const DEVICE: &str = "kube-ipvs0";

/// Commands and attributes of linux/ip_vs.h.
const DEL_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const CMD_SERVICE: u16 = 1;
const SERVICE_FAMILY: u16 = 1;
const SERVICE_PROTOCOL: u16 = 2;
const SERVICE_ADDRESS: u16 = 3;
const SERVICE_PORT: u16 = 4;

/// `NLA_F_NESTED`, and all flags of an attribute's type, of linux/netlink.h.
const NESTED: u16 = 1 << 15;
/// Bytes of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;
/// How often a dump that other writers interrupted is begun anew.
const ATTEMPTS: usize = 10;

/// The NodePorts of Services: IANA protocol numbers and ports.
pub type NodePorts = HashSet<(u8, u16)>;

/// A virtual server that is known by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct VirtualServer {
    protocol: u8,
    address: IpAddr,
    port: u16,
}

/// Which addresses the machine has, on that device and on others.
#[derive(Debug, Default)]
struct Addresses {
    on_device: HashSet<IpAddr>,
    elsewhere: HashSet<IpAddr>,
}

/// Removes what the ipvs mode left in the network namespace of the calling thread; returns how many virtual servers
/// that were. None: it was not there.
///
/// # Errors
/// The kernel refuses it; what is left is found the next time.
pub fn remove_ipvs(
    excluded: &[IpNet],
    node_ports: &NodePorts,
) -> Result<Option<usize>, LeftoversError> {
    let Ok(device) = if_nametoindex(DEVICE) else { return Ok(None) };
    let strict = Options { strict: true, ..Options::default() };
    let mut route = Netlink::open(NETLINK_ROUTE, &strict).map_err(LeftoversError::Socket)?;
    let addresses = addresses(&mut route, device)?;
    let mut generic =
        Netlink::open(NETLINK_GENERIC, &Options::default()).map_err(LeftoversError::Socket)?;
    let mut count = 0;
    if let Some(family) = family(&mut generic)? {
        for server in servers(&mut generic, family)? {
            if is_kube_proxys(&server, &addresses, excluded, node_ports) {
                delete(&mut generic, family, &server)?;
                count += 1;
            }
        }
    }
    // Last: without it the next attempt finds nothing.
    let mut link = LinkMessage::default();
    link.header.index = device;
    acknowledged(&mut route, "the device kube-ipvs0", RouteNetlinkMessage::DelLink(link))?;
    Ok(Some(count))
}

fn is_kube_proxys(
    server: &VirtualServer,
    addresses: &Addresses,
    excluded: &[IpNet],
    node_ports: &NodePorts,
) -> bool {
    let address = &server.address;
    let is_node_port = || {
        addresses.elsewhere.contains(address)
            && node_ports.contains(&(server.protocol, server.port))
    };
    !excluded.iter().any(|network| network.contains(address))
        && (addresses.on_device.contains(address) || is_node_port())
}

fn addresses(socket: &mut Netlink, device: u32) -> Result<Addresses, LeftoversError> {
    let dump = request(
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        NLM_F_REQUEST | NLM_F_DUMP,
    );
    complete("addresses", || {
        let mut addresses = Addresses::default();
        let dumped = socket.dump(dump.clone(), |message| {
            let read = RouteNetlinkMessage::parse_with_param(message.payload, message.message_type);
            let RouteNetlinkMessage::NewAddress(message) = read? else { return Ok(()) };
            let is_on_device = message.header.index == device;
            let place =
                if is_on_device { &mut addresses.on_device } else { &mut addresses.elsewhere };
            place.extend(message.attributes.iter().filter_map(|attribute| match attribute {
                AddressAttribute::Local(address) | AddressAttribute::Address(address) => {
                    Some(*address)
                }
                _ => None,
            }));
            Ok(())
        })?;
        Ok((addresses, dumped))
    })
}

/// The number of the generic netlink family IPVS; None: the kernel has none.
fn family(socket: &mut Netlink) -> Result<Option<u16>, LeftoversError> {
    let payload = GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(Ipvs::family_name().to_owned())],
    };
    let question = request(GenlMessage::from_payload(payload), NLM_F_REQUEST);
    let mut number = None;
    let got = socket.get(question, |message| {
        let answer = message.payload.get(GENERIC_HEADER..).unwrap_or_default();
        // `CTRL_ATTR_FAMILY_ID` of linux/genetlink.h.
        let id = attributes(answer).find(|(kind, _)| *kind == 1);
        number = id.and_then(|(_, id)| Some(u16::from_ne_bytes(id.try_into().ok()?)));
        Ok(())
    });
    match got {
        Ok(()) => Ok(number),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        Err(source) => Err(LeftoversError::Ipvs { what: "the netlink family of IPVS", source }),
    }
}

fn servers(socket: &mut Netlink, family: u16) -> Result<Vec<VirtualServer>, LeftoversError> {
    let payload = Ipvs { command: GET_SERVICE, attributes: Vec::new() };
    let dump = request(of_family(payload, family), NLM_F_REQUEST | NLM_F_DUMP);
    complete("virtual servers", || {
        let mut servers = Vec::new();
        let dumped = socket.dump(dump.clone(), |message| {
            let answer = message.payload.get(GENERIC_HEADER..).unwrap_or_default();
            let service = attributes(answer).find(|(kind, _)| *kind == CMD_SERVICE);
            servers.extend(service.and_then(|(_, service)| VirtualServer::read(service)));
            Ok(())
        })?;
        Ok((servers, dumped))
    })
}

fn delete(socket: &mut Netlink, family: u16, server: &VirtualServer) -> Result<(), LeftoversError> {
    let payload = Ipvs { command: DEL_SERVICE, attributes: vec![server.write()] };
    acknowledged(socket, "a virtual server", of_family(payload, family))
}

/// Sends a request for a change. What is gone already is no error.
fn acknowledged<M: NetlinkSerializable>(
    socket: &mut Netlink,
    what: &'static str,
    message: M,
) -> Result<(), LeftoversError> {
    let change = request(message, NLM_F_REQUEST | NLM_F_ACK);
    match socket.get(change, |_| Ok(())) {
        Err(error) if !matches!(error.errno(), Some(libc::ESRCH | libc::ENODEV | libc::ENOENT)) => {
            Err(LeftoversError::Ipvs { what, source: error })
        }
        _ => Ok(()),
    }
}

/// What a dump has read, begun anew when something changed meanwhile.
fn complete<T>(
    what: &'static str,
    mut attempt: impl FnMut() -> Result<(T, Dumped), crate::kernel::netlink::Error>,
) -> Result<T, LeftoversError> {
    let attempt = || {
        let (read, dumped) = attempt().map_err(|source| LeftoversError::Ipvs { what, source })?;
        Ok((dumped == Dumped::Complete).then_some(read))
    };
    retry(ATTEMPTS, attempt)?.ok_or(LeftoversError::Restless)
}

fn of_family(payload: Ipvs, family: u16) -> GenlMessage<Ipvs> {
    let mut message = GenlMessage::from_payload(payload);
    message.set_resolved_family_id(family);
    message
}

/// A message to IPVS.
#[derive(Clone, Debug)]
struct Ipvs {
    command: u8,
    attributes: Vec<DefaultNla>,
}

impl GenlFamily for Ipvs {
    fn family_name() -> &'static str {
        "IPVS"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Ipvs {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl VirtualServer {
    /// Reads the attributes of one; None: it is known by a mark of the firewall, as none of kube-proxy's is.
    fn read(bytes: &[u8]) -> Option<VirtualServer> {
        let (mut family, mut protocol, mut address, mut port) = (None, None, None, None);
        for (kind, value) in attributes(bytes) {
            let short = || <[u8; 2]>::try_from(value).ok();
            match kind {
                SERVICE_FAMILY => family = short().map(u16::from_ne_bytes),
                SERVICE_PROTOCOL => protocol = short().map(u16::from_ne_bytes),
                SERVICE_ADDRESS => address = Some(value),
                SERVICE_PORT => port = short().map(u16::from_be_bytes),
                _ => {}
            }
        }
        let address = match i32::from(family?) {
            libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(address?.get(..4)?).ok()?).into(),
            libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(address?).ok()?).into(),
            _ => return None,
        };
        Some(VirtualServer { protocol: protocol?.try_into().ok()?, address, port: port? })
    }

    fn write(&self) -> DefaultNla {
        let (family, mut address) = match self.address {
            IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
        };
        // `union nf_inet_addr`.
        address.resize(16, 0);
        let attributes = [
            DefaultNla::new(SERVICE_FAMILY, (family as u16).to_ne_bytes().to_vec()),
            DefaultNla::new(SERVICE_PROTOCOL, u16::from(self.protocol).to_ne_bytes().to_vec()),
            DefaultNla::new(SERVICE_ADDRESS, address),
            DefaultNla::new(SERVICE_PORT, self.port.to_be_bytes().to_vec()),
        ];
        let mut bytes = vec![0; attributes.as_slice().buffer_len()];
        attributes.as_slice().emit(&mut bytes);
        DefaultNla::new(CMD_SERVICE | NESTED, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str, port: u16) -> VirtualServer {
        VirtualServer { protocol: 6, address: address.parse().expect("an address"), port }
    }

    #[test]
    fn what_is_written_is_read() {
        for server in [server("10.96.0.10", 80), server("fd00:10:96::a", 53)] {
            let mut bytes = vec![0; server.write().buffer_len()];
            server.write().emit(&mut bytes);
            let (kind, value) = attributes(&bytes).next().expect("an attribute");
            assert_eq!((kind, VirtualServer::read(value)), (CMD_SERVICE, Some(server)));
        }
        assert_eq!(VirtualServer::read(&[]), None);
    }

    #[test]
    fn those_of_others_stay() {
        let set = |list: &[&str]| list.iter().map(|one| one.parse().expect("an address")).collect();
        let addresses = Addresses {
            on_device: set(&["10.96.0.10", "203.0.113.1", "fd00:10:96::a"]),
            elsewhere: set(&["192.0.2.1", "192.0.2.100", "127.0.0.1"]),
        };
        let excluded = ["203.0.113.0/24".parse().expect("a network")];
        let node_ports = NodePorts::from([(6, 30080)]);
        for (address, port, expected) in [
            ("10.96.0.10", 80, true),
            ("fd00:10:96::a", 53, true),
            // In `excludeCIDRs`.
            ("203.0.113.1", 80, false),
            ("192.0.2.1", 30080, true),
            ("192.0.2.1", 30081, false),
            // keepalived's.
            ("192.0.2.100", 80, false),
            ("198.51.100.1", 30080, false),
        ] {
            let server = server(address, port);
            let found = is_kube_proxys(&server, &addresses, &excluded, &node_ports);
            assert_eq!(found, expected, "{address} {port}");
        }
    }
}
