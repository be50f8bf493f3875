//! What is planned in one turn. A transaction takes as long as it is large, and whatever changes meanwhile waits for its
//! end. So what is large is done in several, port by port, and what is small goes first: whoever makes a large Service
//! waits for it, and nobody else.
//!
//! A port goes from what it had to what it is to have in one turn. Where one port gives a frontend up and another one gets
//! it, be it of another Service, that is one turn as well: such Services are planned together, and whole.

use super::frontends::SLOTS;
use super::{Entry, Planner};
use crate::model::ObjectName;
use crate::plan::{Frontend, PortPlan, ports};
use hashbrown::{HashMap, HashSet};

/// The frontends and slots that are planned in a turn, of what was and what is to be; some 20 ms of work.
pub(super) const WORK: usize = 8_192;

/// A Service with what its ports are to have.
pub(super) type Planned = (ObjectName, Vec<PortPlan>);

impl Planner {
    /// Whether something was left for a later turn, which is due at once.
    pub fn has_postponed(&self) -> bool {
        !self.later.is_empty()
    }

    /// Plans so many frontends and slots in a turn.
    pub fn set_work(&mut self, work: usize) {
        self.work = work.max(1);
    }

    /// Leaves nothing for a later turn the next time: the kernel may hold what is not planned yet, and what nobody has
    /// planned is deleted.
    pub fn plan_all_next(&mut self) {
        self.all_next = true;
    }

    /// What is to be planned of these and of those that earlier turns have left; of the last one maybe only some ports.
    pub(super) fn plan_turn(&mut self, changed: Vec<ObjectName>) -> Vec<Planned> {
        self.later.extend(changed);
        // What was planned for them last is not what the kernel has, and is out of date.
        self.at_once.extend(self.unconfirmed.intersection(&self.later).cloned());
        let mut waiting: Vec<(usize, ObjectName)> =
            self.later.iter().map(|name| (self.estimate(name), name.clone())).collect();
        let all: usize = waiting.iter().map(|(work, _)| work).sum();
        // The first commit is one: without it there is nothing.
        if all <= self.work || !self.has_committed || self.all_next {
            self.all_next = false;
            self.at_once.clear();
            let all = std::mem::take(&mut self.later).into_iter();
            return all.map(|name| self.planned(name)).collect();
        }
        waiting.sort_unstable();
        let mut left = self.work;
        let mut chosen = Vec::new();
        for name in std::mem::take(&mut self.at_once) {
            self.later.remove(&name);
            chosen.push(self.planned(name));
        }
        let mut large = None;
        for (work, name) in waiting {
            if !self.later.contains(&name) {
                continue;
            }
            if work > left {
                large = Some(name);
                break;
            }
            self.later.remove(&name);
            let planned = self.planned(name);
            // All Services change with the node's zone, and most of them stay what they are.
            if planned.1 != plans_of(self.services.get(&planned.0)) {
                left -= work;
            }
            chosen.push(planned);
        }
        let small = chosen.len();
        let mut may_be_split = false;
        if let Some(name) = large {
            self.later.remove(&name);
            let planned = self.planned(name);
            may_be_split = !self.moves(&planned, &chosen);
            chosen.push(planned);
        }
        if !self.join(&mut chosen) && may_be_split {
            // However much else there is, it gets on.
            let room = left.max(self.work / 4);
            if self.leave_ports(&mut chosen[small], room) {
                self.later.insert(chosen[small].0.clone());
            }
        }
        chosen
    }

    fn planned(&mut self, name: ObjectName) -> Planned {
        let plans = self.plan_service(&name);
        self.unconfirmed.insert(name.clone());
        (name, plans)
    }

    /// Adds the Services of later turns that give these a frontend or get one from them; whether there are any.
    fn join(&mut self, chosen: &mut Vec<Planned>) -> bool {
        let mut had: HashMap<Frontend, ObjectName> = HashMap::new();
        for name in &self.later {
            let old = plans_of(self.services.get(name));
            let frontends = old.iter().flat_map(|port| &port.frontends);
            had.extend(frontends.map(|planned| (planned.frontend, name.clone())));
        }
        let (first, mut next) = (chosen.len(), 0);
        while let Some((name, plans)) = chosen.get(next) {
            next += 1;
            let wanted = plans.iter().flat_map(|port| &port.frontends);
            let mut others: HashSet<ObjectName> =
                wanted.filter_map(|planned| had.get(&planned.frontend).cloned()).collect();
            let given_up = given_up(plans_of(self.services.get(name)), plans);
            others.extend(given_up.iter().filter_map(|f| self.claims.owner(f)).cloned());
            for name in others {
                if self.later.remove(&name) {
                    let planned = self.planned(name);
                    chosen.push(planned);
                }
            }
        }
        chosen.len() > first
    }

    /// Whether a frontend goes from one port of a Service to another, to another Service, or comes from one of `others`.
    fn moves(&self, (name, plans): &Planned, others: &[Planned]) -> bool {
        let given_by = |(name, plans): &Planned| given_up(plans_of(self.services.get(name)), plans);
        let wanted: HashSet<Frontend> =
            plans.iter().flat_map(|port| &port.frontends).map(|f| f.frontend).collect();
        let is_elsewhere = |f: &Frontend| {
            wanted.contains(f) || self.claims.owner(f).is_some_and(|heir| heir != name)
        };
        given_up(plans_of(self.services.get(name)), plans).iter().any(is_elsewhere)
            || others.iter().flat_map(given_by).any(|frontend| wanted.contains(&frontend))
    }

    /// Leaves those ports as they are for which there is no room; whether there are any. One is always done.
    fn leave_ports(&mut self, (name, plans): &mut Planned, mut room: usize) -> bool {
        let old = plans_of(self.services.get(name));
        let (mut is_first, mut are_left) = (true, false);
        let mut is_done = |old: Option<&PortPlan>, new: Option<&PortPlan>| {
            if old == new {
                return true;
            }
            let work: usize = old.into_iter().chain(new).map(weight).sum();
            let fits = work <= room || is_first;
            room = if fits { room.saturating_sub(work) } else { 0 };
            is_first = false;
            are_left |= !fits;
            fits
        };
        let decided: Vec<(Option<&PortPlan>, bool, bool)> = ports::pairs(old, plans)
            .map(|(old, new)| (old, new.is_some(), is_done(old, new)))
            .collect();
        let mut new = std::mem::take(plans).into_iter();
        for (old, has_new, is_done) in decided {
            let new = if has_new { new.next() } else { None };
            if is_done {
                plans.extend(new);
                continue;
            }
            new.iter().for_each(|port| self.banks.leave(port));
            old.into_iter().for_each(|port| self.banks.enter(port));
            plans.extend(old.cloned());
        }
        are_left
    }

    /// About how much work it is to plan a Service.
    fn estimate(&self, name: &ObjectName) -> usize {
        let Some(entry) = self.services.get(name) else { return 0 };
        let old: usize = entry.plans.iter().map(weight).sum();
        let frontends = entry.claims.as_ref().map_or(0, |(_, claims)| claims.len());
        let endpoints = entry.slices.iter().map(|slice| slice.endpoints.len()).max().unwrap_or(0);
        old + frontends + (frontends * endpoints).min(SLOTS)
    }
}

fn plans_of(entry: Option<&Entry>) -> &[PortPlan] {
    entry.map(|entry| &entry.plans[..]).unwrap_or_default()
}

/// The frontends that ports had and will not have.
fn given_up(old: &[PortPlan], new: &[PortPlan]) -> Vec<Frontend> {
    let mut given_up = Vec::new();
    for (port, same) in ports::pairs(old, new) {
        let frontends = port.into_iter().flat_map(|port| &port.frontends);
        let frontends = frontends.map(|planned| planned.frontend);
        given_up.extend(frontends.filter(|f| same.is_none_or(|same| same.find(f).is_none())));
    }
    given_up
}

/// The frontends and slots of a port.
fn weight(port: &PortPlan) -> usize {
    port.frontends.len() * (1 + port.cluster.len().max(port.local.len()))
}
