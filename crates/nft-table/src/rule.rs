//! Rules: what is done with a packet.

use super::{Constant, Expression, Family};
use std::sync::Arc;

/// Where the evaluation of a packet goes on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The base chain is done, and the packet goes on to the next one.
    Accept,
    /// The packet vanishes.
    Drop,
    /// On in the chain that has jumped here.
    Return,
    /// On in this chain, and afterwards in the next rule of the present one.
    Jump(Arc<str>),
    /// On in this chain, and afterwards where the present one would return to.
    Goto(Arc<str>),
}

impl Verdict {
    /// The chain that the verdict leads to.
    pub fn chain(&self) -> Option<&Arc<str>> {
        match self {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

/// How a packet is rejected. Clients of TCP and UDP see all of them as "connection refused".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// `reject`: port unreachable, as fits the packet's family.
    AnyFamily,
    /// `reject with tcp reset`, in a rule that has matched TCP. The kernel does not limit how many it sends,
    /// as it does with ICMP errors.
    TcpReset,
    /// `reject with icmp port-unreachable` or `icmpv6`, in a rule that has matched the family.
    Family(Family),
}

/// One part of a rule. The nft syntax stands above each.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `EXPRESSION CONSTANT`, `ct status ! dnat` when negated. A bitmask (`ct state`, `ct status`)
    /// matches when the bit is set.
    Match {
        /// What is compared.
        expression: Expression,
        /// What it is compared with.
        constant: Constant,
        /// Whether the rule goes on where they differ.
        negated: bool,
    },
    /// `meta l4proto { tcp, udp, sctp }`: an anonymous set of protocol numbers.
    ProtocolIn(&'static [u8]),
    /// `tcp flags != syn / syn,ack`: a TCP packet other than the one that opens a connection.
    NotOpening,
    /// `KEY @SET`, `KEY != @SET` when negated.
    InSet {
        /// The fields of the key.
        key: Vec<Expression>,
        /// Name of the set.
        set: Arc<str>,
        /// Whether the rule goes on where the set has no such key.
        negated: bool,
    },
    /// `KEY vmap @MAP`
    VerdictMap {
        /// The fields of the key.
        key: Vec<Expression>,
        /// Name of the verdict map.
        map: Arc<str>,
    },
    /// `dnat ip to KEY map @MAP`, where the map holds addresses with ports.
    Dnat {
        /// The family of packets and addresses.
        family: Family,
        /// The fields of the key.
        key: Vec<Expression>,
        /// Name of the data map.
        map: Arc<str>,
    },
    /// `update @MAP { KEY timeout SECONDS : DATA }`
    Update {
        /// Name of the dynamic data map.
        map: Arc<str>,
        /// The fields of the key.
        key: Vec<Expression>,
        /// The fields of what is put under the key.
        data: Vec<Expression>,
        /// Seconds until the element expires, if it is not updated.
        timeout_seconds: u64,
    },
    /// `update @SET { KEY timeout SECONDS limit rate over N/second burst M packets }`: matches while more packets of the
    /// key come than N a second, apart from M at once.
    RateOver {
        /// Name of the dynamic set with `timeout`.
        set: Arc<str>,
        /// The fields of the key.
        key: Vec<Expression>,
        /// N, at least 1.
        per_second: u32,
        /// M, at least 1.
        burst: u32,
        /// Seconds until a key that is not seen is forgotten.
        timeout_seconds: u64,
    },
    /// `add @SET { KEY ct count over N }`: matches where N other connections of the key are open. The packet's own is one
    /// of them from then on, unless it is refused. Not more than some hundred packets a second should come here with one
    /// key, for the kernel looks at all connections of the key, and lets go of a few that are gone with each
    /// (`CONNCOUNT_GC_MAX_NODES` in `net/netfilter/nf_conncount.c`).
    ConnectionsOver {
        /// Name of the dynamic set without `timeout`.
        set: Arc<str>,
        /// The fields of the key.
        key: Vec<Expression>,
        /// N
        most: u32,
    },
    /// `counter packets N bytes N`: counts, from 0 on.
    Counter,
    /// `masquerade fully-random`
    Masquerade,
    /// `reject ...`
    Reject(Reject),
    /// `accept`, `drop`, `return`, `jump CHAIN`, `goto CHAIN`
    Verdict(Verdict),
}

/// A rule: its statements are evaluated in order until one does not match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Evaluated in this order.
    pub statements: Vec<Statement>,
}

impl Rule {
    /// A rule of these statements.
    pub fn new(statements: Vec<Statement>) -> Rule {
        Rule { statements }
    }

    /// Names of the named sets and maps that the rule looks into.
    pub fn sets(&self) -> impl Iterator<Item = &Arc<str>> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::InSet { set, .. }
            | Statement::RateOver { set, .. }
            | Statement::ConnectionsOver { set, .. } => Some(set),
            Statement::VerdictMap { map, .. }
            | Statement::Dnat { map, .. }
            | Statement::Update { map, .. } => Some(map),
            _ => None,
        })
    }

    /// Chains that the rule itself (not through a map) jumps or goes to.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<str>> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::Verdict(verdict) => verdict.chain(),
            _ => None,
        })
    }
}
