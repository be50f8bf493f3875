//! Writes elements into the table and keeps what they need: shared balancing chains exist while an
//! element leads to them, and an element that several Services want stays until the last one goes.

use super::balancing::Balancing;
use crate::ruleset::{Key, SetId, Table, Value};
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The table with the counts of who needs what.
#[derive(Debug)]
pub struct Writer {
    pub table: Table,
    /// How many elements (and chains) lead to a balancing chain.
    chain_uses: HashMap<Balancing, u32>,
    /// Balancing chains that nothing leads to any more. They are deleted later, by
    /// [`Writer::delete_idle_chains`]: before 6.2 the kernel refuses to delete a chain whose last
    /// reference went a moment ago, and an endpoint that comes back needs it again.
    idle: BTreeSet<Balancing>,
    /// How many Services want a shared element.
    wanted: HashMap<(SetId, Key), u32>,
}

impl Writer {
    pub fn new(table: Table) -> Writer {
        Writer { table, chain_uses: HashMap::new(), idle: BTreeSet::new(), wanted: HashMap::new() }
    }

    /// Puts an element that one Service alone wants.
    pub fn put(&mut self, set: SetId, key: Key, value: Value) {
        let leads_to = balancing(&value);
        let before = self.table.get(set, &key).and_then(balancing);
        if leads_to != before {
            leads_to.into_iter().for_each(|chain| self.use_chain(chain));
            before.into_iter().for_each(|chain| self.leave_chain(chain));
        }
        self.table.insert(set, key, value);
    }

    /// Takes such an element away.
    pub fn take(&mut self, set: SetId, key: &Key) {
        if let Some(chain) = self.table.get(set, key).and_then(balancing) {
            self.leave_chain(chain);
        }
        self.table.remove(set, key);
    }

    /// Puts a set element that other Services may want, too.
    pub fn put_shared(&mut self, set: SetId, key: Key) {
        let count = self.wanted.entry((set, key.clone())).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.table.insert(set, key, Value::Member);
        }
    }

    /// Takes it away when the last Service gives it up.
    pub fn take_shared(&mut self, set: SetId, key: &Key) {
        let entry = (set, key.clone());
        let Some(count) = self.wanted.get_mut(&entry) else { return };
        *count -= 1;
        if *count == 0 {
            self.wanted.remove(&entry);
            self.table.remove(set, key);
        }
    }

    /// A chain leads to this balancing chain, or one that leads to it does.
    pub fn use_chain(&mut self, chain: Balancing) {
        let uses = self.chain_uses.entry(chain).or_insert(0);
        *uses += 1;
        if *uses > 1 {
            return;
        }
        // An idle chain is still there.
        if !self.idle.remove(&chain) {
            chain.next().into_iter().for_each(|next| self.use_chain(next));
            self.table.set_chain(chain.chain());
        }
    }

    /// And does no more.
    pub fn leave_chain(&mut self, chain: Balancing) {
        let Some(uses) = self.chain_uses.get_mut(&chain) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.chain_uses.remove(&chain);
            self.idle.insert(chain);
        }
    }

    /// Keeps a balancing chain that an earlier run left in the kernel, as an idle one.
    pub fn keep_chain(&mut self, chain: Balancing) {
        if !self.chain_uses.contains_key(&chain) && self.idle.insert(chain) {
            if let Some(next) = chain.next() {
                self.keep_chain(next);
                self.use_chain(next);
            }
            self.table.set_chain(chain.chain());
        }
    }

    /// Whether [`Writer::delete_idle_chains`] has something to do.
    pub fn has_idle_chains(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Deletes the balancing chains that nothing leads to.
    pub fn delete_idle_chains(&mut self) {
        for chain in std::mem::take(&mut self.idle) {
            self.table.remove_chain(&chain.to_string());
            // What it led to becomes idle in turn and goes the next time.
            chain.next().into_iter().for_each(|next| self.leave_chain(next));
        }
    }
}

/// The balancing chain that an element leads to.
fn balancing(value: &Value) -> Option<Balancing> {
    match value {
        Value::Verdict(element) => element.verdict.chain().and_then(|name| Balancing::parse(name)),
        _ => None,
    }
}

/// Names of balancing chains, made once.
#[derive(Debug, Default)]
pub struct ChainNames(HashMap<Balancing, Arc<str>>);

impl ChainNames {
    pub fn get(&mut self, chain: Balancing) -> Arc<str> {
        self.0.entry(chain).or_insert_with(|| chain.to_string().into()).clone()
    }
}
