//! Chains: lists of rules, some of them attached to a hook of the kernel.

use super::Rule;
use std::sync::Arc;

/// `type filter` or `type nat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    Filter,
    Nat,
}

impl ChainType {
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
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

impl Hook {
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
    pub chain_type: ChainType,
    pub hook: Hook,
    /// Lower comes first. See `enum nf_ip_hook_priorities` in `linux/netfilter_ipv4.h`.
    pub priority: i32,
}

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    pub name: Arc<str>,
    /// None for a chain that is only reached by jump or goto.
    pub base: Option<BaseChain>,
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
