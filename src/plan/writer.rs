//! Writes elements into the table and keeps what they need: shared balancing chains exist while an
//! element leads to them, and an element that several Services want stays until the last one goes.

use super::balancing::Balancing;
use hashbrown::HashMap;
use nft_table::{Chain, Key, Set, SetId, Table, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The table with the counts of who needs what.
#[derive(Debug)]
pub struct Writer {
    pub table: Table,
    /// How many elements (and chains) lead to a balancing chain.
    chain_uses: HashMap<Balancing, u32>,
    /// Balancing chains that nothing leads to any more. They are deleted later, by
    /// [`Writer::delete_unused`]: before 6.2 the kernel refuses to delete a chain whose last
    /// reference went a moment ago, and an endpoint that comes back needs it again.
    idle: BTreeSet<Balancing>,
    /// Chains and sets of single Services that are not needed any more; deleted with the idle chains,
    /// for the same reasons.
    retired_chains: BTreeSet<Arc<str>>,
    retired_sets: BTreeSet<Arc<str>>,
    /// How many Services want a shared element.
    wanted: HashMap<(SetId, Key), u32>,
}

impl Writer {
    pub fn new(table: Table) -> Writer {
        Writer {
            table,
            chain_uses: HashMap::new(),
            idle: BTreeSet::new(),
            retired_chains: BTreeSet::new(),
            retired_sets: BTreeSet::new(),
            wanted: HashMap::new(),
        }
    }

    /// Puts an element that one Service alone wants.
    pub fn put(&mut self, set: SetId, key: Key, value: Value) {
        if let Value::Verdict(_) = value {
            let leads_to = balancing(&value);
            let before = self.table.get(set, &key).and_then(balancing);
            if leads_to != before {
                leads_to.into_iter().for_each(|chain| self.use_chain(chain));
                before.into_iter().for_each(|chain| self.leave_chain(chain));
            }
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

    /// Adds a chain of a single Service, or gives it other rules.
    pub fn put_chain(&mut self, chain: Chain) {
        self.retired_chains.remove(&chain.name);
        let before = self.table.chain(&chain.name).map(led_to).unwrap_or_default();
        led_to(&chain).into_iter().for_each(|chain| self.use_chain(chain));
        before.into_iter().for_each(|chain| self.leave_chain(chain));
        self.table.set_chain(chain);
    }

    /// Such a chain is not needed any more.
    pub fn retire_chain(&mut self, name: Arc<str>) {
        self.retired_chains.insert(name);
    }

    /// The set of a single Service; added if it is not there.
    pub fn put_set(&mut self, set: Set) -> SetId {
        self.retired_sets.remove(&set.name);
        match self.table.set_id(&set.name) {
            Some(id) => id,
            None => self.table.add_set(set),
        }
    }

    /// Such a set is not needed any more.
    pub fn retire_set(&mut self, name: Arc<str>) {
        self.retired_sets.insert(name);
    }

    /// Whether [`Writer::delete_unused`] has something to do.
    pub fn has_unused(&self) -> bool {
        !self.idle.is_empty()
            || !self.retired_chains.is_empty()
            || !self.retired_sets.is_empty()
            || self.table.has_leftovers()
    }

    /// Deletes the chains and sets that nothing leads to.
    pub fn delete_unused(&mut self) {
        self.table.delete_leftovers();
        for chain in std::mem::take(&mut self.idle) {
            self.table.remove_chain(&chain.to_string());
            // What it led to becomes idle in turn and goes the next time.
            chain.next().into_iter().for_each(|next| self.leave_chain(next));
        }
        for name in std::mem::take(&mut self.retired_chains) {
            let before = self.table.chain(&name).map(led_to).unwrap_or_default();
            self.table.remove_chain(&name);
            before.into_iter().for_each(|chain| self.leave_chain(chain));
        }
        for name in std::mem::take(&mut self.retired_sets) {
            if let Some(id) = self.table.set_id(&name) {
                self.table.remove_set(id);
            }
        }
    }
}

/// The balancing chains that the rules of a chain lead to.
fn led_to(chain: &Chain) -> Vec<Balancing> {
    let names = chain.rules.iter().flat_map(|rule| rule.chains());
    names.filter_map(|name| Balancing::parse(name)).collect()
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
