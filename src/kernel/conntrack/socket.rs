//! Dumps and deletions over one netfilter netlink socket.

use super::ConntrackError;
use super::entry::{CTA_TUPLE_ORIG, Entry, Flow};
use super::filter::DumpFilter;
use crate::kernel::datagram::{error_code, messages};
use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackMessage, ConntrackMessageType, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nft_table::Family;
use std::io;
use tracing::debug;

/// How often an interrupted dump is begun anew; after that what it returned is used.
const RETRIES: usize = 5;
/// Deletions in one `sendmsg`. Their answers must fit into a receive buffer of the default size,
/// which holds about 250.
const DELETIONS: usize = 64;
/// Length of `struct nfgenmsg`, which begins every message.
const NFGENMSG: usize = 4;

/// `enum cntl_msg_types` of linux/netfilter/nfnetlink_conntrack.h.
const IPCTNL_MSG_CT_GET_STATS: u8 = 5;
// enum ctattr_filter, and the bits of ctnetlink_filter (net/netfilter/nf_internals.h).
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_FILTER_F_CTA_IP_DST: u32 = 1 << 1;
const CTA_FILTER_F_CTA_PROTO_NUM: u32 = 1 << 3;
const CTA_FILTER_F_CTA_PROTO_DST_PORT: u32 = 1 << 5;
/// `NLA_F_NESTED` of linux/netlink.h.
const NLA_F_NESTED: u16 = 1 << 15;

/// What one dump found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// How many entries came from the kernel.
    pub(super) dumped: usize,
    /// The keys of those that are to go.
    pub(super) stale: Vec<Vec<DefaultNla>>,
    /// The kernel said that the dump may be incomplete.
    interrupted: bool,
}

pub(super) struct ConntrackSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    /// False once a kernel has refused a filter.
    filters: bool,
}

impl ConntrackSocket {
    /// Opens the socket in the network namespace of the calling thread.
    pub(super) fn open() -> Result<ConntrackSocket, ConntrackError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Answers to deletions without a copy of the request.
            let _ = socket.set_cap_ack(true);
            Ok(socket)
        };
        let socket = open().map_err(ConntrackError::Socket)?;
        Ok(ConntrackSocket {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(64 * 1024),
            filters: true,
        })
    }

    /// Asks for the number of entries. The kernel loads its conntrack modules to answer.
    pub(super) fn probe(&mut self) -> Result<(), ConntrackError> {
        self.count().map_err(|source| ConntrackError::Unavailable { source })
    }

    fn count(&mut self) -> io::Result<()> {
        let mut request = Vec::new();
        let message_type = ConntrackMessageType::Other(IPCTNL_MSG_CT_GET_STATS);
        self.append(&mut request, NLM_F_REQUEST | NLM_F_ACK, Family::V4, message_type, Vec::new());
        self.socket.send(&request, 0)?;
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                let ours = message.sequence_number() == self.sequence;
                if ours && message.message_type() == NLMSG_ERROR {
                    return match error_code(message.payload()) {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(code)),
                    };
                }
            }
        }
    }

    /// Lists the UDP entries that `filter` lets through and keeps the keys of those that are
    /// stale. The filter only saves work: `is_stale` decides about each entry.
    pub(super) fn find(
        &mut self,
        filter: &DumpFilter,
        is_stale: &dyn Fn(&Flow) -> bool,
    ) -> Result<Found, ConntrackError> {
        let family = filter.family;
        let result = retry_interrupted(|| {
            let kernel_side = self.filters.then_some(filter);
            match self.dump(family, kernel_side, is_stale) {
                Err(error) if kernel_side.is_some() && refused(&error) => {
                    debug!(%error, "this kernel does not filter conntrack dumps");
                    self.filters = false;
                    self.dump(family, None, is_stale)
                }
                result => result,
            }
        });
        result.map_err(|source| ConntrackError::Dump { family, source })
    }

    fn dump(
        &mut self,
        family: Family,
        filter: Option<&DumpFilter>,
        is_stale: &dyn Fn(&Flow) -> bool,
    ) -> io::Result<Found> {
        let attributes = filter.map(filter_attributes).unwrap_or_default();
        let mut request = Vec::new();
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        self.append(&mut request, flags, family, ConntrackMessageType::Get, attributes);
        self.socket.send(&request, 0)?;
        let mut found = Found::default();
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                if message.sequence_number() != self.sequence {
                    continue; // left over from a dump that failed
                }
                found.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                match message.message_type() {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match error_code(message.payload()) {
                            0 => Ok(found),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    _ => {
                        found.dumped += 1;
                        let entry = Entry(message.payload().get(NFGENMSG..).unwrap_or_default());
                        if entry.udp().map_err(io::Error::other)?.is_some_and(|f| is_stale(&f)) {
                            found.stale.push(entry.key().map_err(io::Error::other)?);
                        }
                    }
                }
            }
        }
    }

    /// Deletes the entries with these keys. Returns how many there were; one that is gone already
    /// is neither counted nor an error.
    pub(super) fn delete(
        &mut self,
        family: Family,
        keys: Vec<Vec<DefaultNla>>,
    ) -> (usize, Option<ConntrackError>) {
        let mut deleted = 0;
        let mut failed = 0;
        let mut first = None;
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            let chunk: Vec<_> = keys.by_ref().take(DELETIONS).collect();
            let count = chunk.len();
            match self.delete_chunk(family, chunk) {
                Ok(results) => {
                    for code in results {
                        match code {
                            0 => deleted += 1,
                            libc::ENOENT => {}
                            code => {
                                failed += 1;
                                first.get_or_insert(io::Error::from_raw_os_error(code));
                            }
                        }
                    }
                }
                Err(error) => {
                    failed += count;
                    first.get_or_insert(error);
                }
            }
        }
        (deleted, first.map(|source| ConntrackError::Delete { family, failed, source }))
    }

    /// One `sendmsg` of deletions and their results: an errno each, 0 for success.
    fn delete_chunk(&mut self, family: Family, keys: Vec<Vec<DefaultNla>>) -> io::Result<Vec<i32>> {
        let first = self.sequence.wrapping_add(1);
        let count = keys.len();
        let mut requests = Vec::new();
        for key in keys {
            let flags = NLM_F_REQUEST | NLM_F_ACK;
            self.append(&mut requests, flags, family, ConntrackMessageType::Delete, key);
        }
        self.socket.send(&requests, 0)?;
        let mut results = Vec::with_capacity(count);
        while results.len() < count {
            self.receive()?;
            for message in messages(&self.buffer) {
                let ours = (message.sequence_number().wrapping_sub(first) as usize) < count;
                if ours && message.message_type() == NLMSG_ERROR {
                    results.push(error_code(message.payload()));
                }
            }
        }
        Ok(results)
    }

    fn append(
        &mut self,
        requests: &mut Vec<u8>,
        flags: u16,
        family: Family,
        message_type: ConntrackMessageType,
        attributes: Vec<DefaultNla>,
    ) {
        self.sequence = self.sequence.wrapping_add(1);
        let family = match family {
            Family::V4 => NetfilterProtoFamily::IPv4,
            Family::V6 => NetfilterProtoFamily::IPv6,
        };
        // The typed variants lose the nested flag of attributes that they do not know.
        let message = ConntrackMessage::Other { message_type: message_type.into(), attributes };
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = requests.len();
        requests.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut requests[start..]);
    }

    /// Fills the buffer with the next datagram.
    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Begins an interrupted dump anew a few times; then takes what there is, since every entry in an
/// incomplete dump is real.
fn retry_interrupted(mut dump: impl FnMut() -> io::Result<Found>) -> io::Result<Found> {
    for _ in 0..RETRIES {
        match dump() {
            Ok(found) if !found.interrupted => return Ok(found),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    dump()
}

/// Whether a kernel says with this error that it does not know the filter.
fn refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

/// `CTA_TUPLE_ORIG` with the wanted values and `CTA_FILTER`, which says which of them to compare
/// (Linux 5.8; older kernels ignore it).
fn filter_attributes(filter: &DumpFilter) -> Vec<DefaultNla> {
    let mut flags = CTA_FILTER_F_CTA_PROTO_NUM;
    let mut tuple = Vec::new();
    if let Some(address) = filter.address {
        flags |= CTA_FILTER_F_CTA_IP_DST;
        tuple.push(Tuple::Ip(vec![IPTuple::DestinationAddress(address.into())]));
    }
    let mut proto = vec![ProtoTuple::Protocol(Protocol::Udp)];
    if let Some(port) = filter.port {
        flags |= CTA_FILTER_F_CTA_PROTO_DST_PORT;
        proto.push(ProtoTuple::DestinationPort(port));
    }
    tuple.push(Tuple::Proto(proto));
    let words = [(CTA_FILTER_ORIG_FLAGS, flags), (CTA_FILTER_REPLY_FLAGS, 0)]
        .map(|(kind, value)| DefaultNla::new(kind, value.to_ne_bytes().to_vec()));
    vec![nested(CTA_TUPLE_ORIG, &tuple), nested(CTA_FILTER, &words)]
}

fn nested<T: Nla>(kind: u16, attributes: &[T]) -> DefaultNla {
    let mut value = vec![0; attributes.buffer_len()];
    attributes.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_nested_attributes_of_the_wanted_values() {
        let filter = DumpFilter {
            family: Family::V4,
            port: Some(53),
            address: Some([10, 96, 0, 10].into()),
        };
        let attributes = filter_attributes(&filter);
        let mut bytes = vec![0; attributes.as_slice().buffer_len()];
        attributes.as_slice().emit(&mut bytes);
        // The kernel answers EINVAL when CTA_FILTER lacks the nested flag (0x80 in byte 3).
        #[rustfmt::skip]
        let expected = [
            36, 0, 1, 0x80, // CTA_TUPLE_ORIG
                12, 0, 1, 0x80, 8, 0, 2, 0, 10, 96, 0, 10, // CTA_TUPLE_IP, CTA_IP_V4_DST
                20, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, // CTA_TUPLE_PROTO, CTA_PROTO_NUM
                    6, 0, 3, 0, 0, 53, 0, 0, // CTA_PROTO_DST_PORT
            20, 0, 25, 0x80, // CTA_FILTER
                8, 0, 1, 0, 0b10_1010, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 0,
        ];
        if cfg!(target_endian = "little") {
            assert_eq!(bytes, expected);
        }
    }

    fn found(dumped: usize, interrupted: bool) -> Found {
        Found { dumped, stale: Vec::new(), interrupted }
    }

    #[test]
    fn an_interrupted_dump_is_begun_anew() {
        let mut attempts = 0;
        let result = retry_interrupted(|| {
            attempts += 1;
            match attempts {
                1 => Ok(found(10, true)),
                2 => Err(io::Error::from_raw_os_error(libc::EINTR)),
                _ => Ok(found(30, false)),
            }
        });
        assert_eq!((result.unwrap().dumped, attempts), (30, 3));
    }

    #[test]
    fn after_five_retries_a_partial_dump_is_used() {
        let mut attempts = 0;
        let result = retry_interrupted(|| {
            attempts += 1;
            Ok(found(attempts, true))
        });
        assert_eq!((result.unwrap().dumped, attempts), (6, 6));
    }

    #[test]
    fn other_errors_are_not_retried() {
        let mut attempts = 0;
        let result = retry_interrupted(|| {
            attempts += 1;
            Err(io::Error::from_raw_os_error(libc::EPERM))
        });
        assert_eq!((result.unwrap_err().raw_os_error(), attempts), (Some(libc::EPERM), 1));
    }
}
