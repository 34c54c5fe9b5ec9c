//! The time of day.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The time of day: for people, and for files and batches, whose end is a time of day because they outlive the process.
/// Requests are timed by [`Instant`](std::time::Instant), which nobody can set. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Seconds that it is ahead of the system's.
    ahead_s: Arc<AtomicI64>,
}

impl Clock {
    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        #[allow(clippy::disallowed_methods, reason = "the one place that reads the time of day")]
        let system = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        system.saturating_add_signed(self.ahead_s.load(Ordering::Relaxed))
    }

    /// Sets it to `ahead_s` seconds ahead of the system's.
    pub fn set(&self, ahead_s: i64) {
        self.ahead_s.store(ahead_s, Ordering::Relaxed);
    }
}
