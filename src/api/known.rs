//! Which objects the server had when it was last asked, so that those that vanish while nobody
//! watches are missed afterwards.
//!
//! Of each object only the name and its version are kept: about 60 bytes, of which the name is shared
//! with the plan.

use crate::intake::ObjectKey;
use foldhash::fast::{FixedState, RandomState};
use hashbrown::HashMap;
use std::hash::BuildHasher;

/// A `resourceVersion`: a number on every real server, else a hash.
fn version_number(version: &str) -> u64 {
    version.parse().unwrap_or_else(|_| FixedState::default().hash_one(version))
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    version: u64,
    /// The list in which the object was last seen.
    round: u32,
}

/// The objects of one kind.
#[derive(Debug, Default)]
pub struct Known {
    entries: HashMap<ObjectKey, Entry, RandomState>,
    round: u32,
}

impl Known {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// A list begins: objects that it does not name will be gone when it ends.
    pub fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Notes an object of a list or of an event; false when it is known in just this version.
    pub fn see(&mut self, key: &ObjectKey, version: &str) -> bool {
        let entry = Entry { version: version_number(version), round: self.round };
        match self.entries.get_mut(key) {
            Some(known) => {
                let fresh = known.version != entry.version;
                *known = entry;
                fresh
            }
            None => {
                self.entries.insert(key.clone(), entry);
                true
            }
        }
    }

    /// Forgets an object; false when it was not known.
    pub fn remove(&mut self, key: &ObjectKey) -> bool {
        self.entries.remove(key).is_some()
    }

    /// A list is complete: forgets and returns the objects that it did not name.
    pub fn sweep(&mut self) -> Vec<ObjectKey> {
        let round = self.round;
        let mut gone: Vec<ObjectKey> =
            self.entries.extract_if(|_, entry| entry.round != round).map(|(key, _)| key).collect();
        gone.sort_unstable();
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectName;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::Service(ObjectName::new("default", name))
    }

    #[test]
    fn what_a_list_does_not_name_is_gone() {
        let mut known = Known::default();
        known.begin();
        assert!(known.see(&key("a"), "1"));
        assert!(known.see(&key("b"), "2"));
        assert_eq!(known.sweep(), []);
        known.begin();
        assert!(!known.see(&key("b"), "2"), "unchanged");
        // This list breaks off; the next one counts alone.
        known.begin();
        assert!(known.see(&key("a"), "3"), "changed");
        assert_eq!(known.sweep(), [key("b")]);
        assert!(known.remove(&key("a")));
        assert!(!known.remove(&key("a")));
        assert_eq!(known.len(), 0);
    }
}
