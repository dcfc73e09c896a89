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

mod circuit;
mod envelope;
mod epoch;
mod keys;
mod refused;
mod retry;
mod status;
mod suspects;
pub mod value;

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::FutureExt;
use thiserror::Error;
use tokio::task::JoinSet;

pub use status::{Status, Trouble};

use self::{
    acknowledge::{acknowledge, delete_too_early, give_back},
    decode::Decoder,
    epoch::Renewal,
    load::{Judge, Loaded, Unsettled, load},
    mask::{Masker, mask},
    receive::{Intake, Taken, receive},
};
use crate::{
    backoff::Backoff,
    metrics::{Metrics, Step},
    mutant::{self, Mutant},
    queue::{Message, Queue},
    shutdown::Shutdown,
    sink::Sink,
};

/// How long a worker rests after a panic: at first, and at most. What makes it panic is likely to come again.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Why a pipeline ended otherwise than it should.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// A defect of this program. Nothing is lost: what it held comes again.
    #[error("a worker failed: this is a bug in masq; the messages it held come again")]
    Bug,
}

/// What every step looks at and tells of: what is counted, what is wrong, and whether it is time to stop.
#[derive(Clone, Copy)]
#[allow(missing_docs)] // each says what it is
pub struct Surroundings<'a> {
    pub metrics: &'a Arc<Metrics>,
    pub status: &'a Status,
    pub shutdown: &'a Shutdown,
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

/// Runs the workers until all of them have ended: because of the signal to stop or because the queue is drained.
///
/// # Errors
/// A worker panicked now and then: that cost a redelivery, and is told when all is done.
pub async fn run<Q: Queue, S: Sink>(workers: Vec<Worker<Q, S>>, shutdown: &Shutdown) -> Result<(), PipelineError> {
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        let shutdown = shutdown.clone();
        tasks.spawn(async move { worker.work(&shutdown).await });
    }
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        result = result.and(ended.unwrap_or(Err(PipelineError::Bug)));
    }
    result
}

impl<Q: Queue, S: Sink> Worker<Q, S> {
    /// Every batch goes all the way, or stays on the queue. A panic costs the batch in hand a redelivery and nothing
    /// else: what it was writing is rolled back with its session.
    async fn work(&mut self, shutdown: &Shutdown) -> Result<(), PipelineError> {
        let mut result = Ok(());
        let (mut backoff, mut renewal) = (Backoff::new(FIRST_REST, LONGEST_REST), Renewal::default());
        loop {
            match AssertUnwindSafe(self.round(&mut renewal, shutdown)).catch_unwind().await {
                Ok(true) => backoff.reset(),
                Ok(false) => break,
                Err(_the_hook_has_told) => {
                    tracing::error!("a worker failed and begins anew: this is a bug in masq; what it held comes again");
                    result = Err(PipelineError::Bug);
                    self.sink.reset();
                    self.metrics.returned.inc_by(self.intake.drop_all());
                    shutdown.sleep(backoff.next(1.0)).await;
                }
            }
        }
        if let Some(Taken { messages, lease }) = self.intake.carried.take() {
            self.put_back(messages).await;
            drop(lease);
        }
        self.sink.finish().await;
        result
    }

    /// Takes what comes, and settles it. `false`: it is time to stop.
    async fn round(&mut self, renewal: &mut Renewal, shutdown: &Shutdown) -> bool {
        let Self { queue, sink, intake, masker, status, metrics, .. } = self;
        let surroundings = Surroundings { metrics, status, shutdown };
        if renewal.key_replaced && !keys::renew(sink, masker, surroundings).await {
            return false;
        }
        renewal.key_replaced = false;
        let Some(taken) = receive(queue, intake, surroundings).await else { return false };
        if !renewal.renew(masker, surroundings).await {
            self.put_back(taken.messages).await;
            return false;
        }
        renewal.key_replaced = self.settle(taken, shutdown).await;
        true
    }

    /// Takes a batch all the way. Answers whether some of it has to be masked anew, with another key.
    async fn settle(&mut self, taken: Taken, shutdown: &Shutdown) -> bool {
        let Taken { messages, lease } = taken;
        let mut clock = Clock::start(Arc::clone(&self.metrics));

        let Some(poison) = self.find_poison(&messages, shutdown).await else {
            self.put_back(messages).await;
            return false;
        };
        // Steps 2 and 3, message by message.
        let batch = mask(messages, |message| poison.read(message, &self.decoder), &mut self.masker);
        clock.lap(Step::Mask);
        if mutant::is(Mutant::DeleteFirst) {
            delete_too_early(&self.queue, &batch).await;
        }
        let may_carry = self.intake.answers_left() > 0;
        let judge = Judge {
            decoder: &self.decoder,
            masker: &mut self.masker,
            status: &self.status,
            may_carry,
            doubted: &self.intake.doubted,
        };
        let mut loaded = load(&mut self.sink, batch, judge, shutdown).await;
        self.count(&mut loaded);
        clock.lap(Step::Load);
        let surroundings = Surroundings { metrics: &self.metrics, status: &self.status, shutdown };
        let is_key_replaced = loaded.is_key_replaced();
        acknowledge(&self.queue, loaded, surroundings).await;
        clock.lap(Step::Acknowledge);
        drop(lease);
        is_key_replaced
    }

    /// Counts what became of a batch, and keeps what the next one is to settle.
    fn count(&mut self, loaded: &mut Loaded) {
        self.metrics.count(loaded.tally(), now_ms());
        self.intake.let_go(loaded.tally().messages());
        let carried = loaded.take_carried();
        self.intake.doubt(&carried, self.status.rows_taken());
        if !carried.is_empty() {
            self.intake.carry(carried, &self.queue, &self.metrics);
        }
    }

    /// Gives messages back for which it is too late, now that it is time to stop.
    async fn put_back(&mut self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        self.metrics.returned.inc_by(messages.len() as u64);
        self.intake.let_go(messages.len() as u64);
        give_back(&self.queue, messages.into_iter().map(Unsettled::from).collect()).await;
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
