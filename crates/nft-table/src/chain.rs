//! Chains: lists of rules, some of them attached to a hook of the kernel.

use super::Rule;
use std::sync::Arc;

/// `type filter` or `type nat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    /// `type filter`: rules see every packet.
    Filter,
    /// `type nat`: rules see the first packet of a connection.
    Nat,
}

impl ChainType {
    /// The name of the type in nft syntax, and in netlink messages.
    pub const fn nft(self) -> &'static str {
        match self {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        }
    }
}

/// A hook of the inet family, numbered as `enum nf_inet_hooks` in `linux/netfilter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets that came in, before it is decided where they go.
    Prerouting = 0,
    /// Packets for the machine itself.
    Input = 1,
    /// Packets that the machine passes on.
    Forward = 2,
    /// Packets that the machine itself sends.
    Output = 3,
    /// Packets about to leave.
    Postrouting = 4,
}

impl Hook {
    /// The name of the hook in nft syntax.
    pub const fn nft(self) -> &'static str {
        match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        }
    }
}

/// Where and when a base chain sees packets. Its policy is always accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Which packets the chain sees, and what its rules may do with them.
    pub chain_type: ChainType,
    /// Where on their way the chain sees packets.
    pub hook: Hook,
    /// Lower comes first. See `enum nf_ip_hook_priorities` in `linux/netfilter_ipv4.h`.
    pub priority: i32,
}

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// 1 to 255 bytes. nft can load a listing again if it begins with a letter and goes on with letters, digits
    /// and any of `/\_.-`.
    pub name: Arc<str>,
    /// None for a chain that is only reached by jump or goto.
    pub base: Option<BaseChain>,
    /// Evaluated in this order, until one of them has a verdict.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that is reached by jump or goto.
    pub fn regular(name: impl Into<Arc<str>>, rules: Vec<Rule>) -> Chain {
        Chain { name: name.into(), base: None, rules }
    }

    /// A chain that is attached to a hook.
    pub fn base(name: impl Into<Arc<str>>, base: BaseChain, rules: Vec<Rule>) -> Chain {
        Chain { name: name.into(), base: Some(base), rules }
    }
}
