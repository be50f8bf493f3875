//! The gateway's ears: packet sockets that notice what comes to the gateway although it is for an address
//! that the gateway does not own, such as a VIP that the node left alone.

use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A packet that was for somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// IP protocol number.
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Source and destination port of TCP, UDP and SCTP, else what stands in their place.
    pub source_port: u16,
    pub destination_port: u16,
}

/// A packet socket for one family on the gateway's bridge.
pub struct Ears {
    socket: Socket,
    interface: usize,
    owned: Vec<IpAddr>,
}

/// linux/if_ether.h
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// Opens the ears in the calling thread's namespace. The kernel filters out what is for 198.51.100.0/24,
/// 192.0.2.0/24, their IPv6 counterparts and multicast, so that load tests do not wake them.
pub fn ears(interface: u32, owned: &[IpAddr]) -> Vec<Ears> {
    let filters = [(ETH_P_IP, not_for_outside4()), (ETH_P_IPV6, not_for_outside6())];
    let open = |(protocol, filter): (u16, Vec<SockFilter>)| {
        let protocol = Protocol::from(i32::from(protocol.to_be()));
        let socket =
            Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).expect("a packet socket");
        socket.attach_filter(&filter).expect("attach a filter");
        socket.set_nonblocking(true).expect("non-blocking");
        Ears { socket, interface: interface as usize, owned: owned.to_vec() }
    };
    filters.into_iter().map(open).collect()
}

/// Classic BPF: LD absolute, AND, JEQ, RET (linux/bpf_common.h); offsets count from the IP header.
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

fn not_for_outside4() -> Vec<SockFilter> {
    vec![
        SockFilter::new(LOAD_WORD, 0, 0, 16),
        SockFilter::new(AND, 0, 0, 0xffff_ff00),
        SockFilter::new(JUMP_IF_EQUAL, 2, 0, u32::from_be_bytes([198, 51, 100, 0])),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, u32::from_be_bytes([192, 0, 2, 0])),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn not_for_outside6() -> Vec<SockFilter> {
    vec![
        SockFilter::new(LOAD_WORD, 0, 0, 24),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, 0x2001_0db8),
        SockFilter::new(LOAD_WORD, 0, 0, 28),
        SockFilter::new(JUMP_IF_EQUAL, 4, 0, 0x0000_0000),
        SockFilter::new(JUMP_IF_EQUAL, 3, 2, 0x0100_0000),
        SockFilter::new(AND, 0, 0, 0xff00_0000),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, 0xff00_0000),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

impl Ears {
    /// Takes all packets that wait and notes the strays among them.
    pub fn hear(&self, strays: &mut Vec<Stray>) -> io::Result<()> {
        let mut buffer = [0; 128];
        loop {
            let received = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer);
            let (length, from) = match received {
                Ok(received) => received,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if from.is_none_or(|from| from.ifindex() != self.interface) {
                continue;
            }
            let stray = Stray::parse(&buffer[..length.min(buffer.len())]);
            strays.extend(stray.filter(|stray| !self.owned.contains(&stray.destination)));
        }
    }
}

impl AsFd for Ears {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Stray {
    /// Reads an IP packet without extension headers.
    pub fn parse(packet: &[u8]) -> Option<Stray> {
        let (protocol, source, destination, payload) = if packet.first()? >> 4 == 4 {
            let header: [u8; 20] = packet.get(..20)?.try_into().ok()?;
            let address = |at: usize| {
                let octets: [u8; 4] = header[at..at + 4].try_into().expect("four bytes");
                IpAddr::from(Ipv4Addr::from(octets))
            };
            let length = usize::from(header[0] & 15) * 4;
            (header[9], address(12), address(16), packet.get(length..)?)
        } else {
            let header: [u8; 40] = packet.get(..40)?.try_into().ok()?;
            let address = |at: usize| {
                let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen bytes");
                IpAddr::from(Ipv6Addr::from(octets))
            };
            (header[6], address(8), address(24), &packet[40..])
        };
        let port = |at: usize| Some(u16::from_be_bytes(payload.get(at..at + 2)?.try_into().ok()?));
        Some(Stray {
            protocol,
            source,
            destination,
            source_port: port(0)?,
            destination_port: port(2)?,
        })
    }
}
