//! Raw ICMP: hearing errors about one's own packets, and echo requests.
//!
//! The errors are read from a raw socket and not from the error of the socket that sent the packet, because the
//! kernel only keeps them for later (until a retransmission) when they arrive while the sender still holds its socket,
//! which on one machine with virtual links is the usual case.

use super::gateway::Stray;
use nft_table::Family;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// IP protocol numbers.
pub const ICMP4: u8 = 1;
pub const ICMP6: u8 = 58;

/// An open raw ICMP socket of one family, in the namespace that it was opened in.
pub struct Watch {
    socket: Socket,
    family: Family,
}

/// What arrived.
pub enum Message {
    /// An error about a packet that was sent from here.
    Error {
        kind: u8,
        code: u8,
        about: Stray,
    },
    EchoReply {
        from: IpAddr,
        identifier: u16,
    },
}

impl Watch {
    /// Opens it in the calling thread's namespace.
    pub fn open(family: Family) -> Watch {
        let (domain, protocol) = match family {
            Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
            Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("a raw ICMP socket");
        socket.set_nonblocking(true).expect("non-blocking");
        Watch { socket, family }
    }

    /// For an echo request with a source address or device of its own.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// An echo request without data; over IPv6 the kernel fills the checksum in.
    pub fn echo_request(&self, identifier: u16) -> Vec<u8> {
        let kind = if self.family == Family::V4 { 8 } else { 128 };
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(identifier.to_be_bytes());
        bytes.extend([0, 1]);
        if self.family == Family::V4 {
            let words =
                bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
            let sum: u32 = words.sum();
            let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
            bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }

    /// Takes one message of the kinds of interest, None when no more wait.
    pub fn next(&self) -> Option<Message> {
        let mut buffer = [MaybeUninit::uninit(); 2048];
        loop {
            let (length, sender) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => panic!("read ICMP: {error}"),
            };
            let bytes: Vec<u8> =
                // SAFETY: the kernel has initialised the first `length` bytes.
                buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
            let sender = sender.as_socket().expect("an IP address").ip();
            if let Some(message) = self.parse(&bytes, sender) {
                return Some(message);
            }
        }
    }

    fn parse(&self, bytes: &[u8], from: IpAddr) -> Option<Message> {
        let icmp = match self.family {
            Family::V4 => bytes.get(usize::from(bytes.first()? & 15) * 4..)?,
            Family::V6 => bytes,
        };
        let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
        let is_reply = kind == if self.family == Family::V4 { 0 } else { 129 };
        // Unreachable and time exceeded, then IPv6's unreachable, too big and time exceeded.
        let is_error = match self.family {
            Family::V4 => matches!(kind, 3 | 11),
            Family::V6 => matches!(kind, 1..=3),
        };
        if is_reply {
            let identifier = u16::from_be_bytes(icmp.get(4..6)?.try_into().ok()?);
            Some(Message::EchoReply { from, identifier })
        } else if is_error {
            Some(Message::Error { kind, code, about: Stray::parse(icmp.get(8..)?)? })
        } else {
            None
        }
    }

    /// Is this ICMP or ICMPv6 port unreachable?
    pub fn is_port_unreachable(&self, kind: u8, code: u8) -> bool {
        (kind, code) == if self.family == Family::V4 { (3, 3) } else { (1, 4) }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
