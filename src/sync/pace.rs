//! When to sync.

use std::time::{Duration, Instant};

/// The first wait after a failed sync. It doubles with every further failure.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// How long nothing must have happened before chains and sets that nothing leads to
/// are deleted.
const QUIET: Duration = Duration::from_secs(2);

/// Decides when a sync is due: at once after a quiet time, else not before `min_sync_period` has
/// passed since the last one ended, and after a failure with a growing delay.
#[derive(Debug)]
pub struct Pace {
    min_sync_period: Duration,
    max_retry: Duration,
    /// Since when there is something to write.
    queued: Option<Instant>,
    /// When the last sync ended well.
    last: Option<Instant>,
    /// When to try again after a failure, and how long that wait is.
    retry: Option<(Instant, Duration)>,
}

impl Pace {
    pub fn new(min_sync_period: Duration, max_retry: Duration) -> Pace {
        Pace { min_sync_period, max_retry, queued: None, last: None, retry: None }
    }

    /// There is something to write.
    pub fn queue(&mut self, now: Instant) {
        self.queued.get_or_insert(now);
    }

    /// When the next sync is due; None while nothing is queued.
    pub fn due_time(&self) -> Option<Instant> {
        if let Some((at, _)) = self.retry {
            return Some(at);
        }
        let earliest = self.last.map(|last| last + self.min_sync_period);
        self.queued.max(self.queued.and(earliest))
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.due_time().is_some_and(|due| due <= now)
    }

    /// When the quiet time after the last sync is over; None while something is queued.
    pub fn idle_time(&self) -> Option<Instant> {
        if self.queued.is_some() || self.retry.is_some() {
            return None;
        }
        self.last.map(|last| last + QUIET)
    }

    pub fn is_idle(&self, now: Instant) -> bool {
        self.idle_time().is_some_and(|idle| idle <= now)
    }

    /// A sync ended well.
    pub fn succeeded(&mut self, now: Instant) {
        self.queued = None;
        self.retry = None;
        self.last = Some(now);
    }

    /// A sync failed. Returns the time to the next attempt.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let wait = match self.retry {
            None => FIRST_RETRY.min(self.max_retry),
            Some((_, before)) => (before * 2).min(self.max_retry),
        };
        self.retry = Some((now + wait, wait));
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
        pace.queue(start);
        assert!(!pace.is_due(start + SECOND / 2), "a new change does not shorten the wait");
        pace.succeeded(start + SECOND);
        assert_eq!(pace.failed(start).as_millis(), 100);
    }

    #[test]
    fn it_is_idle_after_a_quiet_time() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, SECOND);
        pace.succeeded(start);
        assert!(!pace.is_idle(start) && pace.is_idle(start + QUIET));
        pace.queue(start);
        assert!(!pace.is_idle(start + QUIET));
    }
}
