//! Writes elements into the table and keeps what they need: sets exist while they have elements, shared balancing
//! chains while an element leads to them, rules while there is something that they look into. An element
//! that several Services want stays until the last one goes.
//!
//! * `unused`: what nothing leads to any more, and when it goes
//! * `spares`: chains that a large table has before they are needed

mod spares;
mod unused;

use super::layout::{self, Balancing, Counting, SetKind, SetName, Sets, Uses};
use super::pods::Pods;
use hashbrown::{HashMap, HashSet};
use nft_table::{Chain, Key, Set, SetId, Table, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why the table takes what is put into it.
const SETS_FIT: &str = "a set is added while none of its name is there";
const ELEMENTS_FIT: &str = "keys and values are made for their sets";

/// The table with the counts of who needs what.
#[derive(Debug)]
pub struct Writer {
    pub table: Table,
    counting: Counting,
    sets: Sets,
    /// Sets whose last element went. They go with the rules that look into them, at
    /// [`Writer::remove_emptied`].
    emptied: BTreeSet<SetName>,
    /// Maps of slots without any. Idle balancing chains look into them, so they go after those.
    empty_slots: BTreeSet<SetName>,
    /// What the rules in the table were made for.
    uses: Uses,
    /// What the rules depend on may have changed.
    rules_are_stale: bool,
    /// Names of the chains that [`layout::chains`] made.
    fixed_chains: HashSet<Arc<str>>,
    /// How many elements (and chains) lead to a balancing chain.
    chain_uses: HashMap<Balancing, u32>,
    /// Balancing chains that nothing leads to any more. They are deleted later, by
    /// [`Writer::delete_unused`]: before 6.2 the kernel refuses to delete a chain whose last
    /// reference went a moment ago, and an endpoint that comes back needs it again.
    idle: BTreeSet<Balancing>,
    /// Which chains are in use or idle has changed since it was last seen to that there are spare ones.
    spares_are_stale: bool,
    /// Other chains, and sets of single Services, that are not needed any more; deleted with the idle chains,
    /// for the same reasons.
    retired_chains: BTreeSet<Arc<str>>,
    retired_sets: BTreeSet<Arc<str>>,
    /// How many Services want a shared element.
    wanted: HashMap<(SetName, Key), u32>,
}

impl Writer {
    /// A table without any Service.
    pub fn new(pods: Pods, masquerade_all: bool, counting: Counting) -> Writer {
        let mut writer = Writer {
            table: Table::new(layout::TABLE),
            counting,
            sets: Sets::default(),
            emptied: BTreeSet::new(),
            empty_slots: BTreeSet::new(),
            uses: Uses { pods, masquerade_all, ..Uses::default() },
            rules_are_stale: true,
            fixed_chains: HashSet::new(),
            chain_uses: HashMap::new(),
            idle: BTreeSet::new(),
            spares_are_stale: false,
            retired_chains: BTreeSet::new(),
            retired_sets: BTreeSet::new(),
            wanted: HashMap::new(),
        };
        writer.write_rules();
        writer
    }

    /// The sets that are there.
    pub fn sets(&self) -> &Sets {
        &self.sets
    }

    /// What sets that are added from now on count.
    pub fn set_counting(&mut self, counting: Counting) {
        self.counting = counting;
    }

    /// How packets of pods are known.
    pub fn pods(&self) -> &Pods {
        &self.uses.pods
    }

    /// Packets of pods are known by something else from now on.
    pub fn set_pods(&mut self, pods: Pods) {
        if self.uses.pods == pods {
            return;
        }
        self.uses.pods = pods;
        self.rules_are_stale = true;
        let chains = self.chain_uses.keys().chain(&self.idle);
        for chain in chains.filter(|chain| chain.kind.parts().is_some()) {
            self.table.set_chain(chain.chain(&self.uses.pods));
        }
    }

    /// Refuses nobody for now, or does so again.
    pub fn hold_refusals(&mut self, hold: bool) {
        self.rules_are_stale |= self.uses.hold_refusals != hold;
        self.uses.hold_refusals = hold;
        self.write_rules();
    }

    /// The set of a name; added if it is not there.
    fn set(&mut self, name: SetName) -> SetId {
        if let Some(id) = self.sets.get(name) {
            return id;
        }
        let id = self.table.add_set(name.declaration(self.counting)).expect(SETS_FIT);
        if matches!(name.kind, SetKind::ServiceIps | SetKind::ServiceNodeports) {
            self.table.set_entrance(id);
        }
        self.sets.put(name, Some(id));
        self.rules_are_stale = true;
        id
    }

    /// A set is in the kernel, whatever is in it, and what is declared there is about to be adopted. It stays if
    /// something is put into it before [`Writer::remove_emptied`].
    pub fn know_set(&mut self, name: SetName) {
        if self.sets.get(name).is_none() {
            self.table.keep_removed(&name.nft());
            let id = self.set(name);
            self.note_emptied(name, id);
        }
    }

    /// Puts an element of a Service; one that others may want, too ([`SetKind::is_shared`]), is there from the first one on.
    pub fn put(&mut self, set: SetName, key: Key, value: Value) {
        if set.kind.is_shared() {
            let count = self.wanted.entry((set, key.clone())).or_insert(0);
            *count += 1;
            if *count > 1 {
                return;
            }
        }
        let id = self.set(set);
        if let Value::Verdict(_) = value {
            let leads_to = balancing(&value);
            let before = self.table.get(id, &key).and_then(balancing);
            if leads_to != before {
                leads_to.into_iter().for_each(|chain| self.use_chain(chain));
                before.into_iter().for_each(|chain| self.leave_chain(chain));
            }
        }
        self.table.insert(id, key, value).expect(ELEMENTS_FIT);
    }

    /// Makes the set of a single Service hold just these elements.
    pub fn fill(&mut self, set: SetId, elements: Vec<(Key, Value)>) {
        self.table.replace_elements(set, elements).expect(ELEMENTS_FIT);
    }

    /// Takes away an element of a Service; one that others want, too, when the last of them gives it up.
    pub fn take(&mut self, set: SetName, key: &Key) {
        if set.kind.is_shared() {
            let entry = (set, key.clone());
            let Some(count) = self.wanted.get_mut(&entry) else { return };
            *count -= 1;
            if *count > 0 {
                return;
            }
            self.wanted.remove(&entry);
        }
        let Some(id) = self.sets.get(set) else { return };
        if let Some(chain) = self.table.get(id, key).and_then(balancing) {
            self.leave_chain(chain);
        }
        self.table.remove(id, key);
        self.note_emptied(set, id);
    }

    fn note_emptied(&mut self, set: SetName, id: SetId) {
        if self.table.len(id) == 0 {
            self.emptied.insert(set);
        }
    }

    /// Makes a set hold just these elements.
    pub fn replace(&mut self, set: SetName, elements: Vec<(Key, Value)>) {
        if elements.is_empty() && self.sets.get(set).is_none() {
            return;
        }
        let id = self.set(set);
        self.fill(id, elements);
        self.note_emptied(set, id);
    }

    /// Takes away the sets whose last element went, and the rules that look into them. To be called when the kernel has
    /// let go of the elements: a packet that is under way meets the rules of before, whatever is written.
    pub fn remove_emptied(&mut self) {
        if self.table.keeps_unused() {
            return;
        }
        for set in std::mem::take(&mut self.emptied) {
            let Some(id) = self.sets.get(set).filter(|id| self.table.len(*id) == 0) else {
                continue;
            };
            if SetKind::SLOTS.contains(&set.kind) {
                self.empty_slots.insert(set);
            } else {
                self.remove_set(set, id);
            }
        }
        self.write_rules();
    }

    /// Brings the rules in line with what is in use. To be called when all elements are as they should be.
    pub fn write_rules(&mut self) {
        if !std::mem::take(&mut self.rules_are_stale) {
            return;
        }
        let sets = self.sets.iter().map(|(name, _)| name).collect();
        let chains = self.chain_uses.keys().chain(&self.idle);
        let mut chains: Vec<Balancing> =
            chains.filter(|chain| chain.kind.is_single()).copied().collect();
        chains.sort_unstable();
        self.uses = Uses {
            chains,
            pods: std::mem::take(&mut self.uses.pods),
            masquerade_all: self.uses.masquerade_all,
            hold_refusals: self.uses.hold_refusals,
            sets,
        };
        let chains = layout::chains(&self.uses);
        let names = chains.iter().map(|chain| chain.name.clone()).collect();
        for gone in std::mem::replace(&mut self.fixed_chains, names) {
            if self.fixed_chains.contains(&gone) {
                continue;
            }
            if self.table.chain(&gone).is_some_and(|chain| chain.base.is_some()) {
                // Nothing leads to it.
                self.table.remove_chain(&gone);
            } else {
                // What it looks into may go at once.
                self.table.set_chain(Chain::regular(gone.clone(), Vec::new()));
                self.retired_chains.insert(gone);
            }
        }
        for chain in chains {
            self.retired_chains.remove(&chain.name);
            self.table.set_chain(chain);
        }
    }

    fn remove_set(&mut self, set: SetName, id: SetId) {
        self.table.remove_set(id);
        self.sets.put(set, None);
        self.rules_are_stale = true;
    }

    /// A chain leads to this balancing chain, or one that leads to it does.
    pub fn use_chain(&mut self, chain: Balancing) {
        let uses = self.chain_uses.entry(chain).or_insert(0);
        *uses += 1;
        self.spares_are_stale |= *uses == 1;
        // An idle chain is still there.
        if *uses == 1 && !self.idle.remove(&chain) {
            chain.leads_to().for_each(|next| self.use_chain(next));
            self.make(chain);
        }
    }

    /// A chain or element that led to this balancing chain does so no more.
    pub fn leave_chain(&mut self, chain: Balancing) {
        let Some(uses) = self.chain_uses.get_mut(&chain) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.chain_uses.remove(&chain);
            self.idle.insert(chain);
            self.spares_are_stale = true;
        }
    }

    /// Keeps a balancing chain that an earlier run left in the kernel, as an idle one.
    pub fn keep_chain(&mut self, chain: Balancing) {
        if !self.chain_uses.contains_key(&chain) && self.idle.insert(chain) {
            chain.leads_to().for_each(|next| self.use_chain(next));
            self.make(chain);
        }
    }

    fn make(&mut self, chain: Balancing) {
        if chain.kind.is_single() {
            self.rules_are_stale = true;
            return;
        }
        if let Some(map) = chain.map() {
            let id = self.set(map);
            if self.table.len(id) == 0 {
                self.empty_slots.insert(map);
            }
        }
        self.table.set_chain(chain.chain(&self.uses.pods));
    }

    /// Adds a chain of a single Service, or gives it other rules.
    pub fn put_chain(&mut self, chain: Chain) {
        self.retired_chains.remove(&chain.name);
        let before = self.table.chain(&chain.name).map(led_to).unwrap_or_default();
        led_to(&chain).into_iter().for_each(|chain| self.use_chain(chain));
        before.into_iter().for_each(|chain| self.leave_chain(chain));
        // Slots come after the rules that look into them.
        for map in chain.rules.iter().flat_map(|rule| rule.sets()).filter_map(|s| SetName::parse(s))
        {
            let id = self.set(map);
            if self.table.len(id) == 0 {
                self.empty_slots.insert(map);
            }
        }
        self.table.set_chain(chain);
    }

    /// The set of a single Service; added if it is not there.
    pub fn put_set(&mut self, set: Set) -> SetId {
        self.retired_sets.remove(&set.name);
        match self.table.set_id(&set.name) {
            Some(id) => id,
            None => self.table.add_set(set).expect(SETS_FIT),
        }
    }

    /// Whether a set is there and has elements.
    pub fn has_elements(&self, set: SetName) -> bool {
        self.sets.get(set).is_some_and(|id| self.table.len(id) > 0)
    }

    fn is_empty(&self, set: SetName) -> bool {
        self.sets.get(set).is_some_and(|id| self.table.len(id) == 0)
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

/// Names of chains that elements lead to, made once.
#[derive(Debug)]
pub struct ChainNames {
    balancing: HashMap<Balancing, Arc<str>>,
    pub reject: Arc<str>,
    pub masquerade_always: Arc<str>,
    pub masquerade_from_node: Arc<str>,
}

impl Default for ChainNames {
    fn default() -> ChainNames {
        ChainNames {
            balancing: HashMap::new(),
            reject: layout::REJECT.into(),
            masquerade_always: layout::MASQUERADE_ALWAYS.into(),
            masquerade_from_node: layout::MASQUERADE_FROM_NODE.into(),
        }
    }
}

impl ChainNames {
    pub fn get(&mut self, chain: Balancing) -> Arc<str> {
        self.balancing.entry(chain).or_insert_with(|| chain.to_string().into()).clone()
    }
}
