//! A point in time that can be both compared and shown.

use std::ops::Add;
use std::time::{Duration, Instant, SystemTime};

/// The monotonic clock to measure with, and the wall clock to show. A node's wall clock may jump by
/// years when it first reaches its time server; no age must depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub monotonic: Instant,
    pub wall: SystemTime,
}

impl Moment {
    pub fn now() -> Self {
        Moment { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// How long ago `earlier` was; zero if it is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.monotonic.saturating_duration_since(earlier.monotonic)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, later: Duration) -> Moment {
        Moment { monotonic: self.monotonic + later, wall: self.wall + later }
    }
}
