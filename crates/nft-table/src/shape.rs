//! What fits into a set: the lengths of its keys and values, and why something does not fit.

use crate::{Constant, Data, DataType, Key, Rule, Set, SetData, Statement, Value};

/// The most bytes of a name, without the NUL at its end (`NFT_NAME_MAXLEN` in `linux/netfilter/nf_tables.h`).
const MAX_NAME: usize = 255;

/// The most fields of a concatenation: nft keeps their types in the 32 bits of one number, six bits a field.
const MAX_FIELDS: usize = 5;

/// The most bytes of a comment that nft takes and shows (`NFTNL_UDATA_COMMENT_MAXLEN` in libnftnl).
const MAX_COMMENT: usize = 128;

/// Why a name, a declaration, a key or a value is none that nft and the kernel could have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A name of a table, set or chain that the kernel has no room for.
    #[error("{0:?} is no name: names have 1 to 255 bytes and no NUL")]
    Name(Box<str>),
    /// A name of a set or chain that the kernel takes and nft's language does not have, so that a listing would
    /// say something else than what is there.
    #[error("{0:?} is no name in nft's language: a letter, then letters, digits, and any of /-_.")]
    Word(Box<str>),
    /// A name of an interface that the kernel has no room for (`IFNAMSIZ` in `linux/if.h`).
    #[error("{0:?} is no name of an interface: those have 1 to 15 bytes and no NUL")]
    Interface(Box<str>),
    /// A set declared with too few or too many fields in its key or data.
    #[error("{0} fields in a key or in data, where 1 to 5 are possible")]
    Fields(usize),
    /// A set declared with `typeof` expressions that are not as many as its fields.
    #[error("a set with other typeof expressions than fields")]
    TypeOf,
    /// Data of more bytes than [`Data::MAX`].
    #[error("data of {0} bytes, of which at most 20 are possible")]
    DataTooLong(usize),
    /// A key that is not as long as those of its set.
    #[error("a key of {len} bytes in a set whose keys have {expected}")]
    Key {
        /// Bytes of the key.
        len: usize,
        /// Bytes of a key of the set; in an interval set those of a range, its first and its last key.
        expected: usize,
    },
    /// A range that ends before it begins.
    #[error("a range that ends before it begins")]
    Range,
    /// A member in a map, or a value in a set or in a map of the other kind.
    #[error("a value that is not of the kind that the set holds")]
    Value,
    /// Data that are not as long as those of their map.
    #[error("data of {len} bytes in a map whose data have {expected}")]
    Data {
        /// Bytes of the data.
        len: usize,
        /// Bytes of the data of the map.
        expected: usize,
    },
    /// A comment that nft cannot show and load again.
    #[error(
        "a comment that is longer than 128 bytes, or holds a quotation mark or a control character"
    )]
    Comment,
    /// Something that does not fit into one netlink attribute, the length of which has 16 bits.
    #[error("more than 64 KiB in one netlink attribute")]
    TooLong,
}

/// Lengths of the keys and values of a set, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// A key as the kernel keeps it. A single field is not padded, the fields of a concatenation are.
    pub key_len: usize,
    /// A key in [`Key`], where a single field is padded as well.
    pub padded_key_len: usize,
    /// Data as the kernel keeps them; 0 in sets and verdict maps.
    pub data_len: usize,
    /// Data in [`Data`], where a single field is padded as well.
    padded_data_len: usize,
    pub is_interval: bool,
    is_verdict_map: bool,
}

/// Bytes of fields as the kernel keeps them.
pub(crate) fn fields_len(fields: &[DataType]) -> usize {
    match fields {
        [one] => one.len(),
        many => many.iter().map(|field| field.padded_len()).sum(),
    }
}

impl Shape {
    pub fn of(set: &Set) -> Shape {
        let data_len = match &set.data {
            SetData::Fields(fields) => fields_len(fields),
            SetData::None | SetData::Verdict => 0,
        };
        Shape {
            key_len: fields_len(&set.key),
            padded_key_len: set.key_len(),
            data_len,
            padded_data_len: set.data_len(),
            is_interval: set.flags.interval,
            is_verdict_map: set.data == SetData::Verdict,
        }
    }

    /// Whether a key is one of the set.
    #[inline]
    pub fn check_key(&self, key: &Key) -> Result<(), ShapeError> {
        let len = key.0.len();
        let expected = if self.is_interval { 2 * self.padded_key_len } else { self.padded_key_len };
        if len == expected { Ok(()) } else { Err(ShapeError::Key { len, expected }) }
    }

    /// Whether a value is one of the set.
    #[inline]
    pub fn check_value(&self, value: &Value) -> Result<(), ShapeError> {
        match value {
            Value::Data(data) if self.padded_data_len > 0 => {
                let (len, expected) = (data.bytes().len(), self.padded_data_len);
                if len == expected { Ok(()) } else { Err(ShapeError::Data { len, expected }) }
            }
            Value::Verdict(element) if self.is_verdict_map => {
                element.verdict.chain().map_or(Ok(()), |chain| check_word(chain))?;
                element.comment.as_deref().map_or(Ok(()), check_comment)
            }
            Value::Member if self.padded_data_len == 0 && !self.is_verdict_map => Ok(()),
            _ => Err(ShapeError::Value),
        }
    }
}

impl Set {
    /// Whether nft and the kernel can have such a set.
    pub(crate) fn check(&self) -> Result<(), ShapeError> {
        check_word(&self.name)?;
        check_fields(&self.key)?;
        if let SetData::Fields(fields) = &self.data {
            check_fields(fields)?;
            if self.data_len() > Data::MAX {
                return Err(ShapeError::DataTooLong(self.data_len()));
            }
        }
        let data: &[DataType] = if let SetData::Fields(fields) = &self.data { fields } else { &[] };
        match &self.type_of {
            Some((keys, datas)) if (keys.len(), datas.len()) != (self.key.len(), data.len()) => {
                Err(ShapeError::TypeOf)
            }
            _ => Ok(()),
        }
    }

    /// Whether every field of a range, a key of the set, begins before it ends.
    pub(crate) fn check_range(&self, range: &Key) -> Result<(), ShapeError> {
        let (mut first, mut last) = range.0.split_at_checked(self.key_len()).unwrap_or_default();
        for field in &self.key {
            let len = field.padded_len();
            let fields = first.split_at_checked(len).zip(last.split_at_checked(len));
            let Some(((one, first_rest), (other, last_rest))) = fields else { break };
            if one > other {
                return Err(ShapeError::Range);
            }
            (first, last) = (first_rest, last_rest);
        }
        Ok(())
    }
}

fn check_fields(fields: &[DataType]) -> Result<(), ShapeError> {
    match fields.len() {
        1..=MAX_FIELDS => Ok(()),
        count => Err(ShapeError::Fields(count)),
    }
}

/// Whether a table, set or chain can have the name.
pub(crate) fn check_name(name: &str) -> Result<(), ShapeError> {
    if (1..=MAX_NAME).contains(&name.len()) && !name.contains('\0') {
        return Ok(());
    }
    Err(ShapeError::Name(name.chars().take(MAX_NAME).collect()))
}

/// Whether a set or chain that is to be added can have the name: one that nft shows and loads again
/// (`string` in nft's `src/scanner.l`). What others have added may be called otherwise.
pub(crate) fn check_word(name: &str) -> Result<(), ShapeError> {
    check_name(name)?;
    let is_letter = |byte: u8| byte.is_ascii_alphabetic();
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
    if name.bytes().next().is_some_and(is_letter) && name.bytes().all(is_inner) {
        return Ok(());
    }
    Err(ShapeError::Word(name.into()))
}

/// Whether an interface can have the name.
pub(crate) fn check_interface(name: &str) -> Result<(), ShapeError> {
    if (1..DataType::InterfaceName.len()).contains(&name.len()) && !name.contains('\0') {
        return Ok(());
    }
    Err(ShapeError::Interface(name.chars().take(MAX_NAME).collect()))
}

/// Whether nft can show the comment. Its strings end with the next quotation mark.
fn check_comment(comment: &str) -> Result<(), ShapeError> {
    let is_bad = |byte: u8| byte == b'"' || byte.is_ascii_control();
    if comment.len() > MAX_COMMENT || comment.bytes().any(is_bad) {
        return Err(ShapeError::Comment);
    }
    Ok(())
}

/// Whether the sets, chains and interfaces of a rule have names that they can have.
pub(crate) fn check_rule(rule: &Rule) -> Result<(), ShapeError> {
    rule.sets().chain(rule.chains()).try_for_each(|name| check_word(name))?;
    rule.statements.iter().try_for_each(|statement| match statement {
        Statement::Match {
            constant: Constant::Interface(name) | Constant::InterfacePrefix(name),
            ..
        } => check_interface(name),
        _ => Ok(()),
    })
}
