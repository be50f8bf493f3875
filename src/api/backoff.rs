//! Waiting between attempts: doubling from a tenth of a second to ten seconds, with jitter.
//!
//! After an outage of the API server all nodes of a cluster come back at once; the jitter spreads
//! them, and a `Retry-After` of the server's priority and fairness is kept.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// First wait.
const SHORTEST: Duration = Duration::from_millis(100);
/// Longest wait, unless the server asks for a longer one.
const LONGEST: Duration = Duration::from_secs(10);

/// The waits of one watch.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

/// A number in `0..1` that differs between processes and calls; nothing secret hangs on it.
pub fn jitter() -> f64 {
    let random = RandomState::new().hash_one(());
    (random >> 11) as f64 / (1u64 << 53) as f64
}

impl Backoff {
    /// The wait after one more failure: half to all of the current step.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let step = SHORTEST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let wait = step.mul_f64(0.5 + jitter() / 2.0);
        retry_after.map_or(wait, |asked| asked + wait)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// An attempt has succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        for failure in 0..40 {
            let step = SHORTEST.saturating_mul(1 << failure.min(16)).min(LONGEST);
            let wait = backoff.next(None);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} after {failure} failures");
        }
        backoff.reset();
        assert!(backoff.next(None) <= SHORTEST);
    }

    #[test]
    fn the_server_may_ask_for_more() {
        assert!(Backoff::default().next(Some(Duration::from_secs(30))) >= Duration::from_secs(30));
    }
}
