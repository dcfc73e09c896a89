//! Which epoch a worker seals in: a new one every minute. Where AWS KMS makes it and does not answer, the worker goes on
//! with the one it has for a while, beside asking again, and then waits with its batch as it waits for a database that is
//! away. Nothing is ever written unsealed.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Surroundings, circuit::Patience, mask::Masker, now_ms, status::Trouble};
use crate::{
    backoff::Backoff,
    vault::{keyfile::KeyError, seal::EpochKey},
};

/// How long one epoch key seals bodies and values. Whoever takes over a worker gets the key of the open epoch: shorter would cost an
/// encapsulation (about 0.15 ms) or a call of KMS and a row more often, longer would show more to a thief.
const EPOCH: Duration = Duration::from_secs(60);

/// How much longer, where no new one is to be had. Longer bears a longer outage of KMS; shorter shows less to a thief who
/// can bring one about.
const OVERTIME: Duration = Duration::from_secs(300);

/// How long a batch waits for an answer of KMS that is on its way. It comes within some 10 ms; longer would hold up every
/// minute's first batch when it does not, shorter would put one more batch under the old key.
const GLANCE: Duration = Duration::from_millis(250);

/// The delays between attempts: at most so long at first, and at most so long later.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

/// A worker's next epoch, on its way.
pub(super) struct Renewal {
    asked: Option<AbortOnDropHandle<Result<EpochKey, KeyError>>>,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// Whether the key that this worker makes tokens with makes none any more.
    pub(super) key_replaced: bool,
}

impl Default for Renewal {
    fn default() -> Self {
        Self { asked: None, backoff: Backoff::new(FIRST, LONGEST), not_before: None, key_replaced: false }
    }
}

impl Renewal {
    /// Begins the next epoch if it is time to, and does not return before there is one to seal in. `false`: it is time
    /// to stop instead.
    pub(super) async fn renew(&mut self, masker: &mut Masker, surroundings: Surroundings<'_>) -> bool {
        let Surroundings { metrics, status, shutdown } = surroundings;
        let mut patience = Patience::new(&status.keys, shutdown, FIRST, LONGEST);
        loop {
            let age = now_ms() - masker.epoch().header().started_at;
            // A clock that was set back makes none of them old; then one second is as good as the next.
            let is_older = |limit: Duration| u128::try_from(age).map_or(true, |age| age > limit.as_millis());
            if !is_older(EPOCH) && !masker.is_epoch_spent() {
                return true;
            }
            let is_too_old = is_older(EPOCH + OVERTIME);
            let made = tokio::select! {
                biased;
                () = shutdown.started(), if is_too_old => return false,
                made = self.next(masker, is_too_old) => made,
            };
            match made {
                Some(Ok(epoch)) => {
                    masker.start_epoch(epoch);
                    *self = Self::default();
                    status.clear(Trouble::Keys);
                    patience.done();
                    return true;
                }
                Some(Err(error)) => {
                    metrics.epoch_failures.inc();
                    status.set(Trouble::Keys, &error);
                    self.not_before = Some(Instant::now() + self.backoff.next(fastrand::f64()));
                }
                None => {}
            }
            if !is_too_old {
                return true; // sealing under the old key a while longer is better than not sealing
            }
            if !patience.outage().await {
                return false;
            }
        }
    }

    /// What was asked for, if it is there within a glance; with `must_wait` when it is there.
    async fn next(&mut self, masker: &Masker, must_wait: bool) -> Option<Result<EpochKey, KeyError>> {
        let is_new = self.asked.is_none();
        if is_new {
            if !must_wait && self.not_before.is_some_and(|moment| Instant::now() < moment) {
                return None;
            }
            let mut making: BoxFuture<'static, _> = masker.keys().new_epoch(now_ms());
            // With key files it is made at once.
            if let Some(made) = (&mut making).now_or_never() {
                return Some(made);
            }
            self.asked = Some(AbortOnDropHandle::new(tokio::spawn(making)));
        }
        let asked = self.asked.as_mut()?;
        let made = match (must_wait, is_new) {
            (true, _) => Some(asked.await),
            (false, true) => timeout(GLANCE, asked).await.ok(),
            (false, false) => asked.now_or_never(),
        };
        let made = made?;
        self.asked = None;
        made.ok() // it panicked, which the hook has told, and is asked for again
    }
}
