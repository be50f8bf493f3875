//! Services that the kernel refused, and when to try them again.

use crate::model::ObjectName;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The first wait before a refused Service is tried again. It doubles with every further refusal.
const FIRST_WAIT: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_secs(600);

/// Refused Services.
#[derive(Debug, Default)]
pub struct Quarantine(BTreeMap<ObjectName, Sentence>);

#[derive(Debug)]
struct Sentence {
    until: Instant,
    wait: Duration,
    /// It is out again, on trial: refused once more, it waits longer.
    released: bool,
}

impl Quarantine {
    /// Puts a Service in; returns how long it stays.
    pub fn add(&mut self, service: ObjectName, now: Instant) -> Duration {
        let wait = match self.0.get(&service) {
            Some(before) => (before.wait * 2).min(MAX_WAIT),
            None => FIRST_WAIT,
        };
        self.0.insert(service, Sentence { until: now + wait, wait, released: false });
        wait
    }

    /// A Service changed: it deserves a new trial from the beginning.
    pub fn forget(&mut self, service: &ObjectName) {
        self.0.remove(service);
    }

    /// When the next Service is to be tried again.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().filter(|sentence| !sentence.released).map(|sentence| sentence.until).min()
    }

    /// The Services that are to be tried again now.
    pub fn release(&mut self, now: Instant) -> Vec<ObjectName> {
        let mut released = Vec::new();
        for (service, sentence) in &mut self.0 {
            if !sentence.released && sentence.until <= now {
                sentence.released = true;
                released.push(service.clone());
            }
        }
        released
    }

    /// A sync went well: what was on trial is free.
    pub fn acquit(&mut self) {
        self.0.retain(|_, sentence| !sentence.released);
    }

    pub fn len(&self) -> usize {
        self.0.values().filter(|sentence| !sentence.released).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_until_the_service_changes() {
        let (mut quarantine, now) = (Quarantine::default(), Instant::now());
        let bad = ObjectName::new("default", "bad");
        assert_eq!(quarantine.add(bad.clone(), now), FIRST_WAIT);
        assert_eq!(quarantine.release(now), []);
        assert_eq!(quarantine.release(now + FIRST_WAIT), std::slice::from_ref(&bad));
        assert_eq!(quarantine.add(bad.clone(), now), FIRST_WAIT * 2);
        quarantine.forget(&bad);
        assert_eq!(quarantine.add(bad.clone(), now), FIRST_WAIT);
        quarantine.release(now + FIRST_WAIT);
        quarantine.acquit();
        assert_eq!((quarantine.len(), quarantine.next()), (0, None));
    }
}
