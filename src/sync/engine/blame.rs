//! Whom a refusal is about.

use super::Engine;
use crate::kernel::nft::{Cause, Error, Kernel, Refusal};
use crate::model::ObjectName;
use std::collections::BTreeMap;

impl<K: Kernel> Engine<K> {
    /// Holds the Services that a refusal is about, and returns them, each with what is said of it; none: it is not about
    /// some of them alone.
    pub(super) fn hold_culprits(&mut self, error: &Error) -> Vec<(ObjectName, String)> {
        let mut culprits = self.users_of_what_is_missing(error);
        culprits.retain(|(user, _)| self.planner.hold(user));
        if culprits.is_empty() {
            let owner = self.owner(error).filter(|owner| self.planner.hold(owner));
            let one = owner.or_else(|| self.search().filter(|found| self.planner.hold(found)));
            culprits.extend(one.map(|one| (one, error.to_string())));
        }
        self.plan();
        culprits
    }

    /// Plans, and does not write for nobody what the kernel may have refused.
    fn plan(&mut self) {
        self.planner.plan();
        self.planner.drop_unwritten();
    }

    /// All Services that ask for what the kernel has no module for. One alone would not be enough.
    fn users_of_what_is_missing(&self, error: &Error) -> Vec<(ObjectName, String)> {
        let is_missing = |refusal: &&Refusal| matches!(refusal.cause, Cause::MissingFeature { .. });
        let mut users = BTreeMap::new();
        for refusal in error.refusals().iter().filter(is_missing) {
            for user in refusal.chain.iter().flat_map(|chain| self.planner.users_of(chain)) {
                users.entry(user).or_insert_with(|| refusal.to_string());
            }
        }
        users.into_iter().collect()
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
        self.plan();
        let result = self.kernel.trial(&self.planner.table().changes());
        all().for_each(|service| self.planner.release(service));
        self.planner.plan();
        // These were about what was only tried.
        self.planner.take_disputes();
        result.is_ok()
    }
}
