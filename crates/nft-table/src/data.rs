//! The data types of nft that keys and values are made of.

/// A data type of one field of a key or of map data.
///
/// Numbers are nft's own (`enum datatypes` in nftables' `include/datatype.h`); the kernel stores them
/// for user space and does not interpret them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// IPv4 address, four bytes in network order.
    Ipv4Address,
    /// IPv6 address, 16 bytes in network order.
    Ipv6Address,
    /// Transport protocol number, one byte.
    InetProto,
    /// Transport port, two bytes in network order.
    InetService,
    /// Interface name, 16 bytes padded with NUL.
    InterfaceName,
    /// A slot number as `numgen` yields it: four bytes in host order. Sets with such a field are declared
    /// with `typeof`, for nft has no name for such a number. nft itself would give it the type `integer` here,
    /// which has no length of its own: on such a field in a concatenation nft up to 1.0.2 aborts, whatever it is
    /// asked to do. So it gets the type of something else that is four bytes in host order: `mark`.
    Slot,
}

#[expect(clippy::len_without_is_empty, reason = "it is never empty")]
impl DataType {
    /// nft's number of the type.
    pub const fn number(self) -> u32 {
        match self {
            DataType::Ipv4Address => 7,
            DataType::Ipv6Address => 8,
            DataType::InetProto => 12,
            DataType::InetService => 13,
            DataType::Slot => 19,
            DataType::InterfaceName => 41,
        }
    }

    /// Bytes of a value.
    pub const fn len(self) -> usize {
        match self {
            DataType::Ipv4Address | DataType::Slot => 4,
            DataType::Ipv6Address | DataType::InterfaceName => 16,
            DataType::InetProto => 1,
            DataType::InetService => 2,
        }
    }

    /// Bytes of a value as a part of a concatenation, where each field fills whole 32-bit registers.
    pub const fn padded_len(self) -> usize {
        self.len().next_multiple_of(4)
    }

    /// nft's name of the type, as it would be listed without a `typeof`.
    pub const fn nft(self) -> &'static str {
        match self {
            DataType::Ipv4Address => "ipv4_addr",
            DataType::Ipv6Address => "ipv6_addr",
            DataType::InetProto => "inet_proto",
            DataType::InetService => "inet_service",
            DataType::InterfaceName => "ifname",
            DataType::Slot => "mark",
        }
    }

    /// The number of a concatenation of types: six bits a field (nft's `TYPE_BITS`), of up to five fields.
    pub(crate) fn concatenation(types: &[DataType]) -> u32 {
        types.iter().fold(0, |number, data_type| number << 6 | data_type.number())
    }
}
