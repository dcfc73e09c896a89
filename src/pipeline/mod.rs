//! The way of the data: receive -> decode -> mask -> load -> acknowledge.
//!
//! A worker does the five steps one after the other with one batch at a time; [`run`] runs several workers side by
//! side. There are no channels between the steps, so what is not settled yet is bounded by construction, and a batch's
//! life can be read from top to bottom in [`Worker::work`].

pub mod receive;

pub mod decode;

pub mod mask;

pub mod load;

pub mod acknowledge;

mod envelope;
mod status;
pub mod value;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;
use tokio::task::JoinSet;

pub use status::{Status, Trouble};

use self::{
    acknowledge::acknowledge,
    decode::{Decoder, decode},
    load::{Judge, load},
    mask::{Masker, mask},
    receive::{Intake, Taken, receive},
};
use crate::{
    backoff::Backoff,
    metrics::{Metrics, Step},
    queue::Queue,
    shutdown::Shutdown,
    sink::Sink,
};

/// How long one epoch key seals bodies. Whoever takes over a worker gets the key of the open epoch: shorter would cost
/// an encapsulation (about 0.15 ms) and a row more often, longer would show more to a thief.
const EPOCH: Duration = Duration::from_secs(60);

/// Why a pipeline ended other than by the signal to stop.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// A defect of this program. Nothing is lost: what it held comes again.
    #[error("a worker failed: this is a bug in masq; the messages it held come again")]
    Bug,
}

/// Moves messages from a queue to a sink, one batch at a time.
pub struct Worker<Q, S> {
    /// Where messages come from.
    pub queue: Q,
    /// Where outcomes go; this worker's own.
    pub sink: S,
    /// How it receives.
    pub intake: Intake,
    /// What messages mean.
    pub decoder: Arc<Decoder>,
    /// How values are masked and bodies sealed; this worker's own.
    pub masker: Masker,
    /// What is wrong right now.
    pub status: Arc<Status>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
}

/// Runs the workers until all of them have ended: because of the signal to stop or because the queue is drained. One
/// that fails ends the others in good order.
pub async fn run<Q: Queue, S: Sink>(workers: Vec<Worker<Q, S>>, shutdown: &Shutdown) -> Result<(), PipelineError> {
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        let shutdown = shutdown.clone();
        tasks.spawn(async move { worker.work(&shutdown).await });
    }
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() {
            shutdown.start();
            result = Err(PipelineError::Bug);
        }
    }
    result
}

impl<Q: Queue, S: Sink> Worker<Q, S> {
    /// Every batch goes all the way, or stays on the queue.
    async fn work(&mut self, shutdown: &Shutdown) {
        let mut patience = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        while let Some(taken) = self.receive(shutdown).await {
            let Taken { messages, lease } = taken;
            self.renew_epoch();
            let mut clock = Clock::start(Arc::clone(&self.metrics));

            let decoded = decode(messages, &self.decoder);
            clock.lap(Step::Decode);
            let batch = mask(decoded, &mut self.masker);
            clock.lap(Step::Mask);
            let judge = Judge { decoder: &self.decoder, masker: &mut self.masker, status: &self.status };
            let loaded = load(&mut self.sink, batch, judge, shutdown).await;
            clock.lap(Step::Load);
            let settled = acknowledge(&self.queue, loaded, lease, &self.metrics).await;
            clock.lap(Step::Acknowledge);

            self.metrics.count(&settled.tally, now_ms());
            match settled.undeletable {
                None => {
                    self.status.clear(Trouble::Delete);
                    patience.reset();
                }
                // What cannot be deleted would only be received again and again.
                Some(error) => {
                    self.status.set(Trouble::Delete, &error);
                    shutdown.sleep(patience.next(1.0)).await;
                }
            }
        }
    }

    async fn receive(&mut self, shutdown: &Shutdown) -> Option<Taken> {
        receive(&self.queue, &mut self.intake, &self.metrics, &self.status, shutdown).await
    }

    fn renew_epoch(&mut self) {
        let now = now_ms();
        let age = now - self.masker.epoch().header().started_at;
        if u128::try_from(age).is_ok_and(|age| age <= EPOCH.as_millis()) {
            return;
        }
        match self.masker.keys().new_epoch(now) {
            Ok(epoch) => self.masker.start_epoch(epoch),
            // Sealing under the old key a while longer is better than not sealing.
            Err(error) => tracing::error!(%error, "could not begin an epoch"),
        }
    }
}

/// Milliseconds since 1970-01-01 UTC by this machine's clock. For lag and epochs; nothing exact depends on it.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Takes the time of one step after the other.
struct Clock {
    metrics: Arc<Metrics>,
    last: Instant,
}

impl Clock {
    fn start(metrics: Arc<Metrics>) -> Self {
        Self { metrics, last: Instant::now() }
    }

    fn lap(&mut self, step: Step) {
        let now = Instant::now();
        self.metrics.step(step, now - self.last);
        self.last = now;
    }
}
