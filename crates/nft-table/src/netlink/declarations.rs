//! Sets and chains as netlink attributes.

use super::expressions::ANONYMOUS_SET;
use super::numbers::{
    LIST_ELEMENT, chain as chain_number, counter, rule as rule_number, set as set_number,
};
use super::userdata;
use crate::shape::fields_len;
use crate::{Chain, DataType, Set, SetData};
use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, Hook, HookNumber, InetHookNumber, SetAttribute, SetDescription, SetFlags,
};

/// The declaration of a set. The id names it in the batch beside its name.
pub fn set(table: &str, set: &Set, id: u32) -> Vec<SetAttribute> {
    let mut flags = SetFlags::empty();
    flags.set(SetFlags::Map, set.is_map());
    flags.set(SetFlags::Interval, set.flags.interval);
    flags.set(SetFlags::Concat, set.is_concatenated_interval());
    flags.set(SetFlags::Eval, set.flags.dynamic);
    flags.set(SetFlags::Timeout, set.flags.timeout);
    let mut attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(set.name.to_string()),
        SetAttribute::Flags(flags),
        SetAttribute::KeyType(DataType::concatenation(&set.key)),
        SetAttribute::KeyLen(fields_len(&set.key) as u32),
    ];
    match &set.data {
        SetData::None => {}
        SetData::Verdict => attributes
            .extend([SetAttribute::DataType(set_number::VERDICT), SetAttribute::DataLen(0)]),
        SetData::Fields(fields) => attributes.extend([
            SetAttribute::DataType(DataType::concatenation(fields)),
            SetAttribute::DataLen(fields_len(fields) as u32),
        ]),
    }
    attributes.push(SetAttribute::Id(id));
    let mut description: Vec<SetDescription> =
        set.size.map(SetDescription::Size).into_iter().collect();
    if set.is_concatenated_interval() {
        description.push(SetDescription::Concat(set.key.iter().map(field).collect()));
    }
    if !description.is_empty() {
        attributes.push(SetAttribute::Description(description));
    }
    attributes.push(SetAttribute::UserData(userdata::of_set(set)));
    if set.counter {
        let name = DefaultNla::new(
            rule_number::EXPRESSION_NAME,
            [counter::NAME.as_bytes(), &[0]].concat(),
        );
        let data = DefaultNla::new(rule_number::EXPRESSION_DATA | NLA_F_NESTED, Vec::new());
        let counter = [name, data].iter().flat_map(bytes).collect();
        let number = set_number::EXPRESSION | NLA_F_NESTED;
        attributes.push(SetAttribute::Other(DefaultNla::new(number, counter)));
    }
    attributes
}

/// The length of a field of a concatenated interval, which the kernel has to know to compare field by
/// field.
fn field(field: &DataType) -> DefaultNla {
    let len = (field.len() as u32).to_be_bytes().to_vec();
    let len = DefaultNla::new(set_number::FIELD_LEN, len);
    DefaultNla::new(LIST_ELEMENT | NLA_F_NESTED, bytes(&len))
}

/// An attribute, padded.
fn bytes(attribute: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// The declaration of an anonymous set of protocol numbers.
pub fn protocols(table: &str, protocols: &[u8], id: u32) -> Vec<SetAttribute> {
    vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(ANONYMOUS_SET.to_owned()),
        SetAttribute::Flags(SetFlags::Anonymous | SetFlags::Constant),
        SetAttribute::KeyType(DataType::InetProto.number()),
        SetAttribute::KeyLen(DataType::InetProto.len() as u32),
        SetAttribute::Id(id),
        SetAttribute::Description(vec![SetDescription::Size(protocols.len() as u32)]),
        SetAttribute::UserData(userdata::of_protocols()),
    ]
}

/// The declaration of a chain.
pub fn chain(table: &str, chain: &Chain) -> Vec<ChainAttribute> {
    let mut attributes =
        vec![ChainAttribute::Table(table.to_owned()), ChainAttribute::Name(chain.name.to_string())];
    if let Some(base) = &chain.base {
        let hook = HookNumber::Inet(InetHookNumber::from(base.hook as u32));
        attributes.extend([
            ChainAttribute::Type(base.chain_type.nft().to_owned()),
            ChainAttribute::Policy(chain_number::ACCEPT),
            ChainAttribute::Hook(vec![Hook::Number(hook), Hook::Priority(base.priority as u32)]),
        ]);
    }
    attributes
}
