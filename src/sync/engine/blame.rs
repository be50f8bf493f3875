//! Whom a refusal is about.

use super::Engine;
use crate::kernel::nft::{Error, Kernel};
use crate::model::ObjectName;

impl<K: Kernel> Engine<K> {
    /// Holds the Service that a refusal is about, and returns it; None: it is none alone.
    pub(super) fn hold_culprit(&mut self, error: &Error) -> Option<ObjectName> {
        let owner = self.owner(error).filter(|owner| self.planner.hold(owner));
        let culprit = owner.or_else(|| self.search().filter(|found| self.planner.hold(found)));
        self.planner.plan();
        culprit
    }

    /// The Service that the refused element belongs to.
    fn owner(&self, error: &Error) -> Option<ObjectName> {
        let refusal = error.refusals().first()?;
        let set = self.planner.table().set_id(refusal.set.as_ref()?)?;
        self.planner.owner_of(set, refusal.key.as_ref()?)
    }

    /// Finds a Service without which the kernel would take the transaction, at best among those that changed. It is
    /// asked with transactions that are never committed.
    fn search(&mut self) -> Option<ObjectName> {
        self.search_among(self.planner.suspects(false))
            .or_else(|| self.search_among(self.planner.suspects(true)))
    }

    fn search_among(&mut self, mut suspects: Vec<ObjectName>) -> Option<ObjectName> {
        // Without any of them it must work, or it is none of them.
        if suspects.is_empty() || !self.works_without(&[&suspects]) {
            return None;
        }
        // Those that may be to blame as well, but are not needed.
        let mut others = Vec::new();
        while suspects.len() > 1 {
            let half = suspects.split_off(suspects.len() / 2);
            if self.works_without(&[&half, &others]) {
                suspects = half;
            } else {
                // One of the first half is to blame, whoever of the second is.
                others.extend(half);
            }
        }
        suspects.pop()
    }

    /// Whether the kernel would take the table with these Services as they were.
    fn works_without(&mut self, services: &[&[ObjectName]]) -> bool {
        let all = || services.iter().flat_map(|services| services.iter());
        for service in all() {
            self.planner.hold(service);
        }
        self.planner.plan();
        let result = self.kernel.trial(&self.planner.table().changes());
        all().for_each(|service| self.planner.release(service));
        self.planner.plan();
        // These were about what was only tried.
        self.planner.take_disputes();
        result.is_ok()
    }
}
