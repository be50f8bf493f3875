//! Dumps and deletions over one netfilter netlink socket.

use super::ConntrackError;
use super::entry::{CTA_STATUS, CTA_TUPLE_ORIG, Entry, Flow, IPS_SEEN_REPLY};
use super::filter::DumpFilter;
use crate::kernel::netlink::{Answer, Dumped, Error, Netlink, Options, request, retry};
use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, Nla,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackMessage, ConntrackMessageType, IPTuple, ProtoTuple, Tuple,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nft_table::Family;
use tracing::debug;

/// How often an interrupted dump is tried; after that what the last one returned is used.
const ATTEMPTS: usize = 6;
/// Deletions in one `sendmsg`. Their answers must fit into a receive buffer of the default size,
/// which holds about 250.
const DELETIONS: usize = 64;
/// Length of `struct nfgenmsg`, which begins every message.
const NFGENMSG: usize = 4;

/// `enum cntl_msg_types` of linux/netfilter/nfnetlink_conntrack.h.
const IPCTNL_MSG_CT_GET_STATS: u8 = 5;
// enum ctattr_filter, and the bits of ctnetlink_filter (net/netfilter/nf_internals.h).
const CTA_FILTER: u16 = 25;
/// Linux 5.16; older kernels ignore it.
const CTA_STATUS_MASK: u16 = 26;
/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
const IPS_DST_NAT: u32 = 1 << 5;
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
}

pub(super) struct ConntrackSocket {
    socket: Netlink,
    /// False once a kernel has refused a filter.
    filters: bool,
}

impl ConntrackSocket {
    /// Opens the socket in the network namespace of the calling thread.
    pub(super) fn open() -> Result<ConntrackSocket, ConntrackError> {
        let socket = Netlink::open(NETLINK_NETFILTER, &Options::default());
        let socket = socket.map_err(ConntrackError::Socket)?;
        Ok(ConntrackSocket { socket, filters: true })
    }

    /// Asks for the number of entries. The kernel loads its conntrack modules to answer.
    pub(super) fn probe(&mut self) -> Result<(), ConntrackError> {
        self.count().map_err(|source| ConntrackError::Unavailable { source })
    }

    fn count(&mut self) -> Result<(), Error> {
        let message_type = ConntrackMessageType::Other(IPCTNL_MSG_CT_GET_STATS);
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let sequence = self.socket.next_sequence();
        let request = encode(sequence, flags, Family::V4, message_type, Vec::new());
        let answered = self.socket.transact(&request, sequence.wrapping_add(1))?;
        match answered.answers.into_iter().next() {
            Some(answer) if answer.errno == 0 => Ok(()),
            Some(answer) => Err(Error::Kernel(answer)),
            None => Err(Error::NoEnd),
        }
    }

    /// Shows `each` the entries that `filter` lets through, after `begin`; if others changed them meanwhile, once more
    /// from `begin` on. The filter only saves work.
    pub(super) fn each(
        &mut self,
        filter: &DumpFilter,
        begin: &dyn Fn(),
        each: &dyn Fn(&Flow),
    ) -> Result<(), ConntrackError> {
        let is_stale = |flow: &Flow| {
            each(flow);
            false
        };
        let family = filter.family;
        let result = complete_or_last(|| {
            begin();
            match self.dump(family, self.filters.then_some(filter), &is_stale) {
                Err(error) if self.filters && refused(&error) => {
                    self.filters = false;
                    begin();
                    self.dump(family, None, &is_stale)
                }
                result => result,
            }
        });
        result.map(drop).map_err(|source| ConntrackError::Dump { family, source })
    }

    /// Lists the entries that `filter` lets through and keeps the keys of those that are
    /// stale. The filter only saves work: `is_stale` decides about each entry.
    pub(super) fn find(
        &mut self,
        filter: &DumpFilter,
        is_stale: &dyn Fn(&Flow) -> bool,
    ) -> Result<Found, ConntrackError> {
        let family = filter.family;
        let result = complete_or_last(|| {
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
    ) -> Result<(Found, Dumped), Error> {
        let attributes = filter.map(filter_attributes).unwrap_or_default();
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let request = encode(0, flags, family, ConntrackMessageType::Get, attributes);
        let mut found = Found::default();
        let dumped = self.socket.dump(request, |message| {
            found.dumped += 1;
            let entry = Entry(message.payload.get(NFGENMSG..).unwrap_or_default());
            if entry.flow()?.is_some_and(|flow| is_stale(&flow)) {
                found.stale.push(entry.key()?);
            }
            Ok(())
        })?;
        Ok((found, dumped))
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
                Ok(answers) => {
                    for answer in answers {
                        match answer.errno {
                            0 => deleted += 1,
                            libc::ENOENT => {}
                            _ => {
                                failed += 1;
                                first.get_or_insert(Error::Kernel(answer));
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

    /// One `sendmsg` of deletions, and an answer to each.
    fn delete_chunk(
        &mut self,
        family: Family,
        keys: Vec<Vec<DefaultNla>>,
    ) -> Result<Vec<Answer>, Error> {
        let count = keys.len();
        let mut sequence = self.socket.next_sequence();
        let mut requests = Vec::new();
        for key in keys {
            let flags = NLM_F_REQUEST | NLM_F_ACK;
            requests.extend(encode(sequence, flags, family, ConntrackMessageType::Delete, key));
            sequence = sequence.wrapping_add(1);
        }
        let answered = self.socket.transact(&requests, sequence)?;
        match answered.answers.len() {
            _ if answered.overflow => Err(Error::Lost),
            answers if answers < count => Err(Error::NoEnd),
            _ => Ok(answered.answers),
        }
    }
}

/// A request.
fn encode(
    sequence: u32,
    flags: u16,
    family: Family,
    message_type: ConntrackMessageType,
    attributes: Vec<DefaultNla>,
) -> Vec<u8> {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    // The typed variants lose the nested flag of attributes that they do not know.
    let message = ConntrackMessage::Other { message_type: message_type.into(), attributes };
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut bytes = request(message, flags);
    NetlinkBuffer::new(&mut bytes).set_sequence_number(sequence);
    bytes
}

/// Begins an interrupted dump anew a few times; then takes what there is, since every entry in an
/// incomplete dump is real.
fn complete_or_last(
    mut dump: impl FnMut() -> Result<(Found, Dumped), Error>,
) -> Result<Found, Error> {
    let mut last = Found::default();
    let attempt = || {
        let dumped;
        (last, dumped) = dump()?;
        Ok((dumped == Dumped::Complete).then_some(()))
    };
    retry(ATTEMPTS, attempt).map(|_| last)
}

/// Whether a kernel says with this error that it does not know the filter.
fn refused(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL))
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
    let mut proto = vec![ProtoTuple::Protocol(filter.protocol.into())];
    if let Some(port) = filter.port {
        flags |= CTA_FILTER_F_CTA_PROTO_DST_PORT;
        proto.push(ProtoTuple::DestinationPort(port));
    }
    tuple.push(Tuple::Proto(proto));
    let words = [(CTA_FILTER_ORIG_FLAGS, flags), (CTA_FILTER_REPLY_FLAGS, 0)]
        .map(|(kind, value)| DefaultNla::new(kind, value.to_ne_bytes().to_vec()));
    let mut attributes = vec![nested(CTA_TUPLE_ORIG, &tuple), nested(CTA_FILTER, &words)];
    if filter.untranslated {
        let number = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
        attributes.push(number(CTA_STATUS, 0));
        attributes.push(number(CTA_STATUS_MASK, IPS_SEEN_REPLY | IPS_DST_NAT));
    }
    attributes
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
            protocol: 17,
            untranslated: false,
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

    fn found(dumped: usize) -> Found {
        Found { dumped, stale: Vec::new() }
    }

    #[test]
    fn an_interrupted_dump_is_begun_anew() {
        let mut attempts = 0;
        let result = complete_or_last(|| {
            attempts += 1;
            match attempts {
                1 | 2 => Ok((found(10), Dumped::Interrupted)),
                _ => Ok((found(30), Dumped::Complete)),
            }
        });
        assert_eq!((result.unwrap().dumped, attempts), (30, 3));
    }

    #[test]
    fn after_five_retries_a_partial_dump_is_used() {
        let mut attempts = 0;
        let result = complete_or_last(|| {
            attempts += 1;
            Ok((found(attempts), Dumped::Interrupted))
        });
        assert_eq!((result.unwrap().dumped, attempts), (6, 6));
    }

    #[test]
    fn errors_are_not_retried() {
        let mut attempts = 0;
        let result = complete_or_last(|| {
            attempts += 1;
            Err(Error::of_errno(libc::EPERM))
        });
        assert_eq!((result.unwrap_err().errno(), attempts), (Some(libc::EPERM), 1));
    }
}
