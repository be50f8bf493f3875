//! What is listed and removed, in nft's words.

use super::names::NFTABLES_TABLE;
use nft_table::Family;
use std::fmt;

/// A chain of an iptables table. The table is one of `IPTABLES_TABLES`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ChainName {
    pub(super) family: Family,
    pub(super) table: &'static str,
    pub(super) chain: String,
}

/// Something that the kernel may refuse to remove.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    Table(Family),
    Chain(ChainName),
    Rule(ChainName, u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    DeleteTable(Family),
    DeleteRule(ChainName, u64),
    FlushChain(ChainName),
    DeleteChain(ChainName),
}

impl Operation {
    pub(super) fn object(&self) -> Object {
        match self {
            Operation::DeleteTable(family) => Object::Table(*family),
            Operation::DeleteRule(chain, handle) => Object::Rule(chain.clone(), *handle),
            Operation::FlushChain(chain) | Operation::DeleteChain(chain) => {
                Object::Chain(chain.clone())
            }
        }
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", nft(self.family), self.table, self.chain)
    }
}

impl fmt::Display for Operation {
    /// As nft writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::DeleteTable(family) => {
                write!(f, "delete table {} {NFTABLES_TABLE}", nft(*family))
            }
            Operation::DeleteRule(chain, handle) => {
                write!(f, "delete rule {chain} handle {handle}")
            }
            Operation::FlushChain(chain) => write!(f, "flush chain {chain}"),
            Operation::DeleteChain(chain) => write!(f, "delete chain {chain}"),
        }
    }
}

/// The family's name.
pub(super) fn nft(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
