//! What the kernel has, compared with what should be.

use crate::ruleset::{BaseChain, Chain};

/// What the kernel has of a chain.
#[derive(Clone, Debug, Default)]
pub struct SnapshotChain {
    pub base: Option<BaseChain>,
    /// The expressions of each rule, as the kernel dumps them (`NFTA_RULE_EXPRESSIONS`).
    pub rules: Vec<Vec<u8>>,
}

impl SnapshotChain {
    /// Whether its rules are those of `chain`.
    pub fn has_rules_of(&self, _chain: &Chain) -> bool {
        todo!()
    }
}
