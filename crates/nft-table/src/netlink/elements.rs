//! Elements as netlink attributes, written and read one by one without anything in between: a table can
//! have hundreds of thousands.

use super::expressions::verdict_code;
use super::numbers::{LIST_ELEMENT, counter, element as number, rule as rule_number};
use super::writer::Writer;
use crate::shape::Shape;
use crate::{Count, Key, Lifetime, Value, VerdictElement};
use smallvec::SmallVec;
use std::time::Duration;

/// The shortest lifetime that is sent, one tick of the slowest clock: older kernels make nothing of what is shorter,
/// and then an element stays for its whole timeout, or for ever.
const TICK: Duration = Duration::from_millis(10);

/// The methods expect keys and values that fit: see [`Shape::check_key`] and [`Shape::check_value`].
impl Shape {
    /// The key of an element, or the first key of a range.
    pub fn first(self, key: &Key) -> &[u8] {
        &key.0[..self.key_len]
    }

    /// The last key of a range.
    pub fn last(self, key: &Key) -> &[u8] {
        &key.0[self.padded_key_len..][..self.key_len]
    }

    /// Writes the element of a set without intervals, or of concatenated intervals.
    #[inline]
    pub fn write(self, out: &mut Writer, key: &Key, value: Option<&Value>) {
        let element = out.open(LIST_ELEMENT);
        write_data(out, number::KEY, self.first(key));
        if self.is_interval {
            write_data(out, number::KEY_END, self.last(key));
        }
        if let Some(value) = value {
            self.write_value(out, value, false);
        }
        out.close(element);
    }

    /// Writes an element that has counted something already, in a set with `counter`.
    pub fn write_counted(self, out: &mut Writer, key: &Key, value: &Value, count: Count) {
        let element = out.open(LIST_ELEMENT);
        write_data(out, number::KEY, self.first(key));
        self.write_value(out, value, false);
        let expression = out.open(number::EXPRESSION);
        out.string(rule_number::EXPRESSION_NAME, counter::NAME);
        let data = out.open(rule_number::EXPRESSION_DATA);
        out.attribute(counter::BYTES, &count.bytes.to_be_bytes());
        out.attribute(counter::PACKETS, &count.packets.to_be_bytes());
        out.close(data);
        out.close(expression);
        out.close(element);
    }

    /// Writes a request for elements by key, to be answered with one message each, in this order. The kernel stops
    /// at the first that is not there.
    pub(super) fn write_request(self, out: &mut Writer, keys: &[&Key]) {
        let list = out.open(number::ELEMENTS);
        for key in keys {
            self.write(out, key, None);
        }
        out.close(list);
    }

    /// Writes an element of a dynamic set, which is never one of intervals. The kernel takes none that outlives its
    /// timeout.
    pub fn write_expiring(self, out: &mut Writer, key: &Key, value: &Value, lifetime: Lifetime) {
        let timeout = lifetime.timeout.max(TICK);
        let expires = lifetime.expires.clamp(TICK, timeout);
        let milliseconds =
            |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
        let element = out.open(LIST_ELEMENT);
        out.attribute(number::TIMEOUT, &milliseconds(timeout));
        out.attribute(number::EXPIRATION, &milliseconds(expires));
        write_data(out, number::KEY, self.first(key));
        self.write_value(out, value, false);
        out.close(element);
    }

    /// Writes a range of a single field: an element at its start, and one that marks the end at the
    /// key after its last. A range to the largest value has no end.
    pub fn write_range(self, out: &mut Writer, key: &Key, value: &Value) {
        let mut end: SmallVec<[u8; 16]> = SmallVec::from_slice(self.last(key));
        let open = end.iter_mut().rev().all(|byte| {
            *byte = byte.wrapping_add(1);
            *byte == 0
        });
        let element = out.open(LIST_ELEMENT);
        write_data(out, number::KEY, self.first(key));
        self.write_value(out, value, open);
        out.close(element);
        if !open {
            write_marker(out, &end);
        }
    }

    /// Writes the marker that nft puts before the first range: here nothing is in the set.
    pub fn write_leading_end(self, out: &mut Writer) {
        let zero: SmallVec<[u8; 16]> = SmallVec::from_elem(0, self.key_len);
        write_marker(out, &zero);
    }

    #[inline]
    fn write_value(self, out: &mut Writer, value: &Value, open: bool) {
        let comment = match value {
            Value::Member => None,
            Value::Data(data) => {
                write_data(out, number::DATA, &data.bytes()[..self.data_len]);
                None
            }
            Value::Verdict(element) => {
                write_verdict(out, element);
                element.comment.as_deref()
            }
        };
        write_user_data(out, comment, open);
    }
}

#[inline]
fn write_data(out: &mut Writer, kind: u16, bytes: &[u8]) {
    out.nested(kind, number::VALUE, bytes);
}

fn write_verdict(out: &mut Writer, element: &VerdictElement) {
    let data = out.open(number::DATA);
    let verdict = out.open(number::VERDICT);
    out.number(number::VERDICT_CODE, verdict_code(&element.verdict));
    if let Some(chain) = element.verdict.chain() {
        out.string(number::VERDICT_CHAIN, chain);
    }
    out.close(verdict);
    out.close(data);
}

fn write_marker(out: &mut Writer, key: &[u8]) {
    let element = out.open(LIST_ELEMENT);
    out.number(number::FLAGS, number::INTERVAL_END);
    write_data(out, number::KEY, key);
    out.close(element);
}

fn write_user_data(out: &mut Writer, comment: Option<&str>, open: bool) {
    if comment.is_none() && !open {
        return;
    }
    let mut bytes: SmallVec<[u8; 136]> = SmallVec::new();
    if let Some(comment) = comment {
        bytes.extend_from_slice(&[number::COMMENT, comment.len() as u8 + 1]);
        bytes.extend_from_slice(comment.as_bytes());
        bytes.push(0);
    }
    if open {
        bytes.extend_from_slice(&[number::USER_FLAGS, 4]);
        bytes.extend_from_slice(&number::INTERVAL_OPEN.to_ne_bytes());
    }
    out.attribute(number::USER_DATA, &bytes);
}
