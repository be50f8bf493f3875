//! Strings that occur thousands of times, kept once.
//!
//! 500,000 endpoints name a few thousand nodes and a handful of zones. An [`Interner`] gives out
//! shared `Arc`s for them and forgets those that nobody else holds any more, so that it does not
//! grow for ever where nodes come and go.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::Arc;

/// The smallest size at which unused strings are looked for.
const FIRST_SWEEP: usize = 1024;

/// A pool of shared strings and of shared lists of strings.
#[derive(Debug)]
pub struct Interner {
    hasher: RandomState,
    texts: HashTable<Arc<str>>,
    lists: HashTable<Arc<[Arc<str>]>>,
    /// The number of entries at which unused ones are dropped next.
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Interner {
            hasher: RandomState::default(),
            texts: HashTable::new(),
            lists: HashTable::new(),
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

    /// The shared copy of a list of strings. All empty lists are one.
    pub fn list<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) -> Arc<[Arc<str>]> {
        let list: Vec<Arc<str>> = texts.into_iter().map(|text| self.text(text)).collect();
        let hash = self.hasher.hash_one(&list[..]);
        if let Some(known) = self.lists.find(hash, |known| **known == *list) {
            return known.clone();
        }
        self.sweep_when_due();
        let shared: Arc<[Arc<str>]> = list.into();
        self.lists.insert_unique(hash, shared.clone(), |entry| self.hasher.hash_one(&**entry));
        shared
    }

    /// How many strings and lists are held.
    pub fn len(&self) -> usize {
        self.texts.len() + self.lists.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn sweep_when_due(&mut self) {
        if self.len() < self.sweep_at {
            return;
        }
        self.lists.retain(|list| Arc::strong_count(list) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.sweep_at = FIRST_SWEEP.max(2 * self.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_and_lists_are_one() {
        let mut strings = Interner::default();
        let (a, b) = (strings.text("node-1"), strings.text("node-1"));
        assert!(Arc::ptr_eq(&a, &b));
        let (a, b) = (strings.list(["zone-a"]), strings.list(["zone-a"]));
        assert!(Arc::ptr_eq(&a, &b));
        let (a, b) = (strings.list([]), strings.list([]));
        assert!(Arc::ptr_eq(&a, &b));
        assert_ne!(strings.list(["zone-a"]), strings.list(["zone-b"]));
    }

    #[test]
    fn unused_strings_are_dropped_and_used_ones_stay() {
        let mut strings = Interner::default();
        let kept = strings.text("kept");
        for number in 0..100 * FIRST_SWEEP {
            strings.text(&format!("node-{number}"));
            strings.list([format!("zone-{number}").as_str()]);
        }
        assert!(strings.len() <= FIRST_SWEEP, "{} entries", strings.len());
        assert!(Arc::ptr_eq(&kept, &strings.text("kept")));
    }
}
