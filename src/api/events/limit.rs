//! Which Events are worth writing: each of a Service only once in an hour, and of one Service not many, whatever somebody
//! does to it. Every node writes its own, so what one Service can cause is multiplied by the nodes. Pure.

use super::{Event, Regarding};
use hashbrown::HashMap;
use std::time::{Duration, Instant};

/// The same is said again only after this time.
const AGAIN: Duration = Duration::from_secs(3600);
/// So many about one object at first, and then one each time that so much has passed, as client-go does it
/// (`maxBurst` and `defaultSpamQPS` of its `events_cache.go`, which are 25 and 1/300 s).
const BURST: u32 = 10;
const EACH: Duration = Duration::from_secs(300);
/// Of so many objects it is known what was said; of more nothing is said for now.
const OBJECTS: usize = 4096;

/// What was said lately.
#[derive(Debug, Default)]
pub struct Limit {
    objects: HashMap<Regarding, Said>,
}

#[derive(Debug)]
struct Said {
    /// How many may be written, as of that time.
    left: u32,
    since: Instant,
    /// What was said, and when; no more than [`BURST`].
    said: Vec<(&'static str, String, Instant)>,
}

impl Limit {
    /// Whether an Event is to be written; it then counts as written.
    pub fn allows(&mut self, event: &Event, now: Instant) -> bool {
        if !self.objects.contains_key(&event.regarding) && self.objects.len() >= OBJECTS {
            self.objects.retain(|_, said| now.duration_since(said.since) < AGAIN);
            if self.objects.len() >= OBJECTS {
                return false;
            }
        }
        let said = self.objects.entry(event.regarding.clone()).or_insert_with(|| Said {
            left: BURST,
            since: now,
            said: Vec::new(),
        });
        said.said.retain(|(.., at)| now.duration_since(*at) < AGAIN);
        let is_same = |(reason, note, _): &(&str, String, Instant)| {
            *reason == event.reason && *note == event.note
        };
        if said.said.iter().any(is_same) {
            return false;
        }
        let passed = now.duration_since(said.since);
        let more = u32::try_from(passed.as_secs() / EACH.as_secs()).unwrap_or(u32::MAX);
        if more > 0 {
            said.left = said.left.saturating_add(more).min(BURST);
            said.since = now;
        }
        if said.left == 0 {
            return false;
        }
        said.left -= 1;
        said.said.truncate(BURST as usize - 1);
        said.said.insert(0, (event.reason, event.note.clone(), now));
        true
    }

    /// The last Event that was allowed was not written after all.
    pub fn forget(&mut self, event: &Event) {
        if let Some(said) = self.objects.get_mut(&event.regarding) {
            said.left = (said.left + 1).min(BURST);
            said.said.retain(|(reason, note, _)| *reason != event.reason || *note != event.note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::EventSeverity;
    use crate::model::ObjectName;

    fn event(service: u32, note: &str) -> Event {
        Event {
            regarding: Regarding::Service(ObjectName::new("shop", format!("cart-{service}"))),
            severity: EventSeverity::Warning,
            reason: "FrontendTaken",
            action: "Sync",
            note: note.to_owned(),
        }
    }

    #[test]
    fn the_same_is_said_once_in_an_hour() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        assert!(limit.allows(&event(1, "taken"), start));
        assert!(!limit.allows(&event(1, "taken"), start + AGAIN / 2));
        assert!(limit.allows(&event(2, "taken"), start + AGAIN / 2), "another Service");
        assert!(limit.allows(&event(1, "something else"), start + AGAIN / 2));
        assert!(limit.allows(&event(1, "taken"), start + AGAIN));
    }

    #[test]
    fn of_one_service_little_is_said_however_often_it_changes() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        // A change each second for an hour.
        let written = (0..3600u32)
            .filter(|second| {
                let now = start + Duration::from_secs((*second).into());
                limit.allows(&event(1, &second.to_string()), now)
            })
            .count();
        assert!(written <= BURST as usize + 12, "{written}");
        assert!(limit.allows(&event(2, "another one"), start), "others are heard all the while");
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        for service in 0..2 * OBJECTS as u32 {
            limit.allows(&event(service, "taken"), start);
        }
        assert_eq!(limit.objects.len(), OBJECTS);
        assert!(limit.allows(&event(u32::MAX, "taken"), start + AGAIN), "there is room again");
    }
}
