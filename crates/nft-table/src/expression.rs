//! What a rule can read from a packet, its connection or the machine.

use super::{DataType, Family};
use ipnet::IpNet;
use std::borrow::Cow;
use std::sync::Arc;

/// A value that a rule loads into a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expression {
    /// `ip saddr`, `ip6 saddr`
    SourceAddress(Family),
    /// `ip daddr`, `ip6 daddr`
    DestinationAddress(Family),
    /// `meta l4proto`
    Protocol,
    /// `meta nfproto`
    NetworkFamily,
    /// `th sport`
    SourcePort,
    /// `th dport`
    DestinationPort,
    /// `iif`
    InputInterfaceIndex,
    /// `iifname`
    InputInterface,
    /// `oifname`
    OutputInterface,
    /// `ct state`
    CtState,
    /// `ct status`
    CtStatus,
    /// `ct original ip daddr`, `ct original ip6 daddr`
    CtOriginalDestination(Family),
    /// `ct original proto-dst`
    CtOriginalPort,
    /// `fib saddr type`
    SourceAddressType,
    /// `fib daddr type`
    DestinationAddressType,
    /// `numgen random mod N`: uniform in 0..N.
    Random(u32),
    /// `numgen inc mod N`: 0, 1 and so on to N - 1, then 0 again; one counter for each rule.
    Incremental(u32),
    /// `jhash ip saddr . th sport mod N seed S`: in 0..N, always the same for the same packets. The last part of a key.
    Hash(Hash),
}

/// A number that is computed from a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hash {
    /// What of the packet.
    pub of: Hashed,
    /// The IP family of the packet.
    pub family: Family,
    /// How many numbers there are.
    pub modulus: u32,
    /// Other seeds give other numbers.
    pub seed: u32,
    /// What is added to the number.
    pub offset: u32,
}

/// What a [`Hash`](struct@Hash) is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hashed {
    /// The source address.
    Client,
    /// The source address and port.
    Flow,
}

impl Hash {
    /// What it is computed from, in this order.
    pub fn key(self) -> &'static [Expression] {
        const SADDR: [Expression; 2] =
            [Expression::SourceAddress(Family::V4), Expression::SourceAddress(Family::V6)];
        const FLOW: [[Expression; 2]; 2] =
            [[SADDR[0], Expression::SourcePort], [SADDR[1], Expression::SourcePort]];
        let family = self.family as usize;
        match self.of {
            Hashed::Client => &SADDR[family..=family],
            Hashed::Flow => &FLOW[family],
        }
    }
}

#[expect(clippy::len_without_is_empty, reason = "it is never empty")]
impl Expression {
    /// The expression in nft syntax.
    pub fn nft(self) -> Cow<'static, str> {
        use Expression::*;
        use Family::*;
        Cow::Borrowed(match self {
            SourceAddress(V4) => "ip saddr",
            SourceAddress(V6) => "ip6 saddr",
            DestinationAddress(V4) => "ip daddr",
            DestinationAddress(V6) => "ip6 daddr",
            Protocol => "meta l4proto",
            NetworkFamily => "meta nfproto",
            SourcePort => "th sport",
            DestinationPort => "th dport",
            InputInterfaceIndex => "iif",
            InputInterface => "iifname",
            OutputInterface => "oifname",
            CtState => "ct state",
            CtStatus => "ct status",
            CtOriginalDestination(V4) => "ct original ip daddr",
            CtOriginalDestination(V6) => "ct original ip6 daddr",
            CtOriginalPort => "ct original proto-dst",
            SourceAddressType => "fib saddr type",
            DestinationAddressType => "fib daddr type",
            Random(modulus) => return Cow::Owned(format!("numgen random mod {modulus}")),
            Incremental(modulus) => return Cow::Owned(format!("numgen inc mod {modulus}")),
            Hash(hash) => {
                let key: Vec<_> = hash.key().iter().map(|part| part.nft()).collect();
                let (key, self::Hash { modulus, seed, offset, .. }) = (key.join(" . "), hash);
                let text = format!("jhash {key} mod {modulus} seed {seed:#x}");
                return Cow::Owned(match offset {
                    0 => text,
                    offset => format!("{text} offset {offset}"),
                });
            }
        })
    }

    /// Bytes that the expression writes to its register.
    pub const fn len(self) -> usize {
        match self {
            Expression::SourceAddress(family)
            | Expression::DestinationAddress(family)
            | Expression::CtOriginalDestination(family) => match family {
                Family::V4 => 4,
                Family::V6 => 16,
            },
            Expression::Protocol | Expression::NetworkFamily => 1,
            Expression::SourcePort | Expression::DestinationPort | Expression::CtOriginalPort => 2,
            Expression::InputInterface | Expression::OutputInterface => 16,
            Expression::InputInterfaceIndex => 4,
            Expression::CtState
            | Expression::CtStatus
            | Expression::SourceAddressType
            | Expression::DestinationAddressType
            | Expression::Random(_)
            | Expression::Incremental(_)
            | Expression::Hash(_) => 4,
        }
    }

    /// The network header that the expression reads, where it reads one: in an inet table such an
    /// expression needs a `meta nfproto` match before it, which nft adds and hides by itself.
    pub const fn network_header(self) -> Option<Family> {
        match self {
            Expression::SourceAddress(family) | Expression::DestinationAddress(family) => {
                Some(family)
            }
            Expression::Hash(hash) => Some(hash.family),
            _ => None,
        }
    }

    /// The data type of a set key that this expression is looked up in; None for what is only
    /// compared with constants.
    pub const fn data_type(self) -> Option<DataType> {
        Some(match self {
            Expression::SourceAddress(family)
            | Expression::DestinationAddress(family)
            | Expression::CtOriginalDestination(family) => match family {
                Family::V4 => DataType::Ipv4Address,
                Family::V6 => DataType::Ipv6Address,
            },
            Expression::Protocol => DataType::InetProto,
            Expression::SourcePort | Expression::DestinationPort | Expression::CtOriginalPort => {
                DataType::InetService
            }
            Expression::InputInterface | Expression::OutputInterface => DataType::InterfaceName,
            Expression::Random(_) | Expression::Incremental(_) | Expression::Hash(_) => {
                DataType::Slot
            }
            _ => return None,
        })
    }
}

/// A value that an expression is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// `meta nfproto ipv4`, `ipv6`
    Family(Family),
    /// `meta l4proto tcp`: an IANA protocol number.
    Protocol(u8),
    /// `ct state new`
    StateNew,
    /// `ct status dnat`
    StatusDnat,
    /// `fib saddr type local`, `fib daddr type local`
    TypeLocal,
    /// `iif 0`: none.
    NoInterface,
    /// `ip saddr 10.244.0.0/16`: a network with a prefix of at least one bit.
    Network(IpNet),
    /// `iifname "cni0"`
    Interface(Arc<str>),
    /// `iifname "cali*"`: all interfaces whose name begins so.
    InterfacePrefix(Arc<str>),
}

impl Constant {
    /// The constant in nft syntax.
    pub fn nft(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Constant::Family(Family::V4) => "ipv4",
            Constant::Family(Family::V6) => "ipv6",
            Constant::Protocol(number) => super::text::protocol(*number),
            Constant::StateNew => "new",
            Constant::StatusDnat => "dnat",
            Constant::TypeLocal => "local",
            Constant::NoInterface => "0",
            Constant::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                return Cow::Owned(network.addr().to_string());
            }
            Constant::Network(network) => return Cow::Owned(network.trunc().to_string()),
            Constant::Interface(name) => return Cow::Owned(format!("\"{name}\"")),
            Constant::InterfacePrefix(prefix) => return Cow::Owned(format!("\"{prefix}*\"")),
        })
    }
}
