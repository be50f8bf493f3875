//! The nft syntax of everything, so that every rule can be read and every error names what it is about.
//!
//! The layout is that of `nft list table`, for the constructs that this library has.

use super::{
    BaseChain, Chain, Constant, Count, DataType, Expression, Hook, Key, Lifetime, Operation,
    Ownership, Reject, Rule, Set, SetData, SetFlags, Statement, Table, Value, Verdict,
};
use crate::{DYNAMIC_SIZE, Family};
use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// A transport protocol by its IANA number, as nft prints it: `icmp`, `tcp`, `udp`, `ipv6-icmp`, `sctp`; others
/// are `unknown`.
pub fn protocol(number: u8) -> &'static str {
    match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "ipv6-icmp",
        132 => "sctp",
        _ => "unknown",
    }
}

/// Expressions as a concatenation: `ip daddr . meta l4proto . th dport`.
fn concatenation(expressions: &[Expression]) -> String {
    expressions.iter().map(|expression| expression.nft()).collect::<Vec<_>>().join(" . ")
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Return => f.write_str("return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Match { expression, constant, negated } => {
                let not = match (negated, constant) {
                    (false, _) => "",
                    // nft's spelling of "none of these bits".
                    (true, Constant::StateNew | Constant::StatusDnat) => "! ",
                    (true, _) => "!= ",
                };
                write!(f, "{} {not}{}", expression.nft(), constant.nft())
            }
            Statement::ProtocolIn(numbers) => {
                let names: Vec<&str> = numbers.iter().map(|number| protocol(*number)).collect();
                write!(f, "meta l4proto {{ {} }}", names.join(", "))
            }
            Statement::NotOpening => f.write_str("tcp flags != syn / syn,ack"),
            Statement::InSet { key, set, negated } => {
                let not = if *negated { "!= " } else { "" };
                write!(f, "{} {not}@{set}", concatenation(key))
            }
            Statement::VerdictMap { key, map } => write!(f, "{} vmap @{map}", concatenation(key)),
            Statement::Dnat { family, key, map } => {
                let family = match family {
                    Family::V4 => "ip",
                    Family::V6 => "ip6",
                };
                write!(f, "dnat {family} to {} map @{map}", concatenation(key))
            }
            Statement::Update { map, key, data, timeout_seconds } => write!(
                f,
                "update @{map} {{ {} timeout {} : {} }}",
                concatenation(key),
                duration(Duration::from_secs(*timeout_seconds)),
                concatenation(data)
            ),
            Statement::RateOver { set, key, per_second, burst, timeout_seconds } => write!(
                f,
                "update @{set} {{ {} timeout {} limit rate over {per_second}/second burst {burst} packets }}",
                concatenation(key),
                duration(Duration::from_secs(*timeout_seconds)),
            ),
            Statement::ConnectionsOver { set, key, most } => {
                write!(f, "add @{set} {{ {} ct count over {most} }}", concatenation(key))
            }
            Statement::Counter => f.write_str("counter packets 0 bytes 0"),
            Statement::Masquerade => f.write_str("masquerade fully-random"),
            Statement::Reject(Reject::AnyFamily) => f.write_str("reject"),
            Statement::Reject(Reject::TcpReset) => f.write_str("reject with tcp reset"),
            Statement::Reject(Reject::Family(Family::V4)) => {
                f.write_str("reject with icmp port-unreachable")
            }
            Statement::Reject(Reject::Family(Family::V6)) => {
                f.write_str("reject with icmpv6 port-unreachable")
            }
            Statement::Verdict(verdict) => verdict.fmt(f),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, statement) in self.statements.iter().enumerate() {
            if index > 0 {
                f.write_char(' ')?;
            }
            statement.fmt(f)?;
        }
        Ok(())
    }
}

/// A time as nft prints a timeout: `3h`, `1d2h3m4s5ms`.
fn duration(time: Duration) -> String {
    let mut left = time.as_millis();
    let mut text = String::new();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")]
    {
        if left >= unit {
            let _ = write!(text, "{}{name}", left / unit);
            left %= unit;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// The hook line of a base chain. nft names a priority by its distance from a well-known one.
fn base_chain(base: &BaseChain) -> String {
    let named = match (base.hook, base.priority) {
        (Hook::Prerouting, -110..=-90) => Some(("dstnat", -100)),
        (Hook::Postrouting, 90..=110) => Some(("srcnat", 100)),
        (_, -10..=10) => Some(("filter", 0)),
        _ => None,
    };
    let priority = match named {
        None => base.priority.to_string(),
        Some((name, at)) if base.priority == at => name.to_string(),
        Some((name, at)) if base.priority > at => format!("{name} + {}", base.priority - at),
        Some((name, at)) => format!("{name} - {}", at - base.priority),
    };
    let (chain_type, hook) = (base.chain_type.nft(), base.hook.nft());
    format!("type {chain_type} hook {hook} priority {priority}; policy accept;")
}

impl fmt::Display for Chain {
    /// The chain as a block inside a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(base) = &self.base {
            writeln!(f, "\t\t{}", base_chain(base))?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

/// Types as a concatenation: `ipv4_addr . inet_proto`.
fn types(types: &[DataType]) -> String {
    types.iter().map(|data_type| data_type.nft()).collect::<Vec<_>>().join(" . ")
}

impl fmt::Display for Set {
    /// The lines of the declaration, without the elements and the braces around.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.type_of, &self.data) {
            (Some((key, _)), SetData::None) => writeln!(f, "\t\ttypeof {}", concatenation(key))?,
            (Some((key, data)), _) => {
                writeln!(f, "\t\ttypeof {} : {}", concatenation(key), concatenation(data))?;
            }
            (None, SetData::None) => writeln!(f, "\t\ttype {}", types(&self.key))?,
            (None, SetData::Verdict) => writeln!(f, "\t\ttype {} : verdict", types(&self.key))?,
            (None, SetData::Fields(data)) => {
                writeln!(f, "\t\ttype {} : {}", types(&self.key), types(data))?;
            }
        }
        if let Some(size) = self.size.or(self.flags.dynamic.then_some(DYNAMIC_SIZE)) {
            writeln!(f, "\t\tsize {size}")?;
        }
        let SetFlags { interval, dynamic, timeout } = self.flags;
        let flags = [(dynamic, "dynamic"), (interval, "interval"), (timeout, "timeout")];
        let flags: Vec<&str> =
            flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
        if !flags.is_empty() {
            writeln!(f, "\t\tflags {}", flags.join(","))?;
        }
        if self.counter {
            writeln!(f, "\t\tcounter")?;
        }
        Ok(())
    }
}

/// One field of a key or of data.
fn field(data_type: DataType, bytes: &[u8]) -> String {
    match data_type {
        DataType::Ipv4Address => {
            Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[..4]).unwrap()).to_string()
        }
        DataType::Ipv6Address => {
            Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..16]).unwrap()).to_string()
        }
        DataType::InetProto => protocol(bytes[0]).to_string(),
        DataType::InetService => u16::from_be_bytes([bytes[0], bytes[1]]).to_string(),
        DataType::InterfaceName => {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            format!("\"{}\"", String::from_utf8_lossy(&bytes[..end]))
        }
        DataType::Slot => u32::from_ne_bytes(<[u8; 4]>::try_from(&bytes[..4]).unwrap()).to_string(),
    }
}

/// Fields as a concatenation.
fn fields(types: &[DataType], mut bytes: &[u8]) -> String {
    let mut texts = Vec::new();
    for data_type in types {
        if bytes.len() < data_type.padded_len() {
            break;
        }
        texts.push(field(*data_type, bytes));
        bytes = &bytes[data_type.padded_len()..];
    }
    texts.join(" . ")
}

/// A range of one field: an address prefix where it is one, `"eth*"` for interface names.
fn range(data_type: DataType, first: &[u8], last: &[u8]) -> String {
    if first == last {
        return field(data_type, first);
    }
    if data_type == DataType::InterfaceName {
        let end = first.iter().position(|byte| *byte == 0).unwrap_or(first.len());
        return format!("\"{}*\"", String::from_utf8_lossy(&first[..end]));
    }
    match prefix_len(first, last) {
        Some(len) => format!("{}/{len}", field(data_type, first)),
        None => format!("{}-{}", field(data_type, first), field(data_type, last)),
    }
}

/// The length of the prefix that covers just this range.
fn prefix_len(first: &[u8], last: &[u8]) -> Option<usize> {
    let bits = |bytes: &[u8]| -> Vec<bool> {
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
    };
    let (first, last) = (bits(first), bits(last));
    let len = first.iter().zip(&last).take_while(|(a, b)| a == b).count();
    let is_prefix = first[len..].iter().all(|bit| !bit) && last[len..].iter().all(|bit| *bit);
    is_prefix.then_some(len)
}

/// A key of a set in nft syntax.
pub fn key(set: &Set, key: &Key) -> String {
    let bytes = &key.0[..];
    if !set.flags.interval || bytes.len() != 2 * set.key_len() {
        return fields(&set.key, bytes);
    }
    let (mut first, mut last) = bytes.split_at(set.key_len());
    let mut texts = Vec::new();
    for data_type in &set.key {
        let (len, padded) = (data_type.len(), data_type.padded_len());
        texts.push(range(*data_type, &first[..len], &last[..len]));
        (first, last) = (&first[padded..], &last[padded..]);
    }
    texts.join(" . ")
}

/// An element in nft syntax.
pub fn element(set: &Set, element_key: &Key, value: &Value) -> String {
    with_value(set, key(set, element_key), value)
}

/// An element of a set with `counter` in nft syntax, with what it has counted:
/// `10.96.0.1 . tcp . 443 counter packets 3 bytes 180 : goto cluster-4-2`.
pub fn counted(set: &Set, element_key: &Key, value: &Value, count: Count) -> String {
    let (key, Count { packets, bytes }) = (key(set, element_key), count);
    with_value(set, format!("{key} counter packets {packets} bytes {bytes}"), value)
}

/// An element of a dynamic set: `10.0.0.1 timeout 3h expires 1h : 10.244.0.11 . 8080`.
pub fn expiring(set: &Set, element_key: &Key, value: &Value, lifetime: Lifetime) -> String {
    let Lifetime { timeout, expires } = lifetime;
    let (timeout, expires) = (duration(timeout), duration(expires));
    let key = key(set, element_key);
    with_value(set, format!("{key} timeout {timeout} expires {expires}"), value)
}

fn with_value(set: &Set, mut text: String, value: &Value) -> String {
    match value {
        Value::Member => {}
        Value::Data(data) => {
            if let SetData::Fields(types) = &set.data {
                let _ = write!(text, " : {}", fields(types, data.bytes()));
            }
        }
        Value::Verdict(element) => {
            if let Some(comment) = &element.comment {
                let _ = write!(text, " comment \"{comment}\"");
            }
            let _ = write!(text, " : {}", element.verdict);
        }
    }
    text
}

impl fmt::Display for Table {
    /// The whole table, as `nft list table` prints it; elements sorted by key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name())?;
        for (index, (id, set)) in self.sets().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let kind = if set.is_map() { "map" } else { "set" };
            write!(f, "\t{kind} {} {{\n{set}", set.name)?;
            let mut elements: Vec<(&Key, &Value)> = self.elements(id).collect();
            elements.sort_unstable_by_key(|(key, _)| *key);
            let texts: Vec<String> = elements
                .into_iter()
                .map(|(key, value)| match set.counter {
                    true => counted(set, key, value, Count::default()),
                    false => element(set, key, value),
                })
                .collect();
            if !texts.is_empty() {
                writeln!(f, "\t\telements = {{ {} }}", texts.join(",\n\t\t\t     "))?;
            }
            writeln!(f, "\t}}")?;
        }
        for chain in self.chains() {
            write!(f, "\n{chain}")?;
        }
        writeln!(f, "}}")
    }
}

/// The nft command of an operation; of elements at most the first three are shown.
pub fn operation(table: &str, operation: &Operation<'_>) -> String {
    let shown = |set: &Set, texts: Vec<String>, count: usize| {
        let more =
            if count > texts.len() { format!(", ... ({count} elements)") } else { String::new() };
        format!("element inet {table} {} {{ {}{more} }}", set.name, texts.join(", "))
    };
    match operation {
        Operation::AddTable(Ownership::Nobody) => format!("add table inet {table}"),
        Operation::AddTable(Ownership::OwnedPersistent) => {
            format!("add table inet {table} {{ flags owner, persist; }}")
        }
        Operation::DeleteTable => format!("delete table inet {table}"),
        Operation::FlushChain(chain) => format!("flush chain inet {table} {chain}"),
        Operation::DeleteChain(chain) => format!("delete chain inet {table} {chain}"),
        Operation::DeleteSet(set) => format!("delete set inet {table} {set}"),
        Operation::AddSet(set) => {
            let lines: Vec<String> =
                set.to_string().lines().map(|line| format!("{};", line.trim())).collect();
            let kind = if set.is_map() { "map" } else { "set" };
            format!("add {kind} inet {table} {} {{ {} }}", set.name, lines.join(" "))
        }
        Operation::AddChain(chain) => match &chain.base {
            Some(base) => {
                format!("add chain inet {table} {} {{ {} }}", chain.name, base_chain(base))
            }
            None => format!("add chain inet {table} {}", chain.name),
        },
        Operation::AddRule { chain, rule } => format!("add rule inet {table} {chain} {rule}"),
        Operation::FlushSet(set) => format!("flush set inet {table} {}", set.name),
        Operation::DeleteElements { set, keys } => {
            let texts = keys.iter().take(3).map(|element_key| key(set, element_key)).collect();
            format!("delete {}", shown(set, texts, keys.len()))
        }
        Operation::DestroyElements { set, keys } => {
            let texts = keys.iter().take(3).map(|element_key| key(set, element_key)).collect();
            format!("destroy {}", shown(set, texts, keys.len()))
        }
        Operation::AddElements { set, elements } => {
            let texts = elements.iter().take(3).map(|(k, value)| element(set, k, value)).collect();
            format!("add {}", shown(set, texts, elements.len()))
        }
        Operation::AddExpiring { set, elements } => {
            let first = elements.iter().take(3);
            let texts = first.map(|(k, value, lifetime)| expiring(set, k, value, *lifetime));
            format!("add {}", shown(set, texts.collect(), elements.len()))
        }
    }
}
