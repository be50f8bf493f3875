//! The layout of table `inet kube-proxy`: which chains, rules, sets and maps there are. `rulesets/` shows it in nft
//! syntax.
//!
//! Everything is decided in the nat hooks, which the kernel asks about the first packet of a flow only, so an
//! established packet meets no rule. Rules follow what is configured and in use ([`Uses`]), never how many
//! Services there are:
//!
//! * a set or map is there while it has elements ([`SetName`])
//! * a rule is there while the sets that it looks into are ([`chains`])
//! * a balancing chain is there while something leads to it ([`Balancing`])

mod balancing;
mod rules;
mod sets;

pub use balancing::{Balancing, Kind, parting_rules};
pub use rules::{
    MASQUERADE_ALWAYS, MASQUERADE_FROM_NODE, REJECT, REJECTED_AT_LOCALHOST, Uses, chains,
    is_base_chain, localhost_chain,
};
pub use sets::{Bank, Counting, KeyStart, SetKind, SetName, Sets, address_type};

use nft_table::{Expression, Family};

/// Name of the table, in family inet.
pub const TABLE: &str = "kube-proxy";

/// Name of the table that serves while one of another layout is replaced.
pub const INTERIM: &str = "kube-proxy-interim";

/// The digit that the names of a family's chains, sets and maps have.
const fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// `ip daddr . meta l4proto . th dport`: a frontend by address.
fn vip_key(family: Family) -> Vec<Expression> {
    vec![Expression::DestinationAddress(family), Expression::Protocol, Expression::DestinationPort]
}

/// `meta l4proto . th dport`: a NodePort.
fn nodeport_key() -> Vec<Expression> {
    vec![Expression::Protocol, Expression::DestinationPort]
}
