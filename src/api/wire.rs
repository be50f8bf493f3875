//! Reading the protobuf wire format: fields of a message, borrowed from the bytes they came in.
//!
//! Only what API objects use: varints and length-delimited fields; others are skipped. Unknown fields
//! are the caller's to ignore, which is what keeps newer servers readable.
//! Source: the protocol buffers encoding specification, protobuf.dev/programming-guides/encoding.

use thiserror::Error;

/// What is wrong with bytes that should have been a protobuf message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("the message is cut short")]
    Short,
    /// A varint of more than ten bytes.
    #[error("a varint is longer than ten bytes")]
    Varint,
    /// A wire type that proto2 messages of the API never have (groups and the unassigned ones).
    #[error("field {field} has the unknown wire type {wire_type}")]
    WireType { field: u32, wire_type: u8 },
    /// A field that must be text is not UTF-8.
    #[error("field {field} is not UTF-8")]
    Text { field: u32 },
    /// A field has another wire type than its number promises.
    #[error("field {field} has an unexpected type")]
    Unexpected { field: u32 },
    /// A response or event does not start with Kubernetes' envelope `k8s\0`.
    #[error("the object lacks the prefix of Kubernetes' protobuf envelope")]
    Envelope,
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// int32, int64, bool, enums.
    Number(u64),
    /// Strings, bytes, embedded messages.
    Bytes(&'a [u8]),
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub number: u32,
    value: Value<'a>,
}

impl<'a> Field<'a> {
    /// The bytes of a message or a bytes field.
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) => Err(WireError::Unexpected { field: self.number }),
        }
    }

    /// A string field.
    pub fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Text { field: self.number })
    }

    /// A string field, owned.
    pub fn string(&self) -> Result<String, WireError> {
        self.text().map(str::to_owned)
    }

    /// An int64 field.
    pub fn int64(&self) -> Result<i64, WireError> {
        match self.value {
            Value::Number(number) => Ok(number as i64),
            Value::Bytes(_) => Err(WireError::Unexpected { field: self.number }),
        }
    }

    /// An int32 field; negative ones travel as ten-byte varints, so the low half is the value.
    pub fn int32(&self) -> Result<i32, WireError> {
        self.int64().map(|number| number as i32)
    }

    /// A bool field.
    pub fn bool(&self) -> Result<bool, WireError> {
        self.int64().map(|number| number != 0)
    }

    /// The fields of an embedded message.
    pub fn message(&self) -> Result<Fields<'a>, WireError> {
        self.bytes().map(Fields::new)
    }
}

/// The fields of a message in the order in which they were written. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { WireError::Short } else { WireError::Varint })
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(length).map_err(|_| WireError::Short)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next field that is a varint or has a length; fixed-width ones are passed over.
    fn read(&mut self) -> Result<Option<Field<'a>>, WireError> {
        while !self.rest.is_empty() {
            let tag = self.varint()?;
            let number = (tag >> 3) as u32;
            let value = match tag & 7 {
                0 => Value::Number(self.varint()?),
                1 => {
                    self.take(8)?;
                    continue;
                }
                2 => {
                    let length = self.varint()?;
                    Value::Bytes(self.take(length)?)
                }
                5 => {
                    self.take(4)?;
                    continue;
                }
                other => {
                    return Err(WireError::WireType { field: number, wire_type: other as u8 });
                }
            };
            return Ok(Some(Field { number, value }));
        }
        Ok(None)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.read().transpose();
        if matches!(field, Some(Err(_))) {
            self.rest = &[];
        }
        field
    }
}

/// The object inside Kubernetes' envelope: the four bytes `k8s\0`, then a `runtime.Unknown` whose
/// field 2 holds the object (apimachinery `pkg/runtime/serializer/protobuf`).
pub fn unwrap_envelope(bytes: &[u8]) -> Result<&[u8], WireError> {
    let unknown = bytes.strip_prefix(b"k8s\0").ok_or(WireError::Envelope)?;
    let mut raw: &[u8] = &[];
    for field in Fields::new(unknown) {
        let field = field?;
        if field.number == 2 {
            raw = field.bytes()?;
        }
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_message() {
        // 1: 150, 2: "ok", 3 (fixed32, skipped), 4: -1
        let mut bytes = vec![0x08, 0x96, 0x01, 0x12, 2, b'o', b'k', 0x1d, 1, 2, 3, 4, 0x20];
        bytes.extend([0xff; 9]);
        bytes.push(0x01);
        let fields: Vec<_> = Fields::new(&bytes).map(|field| field.expect("a field")).collect();
        assert_eq!(fields.len(), 3);
        assert_eq!(fields[0].int64(), Ok(150));
        assert_eq!(fields[1].text(), Ok("ok"));
        assert_eq!((fields[2].number, fields[2].int32()), (4, Ok(-1)));
    }

    #[test]
    fn every_prefix_of_a_message_ends_cleanly_or_with_one_error() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 2, b'o', b'k', 0x1a, 3, 0x08, 0x96, 0x01];
        for end in 0..=bytes.len() {
            let errors = Fields::new(&bytes[..end]).filter(Result::is_err).count();
            assert!(errors <= 1, "{errors} errors in the first {end} bytes");
        }
    }

    #[test]
    fn hostile_lengths_are_refused() {
        assert_eq!(Fields::new(&[0x12, 0x7f]).next(), Some(Err(WireError::Short)));
        assert_eq!(Fields::new(&[0xff; 11]).next(), Some(Err(WireError::Varint)));
        let mut huge = vec![0x12];
        huge.extend([0xff; 9]);
        huge.push(1);
        assert_eq!(Fields::new(&huge).next(), Some(Err(WireError::Short)));
    }

    #[test]
    fn a_mismatched_type_names_its_field() {
        let field = Fields::new(&[0x08, 1]).next().expect("a field").expect("well-formed");
        assert_eq!(field.text(), Err(WireError::Unexpected { field: 1 }));
    }

    #[test]
    fn the_envelope() {
        let wrapped = [b'k', b'8', b's', 0, 0x0a, 0, 0x12, 2, 7, 8, 0x22, 0];
        assert_eq!(unwrap_envelope(&wrapped), Ok(&[7u8, 8][..]));
        assert_eq!(unwrap_envelope(b"{}"), Err(WireError::Envelope));
    }
}
