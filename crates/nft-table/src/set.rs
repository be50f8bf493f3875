//! Sets and maps, and the elements in them.

use super::{DataType, Expression, ShapeError, Verdict};
use crate::shape::check_interface;
use ipnet::IpNet;
use smallvec::SmallVec;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a map holds beside the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetData {
    /// A set: nothing.
    None,
    /// A verdict map.
    Verdict,
    /// A data map: a concatenation of these types.
    Fields(Vec<DataType>),
}

/// The most elements of a dynamic set that is declared without a size (`nft_dynset_init` in
/// `net/netfilter/nft_dynset.c`). The kernel shows it as if it had been declared, and so does the text of a table.
pub const DYNAMIC_SIZE: u32 = 65_535;

/// Flags of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetFlags {
    /// `flags interval`: elements are ranges.
    pub interval: bool,
    /// `flags dynamic`: rules add elements. They are the kernel's own: they are never planned, and dumps leave them
    /// out.
    pub dynamic: bool,
    /// `flags timeout`: elements expire. Those that count connections cannot; they go with the last connection.
    pub timeout: bool,
}

/// The declaration of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// 1 to 255 bytes. nft can load a listing again if it begins with a letter and goes on with letters, digits
    /// and any of `/\_.-`.
    pub name: Arc<str>,
    /// The fields of a key, 1 to 5.
    pub key: Vec<DataType>,
    /// What stands beside the key.
    pub data: SetData,
    /// Whether it holds ranges, and who fills it.
    pub flags: SetFlags,
    /// For sets that are declared with `typeof`: the expressions of key and data. nft needs them
    /// where a field has no type name, as a slot number.
    pub type_of: Option<(Vec<Expression>, Vec<Expression>)>,
    /// `size`: the most elements that it takes. None: as many as there is memory for; in a dynamic set
    /// [`DYNAMIC_SIZE`]. With a size of its own the kernel sets memory aside for so many at once, 32 bytes for each
    /// (`nft_rhash_estimate`, `rhashtable_init` in the kernel), and without one as they come.
    pub size: Option<u32>,
    /// `counter`: each element counts the packets that find it (Linux 5.7). What a range has counted begins at 0
    /// again when it is replaced.
    pub counter: bool,
}

impl Set {
    /// Bytes of a key in registers.
    pub fn key_len(&self) -> usize {
        self.key.iter().map(|field| field.padded_len()).sum()
    }

    /// Bytes of the data in registers; 0 for sets and verdict maps.
    pub fn data_len(&self) -> usize {
        match &self.data {
            SetData::Fields(fields) => fields.iter().map(|field| field.padded_len()).sum(),
            _ => 0,
        }
    }

    /// Whether it is a map, verdict or data.
    pub fn is_map(&self) -> bool {
        self.data != SetData::None
    }

    /// Whether the kernel keeps ranges of a concatenation (its pipapo backend).
    pub fn is_concatenated_interval(&self) -> bool {
        self.flags.interval && self.key.len() > 1
    }

    /// Whether the kernel keeps ranges of a single field (its rbtree backend): there a changed set is
    /// written whole, as start and end elements depend on their neighbours.
    pub fn is_plain_interval(&self) -> bool {
        self.flags.interval && self.key.len() == 1
    }
}

/// The key of an element, as the kernel has it in registers: every field padded to four bytes.
/// In an interval set the first key of the range is followed by its last key (inclusive). The key of an
/// IPv4 endpoint slot, the most frequent by far, needs no allocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub SmallVec<[u8; 16]>);

impl Key {
    /// A key without any field yet.
    pub fn builder() -> KeyBuilder {
        KeyBuilder(SmallVec::new())
    }
}

/// Writes the fields of a key one after the other.
#[derive(Clone, Debug)]
pub struct KeyBuilder(SmallVec<[u8; 16]>);

impl KeyBuilder {
    /// An address of either family.
    pub fn address(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.0.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => self.0.extend_from_slice(&address.octets()),
        }
        self
    }

    /// An IANA protocol number.
    pub fn protocol(mut self, number: u8) -> Self {
        self.0.extend_from_slice(&[number, 0, 0, 0]);
        self
    }

    /// A port of TCP, UDP or SCTP.
    pub fn port(mut self, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        self.0.extend_from_slice(&[high, low, 0, 0]);
        self
    }

    /// A slot number, which `numgen` leaves in host order.
    pub fn slot(mut self, slot: u32) -> Self {
        self.0.extend_from_slice(&slot.to_ne_bytes());
        self
    }

    /// An interface name, padded with NUL.
    ///
    /// # Errors
    /// [`ShapeError::Interface`]
    pub fn interface(mut self, name: &str) -> Result<Self, ShapeError> {
        check_interface(name)?;
        self.padded_name(name, 0);
        Ok(self)
    }

    fn padded_name(&mut self, name: &str, padding: u8) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.resize(self.0.len() + DataType::InterfaceName.len() - name.len(), padding);
    }

    /// The key of these fields.
    pub fn build(self) -> Key {
        Key(self.0)
    }

    /// The range from this key to `last`, for interval sets.
    pub fn to(mut self, last: KeyBuilder) -> Key {
        self.0.extend_from_slice(&last.0);
        Key(self.0)
    }

    /// A CIDR after what is already there, as a range, for interval sets.
    pub fn network(self, network: IpNet) -> Key {
        let first = self.clone().address(network.network());
        first.to(self.address(network.broadcast()))
    }

    /// All interface names that begin with `prefix` (`"prefix*"` in nft), as a range, for interval sets.
    ///
    /// # Errors
    /// [`ShapeError::Interface`]
    pub fn interface_prefix(self, prefix: &str) -> Result<Key, ShapeError> {
        let mut last = self.clone();
        let first = self.interface(prefix)?;
        last.padded_name(prefix, 0xff);
        Ok(first.to(last))
    }
}

/// The data of a data map element, fields padded to four bytes. It has room for an IPv6 address with
/// a port, the most that this library's maps hold: there may be a million of them, so every byte counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Data {
    len: u8,
    /// Zero behind `len`.
    bytes: [u8; Data::MAX],
}

impl Data {
    /// The most bytes there can be.
    pub const MAX: usize = 20;

    /// Takes the bytes of registers.
    ///
    /// # Errors
    /// [`ShapeError::DataTooLong`] beyond [`Data::MAX`].
    pub fn new(from: &[u8]) -> Result<Data, ShapeError> {
        let mut bytes = [0; Data::MAX];
        let there = bytes.get_mut(..from.len()).ok_or(ShapeError::DataTooLong(from.len()))?;
        there.copy_from_slice(from);
        Ok(Data { len: from.len() as u8, bytes })
    }

    /// An address with a port, the data that `dnat` takes.
    pub fn address_port(address: IpAddr, port: u16) -> Data {
        let mut bytes = [0; Data::MAX];
        let len = match address {
            IpAddr::V4(address) => {
                bytes[..4].copy_from_slice(&address.octets());
                4
            }
            IpAddr::V6(address) => {
                bytes[..16].copy_from_slice(&address.octets());
                16
            }
        };
        bytes[len..len + 2].copy_from_slice(&port.to_be_bytes());
        Data { len: len as u8 + 4, bytes }
    }

    /// The bytes of the registers.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({:?})", self.bytes())
    }
}

/// What a verdict map holds under a key, and the comment of that element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerdictElement {
    /// What becomes of a packet with the key.
    pub verdict: Verdict,
    /// At most 128 bytes, the most that nft shows (`NFTNL_UDATA_COMMENT_MAXLEN`), without quotation marks and control
    /// characters.
    pub comment: Option<Box<str>>,
}

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// In a set.
    Member,
    /// In a data map.
    Data(Data),
    /// In a verdict map. Boxed: most elements are data, and there are many.
    Verdict(Box<VerdictElement>),
}

impl Value {
    /// A verdict with a comment.
    pub fn verdict(verdict: Verdict, comment: Option<Box<str>>) -> Value {
        Value::Verdict(Box::new(VerdictElement { verdict, comment }))
    }
}

/// What an element of a set with `counter` has counted: the packets that rules have looked up, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, network headers included.
    pub bytes: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// How long an element of a dynamic set stays, unless a rule updates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lifetime {
    /// `timeout`: how long it stays in all, counted from when a rule has added or updated it.
    pub timeout: Duration,
    /// `expires`: how long it still stays.
    pub expires: Duration,
}
