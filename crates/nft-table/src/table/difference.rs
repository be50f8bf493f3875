//! The difference between what should be and what the kernel has.

use super::{InKernel, KernelChain, SetState, Table};
use crate::{Chain, Key, Operation, Rule, SetData, Transaction, Value};
use std::sync::Arc;

static DIFFERENT: KernelChain = KernelChain::Different;

impl Table {
    /// What brings the kernel from what it has to this state.
    pub fn changes(&self) -> Transaction<'_> {
        let mut operations = Vec::new();
        match self.in_kernel {
            InKernel::Present => {}
            InKernel::Absent => operations.push(Operation::AddTable),
            // AddTable first: deleting needs the table to be there.
            InKernel::Other => operations.extend([
                Operation::AddTable,
                Operation::DeleteTable,
                Operation::AddTable,
            ]),
        }
        self.push_deletions(&mut operations);
        self.push_additions(&mut operations);
        Transaction { table: &self.name, operations }
    }

    /// Deletions come first, and users before what they use.
    fn push_deletions<'a>(&'a self, operations: &mut Vec<Operation<'a>>) {
        for state in self.touched_states().filter(|state| !state.new) {
            if state.set.is_plain_interval() {
                operations.push(Operation::FlushSet(&state.set));
                continue;
            }
            let mut keys: Vec<&Key> = state
                .touched
                .iter()
                .filter(|(key, before)| {
                    before.is_some() && state.elements.get(*key) != before.as_ref()
                })
                .map(|(key, _)| key)
                .collect();
            if !keys.is_empty() {
                keys.sort_unstable();
                operations.push(Operation::DeleteElements { set: &state.set, keys });
            }
        }
        let touched = self.touched_chains_in_order();
        for (name, _) in touched.iter().filter(|(name, before)| self.has_stale_rules(name, before))
        {
            operations.push(Operation::FlushChain(name));
        }
        // Rules lead to sets, and verdicts in sets lead to chains.
        operations.extend(self.removed_sets.iter().map(|name| Operation::DeleteSet(name)));
        for (name, before) in &touched {
            if !matches!(before, KernelChain::Absent) && !self.chains.contains_key(*name) {
                operations.push(Operation::DeleteChain(name));
            }
        }
    }

    /// Additions come last, and what is used before its users.
    fn push_additions<'a>(&'a self, operations: &mut Vec<Operation<'a>>) {
        for state in self.touched_states().filter(|state| state.new) {
            operations.push(Operation::AddSet(&state.set));
        }
        let touched = self.touched_chains_in_order();
        let wanted: Vec<(&Chain, &KernelChain)> = touched
            .iter()
            .filter_map(|(name, before)| self.chains.get(*name).map(|chain| (chain, *before)))
            .collect();
        for (chain, before) in &wanted {
            if matches!(before, KernelChain::Absent) {
                operations.push(Operation::AddChain(chain));
            }
        }
        // Before the elements: binding a rule to a map makes the kernel walk what is in it.
        for (chain, before) in wanted {
            if !matches!(before, KernelChain::Present(same) if same == chain) {
                let rules = chain.rules.iter();
                operations
                    .extend(rules.map(|rule| Operation::AddRule { chain: &chain.name, rule }));
            }
        }
        // Data first, as verdicts lead to them.
        let is_data = |state: &&SetState| matches!(state.set.data, SetData::Fields(_));
        let data = self.touched_states().filter(is_data);
        let others = self.touched_states().filter(|state| !is_data(state));
        for state in data.chain(others) {
            let elements = state.added();
            if !elements.is_empty() {
                operations.push(Operation::AddElements { set: &state.set, elements });
            }
        }
    }

    fn has_stale_rules(&self, name: &str, before: &KernelChain) -> bool {
        match before {
            KernelChain::Absent => false,
            KernelChain::Present(chain) => self.chains.get(name) != Some(chain),
            KernelChain::Different => true,
        }
    }

    fn touched_states(&self) -> impl Iterator<Item = &SetState> {
        self.touched_sets.iter().filter_map(|id| self.sets[id.0 as usize].as_ref()).filter(
            |state| {
                // A set that was touched back to what it was has nothing to write.
                state.new
                    || state
                        .touched
                        .iter()
                        .any(|(key, before)| state.elements.get(key) != before.as_ref())
            },
        )
    }

    fn touched_chains_in_order(&self) -> Vec<(&str, &KernelChain)> {
        let mut touched: Vec<(&str, &KernelChain)> = self
            .touched_chains
            .iter()
            .filter(|(name, before)| match before {
                KernelChain::Absent => self.chains.contains_key(*name),
                KernelChain::Present(chain) => self.chains.get(*name) != Some(chain),
                KernelChain::Different => true,
            })
            .map(|(name, before)| (&**name, before))
            .collect();
        touched.extend(self.users_of_replaced_sets().map(|chain| (&*chain.name, &DIFFERENT)));
        touched.sort_unstable_by_key(|(name, _)| (self.chain_order.get(*name), *name));
        touched
    }

    /// Chains that stay as they are, but for a set that their rules look into: it is deleted and added
    /// again, so they have to let go of it and take it up again.
    fn users_of_replaced_sets(&self) -> impl Iterator<Item = &Chain> {
        let is_replaced =
            |set: &Arc<str>| self.removed_sets.contains(set) && self.set_ids.contains_key(set);
        let any = self.removed_sets.iter().any(is_replaced);
        let chains = any.then(|| self.chains.values()).into_iter().flatten();
        chains.filter(move |chain| {
            let stays = match self.touched_chains.get(&chain.name) {
                None => true,
                Some(KernelChain::Present(before)) => before == *chain,
                Some(KernelChain::Absent | KernelChain::Different) => false,
            };
            stays && chain.rules.iter().flat_map(Rule::sets).any(is_replaced)
        })
    }
}

impl SetState {
    /// What the kernel is to get, sorted; but a new hash set, which can be large, in no order.
    fn added(&self) -> Vec<(&Key, &Value)> {
        let mut added: Vec<(&Key, &Value)> = if self.new || self.set.is_plain_interval() {
            self.elements.iter().collect()
        } else {
            let changed = |(key, before): (_, &Option<Value>)| {
                let value = self.elements.get(key)?;
                (before.as_ref() != Some(value)).then_some((key, value))
            };
            self.touched.iter().filter_map(changed).collect()
        };
        if !self.new || self.set.flags.interval {
            added.sort_unstable_by_key(|(key, _)| *key);
        }
        added
    }
}
