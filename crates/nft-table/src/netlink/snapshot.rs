//! What the kernel has of a chain, compared with what should be.

use super::expressions::{ANONYMOUS_SET, compile};
use super::numbers::rule as number;
use super::walk::{self, attributes, string};
use super::writer::Writer;
use crate::shape::check_rule;
use crate::{BaseChain, Chain, Rule};
use netlink_packet_core::{NLA_F_NESTED, NlasIterator};
use std::collections::HashMap;
use std::sync::Arc;

/// Anonymous sets by their names: protocol numbers in rising order.
pub type AnonymousSets = HashMap<String, Vec<u8>>;

/// What the kernel has of a chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotChain {
    /// Where it is attached to a hook, if it is.
    pub base: Option<BaseChain>,
    /// The expressions of each rule, as the kernel dumps them (`NFTA_RULE_EXPRESSIONS`).
    pub rules: Vec<Vec<u8>>,
    /// The anonymous sets of the table.
    pub anonymous_sets: Arc<AnonymousSets>,
    /// It is set up in a way that this library has no word for, as with a policy other than accept.
    pub is_foreign: bool,
}

impl SnapshotChain {
    /// The snapshot of a chain that the kernel has taken as it is.
    pub fn of(chain: &Chain) -> SnapshotChain {
        let mut anonymous_sets = AnonymousSets::new();
        let mut rules = Vec::new();
        for rule in &chain.rules {
            for protocols in compile(rule, 0).anonymous_sets {
                anonymous_sets.insert(ANONYMOUS_SET.to_owned(), sorted(protocols));
            }
            rules.push(emit(rule).unwrap_or_default());
        }
        let anonymous_sets = Arc::new(anonymous_sets);
        SnapshotChain { base: chain.base, rules, anonymous_sets, is_foreign: false }
    }

    /// Whether its rules are those of `chain`: everything that would be sent for them is there with the
    /// same value, and what the kernel has beside it is what it puts there by itself.
    pub fn has_rules_of(&self, chain: &Chain) -> bool {
        self.rules.len() == chain.rules.len()
            && chain.rules.iter().zip(&self.rules).all(|(rule, there)| self.is(rule, there))
    }

    fn is(&self, rule: &Rule, there: &[u8]) -> bool {
        let Some(ours) = emit(rule) else { return false };
        let mut protocols = compile(rule, 0).anonymous_sets.into_iter();
        let mut same_set = |name: &str| {
            protocols.next().is_some_and(|protocols| {
                self.anonymous_sets.get(name).is_some_and(|there| *there == sorted(protocols))
            })
        };
        let mut there = attributes(there).filter(|(_, expression)| !does_nothing(expression));
        let all = attributes(&ours).all(|(_, expression)| {
            there.next().is_some_and(|(_, there)| same(expression, there, &mut same_set))
        });
        all && there.next().is_none()
    }
}

fn sorted(protocols: &[u8]) -> Vec<u8> {
    let mut protocols = protocols.to_vec();
    protocols.sort_unstable();
    protocols
}

/// The expressions of a rule as they are sent, but for the ids of anonymous sets; None if it refers to names that
/// nothing can have.
fn emit(rule: &Rule) -> Option<Vec<u8>> {
    check_rule(rule).ok()?;
    let mut writer = Writer::default();
    for expression in compile(rule, 0).expressions {
        writer.emit(&expression);
    }
    writer.finish().ok()
}

/// Whether an expression is what nft, but not this library, puts before the lookup of a protocol number
/// in concatenated intervals: the conversion of half a word.
fn does_nothing(expression: &[u8]) -> bool {
    /// `NFTA_BYTEORDER_LEN`, `NFTA_BYTEORDER_SIZE`
    const LEN: u16 = 4;
    const SIZE: u16 = 5;
    let part = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted);
    let name = part(expression, number::EXPRESSION_NAME);
    let data = part(expression, number::EXPRESSION_DATA).map_or(&[][..], |(_, data)| data);
    let value = |kind| part(data, kind).and_then(|(_, value)| walk::number(value).ok());
    name.is_some_and(|(_, name)| string(name) == "byteorder") && value(LEN) < value(SIZE)
}

/// Compares one expression with what is there.
fn same(ours: &[u8], there: &[u8], same_set: &mut impl FnMut(&str) -> bool) -> bool {
    let part = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted);
    let name = part(ours, number::EXPRESSION_NAME);
    if name != part(there, number::EXPRESSION_NAME) {
        return false;
    }
    let name = name.map_or("", |(_, name)| string(name));
    let data = |bytes| part(bytes, number::EXPRESSION_DATA).map_or(&[][..], |(_, data)| data);
    let (ours, there) = (data(ours), data(there));
    /// `NFTA_LOOKUP_SET`, `NFTA_LOOKUP_SET_ID`
    const SET: u16 = 1;
    const SET_ID: u16 = 4;
    let all_there = nested(ours).all(|(kind, is_nested, value)| {
        let found = part(there, kind).map(|(_, value)| value);
        match (name, kind) {
            ("lookup", SET_ID) => true,
            ("lookup", SET) if string(value) == ANONYMOUS_SET => {
                found.is_some_and(|found| same_set(string(found)))
            }
            _ => found.is_some_and(|found| same_value(value, found, is_nested)),
        }
    });
    all_there
        && attributes(there)
            .filter(|(kind, _)| part(ours, *kind).is_none())
            .all(|(kind, value)| is_default(name, kind, value, there))
}

/// The kernel does not mark nested attributes, so what is nested is known from our side.
fn nested(bytes: &[u8]) -> impl Iterator<Item = (u16, bool, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .zip(attributes(bytes))
        .map(|(attribute, (kind, value))| (kind & !NLA_F_NESTED, attribute.nested_flag(), value))
}

fn same_value(ours: &[u8], there: &[u8], is_nested: bool) -> bool {
    if !is_nested {
        return ours == there;
    }
    let found = |wanted| attributes(there).find(|(kind, _)| *kind == wanted);
    nested(ours).count() == attributes(there).count()
        && nested(ours).all(|(kind, is_nested, value)| {
            found(kind).is_some_and(|(_, there)| same_value(value, there, is_nested))
        })
}

/// Whether the kernel puts such an attribute into dumps by itself.
fn is_default(name: &str, kind: u16, value: &[u8], there: &[u8]) -> bool {
    /// `NFTA_NAT_*`
    const REG_ADDR_MIN: u16 = 3;
    const REG_ADDR_MAX: u16 = 4;
    const REG_PROTO_MIN: u16 = 5;
    const REG_PROTO_MAX: u16 = 6;
    const FLAGS: u16 = 7;
    /// `NF_NAT_RANGE_MAP_IPS`, `NF_NAT_RANGE_PROTO_SPECIFIED`: there is an address and a port.
    const IMPLIED: u32 = 1 | 2;
    let is_same_as =
        |minimum| attributes(there).any(|(kind, there)| kind == minimum && there == value);
    match (name, kind) {
        // What it has counted.
        ("counter", _) => true,
        ("nat", REG_ADDR_MAX) => is_same_as(REG_ADDR_MIN),
        ("nat", REG_PROTO_MAX) => is_same_as(REG_PROTO_MIN),
        ("nat", FLAGS) => {
            value.first_chunk().is_some_and(|value| u32::from_be_bytes(*value) & !IMPLIED == 0)
        }
        _ => value.iter().all(|byte| *byte == 0),
    }
}
