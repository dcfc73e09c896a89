//! Delays between attempts: capped exponential with full jitter. Pure: the caller brings the randomness and the sleep.
//!
//! Full jitter (a delay drawn evenly from zero to the cap of the attempt) spreads many clients that lost the same
//! server at the same time better than any fixed schedule: AWS Architecture Blog, "Exponential Backoff And Jitter".

use std::time::Duration;

/// A growing delay.
#[derive(Clone, Debug)]
pub struct Backoff {
    ceiling: Duration,
    cap: Duration,
    first: Duration,
}

impl Backoff {
    /// The first delay is at most `first`; every further one may be twice as long, up to `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { ceiling: first, cap, first }
    }

    /// The next delay, for `random` drawn evenly from 0 to 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let delay = self.ceiling.mul_f64(random.clamp(0.0, 1.0));
        self.ceiling = (self.ceiling * 2).min(self.cap);
        delay
    }

    /// Starts again from the first delay: something worked.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let delays: Vec<u128> = (0..4).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(delays, [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.next(0.5).as_millis(), 50);
    }
}
