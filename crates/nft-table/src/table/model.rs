//! A kernel in memory for one table: it does what transactions say, and refuses what the real one refuses.

use crate::netlink::SnapshotChain;
use crate::{
    BaseChain, Chain, Key, Operation, Rule, Set, Snapshot, SnapshotSet, Transaction, Value,
};
use std::collections::BTreeMap;
use std::sync::Arc;

type Elements = BTreeMap<Key, Value>;

/// The table, if it is there.
#[derive(Debug, Default)]
pub struct Model(pub Option<ModelTable>);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelTable {
    pub sets: BTreeMap<Arc<str>, (Set, Elements)>,
    pub chains: BTreeMap<Arc<str>, (Option<BaseChain>, Vec<Rule>)>,
}

impl Model {
    /// Takes all of a transaction, or nothing and says which operation it refuses.
    pub fn commit(&mut self, transaction: &Transaction<'_>) -> Result<(), String> {
        let mut table = self.0.clone();
        for operation in &transaction.operations {
            let done = match (operation, &mut table) {
                (Operation::AddTable(_), table) => {
                    table.get_or_insert_default();
                    Ok(())
                }
                (Operation::DeleteTable, table) => table.take().map(drop).ok_or("no table"),
                (_, None) => Err("no table"),
                (_, Some(table)) => table.apply(operation),
            };
            done.map_err(|cause| format!("{cause}: {operation:?}"))?;
        }
        // Elements are looked at when all is done: they may lead to chains that come later.
        table.iter().try_for_each(ModelTable::has_all)?;
        self.0 = table;
        Ok(())
    }

    pub fn snapshot(&self) -> Option<Snapshot> {
        let table = self.0.as_ref()?;
        let mut snapshot = Snapshot::default();
        for (name, (set, elements)) in &table.sets {
            let elements = elements.clone().into_iter().collect();
            snapshot.sets.insert(
                name.clone(),
                SnapshotSet { set: Some(set.clone()), elements, ..SnapshotSet::default() },
            );
        }
        for (name, (base, rules)) in &table.chains {
            let chain = Chain { name: name.clone(), base: *base, rules: rules.clone() };
            snapshot.chains.insert(name.clone(), SnapshotChain::of(&chain));
        }
        Some(snapshot)
    }
}

impl ModelTable {
    fn apply(&mut self, operation: &Operation<'_>) -> Result<(), &'static str> {
        const NO_SET: &str = "no such set";
        const NO_CHAIN: &str = "no such chain";
        match operation {
            Operation::AddTable(_) | Operation::DeleteTable => {}
            Operation::AddSet(set) => {
                let (there, _) = self
                    .sets
                    .entry(set.name.clone())
                    .or_insert_with(|| ((*set).clone(), Elements::new()));
                if there != *set {
                    return Err("another set of this name");
                }
            }
            Operation::DeleteSet(name) => {
                if self.rules().any(|rule| rule.sets().any(|set| &**set == *name)) {
                    return Err("the set is in use");
                }
                self.sets.remove(*name).ok_or(NO_SET)?;
            }
            Operation::FlushSet(set) => self.sets.get_mut(&set.name).ok_or(NO_SET)?.1.clear(),
            Operation::AddElements { set, elements } => {
                let (_, there) = self.sets.get_mut(&set.name).ok_or(NO_SET)?;
                for (key, value) in elements {
                    if there.insert((*key).clone(), (*value).clone()).is_some() {
                        return Err("the element is there");
                    }
                }
            }
            Operation::AddExpiring { .. } => return Err("a table has no elements that expire"),
            Operation::DestroyElements { set, keys } => {
                let (_, there) = self.sets.get_mut(&set.name).ok_or(NO_SET)?;
                keys.iter().for_each(|key| drop(there.remove(*key)));
            }
            Operation::DeleteElements { set, keys } => {
                let (_, there) = self.sets.get_mut(&set.name).ok_or(NO_SET)?;
                if keys.iter().any(|key| there.remove(*key).is_none()) {
                    return Err("no such element");
                }
            }
            Operation::AddChain(chain) => {
                let there = self.chains.insert(chain.name.clone(), (chain.base, Vec::new()));
                if there.is_some() {
                    return Err("the chain is there");
                }
            }
            Operation::FlushChain(name) => self.chains.get_mut(*name).ok_or(NO_CHAIN)?.1.clear(),
            Operation::DeleteChain(name) => {
                let is_wanted = |chain: &Arc<str>| &**chain == *name;
                if self.rules().any(|rule| rule.chains().any(is_wanted))
                    || self.verdicts().any(is_wanted)
                {
                    return Err("the chain is in use");
                }
                let (_, rules) = self.chains.remove(*name).ok_or(NO_CHAIN)?;
                if !rules.is_empty() {
                    return Err("the chain has rules");
                }
            }
            Operation::AddRule { chain, rule } => {
                if !rule.sets().all(|set| self.sets.contains_key(set)) {
                    return Err(NO_SET);
                }
                if !rule.chains().all(|chain| self.is_reachable(chain)) {
                    return Err(NO_CHAIN);
                }
                self.chains.get_mut(*chain).ok_or(NO_CHAIN)?.1.push((*rule).clone());
            }
        }
        Ok(())
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.chains.values().flat_map(|(_, rules)| rules)
    }

    /// Chains that elements lead to.
    fn verdicts(&self) -> impl Iterator<Item = &Arc<str>> {
        let values = self.sets.values().flat_map(|(_, elements)| elements.values());
        values.filter_map(|value| match value {
            Value::Verdict(element) => element.verdict.chain(),
            _ => None,
        })
    }

    /// Nothing leads to a chain that is attached to a hook.
    fn is_reachable(&self, chain: &Arc<str>) -> bool {
        self.chains.get(chain).is_some_and(|(base, _)| base.is_none())
    }

    fn has_all(&self) -> Result<(), String> {
        match self.verdicts().find(|chain| !self.is_reachable(chain)) {
            Some(chain) => Err(format!("an element leads to {chain}, which is not there")),
            None => Ok(()),
        }
    }
}
