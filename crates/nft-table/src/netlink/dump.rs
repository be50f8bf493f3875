//! Reads what the kernel dumps: sets, chains, rules and elements of a table.

use super::numbers::{self, chain as chain_number, element as number, set as set_number, verdict};
use super::userdata;
use super::walk::{self, attributes, string, walk};
use crate::shape::Shape;
use crate::{
    BaseChain, ChainType, Count, DYNAMIC_SIZE, Data, DataType, Hook, Key, Lifetime, Set, SetData,
    SetFlags, Value, Verdict, VerdictElement,
};
use hashbrown::HashSet;
use netlink_packet_core::DecodeError;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// A set as the kernel dumps it.
#[derive(Debug, PartialEq)]
pub struct DumpedSet {
    /// The kernel's name of the set, also of an anonymous one.
    pub name: String,
    /// Whether it belongs to a rule, as `{ tcp, udp }` does.
    pub is_anonymous: bool,
    /// None where the declaration is one that [`Set`] cannot say.
    pub set: Option<Set>,
    /// How many elements the kernel counts, where it says so.
    pub count: Option<u32>,
}

/// The value of the first attribute of a kind.
fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Reads the attributes of a `NFT_MSG_NEWSET`.
///
/// # Errors
/// If they are malformed.
pub fn set(bytes: &[u8]) -> Result<DumpedSet, DecodeError> {
    let mut name = "";
    let (mut flags, mut key_type, mut data_type) = (0, 0, None);
    let (mut size, mut count, mut more, mut has_counter) = (None, None, false, false);
    let mut declaration = userdata::Declaration::default();
    for attribute in walk(bytes) {
        let (kind, value) = attribute?;
        match kind {
            set_number::NAME => name = string(value),
            set_number::FLAGS => flags = walk::number(value)?,
            set_number::KEY_TYPE => key_type = walk::number(value)?,
            set_number::DATA_TYPE => data_type = Some(walk::number(value)?),
            set_number::DESCRIPTION => {
                size = find(value, set_number::DESCRIPTION_SIZE).map(walk::number).transpose()?;
            }
            set_number::COUNT => count = Some(walk::number(value)?),
            set_number::USER_DATA => declaration = userdata::declaration(value),
            set_number::EXPRESSION if is_counter(value) => has_counter = true,
            set_number::EXPRESSION | set_number::EXPRESSIONS => more = true,
            // A policy, a timeout of its own.
            set_number::POLICY => more |= walk::number(value)? != 0,
            set_number::TIMEOUT => more = true,
            _ => {}
        }
    }
    more |= declaration.more;
    let set =
        (!more).then(|| declared(name, flags, key_type, data_type, size, declaration)).flatten();
    let set = set.map(|set| Set { counter: has_counter, ..set });
    let is_anonymous = flags & set_number::ANONYMOUS != 0;
    Ok(DumpedSet { name: name.to_owned(), is_anonymous, set, count })
}

/// Whether an expression is a counter.
fn is_counter(expression: &[u8]) -> bool {
    find(expression, numbers::rule::EXPRESSION_NAME).map(string) == Some(numbers::counter::NAME)
}

/// What a counter has counted, if the expression is one.
fn count(expression: &[u8]) -> Option<Count> {
    let data =
        find(expression, numbers::rule::EXPRESSION_DATA).filter(|_| is_counter(expression))?;
    let number = |kind| Some(u64::from_be_bytes(find(data, kind)?.try_into().ok()?));
    Some(Count {
        packets: number(numbers::counter::PACKETS)?,
        bytes: number(numbers::counter::BYTES)?,
    })
}

/// The declaration that makes such a set, if there is one.
fn declared(
    name: &str,
    flags: u32,
    key_type: u32,
    data_type: Option<u32>,
    size: Option<u32>,
    declaration: userdata::Declaration,
) -> Option<Set> {
    let key = fields(key_type)?;
    let data = match data_type {
        _ if flags & set_number::MAP == 0 => SetData::None,
        None => return None,
        Some(set_number::VERDICT) => SetData::Verdict,
        Some(data_type) => SetData::Fields(fields(data_type)?),
    };
    let type_of = match (declaration.key, declaration.data, &data) {
        (None, None, _) => None,
        (Some(key), Some(data), SetData::Fields(_)) => Some((key, data)),
        (Some(key), None, SetData::None | SetData::Verdict) => Some((key, Vec::new())),
        _ => return None,
    };
    let set = Set {
        name: name.into(),
        key,
        data,
        flags: SetFlags {
            interval: flags & set_number::INTERVAL != 0,
            dynamic: flags & set_number::DYNAMIC != 0,
            timeout: flags & set_number::EXPIRING != 0,
        },
        type_of,
        size: size.filter(|size| flags & set_number::DYNAMIC == 0 || *size != DYNAMIC_SIZE),
        counter: false,
    };
    // Nothing may be set that the declaration does not say.
    let mut expected = 0;
    for (is_set, flag) in [
        (set.is_map(), set_number::MAP),
        (set.flags.interval, set_number::INTERVAL),
        (set.is_concatenated_interval(), set_number::CONCATENATION),
        (set.flags.dynamic, set_number::DYNAMIC),
        (set.flags.timeout, set_number::EXPIRING),
    ] {
        expected |= if is_set { flag } else { 0 };
    }
    (flags == expected && set.check().is_ok()).then_some(set)
}

/// The types of a concatenation.
fn fields(mut number: u32) -> Option<Vec<DataType>> {
    const ALL: [DataType; 6] = [
        DataType::Ipv4Address,
        DataType::Ipv6Address,
        DataType::InetProto,
        DataType::InetService,
        DataType::InterfaceName,
        DataType::Slot,
    ];
    let mut fields = Vec::new();
    while number != 0 {
        let one = number & 0x3f;
        fields.push(*ALL.iter().find(|data_type| data_type.number() == one)?);
        number >>= 6;
    }
    fields.reverse();
    (!fields.is_empty()).then_some(fields)
}

/// A chain as the kernel dumps it.
#[derive(Debug, PartialEq)]
pub struct DumpedChain {
    /// The table that it is in.
    pub table: String,
    /// Its own name.
    pub name: String,
    /// Where it is attached to a hook, if it is.
    pub base: Option<BaseChain>,
    /// Its hook, type or policy is one that [`BaseChain`] cannot say.
    pub is_foreign: bool,
}

/// Reads the attributes of a `NFT_MSG_NEWCHAIN`.
///
/// # Errors
/// If they are malformed.
pub fn chain(bytes: &[u8]) -> Result<DumpedChain, DecodeError> {
    let (mut table, mut name, mut type_name) = ("", "", "");
    let (mut hook, mut policy) = (None, chain_number::ACCEPT);
    for attribute in walk(bytes) {
        let (kind, value) = attribute?;
        match kind {
            chain_number::TABLE => table = string(value),
            chain_number::NAME => name = string(value),
            chain_number::TYPE => type_name = string(value),
            chain_number::POLICY => policy = walk::number(value)?,
            chain_number::HOOK => {
                let part = |wanted| find(value, wanted).map(walk::number).transpose();
                hook = part(chain_number::HOOK_NUMBER)?.zip(part(chain_number::HOOK_PRIORITY)?);
            }
            _ => {}
        }
    }
    let base = hook.and_then(|(hook, priority)| base_chain(type_name, hook, priority));
    let is_foreign = hook.is_some() && (base.is_none() || policy != chain_number::ACCEPT);
    Ok(DumpedChain { table: table.to_owned(), name: name.to_owned(), base, is_foreign })
}

fn base_chain(type_name: &str, hook: u32, priority: u32) -> Option<BaseChain> {
    let types = [ChainType::Filter, ChainType::Nat];
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    Some(BaseChain {
        chain_type: types.into_iter().find(|known| known.nft() == type_name)?,
        hook: hooks.into_iter().find(|known| *known as u32 == hook)?,
        priority: priority as i32,
    })
}

/// Reads the attributes of a `NFT_MSG_NEWRULE`: the chain and the expressions.
pub fn rule(bytes: &[u8]) -> (&str, &[u8]) {
    let chain = find(bytes, numbers::rule::CHAIN).map_or("", string);
    (chain, find(bytes, numbers::rule::EXPRESSIONS).unwrap_or_default())
}

/// The packets that the counter among the expressions of a rule has counted, if there is one.
pub fn counter(expressions: &[u8]) -> Option<u64> {
    attributes(expressions).find_map(|(_, expression)| count(expression)).map(|count| count.packets)
}

/// The protocol numbers in the elements of an anonymous set, in rising order.
pub fn protocols(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut protocols: Vec<u8> = messages
        .iter()
        .filter_map(|bytes| find(bytes, number::ELEMENTS))
        .flat_map(attributes)
        .filter_map(|(_, element)| find(find(element, number::KEY)?, number::VALUE)?.first())
        .copied()
        .collect();
    protocols.sort_unstable();
    protocols
}

/// Reads the elements of a set from the messages of a dump.
#[derive(Debug)]
pub struct ElementReader<'a> {
    set: &'a Set,
    shape: Shape,
    elements: Vec<(Key, Value)>,
    /// Of a dynamic set, those of the elements that do expire.
    lifetimes: Vec<Option<Lifetime>>,
    /// What the element that was read last has counted.
    count: Count,
    /// Of ranges of a single field the kernel has starts and ends: key, whether it is an end, value.
    bounds: Vec<(SmallVec<[u8; 16]>, bool, Value)>,
    /// Names of chains, each once.
    chains: HashSet<Arc<str>>,
    has_catch_all: bool,
}

impl<'a> ElementReader<'a> {
    /// A reader of the elements of a set, one that was not read yet.
    pub fn new(set: &'a Set) -> ElementReader<'a> {
        ElementReader {
            set,
            shape: Shape::of(set),
            elements: Vec::new(),
            lifetimes: Vec::new(),
            count: Count::default(),
            bounds: Vec::new(),
            chains: HashSet::new(),
            has_catch_all: false,
        }
    }

    /// Whether there was an element that stands for all keys. It is not among those that were read.
    pub fn has_catch_all(&self) -> bool {
        self.has_catch_all
    }

    /// The element that was read last.
    pub fn last(&self) -> Option<&(Key, Value)> {
        self.elements.last()
    }

    /// What that has counted; nothing in a set without `counter`.
    pub fn last_count(&self) -> Count {
        self.count
    }

    /// Reads the attributes of a `NFT_MSG_NEWSETELEM`.
    ///
    /// # Errors
    /// If they are malformed, or none of this set.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let Some(list) = find(bytes, number::ELEMENTS) else { return Ok(()) };
        for element in walk(list) {
            self.element(element?.1)?;
        }
        Ok(())
    }

    fn element(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let (mut key, mut key_end): (&[u8], _) = (&[], None);
        let (mut data, mut flags, mut comment) = (None, 0, None);
        let (mut timeout, mut expires) = (None, None);
        self.count = Count::default();
        for attribute in walk(bytes) {
            let (kind, value) = attribute?;
            match kind {
                number::KEY => key = find(value, number::VALUE).unwrap_or_default(),
                number::KEY_END => key_end = find(value, number::VALUE),
                number::DATA => data = Some(value),
                number::FLAGS => flags = walk::number(value)?,
                number::EXPRESSION => self.count = count(value).unwrap_or_default(),
                number::TIMEOUT => timeout = Some(milliseconds(value)?),
                number::EXPIRATION => expires = Some(milliseconds(value)?),
                number::USER_DATA => {
                    comment = userdata::records(value)
                        .find(|(kind, _)| *kind == number::COMMENT)
                        .map(|(_, comment)| string(comment));
                }
                _ => {}
            }
        }
        if flags & number::CATCH_ALL != 0 {
            self.has_catch_all = true;
            return Ok(());
        }
        let is_end = flags & number::INTERVAL_END != 0;
        for len in [key.len(), key_end.map_or(key.len(), <[u8]>::len)] {
            if len != self.shape.key_len {
                return Err(self.wrong_len("a key", len, self.shape.key_len));
            }
        }
        let value = if is_end { Value::Member } else { self.value(data, comment)? };
        if self.set.is_plain_interval() {
            self.bounds.push((SmallVec::from_slice(key), is_end, value));
            return Ok(());
        }
        let last = self.set.flags.interval.then(|| key_end.unwrap_or(key));
        self.elements.push((self.key(key, last), value));
        if self.set.flags.dynamic {
            self.lifetimes
                .push(timeout.zip(expires).map(|(timeout, expires)| Lifetime { timeout, expires }));
        }
        Ok(())
    }

    fn wrong_len(&self, what: &str, len: usize, expected: usize) -> DecodeError {
        let set = &self.set.name;
        format!("an element of set {set} has {what} of {len} bytes, not {expected}").into()
    }

    fn key(&self, first: &[u8], last: Option<&[u8]>) -> Key {
        let mut key = Key(SmallVec::new());
        key.0.extend_from_slice(first);
        key.0.resize(self.shape.padded_key_len, 0);
        if let Some(last) = last {
            key.0.extend_from_slice(last);
            key.0.resize(2 * self.shape.padded_key_len, 0);
        }
        key
    }

    fn value(&mut self, data: Option<&[u8]>, comment: Option<&str>) -> Result<Value, DecodeError> {
        match &self.set.data {
            SetData::None => Ok(Value::Member),
            SetData::Fields(_) => {
                let bytes = data.and_then(|data| find(data, number::VALUE)).unwrap_or_default();
                if bytes.len() != self.shape.data_len {
                    return Err(self.wrong_len("data", bytes.len(), self.shape.data_len));
                }
                let mut padded: SmallVec<[u8; Data::MAX]> = SmallVec::from_slice(bytes);
                padded.resize(bytes.len().next_multiple_of(4), 0);
                Data::new(&padded).map(Value::Data).map_err(|error| error.to_string().into())
            }
            SetData::Verdict => {
                let verdict = data.and_then(|data| find(data, number::VERDICT));
                let verdict = self.verdict(verdict.unwrap_or_default())?;
                let comment = comment.map(Box::from);
                Ok(Value::Verdict(Box::new(VerdictElement { verdict, comment })))
            }
        }
    }

    fn verdict(&mut self, bytes: &[u8]) -> Result<Verdict, DecodeError> {
        let code = walk::number(find(bytes, number::VERDICT_CODE).unwrap_or_default())?;
        let mut chain = || {
            let name = find(bytes, number::VERDICT_CHAIN).map_or("", string);
            self.chains.get_or_insert_with(name, |name| Arc::from(name)).clone()
        };
        match code {
            verdict::ACCEPT => Ok(Verdict::Accept),
            verdict::DROP => Ok(Verdict::Drop),
            verdict::RETURN => Ok(Verdict::Return),
            verdict::JUMP => Ok(Verdict::Jump(chain())),
            verdict::GOTO => Ok(Verdict::Goto(chain())),
            _ => Err(format!("an element of map {} has verdict {code}", self.set.name).into()),
        }
    }

    /// All elements that were read, ranges in rising order.
    pub fn finish(mut self) -> Vec<(Key, Value)> {
        // Where a range ends and the next begins, the end comes first.
        self.bounds.sort_unstable_by(|(a, a_ends, _), (b, b_ends, _)| {
            a.cmp(b).then_with(|| b_ends.cmp(a_ends))
        });
        let mut start: Option<(SmallVec<[u8; 16]>, Value)> = None;
        for (bound, is_end, value) in std::mem::take(&mut self.bounds) {
            if let Some((first, value)) = start.take() {
                self.push_range(&first, before(&bound), value);
            }
            if !is_end {
                start = Some((bound, value));
            }
        }
        if let Some((first, value)) = start {
            self.push_range(&first, SmallVec::from_elem(0xff, first.len()), value);
        }
        self.elements
    }

    /// All elements of a dynamic set that were read, but for those that never expire: no rule has added them.
    pub fn finish_expiring(self) -> Vec<(Key, Value, Lifetime)> {
        let elements = self.elements.into_iter().zip(self.lifetimes);
        elements.filter_map(|((key, value), lifetime)| Some((key, value, lifetime?))).collect()
    }

    fn push_range(&mut self, first: &[u8], last: SmallVec<[u8; 16]>, value: Value) {
        let key = self.key(first, Some(&last));
        self.elements.push((key, value));
    }
}

/// A time in milliseconds.
fn milliseconds(bytes: &[u8]) -> Result<Duration, DecodeError> {
    let bytes = bytes.try_into().map_err(|_| "a time is a number of eight bytes")?;
    Ok(Duration::from_millis(u64::from_be_bytes(bytes)))
}

/// The key before this one.
fn before(key: &[u8]) -> SmallVec<[u8; 16]> {
    let mut key: SmallVec<[u8; 16]> = SmallVec::from_slice(key);
    for byte in key.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 0xff {
            break;
        }
    }
    key
}
