//! Strings that occur thousands of times, kept once.
//!
//! 500,000 endpoints name a few thousand nodes and a handful of zones. An [`Interner`] gives out
//! shared `Arc`s for them and forgets those that nobody else holds any more, so that it does not
//! grow for ever where nodes come and go.

use crate::model::Hints;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::Arc;

/// The smallest size at which unused strings are looked for.
const FIRST_SWEEP: usize = 1024;

/// A pool of shared strings and of shared hints.
#[derive(Debug)]
pub struct Interner {
    hasher: RandomState,
    texts: HashTable<Arc<str>>,
    hints: HashTable<Arc<Hints>>,
    /// The number of entries at which unused ones are dropped next.
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Interner {
            hasher: RandomState::default(),
            texts: HashTable::new(),
            hints: HashTable::new(),
            sweep_at: FIRST_SWEEP,
        }
    }
}

impl Interner {
    /// The shared copy of a string.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        let hash = self.hasher.hash_one(text);
        if let Some(known) = self.texts.find(hash, |known| **known == *text) {
            return known.clone();
        }
        self.sweep_when_due();
        let shared: Arc<str> = text.into();
        self.texts.insert_unique(hash, shared.clone(), |entry| self.hasher.hash_one(&**entry));
        shared
    }

    /// The shared copy of these hints; None where there are none.
    pub fn hints<'a>(
        &mut self,
        zones: impl Iterator<Item = &'a str>,
        nodes: impl Iterator<Item = &'a str>,
    ) -> Option<Arc<Hints>> {
        let zones: Vec<Arc<str>> = zones.map(|zone| self.text(zone)).collect();
        let hints = Hints { zones, nodes: nodes.map(|node| self.text(node)).collect() };
        if hints == Hints::default() {
            return None;
        }
        let hash = self.hasher.hash_one(&hints);
        if let Some(known) = self.hints.find(hash, |known| **known == hints) {
            return Some(known.clone());
        }
        self.sweep_when_due();
        let shared = Arc::new(hints);
        self.hints.insert_unique(hash, shared.clone(), |entry| self.hasher.hash_one(&**entry));
        Some(shared)
    }

    /// How many strings and hints are held.
    pub fn len(&self) -> usize {
        self.texts.len() + self.hints.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn sweep_when_due(&mut self) {
        if self.len() < self.sweep_at {
            return;
        }
        self.hints.retain(|hints| Arc::strong_count(hints) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.sweep_at = FIRST_SWEEP.max(2 * self.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_and_hints_are_one() {
        let mut strings = Interner::default();
        let (a, b) = (strings.text("node-1"), strings.text("node-1"));
        assert!(Arc::ptr_eq(&a, &b));
        let mut zone = |name| strings.hints([name].into_iter(), std::iter::empty());
        assert!(Arc::ptr_eq(&zone("zone-a").unwrap(), &zone("zone-a").unwrap()));
        assert_ne!(zone("zone-a"), zone("zone-b"));
        assert_eq!(strings.hints(std::iter::empty(), std::iter::empty()), None);
    }

    #[test]
    fn unused_strings_are_dropped_and_used_ones_stay() {
        let mut strings = Interner::default();
        let kept = strings.text("kept");
        for number in 0..100 * FIRST_SWEEP {
            strings.text(&format!("node-{number}"));
            strings.hints([format!("zone-{number}").as_str()].into_iter(), std::iter::empty());
        }
        assert!(strings.len() <= FIRST_SWEEP, "{} entries", strings.len());
        assert!(Arc::ptr_eq(&kept, &strings.text("kept")));
    }
}
