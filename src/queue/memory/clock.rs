//! Wall-clock milliseconds that run on tokio's clock, so that a test which winds that clock forward moves everything:
//! visibility, delay, retention and the timestamps that receivers see. It does not follow later changes of the
//! system's clock, which also means that time here never goes back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

#[derive(Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    /// Milliseconds since 1970-01-01 UTC at `started`.
    epoch_millis: i64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), epoch_millis: millis(since_epoch) }
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub(super) fn now(&self) -> i64 {
        self.epoch_millis + millis(self.started.elapsed())
    }

    /// The instant at which [`Clock::now`] has reached `at`.
    pub(super) fn instant(&self, at: i64) -> Instant {
        self.started + Duration::from_millis(u64::try_from(at - self.epoch_millis).unwrap_or(0))
    }
}

/// A duration in whole milliseconds; 292 million years is as long as any.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
