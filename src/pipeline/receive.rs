//! Step 1: take a batch off the queue, or learn that it is time to stop.
//!
//! One long poll waits for work. While answers come back full there is a backlog, and waves of concurrent short polls
//! join it, until a wave is less than half full or the batch has reached its cap of rows or bytes. So an idle worker
//! costs three requests a minute, a lone message goes through at once, and under a backlog batches grow to thousands.
//! No poll is cancelled while it may have messages on their way.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use crate::{
    backoff::Backoff,
    metrics::Metrics,
    pipeline::{Status, Trouble},
    queue::{Depth, Message, Queue, QueueError, lease::Lease, room::Room},
    shutdown::Shutdown,
};

/// Messages in one answer of SQS, at most.
const POLL: usize = 10;

/// Messages in a batch, at most. Fewer would leave the cost of a commit to too few rows (it vanishes at about a
/// thousand); more would only make the work that a crash repeats larger.
const BATCH: usize = 2_000;

/// Polls of a wave, at most. With a round trip of 10 ms, 64 bring 64,000 messages a second; more only hold connections.
const WAVE: usize = 64;

/// How long an idle poll waits: SQS's maximum, so that waiting costs least.
const LONG_POLL: Duration = Duration::from_secs(20);

/// How long a poll waits that is to find out whether the queue is empty.
const DRAIN_POLL: Duration = Duration::from_secs(1);

/// How long an idle poll that is under way when the signal to stop comes may still answer. Real answers come within
/// milliseconds of a message; a longer wait would only keep the person waiting.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// Messages, and the lease that keeps them hidden from other workers.
pub struct Taken {
    /// In the order received; a message may be among them twice.
    pub messages: Vec<Message>,
    /// To be held until all of them are settled or given back.
    pub lease: Lease,
}

/// How one worker receives, and what it has learnt about its queue.
#[derive(Clone)]
pub struct Intake {
    /// For how long a message is hidden from others at a time.
    pub visibility: Duration,
    /// The memory that bodies may take, in all workers together.
    pub room: Room,
    /// Whether to stop when the queue is empty.
    pub drain: bool,
    /// Polls in the next wave.
    wave: usize,
    /// The largest body seen lately, in bytes: what the next one is expected to have at most.
    largest: u64,
}

impl Intake {
    /// An intake that starts with single polls and knows nothing of the queue's bodies.
    pub fn new(visibility: Duration, room: Room, drain: bool) -> Self {
        Self { visibility, room, drain, wave: 1, largest: 1024 }
    }

    /// How many polls the next wave may have.
    fn wave(&self, messages: &[Message]) -> usize {
        let rows = BATCH.saturating_sub(messages.len()) / POLL;
        let bytes = self.room.free() / (self.largest * POLL as u64);
        self.wave.min(rows).min(usize::try_from(bytes).unwrap_or(WAVE))
    }

    /// Learns from an answer or a wave: `polls` were asked and `messages` came.
    fn learn(&mut self, polls: usize, messages: &[Message]) {
        self.wave = if messages.len() * 2 > polls * POLL { (self.wave * 2).min(WAVE) } else { (self.wave / 2).max(1) };
        let largest = messages.iter().map(Message::body_len).max().unwrap_or(0);
        // Forgets slowly: one small answer among large ones must not lift the guard.
        self.largest = largest.max(self.largest - self.largest / 8).max(1024);
    }
}

/// The next batch, or `None` when it is time to stop. Waits out every trouble of the queue.
pub async fn receive<Q: Queue>(
    queue: &Q,
    intake: &mut Intake,
    metrics: &Arc<Metrics>,
    status: &Status,
    shutdown: &Shutdown,
) -> Option<Taken> {
    let mut messages = first_answer(queue, intake, status, shutdown).await?;
    let lease = Lease::new(queue, intake.visibility, metrics);
    lease.hold(&messages);

    let mut full = messages.len() >= POLL;
    intake.learn(1, &messages);
    while full && !shutdown.has_started() {
        let polls = intake.wave(&messages);
        if polls == 0 {
            break;
        }
        let wave = join_all((0..polls).map(|_| queue.receive(Duration::ZERO, intake.visibility, &intake.room))).await;
        // A poll that failed brought nothing; the next long poll meets the same trouble and waits it out.
        let brought: Vec<Message> = wave.into_iter().flatten().flatten().collect();
        lease.hold(&brought);
        full = brought.len() * 2 > polls * POLL;
        intake.learn(polls, &brought);
        messages.extend(brought);
    }
    metrics.received.inc_by(messages.len() as u64);
    Some(Taken { messages, lease })
}

/// Polls until something comes. `None`: the signal to stop came first, or the queue is drained.
async fn first_answer<Q: Queue>(
    queue: &Q,
    intake: &Intake,
    status: &Status,
    shutdown: &Shutdown,
) -> Option<Vec<Message>> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(20));
    let mut empty_in_a_row = 0;
    while !shutdown.has_started() {
        let wait = if intake.drain { DRAIN_POLL } else { LONG_POLL };
        match poll(queue, wait, intake, shutdown).await {
            Ok(messages) if messages.is_empty() => {
                status.clear(Trouble::Queue);
                empty_in_a_row += 1;
                if intake.drain && is_drained(queue, empty_in_a_row).await {
                    return None;
                }
            }
            Ok(messages) => {
                status.clear(Trouble::Queue);
                return Some(messages);
            }
            Err(error) => {
                status.set(Trouble::Queue, &error);
                shutdown.sleep(backoff.next(fastrand::f64())).await;
            }
        }
    }
    None
}

/// One poll. When the signal to stop comes it gets a last moment to answer; what it still brings is worked on.
async fn poll<Q: Queue>(
    queue: &Q,
    wait: Duration,
    intake: &Intake,
    shutdown: &Shutdown,
) -> Result<Vec<Message>, QueueError> {
    let poll = queue.receive(wait, intake.visibility, &intake.room);
    tokio::pin!(poll);
    tokio::select! {
        biased;
        answer = &mut poll => answer,
        () = shutdown.started() => {
            tokio::time::timeout(LAST_ANSWER, poll).await.unwrap_or_else(|_elapsed| Ok(Vec::new()))
        }
    }
}

/// Whether the queue says that it holds nothing, not even in other workers' hands. Its figures lag, so two empty
/// answers in a row are asked for too. A queue that cannot say is not drained.
async fn is_drained<Q: Queue>(queue: &Q, empty_in_a_row: u32) -> bool {
    empty_in_a_row >= 2 && queue.depth().await.is_ok_and(Depth::is_empty)
}
