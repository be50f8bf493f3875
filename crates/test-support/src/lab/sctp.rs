//! As much SCTP (RFC 9260) as it takes to see which endpoint an association would be opened with: INIT,
//! INIT ACK and ABORT over raw sockets, so that the tests need no SCTP in the kernel.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};

/// IP protocol number of SCTP.
pub const PROTOCOL: u8 = 132;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
/// Parameter type of the state cookie in an INIT ACK.
const STATE_COOKIE: u16 = 7;

/// The common header without its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub source: u16,
    pub destination: u16,
    /// Verification tag: 0 on an INIT, else the receiver's initiate tag.
    pub tag: u32,
}

/// The first chunk of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    Init { tag: u32 },
    InitAck { tag: u32, cookie: Vec<u8> },
    Abort,
}

/// A packet of one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub header: Header,
    pub chunk: Chunk,
}

impl Packet {
    /// The bytes on the wire, checksum included.
    pub fn encode(&self) -> Vec<u8> {
        let Header { source, destination, tag } = self.header;
        let mut bytes = Vec::new();
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0; 4]);
        match &self.chunk {
            Chunk::Init { tag } => bytes.extend(init(INIT, *tag, &[])),
            Chunk::InitAck { tag, cookie } => {
                let mut parameter = Vec::from(STATE_COOKIE.to_be_bytes());
                parameter.extend((4 + cookie.len() as u16).to_be_bytes());
                parameter.extend(cookie);
                bytes.extend(init(INIT_ACK, *tag, &parameter));
            }
            Chunk::Abort => bytes.extend([ABORT, 0, 0, 4]),
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let checksum = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a packet; None when it is broken (also by its checksum) or of another kind.
    pub fn decode(bytes: &[u8]) -> Option<Packet> {
        let half = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let checksum = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
        let mut blank = bytes.to_vec();
        blank[8..12].fill(0);
        if crc32c(&blank) != checksum {
            return None;
        }
        let header = Header { source: half(0)?, destination: half(2)?, tag: word(4)? };
        let chunk = match *bytes.get(12)? {
            INIT => Chunk::Init { tag: word(16)? },
            INIT_ACK => {
                let length = usize::from(half(34)?);
                Chunk::InitAck { tag: word(16)?, cookie: bytes.get(36..32 + length)?.to_vec() }
            }
            ABORT => Chunk::Abort,
            _ => return None,
        };
        Some(Packet { header, chunk })
    }
}

/// An INIT or INIT ACK chunk: initiate tag, window, one stream each way, first TSN, parameters.
fn init(kind: u8, tag: u32, parameters: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, 0];
    chunk.extend((20 + parameters.len() as u16).to_be_bytes());
    chunk.extend(tag.to_be_bytes());
    chunk.extend(65_536_u32.to_be_bytes());
    chunk.extend([0, 1, 0, 1]);
    chunk.extend(tag.to_be_bytes());
    chunk.extend(parameters);
    chunk
}

/// CRC32c (Castagnoli, reflected), bit by bit: packets here are short.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// A raw SCTP socket bound to an address of the calling thread's namespace.
pub fn socket(address: IpAddr) -> Socket {
    let local = SocketAddr::new(address, 0);
    let socket =
        Socket::new(Domain::for_address(local), Type::RAW, Some(Protocol::from(PROTOCOL as i32)))
            .expect("a raw SCTP socket");
    socket.bind(&local.into()).expect("bind a raw SCTP socket");
    socket
}

/// Receives one packet and its sender. Over IPv4 a raw socket yields the IP header too, over IPv6 not.
pub fn receive(
    socket: &Socket,
    buffer: &mut [MaybeUninit<u8>],
) -> io::Result<(IpAddr, Option<Packet>)> {
    let (length, sender) = socket.recv_from(buffer)?;
    let bytes: Vec<u8> =
        // SAFETY: the kernel has initialised the first `length` bytes.
        buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
    let sender = sender.as_socket().expect("an IP address").ip();
    let payload = match sender {
        IpAddr::V4(_) => bytes.get(usize::from(bytes[0] & 15) * 4..).unwrap_or_default(),
        IpAddr::V6(_) => &bytes,
    };
    Ok((sender, Packet::decode(payload)))
}

#[test]
fn a_packet_survives_the_wire_and_a_broken_one_is_refused() {
    let header = Header { source: 4711, destination: 80, tag: 7 };
    for chunk in [
        Chunk::Init { tag: 5 },
        Chunk::InitAck { tag: 6, cookie: b"biscuit".to_vec() },
        Chunk::Abort,
    ] {
        let packet = Packet { header, chunk };
        let mut bytes = packet.encode();
        assert_eq!(Packet::decode(&bytes), Some(packet));
        bytes[1] ^= 1;
        assert_eq!(Packet::decode(&bytes), None);
    }
}

#[test]
fn crc32c_gives_the_check_value_of_rfc_3720() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
