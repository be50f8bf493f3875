//! Rules: what is done with a packet.

use super::{Constant, Expression, Family};
use std::sync::Arc;

/// Where the evaluation of a packet goes on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(Arc<str>),
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
    Match { expression: Expression, constant: Constant, negated: bool },
    /// `meta l4proto { tcp, udp, sctp }`: an anonymous set of protocol numbers.
    ProtocolIn(&'static [u8]),
    /// `KEY @SET`, `KEY != @SET` when negated.
    InSet { key: Vec<Expression>, set: Arc<str>, negated: bool },
    /// `KEY vmap @MAP`
    VerdictMap { key: Vec<Expression>, map: Arc<str> },
    /// `dnat ip to KEY map @MAP`, where the map holds addresses with ports.
    Dnat { family: Family, key: Vec<Expression>, map: Arc<str> },
    /// `update @MAP { KEY timeout SECONDS : DATA }`
    Update { map: Arc<str>, key: Vec<Expression>, data: Vec<Expression>, timeout_seconds: u64 },
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
    pub statements: Vec<Statement>,
}

impl Rule {
    pub fn new(statements: Vec<Statement>) -> Rule {
        Rule { statements }
    }

    /// Names of the named sets and maps that the rule looks into.
    pub fn sets(&self) -> impl Iterator<Item = &Arc<str>> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::InSet { set, .. } => Some(set),
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
