//! The difference between what should be and what the kernel has.

use super::{InKernel, KernelChain, SetState, Table};
use crate::{Chain, Key, Operation, Rule, SetData, Transaction, Value};
use std::sync::Arc;

/// A chain that is not in the kernel as it should be.
struct TouchedChain<'a> {
    name: &'a str,
    /// None: it should not be there.
    wanted: Option<&'a Chain>,
    is_in_kernel: bool,
    /// The kernel has it at another hook, and does not let it go to this one: it has to be made anew.
    has_moved: bool,
}

impl Table {
    /// What brings the kernel from what it has to this state.
    pub fn changes(&self) -> Transaction<'_> {
        let mut operations = Vec::new();
        match self.in_kernel {
            InKernel::Present => {}
            InKernel::Absent => operations.push(Operation::AddTable(self.ownership)),
            InKernel::Other => {
                operations.extend([Operation::DeleteTable, Operation::AddTable(self.ownership)])
            }
        }
        self.push_deletions(&mut operations);
        self.push_additions(&mut operations);
        Transaction::new(&self.name, operations)
    }

    /// Deletions come first, and users before what they use.
    fn push_deletions<'a>(&'a self, operations: &mut Vec<Operation<'a>>) {
        let mut states: Vec<&SetState> = self.touched_states().filter(|state| !state.new).collect();
        states.sort_by_key(|state| !state.is_entrance);
        for state in states {
            if state.is_flushed() {
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
        let mut touched = self.touched_chains_in_order();
        touched.retain(|chain| chain.is_in_kernel);
        operations.extend(touched.iter().map(|chain| Operation::FlushChain(chain.name)));
        // Rules lead to sets, and verdicts in sets lead to chains.
        operations.extend(self.removed_sets.iter().map(|name| Operation::DeleteSet(name)));
        touched.retain(|chain| chain.wanted.is_none() || chain.has_moved);
        operations.extend(touched.iter().map(|chain| Operation::DeleteChain(chain.name)));
    }

    /// Additions come last, and what is used before its users.
    fn push_additions<'a>(&'a self, operations: &mut Vec<Operation<'a>>) {
        for state in self.touched_states().filter(|state| state.new) {
            operations.push(Operation::AddSet(&state.set));
        }
        let touched = self.touched_chains_in_order();
        for TouchedChain { wanted, is_in_kernel, has_moved, .. } in &touched {
            if let Some(chain) = wanted
                && (!is_in_kernel || *has_moved)
            {
                operations.push(Operation::AddChain(chain));
            }
        }
        // Before the elements: binding a rule to a map makes the kernel walk what is in it.
        for chain in touched.iter().filter_map(|chain| chain.wanted) {
            let rules = chain.rules.iter();
            operations.extend(rules.map(|rule| Operation::AddRule { chain: &chain.name, rule }));
        }
        // What packets find last comes first: data, members, verdicts, and at last where packets come in.
        let mut states: Vec<&SetState> = self.touched_states().collect();
        states.sort_by_key(|state| match state.set.data {
            SetData::Fields(_) => 0,
            SetData::None => 1,
            SetData::Verdict if !state.is_entrance => 2,
            SetData::Verdict => 3,
        });
        for state in states {
            let elements = state.added();
            if !elements.is_empty() {
                operations.push(Operation::AddElements { set: &state.set, elements });
            }
        }
    }

    pub(super) fn touched_states(&self) -> impl Iterator<Item = &SetState> {
        // A set that was touched back to what it was has nothing to write.
        let is_other = |state: &SetState| {
            let mut touched = state.touched.iter();
            touched.any(|(key, before)| state.elements.get(key) != before.as_ref())
        };
        let states = self.touched_sets.iter().filter_map(|id| self.state(*id));
        states.filter(move |state| state.new || state.rewritten || is_other(state))
    }

    fn touched_chains_in_order(&self) -> Vec<TouchedChain<'_>> {
        let mut touched: Vec<TouchedChain<'_>> = self
            .touched_chains
            .iter()
            .filter_map(|(name, before)| {
                let wanted = self.chains.get(name);
                let is_as_before = match before {
                    KernelChain::Absent => wanted.is_none(),
                    KernelChain::Present(chain) => wanted == Some(chain),
                    KernelChain::Different { .. } => false,
                };
                let base = before.base();
                let has_moved = base.zip(wanted).is_some_and(|(base, chain)| chain.base != base);
                let is_in_kernel = base.is_some();
                (!is_as_before).then_some(TouchedChain { name, wanted, is_in_kernel, has_moved })
            })
            .collect();
        touched.extend(self.users_of_replaced_sets().map(|chain| TouchedChain {
            name: &chain.name,
            wanted: Some(chain),
            is_in_kernel: true,
            has_moved: false,
        }));
        touched.sort_unstable_by_key(|chain| (self.chain_order.get(chain.name), chain.name));
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
                Some(KernelChain::Absent | KernelChain::Different { .. }) => false,
            };
            stays && chain.rules.iter().flat_map(Rule::sets).any(is_replaced)
        })
    }
}

impl SetState {
    /// Whether all that the kernel has of it is deleted before something is added.
    fn is_flushed(&self) -> bool {
        self.rewritten || self.set.is_plain_interval()
    }

    /// What the kernel is to get, sorted; but a new hash set, which can be large, in no order.
    fn added(&self) -> Vec<(&Key, &Value)> {
        let mut added: Vec<(&Key, &Value)> = if self.new || self.is_flushed() {
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
