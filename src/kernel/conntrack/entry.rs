//! One dumped conntrack entry, read with a walker over its attributes.
//!
//! Attribute numbers: `enum ctattr_type` and friends of linux/netfilter/nfnetlink_conntrack.h.

use netlink_packet_core::{DecodeError, DefaultNla, NlaBuffer, NlasIterator, Parseable, parse_ip};
use std::net::IpAddr;

// enum ctattr_type
pub(super) const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
pub(super) const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
// enum ctattr_tuple
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
// enum ctattr_ip
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
// enum ctattr_l4proto
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// `IPS_SEEN_REPLY` of `linux/netfilter/nf_conntrack_common.h`.
pub(super) const IPS_SEEN_REPLY: u32 = 1 << 1;

/// What decides whether an entry is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    /// The IANA number of the protocol.
    pub(super) protocol: u8,
    /// Where the client sends to.
    pub(super) original_destination: (IpAddr, u16),
    /// Who answers: the endpoint, or the original destination when nothing was translated.
    pub(super) reply_source: (IpAddr, u16),
    /// A packet came back.
    pub(super) is_answered: bool,
}

/// An entry of the conntrack table, as its attributes.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a>(pub(super) &'a [u8]);

impl<'a> Entry<'a> {
    /// The flow, when it is one between ports.
    pub(super) fn flow(self) -> Result<Option<Flow>, DecodeError> {
        let (mut original, mut reply, mut status) = (None, None, None);
        for attribute in NlasIterator::new(self.0) {
            let attribute = attribute?;
            match attribute.kind() {
                CTA_TUPLE_ORIG => original = Some(Tuple::parse(attribute.value())?),
                CTA_TUPLE_REPLY => reply = Some(Tuple::parse(attribute.value())?),
                CTA_STATUS => {
                    status = Some(netlink_packet_core::parse_u32_be(attribute.value())?);
                }
                _ => {}
            }
            if original.is_some() && reply.is_some() && status.is_some() {
                break;
            }
        }
        let (Some(original), Some(reply)) = (original, reply) else { return Ok(None) };
        Ok(match (original.protocol, original.destination, reply.source) {
            (Some(protocol), Some(destination), Some(source)) => Some(Flow {
                protocol,
                is_answered: status.is_none_or(|status| status & IPS_SEEN_REPLY != 0),
                original_destination: (destination, original.destination_port),
                reply_source: (source, reply.source_port),
            }),
            _ => None,
        })
    }

    /// What names exactly this entry in a request to delete it: the original tuple with its zone,
    /// and the id, so that a new entry of the same tuple is left alone.
    pub(super) fn key(self) -> Result<Vec<DefaultNla>, DecodeError> {
        let mut key = Vec::with_capacity(3);
        for attribute in NlasIterator::new(self.0) {
            let attribute = attribute?;
            if let CTA_TUPLE_ORIG | CTA_ZONE | CTA_ID = attribute.kind() {
                key.push(DefaultNla::parse(&attribute)?);
            }
        }
        Ok(key)
    }
}

/// One direction of an entry.
#[derive(Default)]
struct Tuple {
    protocol: Option<u8>,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: u16,
    destination_port: u16,
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Result<Tuple, DecodeError> {
        let mut tuple = Tuple::default();
        for part in NlasIterator::new(bytes) {
            let part = part?;
            for attribute in NlasIterator::new(part.value()) {
                tuple.read(part.kind(), &attribute?)?;
            }
        }
        Ok(tuple)
    }

    fn read(&mut self, part: u16, attribute: &NlaBuffer<&[u8]>) -> Result<(), DecodeError> {
        match (part, attribute.kind()) {
            (CTA_TUPLE_IP, CTA_IP_V4_SRC | CTA_IP_V6_SRC) => {
                self.source = Some(parse_ip(attribute.value())?);
            }
            (CTA_TUPLE_IP, CTA_IP_V4_DST | CTA_IP_V6_DST) => {
                self.destination = Some(parse_ip(attribute.value())?);
            }
            (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => self.protocol = attribute.value().first().copied(),
            (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => self.source_port = port(attribute.value())?,
            (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => {
                self.destination_port = port(attribute.value())?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn port(bytes: &[u8]) -> Result<u16, DecodeError> {
    netlink_packet_core::parse_u16_be(bytes)
}
