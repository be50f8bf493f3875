//! Which maps of slots have room.

use crate::plan::layout::Bank;
use crate::plan::{PortPlan, elements};
use nft_table::Family;

/// The slots in each bank, by family.
#[derive(Debug, Default)]
pub(super) struct Banks([Vec<usize>; 2]);

impl Banks {
    /// The first bank with room.
    pub fn with_room(&self, family: Family) -> Bank {
        let banks = &self.0[family as usize];
        let first = banks.iter().position(|slots| *slots < Bank::FULL).unwrap_or(banks.len());
        Bank(u16::try_from(first).unwrap_or(u16::MAX))
    }

    /// A port has its slots in the bank of its plan from now on.
    pub fn enter(&mut self, plan: &PortPlan) {
        let (banks, bank) = (&mut self.0[plan.family as usize], usize::from(plan.bank.0));
        if banks.len() <= bank {
            banks.resize(bank + 1, 0);
        }
        banks[bank] += slots(plan);
    }

    /// A port has no slots in the bank of its plan any more.
    pub fn leave(&mut self, plan: &PortPlan) {
        self.0[plan.family as usize][usize::from(plan.bank.0)] -= slots(plan);
    }
}

fn slots(plan: &PortPlan) -> usize {
    let of = |planned| elements::slots(plan, planned).map(|slots| slots.len());
    plan.frontends.iter().flat_map(of).sum()
}
