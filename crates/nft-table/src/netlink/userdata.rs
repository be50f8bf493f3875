//! The user data of sets: notes to itself that nft leaves in the kernel, so that it can list a set as it was
//! declared.
//!
//! The bytes are those of nft 1.0.6. Newer versions write more, which 1.0.6 does not survive reading; what
//! 1.0.6 writes, all versions read. A record is its type, the length of its value, the value, all
//! without padding (libnftnl `include/libnftnl/udata.h`, nftables `src/mnl.c`, `*_build_udata` there).

use super::numbers::{NUMGEN_INCREMENTAL, NUMGEN_RANDOM, ct, meta};
use crate::{DataType, Expression, Family, Set, SetData};

/// Records of a set (`enum nftnl_udata_set_types`).
const KEY_BYTE_ORDER: u8 = 0;
const DATA_BYTE_ORDER: u8 = 1;
const KEY_TYPEOF: u8 = 3;
const DATA_TYPEOF: u8 = 4;
const DATA_INTERVAL: u8 = 6;

/// `enum byteorder` of nftables.
const UNKNOWN_ORDER: u32 = 0;
const HOST_ORDER: u32 = 1;
const NETWORK_ORDER: u32 = 2;

/// Records of a typeof expression (`enum nftnl_udata_set_typeof_types`).
const TYPEOF_EXPRESSION: u8 = 0;
const TYPEOF_DATA: u8 = 1;

/// `enum expr_types` of nftables.
const PAYLOAD: u32 = 7;
const META: u32 = 9;
const CT: u32 = 12;
const CONCATENATION: u32 = 13;
const NUMGEN: u32 = 23;
/// Anything that nft 1.0.6 has no typeof record for.
const OTHER: u32 = 0;

/// `enum proto_desc_id` of nftables, and the fields there.
const TH: u32 = 11;
const IP: u32 = 12;
const IP6: u32 = 13;
const TH_SPORT: u32 = 1;
const TH_DPORT: u32 = 2;
const IP_SADDR: u32 = 11;
const IP_DADDR: u32 = 12;
const IP6_SADDR: u32 = 8;
const IP6_DADDR: u32 = 9;

fn record(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.extend_from_slice(&[kind, value.len() as u8]);
    out.extend_from_slice(value);
}

fn numbers(values: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, value) in values.iter().enumerate() {
        record(&mut out, kind as u8, &value.to_ne_bytes());
    }
    out
}

/// The user data of a set.
pub fn of_set(set: &Set) -> Vec<u8> {
    let mut out = Vec::new();
    let is_typeof = set.type_of.is_some();
    let order = |fields: &[DataType]| byte_order(fields, is_typeof).to_ne_bytes();
    record(&mut out, KEY_BYTE_ORDER, &order(&set.key));
    match &set.data {
        SetData::None => {}
        SetData::Verdict => record(&mut out, DATA_BYTE_ORDER, &UNKNOWN_ORDER.to_ne_bytes()),
        SetData::Fields(fields) => record(&mut out, DATA_BYTE_ORDER, &order(fields)),
    }
    let key_expressions = set.type_of.as_ref().map(|(key, _)| &key[..]);
    if let Some(value) = type_of(&set.key, key_expressions) {
        record(&mut out, KEY_TYPEOF, &value);
    }
    if let SetData::Fields(fields) = &set.data {
        let data_expressions = set.type_of.as_ref().map(|(_, data)| &data[..]);
        if let Some(value) = type_of(fields, data_expressions) {
            record(&mut out, DATA_TYPEOF, &value);
        }
    }
    if set.is_map() {
        record(&mut out, DATA_INTERVAL, &0_u32.to_ne_bytes());
    }
    out
}

/// The user data of an anonymous set of protocol numbers in a rule.
pub fn of_protocols() -> Vec<u8> {
    let mut out = Vec::new();
    record(&mut out, KEY_BYTE_ORDER, &HOST_ORDER.to_ne_bytes());
    record(&mut out, KEY_TYPEOF, &expression(Expression::Protocol));
    out
}

fn byte_order(fields: &[DataType], is_typeof: bool) -> u32 {
    match fields {
        [DataType::Ipv4Address | DataType::Ipv6Address | DataType::InetService] => NETWORK_ORDER,
        [DataType::InterfaceName | DataType::Slot] => HOST_ORDER,
        [DataType::InetProto] if is_typeof => HOST_ORDER,
        _ => UNKNOWN_ORDER,
    }
}

/// The typeof record of a key or of data. A concatenation of named types gets an empty one.
fn type_of(fields: &[DataType], expressions: Option<&[Expression]>) -> Option<Vec<u8>> {
    match expressions {
        Some([one]) => Some(expression(*one)),
        Some(many) => {
            let mut parts = Vec::new();
            for (index, part) in many.iter().enumerate() {
                record(&mut parts, index as u8, &expression(*part));
            }
            Some(typed(CONCATENATION, &parts))
        }
        None if fields.len() > 1 => Some(typed(CONCATENATION, &[])),
        None => None,
    }
}

fn typed(number: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    record(&mut out, TYPEOF_EXPRESSION, &number.to_ne_bytes());
    record(&mut out, TYPEOF_DATA, data);
    out
}

/// Expressions that a typeof record can name, with the number of their kind and the numbers in it.
fn expression_numbers(expression: Expression) -> (u32, Vec<u32>) {
    use Expression::*;
    use Family::*;
    match expression {
        SourceAddress(V4) => (PAYLOAD, vec![IP, IP_SADDR]),
        SourceAddress(V6) => (PAYLOAD, vec![IP6, IP6_SADDR]),
        DestinationAddress(V4) => (PAYLOAD, vec![IP, IP_DADDR]),
        DestinationAddress(V6) => (PAYLOAD, vec![IP6, IP6_DADDR]),
        DestinationPort => (PAYLOAD, vec![TH, TH_DPORT]),
        Protocol => (META, vec![meta::L4PROTO]),
        NetworkFamily => (META, vec![meta::NFPROTO]),
        InputInterface => (META, vec![meta::IIFNAME]),
        OutputInterface => (META, vec![meta::OIFNAME]),
        CtOriginalDestination(V4) => (CT, vec![ct::DST_IP, ct::ORIGINAL.into()]),
        CtOriginalDestination(V6) => (CT, vec![ct::DST_IP6, ct::ORIGINAL.into()]),
        CtOriginalPort => (CT, vec![ct::PROTO_DST, ct::ORIGINAL.into()]),
        Random(modulus) => (NUMGEN, vec![NUMGEN_RANDOM, modulus, 0]),
        Incremental(modulus) => (NUMGEN, vec![NUMGEN_INCREMENTAL, modulus, 0]),
        SourcePort => (PAYLOAD, vec![TH, TH_SPORT]),
        CtState
        | CtStatus
        | SourceAddressType
        | DestinationAddressType
        | InputInterfaceIndex
        | Hash(_) => (OTHER, vec![]),
    }
}

fn expression(expression: Expression) -> Vec<u8> {
    let (number, values) = expression_numbers(expression);
    typed(number, &numbers(&values))
}

/// What the user data of a set says of its declaration.
#[derive(Debug, Default, PartialEq)]
pub struct Declaration {
    pub key: Option<Vec<Expression>>,
    pub data: Option<Vec<Expression>>,
    /// It says something that [`Set`] has no word for, as a comment or auto-merge.
    pub more: bool,
}

/// Reads the user data of a set.
pub fn declaration(bytes: &[u8]) -> Declaration {
    let mut declaration = Declaration::default();
    for (kind, value) in records(bytes) {
        let expressions = match kind {
            KEY_TYPEOF => &mut declaration.key,
            DATA_TYPEOF => &mut declaration.data,
            KEY_BYTE_ORDER | DATA_BYTE_ORDER | DATA_INTERVAL => continue,
            _ => {
                declaration.more = true;
                continue;
            }
        };
        match parse_type_of(value) {
            Some(parsed) if parsed.is_empty() => {}
            Some(parsed) => *expressions = Some(parsed),
            None => declaration.more = true,
        }
    }
    declaration
}

/// The records of user data, of a set or of an element: type and value.
pub fn records(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [kind, len, rest @ ..] = bytes else { return None };
        let value = rest.get(..usize::from(*len))?;
        bytes = &rest[value.len()..];
        Some((*kind, value))
    })
}

fn number(kind: u8, bytes: &[u8]) -> Option<u32> {
    let (_, value) = records(bytes).find(|(there, _)| *there == kind)?;
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

/// The expressions of a typeof record: none of a concatenation of named types.
fn parse_type_of(bytes: &[u8]) -> Option<Vec<Expression>> {
    if number(TYPEOF_EXPRESSION, bytes)? != CONCATENATION {
        return Some(vec![parse_expression(bytes)?]);
    }
    let (_, parts) = records(bytes).find(|(kind, _)| *kind == TYPEOF_DATA)?;
    records(parts).map(|(_, part)| parse_expression(part)).collect()
}

fn parse_expression(bytes: &[u8]) -> Option<Expression> {
    use Expression::*;
    let kind = number(TYPEOF_EXPRESSION, bytes)?;
    let (_, data) = records(bytes).find(|(kind, _)| *kind == TYPEOF_DATA)?;
    let modulus = if kind == NUMGEN { number(1, data)? } else { 0 };
    let known = [
        SourceAddress(Family::V4),
        SourceAddress(Family::V6),
        DestinationAddress(Family::V4),
        DestinationAddress(Family::V6),
        SourcePort,
        DestinationPort,
        Protocol,
        NetworkFamily,
        InputInterface,
        OutputInterface,
        CtOriginalDestination(Family::V4),
        CtOriginalDestination(Family::V6),
        CtOriginalPort,
        Random(modulus),
        Incremental(modulus),
    ];
    known.into_iter().find(|candidate| {
        let (number, values) = expression_numbers(*candidate);
        number == kind && numbers(&values) == data
    })
}
