//! What nothing leads to any more: it stays for a while, and longer where the kernel has something that nobody knows.

use super::{Writer, led_to};
use std::sync::Arc;

impl Writer {
    /// A chain of a single Service is not needed any more.
    pub fn retire_chain(&mut self, name: Arc<str>) {
        self.retired_chains.insert(name);
    }

    /// A chain of a single Service is not planned any more, but what the kernel has of it stays; so do those that are not
    /// needed any more and lead to it.
    pub fn disown_chain(&mut self, name: &str) {
        let before = self.table.chain(name).map(led_to).unwrap_or_default();
        self.table.disown_chain(name);
        before.into_iter().for_each(|chain| self.leave_chain(chain));
        let leads_there = |other: &Arc<str>| {
            let rules = self.table.chain(other).into_iter().flat_map(|chain| &chain.rules);
            rules.flat_map(|rule| rule.chains()).any(|chain| **chain == *name)
        };
        let others: Vec<Arc<str>> =
            self.retired_chains.iter().filter(|other| leads_there(other)).cloned().collect();
        for other in others {
            // Unless it went with another one.
            if self.retired_chains.remove(&other) {
                self.disown_chain(&other);
            }
        }
    }

    /// A set of a single Service is not needed any more.
    pub fn retire_set(&mut self, name: Arc<str>) {
        self.retired_sets.insert(name);
    }

    /// Whether [`Writer::delete_unused`] has something to do.
    pub fn has_unused(&self) -> bool {
        let is_unused = self.idle_differ()
            || !self.retired_chains.is_empty()
            || !self.retired_sets.is_empty()
            || self.empty_slots.iter().any(|set| self.is_empty(*set))
            || self.table.has_unused();
        is_unused && !self.table.keeps_unused()
    }

    /// Deletes the chains and sets that nothing leads to, and makes spare chains.
    pub fn delete_unused(&mut self) {
        if self.table.keeps_unused() {
            return;
        }
        self.table.delete_unused();
        self.drop_unused(true);
        if self.has_spares() {
            self.make_spares();
        }
    }

    /// Forgets the chains and sets that nothing leads to and that the kernel has never had. It may have refused them.
    pub fn drop_unwritten(&mut self) {
        // What some that the kernel has were to look into or lead to may go.
        for name in self.retired_chains.clone() {
            if !self.is_new(&name) && !self.table.is_chain_as_written(&name) {
                self.retired_chains.remove(&name);
                self.disown_chain(&name);
            }
        }
        while self.drop_unused(false) {}
    }

    /// Removes what nothing leads to; unless `all`, only what the kernel does not have. Whether it was anything: what that
    /// led to goes the next time.
    fn drop_unused(&mut self, all: bool) -> bool {
        let mut dropped = false;
        // One that the kernel has refused is not kept as a spare one.
        let has_spares = all && self.has_spares();
        for chain in std::mem::take(&mut self.idle) {
            if has_spares && self.is_spare(&chain) {
                self.idle.insert(chain);
            } else if chain.kind.is_single() && all {
                self.rules_are_stale = true;
            } else if chain.kind.is_single() || !(all || self.is_new(&chain.to_string())) {
                self.idle.insert(chain);
            } else {
                self.table.remove_chain(&chain.to_string());
                chain.leads_to().for_each(|next| self.leave_chain(next));
                dropped = true;
            }
        }
        for name in std::mem::take(&mut self.retired_chains) {
            if !all && !self.is_new(&name) {
                self.retired_chains.insert(name);
                continue;
            }
            let before = self.table.chain(&name).map(led_to).unwrap_or_default();
            self.table.remove_chain(&name);
            before.into_iter().for_each(|chain| self.leave_chain(chain));
            dropped = true;
        }
        for name in std::mem::take(&mut self.retired_sets) {
            match self.table.set_id(&name) {
                Some(id) if !all && self.table.is_set_written(id) => {
                    self.retired_sets.insert(name);
                }
                Some(id) => {
                    self.table.remove_set(id);
                    dropped = true;
                }
                None => {}
            }
        }
        for set in std::mem::take(&mut self.empty_slots) {
            let Some(id) = self.sets.get(set).filter(|_| self.is_empty(set)) else { continue };
            // Chains that became idle just now go the next time.
            let mut chains = self.chain_uses.keys().chain(&self.idle);
            let is_used = chains.any(|chain| chain.map() == Some(set));
            if is_used || !all && self.table.is_set_written(id) {
                self.empty_slots.insert(set);
            } else {
                self.remove_set(set, id);
                dropped = true;
            }
        }
        self.write_rules();
        dropped
    }

    fn is_new(&self, chain: &str) -> bool {
        !self.table.is_chain_written(chain)
    }
}
