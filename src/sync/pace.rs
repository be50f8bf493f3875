//! When to do what: to sync, to try again, to tidy up.

use std::time::{Duration, Instant};

/// The first wait after a failed sync. It doubles with every further failure.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// The least time from a failed sync to one for the sake of something new.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How long nothing must have happened before chains and sets that nothing leads to
/// are deleted.
const QUIET: Duration = Duration::from_secs(2);

/// How long they may stay if something happens all the time.
const UNUSED: Duration = Duration::from_secs(10);

/// Decides when a sync is due: at once after a quiet time, else not before `min_sync_period` has
/// passed since the last one ended; and after a failure with a growing delay, which holds up nothing that is new.
#[derive(Debug)]
pub struct Pace {
    min_sync_period: Duration,
    max_retry: Duration,
    /// Since when there is something to write.
    queued: Option<Instant>,
    /// When the last sync ended well.
    last: Option<Instant>,
    failed: Option<Failure>,
    /// Something is to be put right at once.
    is_urgent: bool,
    /// Since when there are things that nothing leads to.
    unused: Option<Instant>,
}

#[derive(Debug)]
struct Failure {
    at: Instant,
    /// The time to the next attempt.
    wait: Duration,
    /// Something new came after it.
    has_news: bool,
}

impl Pace {
    pub fn new(min_sync_period: Duration, max_retry: Duration) -> Pace {
        Pace {
            min_sync_period,
            max_retry,
            queued: None,
            last: None,
            failed: None,
            is_urgent: false,
            unused: None,
        }
    }

    /// There is something new to write.
    pub fn queue(&mut self, now: Instant) {
        self.queued.get_or_insert(now);
        if let Some(failed) = &mut self.failed {
            failed.has_news = true;
        }
    }

    /// The kernel does not have what it had: that waits for no period.
    pub fn repair(&mut self, now: Instant) {
        self.queue(now);
        self.is_urgent = true;
    }

    /// When the next sync is due; None while nothing is queued.
    pub fn due_time(&self) -> Option<Instant> {
        let queued = self.queued?;
        if let Some(failed) = &self.failed {
            let wait = if failed.has_news { AFTER_FAILURE.min(failed.wait) } else { failed.wait };
            return Some(failed.at + wait);
        }
        if self.is_urgent {
            return Some(queued);
        }
        Some(self.last.map_or(queued, |last| queued.max(last + self.min_sync_period)))
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.due_time().is_some_and(|due| due <= now)
    }

    /// Says whether there are things that nothing leads to.
    pub fn note_unused(&mut self, are_there: bool, now: Instant) {
        self.unused = are_there.then(|| self.unused.unwrap_or(now));
    }

    /// When they are to be deleted: after a quiet time, but not too late.
    pub fn tidy_time(&self) -> Option<Instant> {
        let latest = self.unused? + UNUSED;
        let quiet = self.last.filter(|_| self.queued.is_none()).map(|last| last + QUIET);
        Some(quiet.map_or(latest, |quiet| quiet.min(latest)))
    }

    pub fn is_time_to_tidy(&self, now: Instant) -> bool {
        self.tidy_time().is_some_and(|time| time <= now)
    }

    /// They were to be deleted; whether that worked or not, there is time until the next attempt.
    pub fn tidied(&mut self, now: Instant) {
        self.unused = Some(now);
    }

    /// A sync ended well.
    pub fn succeeded(&mut self, now: Instant) {
        self.queued = None;
        self.failed = None;
        self.is_urgent = false;
        self.last = Some(now);
    }

    /// Something has to be waited for: that is no failure, and is asked for again and again.
    pub fn waiting(&mut self, now: Instant) {
        self.queued.get_or_insert(now);
        self.failed =
            Some(Failure { at: now, wait: FIRST_RETRY.min(self.max_retry), has_news: false });
    }

    /// A sync failed. Returns the time to the next attempt.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let wait = match &self.failed {
            None => FIRST_RETRY.min(self.max_retry),
            Some(before) => (before.wait * 2).min(self.max_retry),
        };
        self.queued.get_or_insert(now);
        self.failed = Some(Failure { at: now, wait, has_news: false });
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_change_after_a_quiet_time_is_written_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(10 * SECOND, 30 * SECOND);
        pace.succeeded(start);
        assert_eq!(pace.due_time(), None);
        pace.queue(start);
        assert!(!pace.is_due(start + 9 * SECOND), "within the minimum period");
        assert!(pace.is_due(start + 10 * SECOND));
        pace.succeeded(start + 10 * SECOND);
        pace.queue(start);
        assert!(pace.is_due(start + 60 * SECOND), "long after the last one");
    }

    #[test]
    fn the_very_first_change_is_due_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(10 * SECOND, 30 * SECOND);
        assert_eq!(pace.due_time(), None);
        pace.queue(start);
        assert!(pace.is_due(start));
    }

    #[test]
    fn without_a_minimum_period_every_change_is_written_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, 30 * SECOND);
        pace.succeeded(start);
        pace.queue(start);
        assert!(pace.is_due(start));
    }

    #[test]
    fn waits_grow_with_every_failure_up_to_the_sync_period() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, SECOND);
        let waits: Vec<u128> = (0..6).map(|_| pace.failed(start).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert!(!pace.is_due(start + SECOND / 2));
        pace.queue(start + SECOND / 2);
        assert!(pace.is_due(start + SECOND / 2), "what is new does not wait for what failed");
        pace.succeeded(start + SECOND);
        assert_eq!(pace.failed(start).as_millis(), 100);
    }

    #[test]
    fn news_after_a_failure_are_no_busy_loop() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, 30 * SECOND);
        for _ in 0..5 {
            pace.failed(start);
        }
        pace.queue(start);
        assert!(!pace.is_due(start + AFTER_FAILURE / 2) && pace.is_due(start + AFTER_FAILURE));
        assert_eq!(
            pace.failed(start + AFTER_FAILURE).as_millis(),
            3200,
            "the wait goes on growing"
        );
    }

    #[test]
    fn a_repair_waits_for_no_period() {
        let start = Instant::now();
        let mut pace = Pace::new(10 * SECOND, 30 * SECOND);
        pace.succeeded(start);
        pace.repair(start);
        assert!(pace.is_due(start));
        pace.succeeded(start);
        pace.queue(start);
        assert!(!pace.is_due(start + SECOND));
    }

    #[test]
    fn unused_things_go_after_a_quiet_time_or_a_deadline() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, SECOND);
        pace.succeeded(start);
        assert_eq!(pace.tidy_time(), None);
        pace.note_unused(true, start);
        assert!(!pace.is_time_to_tidy(start) && pace.is_time_to_tidy(start + QUIET));
        // In a busy cluster there is no quiet time.
        for tenth in 1..=100 {
            let now = start + SECOND * tenth / 10;
            pace.queue(now);
            pace.succeeded(now);
            pace.note_unused(true, now);
            assert_eq!(pace.is_time_to_tidy(now), now >= start + UNUSED);
        }
        pace.tidied(start + UNUSED);
        pace.note_unused(true, start + UNUSED);
        assert!(!pace.is_time_to_tidy(start + UNUSED));
        pace.note_unused(false, start + UNUSED);
        assert_eq!(pace.tidy_time(), None);
    }
}
