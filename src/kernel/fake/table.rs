//! A table of the kernel in memory, and what transactions do to it.

use crate::kernel::nft::{Cause, Refusal};
use nft_table::{
    Chain, Count, Counts, Expression, Key, Lifetime, Operation, Ownership, Rule, Set, Statement,
    Value,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub(super) struct FakeTable {
    pub handle: u64,
    pub persists: bool,
    pub owner: Option<u32>,
    pub sets: BTreeMap<Arc<str>, (Set, BTreeMap<Key, FakeElement>)>,
    pub chains: BTreeMap<Arc<str>, Chain>,
    /// Sets with an element that stands for all keys.
    pub catch_alls: BTreeSet<Arc<str>>,
}

#[derive(Clone, Debug)]
pub(super) struct FakeElement {
    pub value: Value,
    /// None if it never expires.
    pub lifetime: Option<Lifetime>,
    pub count: Count,
}

/// A transaction on a copy of the table.
pub(super) struct Attempt<'a> {
    pub name: &'a str,
    pub table: Option<FakeTable>,
    /// Who makes it.
    pub port: u32,
    pub next_handle: u64,
    /// What elements have counted already.
    pub counts: &'a Counts,
    pub refused: &'a BTreeMap<(String, Key), i32>,
    pub missing_modules: &'a [&'static str],
    /// Elements that are there in some table are not refused.
    pub there: &'a [(&'a Key, &'a Value)],
    pub refusals: Vec<Refusal>,
}

impl Attempt<'_> {
    fn refuse(&mut self, operation: &Operation<'_>, element: Option<usize>, errno: i32) {
        self.refusals.push(Refusal::new(self.name, operation, element, errno));
    }

    pub fn apply(&mut self, operation: &Operation<'_>) {
        let owner = self.table.as_ref().and_then(|table| table.owner);
        if owner.is_some_and(|owner| owner != self.port) {
            return self.refuse(operation, None, libc::EPERM);
        }
        if let Operation::AddRule { rule, .. } = operation
            && let Some(module) = self.lacks_module_of(rule)
        {
            let cause = Cause::MissingFeature { module: module.to_owned() };
            let refusal = Refusal::new(self.name, operation, None, libc::ENOENT);
            return self.refusals.push(Refusal { cause, ..refusal });
        }
        match (operation, &mut self.table) {
            (Operation::AddTable(ownership), _) => {
                if let Err(errno) = self.add_table(*ownership) {
                    self.refuse(operation, None, errno);
                }
            }
            (Operation::DeleteTable, table @ Some(_)) => *table = None,
            (_, None) => self.refuse(operation, None, libc::ENOENT),
            (Operation::AddElements { set, elements }, Some(_)) => {
                let elements = elements.iter().map(|(key, value)| (*key, *value, None));
                self.add_elements(operation, &set.name, elements);
            }
            (Operation::AddExpiring { set, elements }, Some(_)) => {
                let elements =
                    elements.iter().map(|(key, value, life)| (*key, *value, Some(*life)));
                self.add_elements(operation, &set.name, elements);
            }
            (Operation::DestroyElements { set, keys }, Some(table)) => {
                if let Some((_, elements)) = table.sets.get_mut(&set.name) {
                    keys.iter().for_each(|key| drop(elements.remove(*key)));
                }
            }
            (Operation::DeleteElements { set, keys }, Some(table)) => {
                let there = table.sets.get_mut(&set.name);
                let missing = there.map_or(Some(0), |(_, elements)| {
                    keys.iter().position(|key| elements.remove(*key).is_none())
                });
                if let Some(index) = missing {
                    self.refuse(operation, Some(index), libc::ENOENT);
                }
            }
            (_, Some(table)) => {
                if let Err(errno) = table.change(operation) {
                    self.refuse(operation, None, errno);
                }
            }
        }
    }

    fn lacks_module_of(&self, rule: &Rule) -> Option<&'static str> {
        let needed = |module: &str| {
            rule.statements.iter().any(|statement| match statement {
                Statement::Dnat { key, .. } => {
                    module == "nft_hash" && matches!(key.last(), Some(Expression::Hash(_)))
                }
                Statement::RateOver { .. } => module == "nft_limit",
                Statement::ConnectionsOver { .. } => module == "nft_connlimit",
                _ => false,
            })
        };
        self.missing_modules.iter().copied().find(|module| needed(module))
    }

    fn add_table(&mut self, ownership: Ownership) -> Result<(), i32> {
        let owned = ownership == Ownership::OwnedPersistent;
        let Some(table) = &mut self.table else {
            self.next_handle += 1;
            self.table = Some(FakeTable {
                handle: self.next_handle,
                persists: owned,
                owner: owned.then_some(self.port),
                ..FakeTable::default()
            });
            return Ok(());
        };
        if owned != table.persists {
            return Err(libc::EOPNOTSUPP);
        }
        table.owner = owned.then_some(self.port);
        Ok(())
    }

    fn add_elements<'b>(
        &mut self,
        operation: &Operation<'_>,
        set: &str,
        elements: impl Iterator<Item = (&'b Key, &'b Value, Option<Lifetime>)>,
    ) {
        for (index, (key, value, lifetime)) in elements.enumerate() {
            if let Err(errno) = self.add_element(set, key, value, lifetime) {
                self.refuse(operation, Some(index), errno);
                // The kernel looks no further in a message.
                break;
            }
        }
    }

    fn add_element(
        &mut self,
        set: &str,
        key: &Key,
        value: &Value,
        lifetime: Option<Lifetime>,
    ) -> Result<(), i32> {
        if let Some(errno) = self.refused.get(&(set.to_owned(), key.clone()))
            && !self.there.contains(&(key, value))
        {
            return Err(*errno);
        }
        let table = self.table.as_mut().ok_or(libc::ENOENT)?;
        if let Value::Verdict(element) = value
            && element.verdict.chain().is_some_and(|chain| !table.chains.contains_key(chain))
        {
            return Err(libc::ENOENT);
        }
        let (set, elements) = table.sets.get_mut(set).ok_or(libc::ENOENT)?;
        if lifetime.is_some() && !set.flags.dynamic {
            return Err(libc::EINVAL);
        }
        if set.size.is_some_and(|size| elements.len() >= size as usize) {
            return Err(libc::ENFILE);
        }
        let overlaps = |other: &Key| {
            let (first, last) = key.0.split_at(set.key_len());
            let (other_first, other_last) = other.0.split_at(set.key_len());
            other != key && first <= other_last && other_first <= last
        };
        if set.is_plain_interval() && elements.keys().any(overlaps) {
            return Err(libc::EEXIST);
        }
        let counted = self.counts.get(&set.name).and_then(|counts| counts.get(key));
        let count = counted.filter(|_| set.counter).copied().unwrap_or_default();
        let element = FakeElement { value: value.clone(), lifetime, count };
        match elements.insert(key.clone(), element) {
            Some(before) if before.value != *value => Err(libc::EEXIST),
            _ => Ok(()),
        }
    }
}

impl FakeTable {
    /// Operations on sets, chains and rules.
    fn change(&mut self, operation: &Operation<'_>) -> Result<(), i32> {
        match operation {
            Operation::AddSet(set) => match self.sets.get(&set.name) {
                Some((there, _)) if there != *set => Err(libc::EEXIST),
                Some(_) => Ok(()),
                None => {
                    self.sets.insert(set.name.clone(), ((*set).clone(), BTreeMap::new()));
                    Ok(())
                }
            },
            Operation::DeleteSet(name) => {
                let in_use = self.rules().any(|rule| rule.sets().any(|set| &**set == *name));
                if in_use {
                    return Err(libc::EBUSY);
                }
                self.catch_alls.remove(*name);
                self.sets.remove(*name).map(drop).ok_or(libc::ENOENT)
            }
            Operation::FlushSet(set) => {
                self.sets.get_mut(&set.name).ok_or(libc::ENOENT)?.1.clear();
                self.catch_alls.remove(&set.name);
                Ok(())
            }
            Operation::AddChain(chain) => match self.chains.get(&chain.name) {
                Some(there) if there.base != chain.base => Err(libc::EEXIST),
                Some(_) => Ok(()),
                None => {
                    let empty = Chain { rules: Vec::new(), ..(*chain).clone() };
                    self.chains.insert(chain.name.clone(), empty);
                    Ok(())
                }
            },
            Operation::FlushChain(name) => {
                self.chains.get_mut(*name).ok_or(libc::ENOENT)?.rules.clear();
                Ok(())
            }
            Operation::DeleteChain(name) => {
                if self.is_used(name) {
                    return Err(libc::EBUSY);
                }
                self.chains.remove(*name).map(drop).ok_or(libc::ENOENT)
            }
            Operation::AddRule { chain, rule } => {
                let sets_there = rule.sets().all(|set| self.sets.contains_key(set));
                let chains_there = rule.chains().all(|chain| self.chains.contains_key(chain));
                let chain = self.chains.get_mut(*chain).ok_or(libc::ENOENT)?;
                if !sets_there || !chains_there {
                    return Err(libc::ENOENT);
                }
                chain.rules.push((*rule).clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.chains.values().flat_map(|chain| &chain.rules)
    }

    /// Whether a rule or an element leads to a chain.
    fn is_used(&self, name: &str) -> bool {
        let by_rule = self.rules().any(|rule| rule.chains().any(|chain| &**chain == name));
        let leads_there = |element: &FakeElement| match &element.value {
            Value::Verdict(element) => {
                element.verdict.chain().is_some_and(|chain| &**chain == name)
            }
            _ => false,
        };
        by_rule || self.sets.values().any(|(_, elements)| elements.values().any(leads_there))
    }
}
