//! From what a Service port had to what it is to have, as elements of the table.

use super::Planner;
use crate::model::ObjectName;
use crate::plan::layout::{SetKind, SetName};
use crate::plan::{Backend, PlannedFrontend, PortPlan, elements, own};
use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use nft_table::Value;
use std::sync::Arc;

impl Planner {
    /// Takes away what a port had and will not have.
    pub(super) fn take_away(&mut self, name: &ObjectName, old: &PortPlan, new: Option<&PortPlan>) {
        let set = |kind| SetName::new(kind, old.family);
        for planned in &old.frontends {
            let successor = new.and_then(|new| Some((new, new.find(&planned.frontend)?)));
            if !successor.is_some_and(|successor| is_same_head((old, planned), successor)) {
                let heads = self.head(name, old, planned);
                let kept = successor.map(|(new, f)| self.head(name, new, f)).unwrap_or_default();
                for (set, key, _) in &heads {
                    if !kept.iter().any(|(kept, kept_key, _)| (kept, kept_key) == (set, key)) {
                        self.writer.take(*set, key);
                    }
                }
                let kept: Vec<_> =
                    successor.iter().flat_map(|(new, f)| elements::address_sets(new, f)).collect();
                for one in elements::address_sets(old, planned).filter(|one| !kept.contains(one)) {
                    self.writer.take(one.0, &one.1);
                }
            }
            let kept_sources = successor.map(|(_, f)| f).and_then(|f| f.allowed_sources.as_ref());
            for source in only_in(planned.allowed_sources.as_ref(), kept_sources) {
                self.writer.take(
                    set(SetKind::AllowedSources),
                    &elements::source_key(&planned.frontend, source),
                );
            }
            for slots in elements::slots(old, planned) {
                let kept = successor.and_then(|(new, f)| same_map(new, f, slots.map));
                let first = kept.map_or(0, |kept| kept.backends.len());
                let behind: HashSet<usize> =
                    kept.iter().flat_map(|kept| kept.behind()).map(|(number, _)| number).collect();
                let gone = (first..slots.backends.len()).chain(slots.behind().map(|(n, _)| n));
                let gone = gone.filter(|number| *number >= first && !behind.contains(number));
                for key in elements::slot_keys(&planned.frontend, gone) {
                    self.writer.take(slots.map, &key);
                }
            }
        }
        for ip in &old.hairpin {
            if new.is_none_or(|new| new.hairpin.binary_search(ip).is_err()) {
                self.writer.take(set(SetKind::Hairpin), &elements::hairpin_key(*ip));
            }
        }
        if own::has_objects(old) {
            self.take_away_own(name, old, new);
        }
    }

    /// The elements of a frontend apart from its slots.
    fn head(
        &mut self,
        name: &ObjectName,
        plan: &PortPlan,
        planned: &PlannedFrontend,
    ) -> Vec<elements::NamedElement> {
        let mut head = elements::head(name, plan, planned, &mut self.names);
        if self.settings.localhost_nodeports.contains(&plan.family) {
            let localhost = elements::localhost(plan, planned);
            head.extend(localhost.map(|(set, key)| (set, key, Value::Member)));
        }
        head
    }

    /// Chains and maps stay for a while, but what the maps remember goes at once; what belongs to a Service that is held
    /// and absent stays as the kernel has it.
    fn take_away_own(&mut self, name: &ObjectName, old: &PortPlan, new: Option<&PortPlan>) {
        let old = own::objects(name, old, self.writer.pods());
        if self.services.get(name).is_some_and(|entry| entry.absent) {
            old.chains.iter().for_each(|chain| self.writer.disown_chain(&chain.name));
            let sets = old.maps.into_iter().map(|(map, _)| map);
            for set in sets.chain(old.sets.into_iter().map(|(set, _)| set)) {
                if let Some(id) = self.writer.table.set_id(&set.name) {
                    self.writer.table.keep_elements(id);
                }
                self.writer.retire_set(set.name);
            }
            return;
        }
        let new = new.map(|new| own::objects(name, new, self.writer.pods())).unwrap_or_default();
        for chain in old.chains {
            if !new.chains.iter().any(|kept| kept.name == chain.name) {
                self.writer.retire_chain(chain.name);
            }
        }
        for (set, _) in old.maps {
            if !new.maps.iter().any(|(kept, _)| kept.name == set.name) {
                self.purges.insert(set.name.clone(), Vec::new());
                self.writer.retire_set(set.name);
            }
        }
        for (set, _) in old.sets {
            if !new.sets.iter().any(|(kept, _)| kept.name == set.name) {
                self.writer.retire_set(set.name);
            }
        }
    }

    /// Puts what a port is to have and has not.
    pub(super) fn put(&mut self, name: &ObjectName, old: Option<&PortPlan>, new: &PortPlan) {
        let set = |kind| SetName::new(kind, new.family);
        if own::has_objects(new) {
            self.put_own(name, old, new);
        }
        for planned in &new.frontends {
            let ancestor = old.and_then(|old| Some((old, old.find(&planned.frontend)?)));
            if !ancestor.is_some_and(|ancestor| is_same_head(ancestor, (new, planned))) {
                let heads = self.head(name, new, planned);
                for (set, key, value) in heads {
                    self.writer.put(set, key, value);
                }
                let there: Vec<_> =
                    ancestor.iter().flat_map(|(old, f)| elements::address_sets(old, f)).collect();
                for (set, key) in
                    elements::address_sets(new, planned).filter(|one| !there.contains(one))
                {
                    self.writer.put(set, key, Value::Member);
                }
            }
            let sources_there = ancestor.and_then(|(_, f)| f.allowed_sources.as_ref());
            for source in only_in(planned.allowed_sources.as_ref(), sources_there) {
                let key = elements::source_key(&planned.frontend, source);
                self.writer.put(set(SetKind::AllowedSources), key, Value::Member);
            }
            for slots in elements::slots(new, planned) {
                let there = ancestor.and_then(|(old, f)| same_map(old, f, slots.map));
                let first = there.map_or(&[][..], |there| there.backends);
                let there_behind: HashMap<usize, Backend> =
                    there.iter().flat_map(|there| there.behind()).collect();
                let is_there = |(slot, backend): &(usize, Backend)| {
                    first.get(*slot).or_else(|| there_behind.get(slot)) == Some(backend)
                };
                let all = slots.backends.iter().copied().enumerate().chain(slots.behind());
                let key = elements::frontend_key(&planned.frontend);
                for (slot, backend) in all.filter(|slot| !is_there(slot)) {
                    let key = key.clone().slot(slot as u32).build();
                    self.writer.put(slots.map, key, backend.to_value());
                }
            }
        }
        for ip in &new.hairpin {
            if old.is_none_or(|old| old.hairpin.binary_search(ip).is_err()) {
                self.writer.put(set(SetKind::Hairpin), elements::hairpin_key(*ip), Value::Member);
            }
        }
    }

    fn put_own(&mut self, name: &ObjectName, old: Option<&PortPlan>, new: &PortPlan) {
        let before = old.map(|old| own::objects(name, old, self.writer.pods())).unwrap_or_default();
        let objects = own::objects(name, new, self.writer.pods());
        for (map, backends) in objects.maps {
            let there = before.maps.iter().find(|(there, _)| there.name == map.name);
            let gone = |there: &[Backend]| there.iter().any(|backend| !backends.contains(backend));
            // One that is noted already has to know whom it may remember by now.
            if there.is_none_or(|(_, there)| gone(there)) || self.purges.contains_key(&map.name) {
                self.purges.insert(map.name.clone(), backends);
            }
            self.writer.put_set(map);
        }
        for (set, keys) in objects.sets {
            let id = self.writer.put_set(set);
            self.writer.fill(id, keys.into_iter().map(|key| (key, Value::Member)).collect());
        }
        objects.chains.into_iter().for_each(|chain| self.writer.put_chain(chain));
    }
}

/// The slots that a frontend has in a map.
fn same_map<'a>(
    plan: &'a PortPlan,
    planned: &PlannedFrontend,
    map: SetName,
) -> Option<elements::Slots<'a>> {
    elements::slots(plan, planned).find(|slots| slots.map == map)
}

/// Whether the elements of a frontend apart from its slots are the same.
fn is_same_head(
    (old, before): (&PortPlan, &PlannedFrontend),
    (new, after): (&PortPlan, &PlannedFrontend),
) -> bool {
    (before.route, before.masquerade) == (after.route, after.masquerade)
        && before.allowed_sources.is_some() == after.allowed_sources.is_some()
        && old.affinity.is_some() == new.affinity.is_some()
        && old.limits.is_some() == new.limits.is_some()
        && old.algorithm == new.algorithm
        && (old.cluster.len(), old.local.len()) == (new.cluster.len(), new.local.len())
}

/// The networks of one list that are not in another one. Both are sorted, and mostly the same.
fn only_in(of: Option<&Arc<[IpNet]>>, other: Option<&Arc<[IpNet]>>) -> Vec<IpNet> {
    match (of, other) {
        (Some(of), Some(other)) if of != other => {
            of.iter().filter(|network| other.binary_search(network).is_err()).copied().collect()
        }
        (Some(of), None) => of.to_vec(),
        _ => Vec::new(),
    }
}
