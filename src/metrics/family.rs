//! A metric with one series per IP family.

use crate::model::Family;

/// One handle per family that the proxy programs; the other family has no series, so that no alert
/// fires over a value that never moves.
#[derive(Clone, Debug)]
pub struct PerFamily<M> {
    v4: Option<M>,
    v6: Option<M>,
}

impl<M> PerFamily<M> {
    pub(super) fn new(families: &[Family], mut make: impl FnMut(Family) -> M) -> Self {
        let mut handle = |family| families.contains(&family).then(|| make(family));
        PerFamily { v4: handle(Family::V4), v6: handle(Family::V6) }
    }

    /// The handle of a family, unless the proxy does not program that family.
    pub fn get(&self, family: Family) -> Option<&M> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// Does something to the series of one family, if there is one.
    pub fn of(&self, family: Family, f: impl FnOnce(&M)) {
        if let Some(metric) = self.get(family) {
            f(metric);
        }
    }

    /// Does something to every series: one transaction serves both families.
    pub fn each(&self, f: impl FnMut(&M)) {
        self.v4.iter().chain(&self.v6).for_each(f);
    }
}
