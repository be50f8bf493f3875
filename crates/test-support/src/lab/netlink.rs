//! Links, addresses, routes and neighbours of one namespace, over a route netlink socket of its own:
//! a whole lab costs some hundred requests of a few microseconds each, and no process.

use super::{Machine, Namespace};
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

/// Interface index of `lo` in every namespace.
pub const LOOPBACK: u32 = 1;

/// A hardware address.
pub type Mac = [u8; 6];

/// One end of a veth pair. The caller chooses the index, so that nothing has to be looked up.
pub struct VethEnd<'a> {
    pub name: &'a str,
    pub index: u32,
    pub mac: Mac,
}

/// The route netlink socket of a namespace. Every method panics with the kernel's answer when refused.
pub struct Netlink {
    socket: Mutex<Socket>,
}

impl Netlink {
    pub fn new(namespace: &Namespace) -> Netlink {
        let socket = namespace.run(|| {
            let mut socket = Socket::new(NETLINK_ROUTE).expect("open a route netlink socket");
            socket.bind_auto().expect("bind");
            socket.connect(&SocketAddr::new(0, 0)).expect("connect");
            socket.set_cap_ack(true).expect("NETLINK_CAP_ACK");
            socket
        });
        Netlink { socket: Mutex::new(socket) }
    }

    /// `ip link add NAME index N address MAC type veth peer name ... netns ...`; both ends come up.
    pub fn veth(&self, end: VethEnd, peer: VethEnd, other: &Machine) {
        let (index, peer_index) = (end.index, peer.index);
        let mut peer_link = ethernet(&peer);
        peer_link.attributes.push(LinkAttribute::NetNsFd(other.namespace.raw_descriptor()));
        let mut link = ethernet(&end);
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer_link))),
        ]));
        self.create(format!("add veth {}", end.name), RouteNetlinkMessage::NewLink(link));
        // Not at once: a veth cannot come up before its peer is there.
        other.netlink.up(peer_index);
        self.up(index);
        // The kernel acts on the carrier from a work queue. Until then a bridge keeps the port off, and the
        // link drops what it is given to send.
        self.wait_for_carrier(index);
        other.netlink.wait_for_carrier(peer_index);
    }

    /// `ip link add NAME type bridge`; it comes up.
    pub fn bridge(&self, name: &str, index: u32, mac: Mac) {
        let mut link = ethernet(&VethEnd { name, index, mac });
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.create(format!("add bridge {name}"), RouteNetlinkMessage::NewLink(link));
        self.up(index);
    }

    /// `ip link set INDEX up`.
    pub fn up(&self, index: u32) {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(format!("set {index} up"), RouteNetlinkMessage::SetLink(link), 0);
    }

    /// Waits until the operational state of a link is up.
    fn wait_for_carrier(&self, index: u32) {
        let up = LinkAttribute::OperState(State::Up);
        while !self.link(index).attributes.contains(&up) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// `ip link show`.
    fn link(&self, index: u32) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let message = RouteNetlinkMessage::GetLink(link);
        let answer = self.exchange(&format!("show link {index}"), message, NLM_F_REQUEST);
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).expect("decode");
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => link,
            other => panic!("show link {index}: {other:?}"),
        }
    }

    /// `ip link set INDEX master BRIDGE`; a bridge has carrier from its first port on.
    pub fn enslave(&self, index: u32, bridge: u32) {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Controller(bridge));
        self.request(format!("set {index} master {bridge}"), RouteNetlinkMessage::SetLink(link), 0);
    }

    /// `bridge link set dev INDEX hairpin on`: the port may send back what came from it.
    pub fn hairpin(&self, index: u32) {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let port = InfoBridgePort::HairpinMode(true);
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![port])),
        ]));
        // RTM_SETLINK would take this and ignore it.
        self.request(format!("hairpin {index}"), RouteNetlinkMessage::NewLink(link), 0);
    }

    /// `ip link del INDEX`.
    pub fn remove_link(&self, index: u32) {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.request(format!("del link {index}"), RouteNetlinkMessage::DelLink(link), 0);
    }

    /// `ip addr add ADDRESS dev INDEX nodad`.
    pub fn address(&self, index: u32, address: IpNet) {
        let message = RouteNetlinkMessage::NewAddress(address_message(index, address));
        self.create(format!("add address {address}"), message);
        // The kernel adds the local route of an IPv6 address later, from a work queue, also with nodad.
        while !self.is_local(address.addr()) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// `ip route get ADDRESS`: does it lead to this namespace itself?
    fn is_local(&self, address: IpAddr) -> bool {
        let mut route = RouteMessage::default();
        route.header.address_family = family(&address);
        route.header.destination_prefix_length = IpNet::from(address).prefix_len();
        route.attributes.push(RouteAttribute::Destination(address.into()));
        let message = RouteNetlinkMessage::GetRoute(route);
        let answer = self.exchange(&format!("get route to {address}"), message, NLM_F_REQUEST);
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).expect("decode");
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                route.header.kind == RouteType::Local
            }
            // No route at all yet.
            _ => false,
        }
    }

    /// `ip addr del ADDRESS dev INDEX`.
    pub fn remove_address(&self, index: u32, address: IpNet) {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
        self.request(format!("del address {address}"), message, 0);
    }

    /// `ip route replace DESTINATION via GATEWAY dev INDEX onlink`, or without a gateway
    /// `ip route replace DESTINATION dev INDEX scope link`.
    pub fn route(&self, destination: IpNet, gateway: Option<IpAddr>, index: u32) {
        let mut route = route_message(destination, index);
        match gateway {
            Some(gateway) => {
                route.header.flags = RouteFlags::Onlink;
                route.attributes.push(RouteAttribute::Gateway(gateway.into()));
            }
            None if destination.addr().is_ipv4() => route.header.scope = RouteScope::Link,
            None => {}
        }
        self.request(
            format!("route {destination}"),
            RouteNetlinkMessage::NewRoute(route),
            NLM_F_CREATE | NLM_F_REPLACE,
        );
    }

    /// `ip route add local DESTINATION dev lo`, as clouds install the addresses of load balancers.
    pub fn local_route(&self, destination: IpNet) {
        let route = local_route_message(destination);
        self.create(format!("add local {destination}"), RouteNetlinkMessage::NewRoute(route));
    }

    /// `ip route del local DESTINATION dev lo`.
    pub fn remove_local_route(&self, destination: IpNet) {
        let route = local_route_message(destination);
        let message = RouteNetlinkMessage::DelRoute(route);
        self.request(format!("del local {destination}"), message, 0);
    }

    /// `ip neigh replace ADDRESS lladdr MAC dev INDEX nud permanent`.
    pub fn neighbour(&self, index: u32, address: IpAddr, mac: Mac) {
        let mut neighbour = NeighbourMessage::default();
        neighbour.header.family = family(&address);
        neighbour.header.ifindex = index;
        neighbour.header.state = NeighbourState::Permanent;
        let destination = match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        };
        neighbour.attributes.push(NeighbourAttribute::Destination(destination));
        neighbour.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.request(
            format!("neighbour {address}"),
            RouteNetlinkMessage::NewNeighbour(neighbour),
            NLM_F_CREATE | NLM_F_REPLACE,
        );
    }

    fn create(&self, what: String, message: RouteNetlinkMessage) {
        self.request(what, message, NLM_F_CREATE | NLM_F_EXCL);
    }

    /// Sends one request and waits for its acknowledgement.
    fn request(&self, what: String, message: RouteNetlinkMessage, flags: u16) {
        let answer = self.exchange(&what, message, NLM_F_REQUEST | NLM_F_ACK | flags);
        // struct nlmsghdr (16 bytes), then the negated errno of struct nlmsgerr; 0 acknowledges.
        let code = i32::from_ne_bytes(answer[16..20].try_into().expect("four bytes"));
        assert!(code == 0, "{what}: {}", io::Error::from_raw_os_error(-code));
    }

    /// Sends one request and returns the one answer to it.
    fn exchange(&self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        let socket = self.socket.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let answer = socket.send(&bytes, 0).and_then(|_| socket.recv_from_full());
        answer.unwrap_or_else(|error| panic!("{what}: {error}")).0
    }
}

fn ethernet(end: &VethEnd) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = end.index;
    link.attributes.push(LinkAttribute::IfName(end.name.to_owned()));
    link.attributes.push(LinkAttribute::Address(end.mac.to_vec()));
    link
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(&address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message
}

fn route_message(destination: IpNet, index: u32) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family(&destination.addr());
    route.header.destination_prefix_length = destination.prefix_len();
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    route.header.kind = RouteType::Unicast;
    route.attributes.push(RouteAttribute::Destination(destination.network().into()));
    route.attributes.push(RouteAttribute::Oif(index));
    route
}

fn local_route_message(destination: IpNet) -> RouteMessage {
    /// RT_TABLE_LOCAL of linux/rtnetlink.h.
    const LOCAL_TABLE: u8 = 255;
    let mut route = route_message(destination, LOOPBACK);
    route.header.table = LOCAL_TABLE;
    route.header.kind = RouteType::Local;
    if destination.addr().is_ipv4() {
        route.header.scope = RouteScope::Host;
    }
    route
}

fn family(address: &IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
