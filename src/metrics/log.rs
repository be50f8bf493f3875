//! What becomes of lines of the log.

use super::register::Register;
use prometheus::IntCounter;

pub struct Log {
    dropped: IntCounter,
}

impl Log {
    pub(super) fn new(register: &Register) -> Self {
        Log {
            dropped: register.counter(
                "kubeproxy_log_lines_dropped_total",
                "Lines of the log that nobody read in time, and that were not kept",
            ),
        }
    }

    /// So many were dropped since the start.
    pub fn dropped(&self, lines: u64) {
        self.dropped.inc_by(lines.saturating_sub(self.dropped.get()));
    }
}
