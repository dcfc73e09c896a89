//! How many requests are worth having under way at the same time: as many as the round trip asks for, and no more.
//!
//! Requests at once make up for the time that each is on its way. On the same machine hardly any time is, and there more
//! of them only push each other's buffers out of the processor's cache: with 8 instead of 64 the client takes a sixth less
//! CPU. Across a region or an ocean, 8 would leave a worker waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Requests at once, at least and at most. With 64 and a round trip of 10 ms, 64,000 messages a second come or go; more only
/// hold connections. With fewer than 8, the time between an answer and the next request would begin to show.
const AT_ONCE: (u64, u64) = (8, 64);

/// Requests a second that those at once should allow, at a round trip between 0.5 and 4 ms: several times what a worker
/// can do. Fewer would hold it up, more would make them 64 on any network.
const RATE: u64 = 16_000;

/// A quicker answer replaces the estimate, for no answer is quicker than its way; a slower one moves it by this part of the
/// difference. Where the processor is busy most answers are much slower than the way, and a smaller divisor would follow
/// them. With a larger one it would take even longer than seconds to find out that the way has become longer.
const DOUBT: u64 = 4096;

/// What the quickest answers of late took. A handle: all clones learn together.
#[derive(Clone, Default)]
pub struct Pace {
    /// In nanoseconds; 0: none has come yet.
    quickest: Arc<AtomicU64>,
}

impl Pace {
    /// An answer took this long.
    pub fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let quickest = self.quickest.load(Ordering::Relaxed);
        let learnt = if quickest == 0 || took < quickest { took } else { quickest + (took - quickest) / DOUBT };
        // One of two that learn at the same time may be forgotten.
        self.quickest.store(learnt, Ordering::Relaxed);
    }

    /// How many requests to have under way.
    pub fn at_once(&self) -> usize {
        let quickest = Duration::from_nanos(self.quickest.load(Ordering::Relaxed));
        let wanted = (quickest.as_secs_f64() * RATE as f64) as u64;
        wanted.clamp(AT_ONCE.0, AT_ONCE.1) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_way_has_more_requests_on_it() {
        for (micros, at_once) in [(0, 8), (200, 8), (500, 8), (1_000, 16), (2_500, 40), (4_000, 64), (40_000, 64)] {
            let pace = Pace::default();
            pace.learn(Duration::from_micros(micros));
            assert_eq!(pace.at_once(), at_once, "{micros} µs");
        }
        assert_eq!(Pace::default().at_once(), 8);
    }

    #[test]
    fn single_slow_answers_change_little_and_a_longer_way_is_learnt() {
        let pace = Pace::default();
        let millis = Duration::from_millis;
        let learn = |took: Duration, times: usize| (0..times).for_each(|_| pace.learn(took));
        learn(millis(1), 1);
        learn(millis(50), 50);
        assert!(pace.at_once() < 28, "{}", pace.at_once());
        learn(millis(1), 1);
        assert_eq!(pace.at_once(), 16);
        learn(millis(10), 3000);
        assert_eq!(pace.at_once(), 64);
        pace.learn(Duration::MAX);
        assert_eq!(pace.at_once(), 64);
    }
}
