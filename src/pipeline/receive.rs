//! Step 1: take a batch off the queue, or learn that it is time to stop.
//!
//! One long poll waits for work. While answers come back full there is a backlog, and waves of concurrent short polls
//! join it, until a wave is less than half full, the batch has reached its cap of rows, or the room for bodies runs
//! short. So an idle worker costs three requests a minute, a lone message goes through at once, and under a backlog
//! batches grow to thousands.
//!
//! No poll is cancelled while it may have messages on their way. One whose answer has to wait for room is taken up
//! again with the next batch.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};

use tokio::time::{Instant, sleep};

use crate::{
    backoff::Backoff,
    metrics::Metrics,
    pipeline::{Status, Surroundings, Trouble},
    queue::{Cause, Depth, Key, Message, Queue, QueueError, lease::Lease, pace::Pace, room::Room},
    shutdown::Shutdown,
};

/// Messages in one answer of SQS, at most.
const POLL: usize = 10;

/// Messages in a batch, at most. Fewer would leave the cost of a commit to too few rows (it vanishes at about a
/// thousand); more would only make the work that a crash repeats larger.
const BATCH: usize = 2_000;

/// How long an idle poll waits: SQS's maximum, so that waiting costs least.
const LONG_POLL: Duration = Duration::from_secs(20);

/// How long a poll waits that is to find out whether the queue is empty.
const DRAIN_POLL: Duration = Duration::from_secs(1);

/// How long a poll waits while refused messages are held: then the table is asked again. Longer would leave a mended
/// table unnoticed; shorter would ask a broken one more often.
const DOUBT_POLL: Duration = Duration::from_secs(5);

/// How often a worker that drains a queue asks for refused messages again, before it leaves them on the queue.
const DOUBTS: u32 = 6;

/// How long an idle poll that is under way when the signal to stop comes may still answer. Real answers come within
/// milliseconds of a message; a longer wait would only keep the person waiting.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// From which delivery on a message is suspect, where the queue's redrive policy does not say less: two or three
/// deliveries are common after restarts.
const SUSPECT_FROM: u32 = 5;

/// Messages, and the lease that keeps them hidden from other workers.
pub struct Taken {
    /// In the order received; a message may be among them twice.
    pub messages: Vec<Message>,
    /// To be held until all of them are settled or given back.
    pub lease: Lease,
}

impl Taken {
    fn add(&mut self, messages: Vec<Message>) {
        self.lease.hold(&messages);
        self.messages.extend(messages);
    }
}

type Poll = BoxFuture<'static, Result<Vec<Message>, QueueError>>;

/// How one worker receives, what it has learnt about its queue, and what it has in its hands.
pub struct Intake {
    /// For how long a message is hidden from others at a time.
    pub visibility: Duration,
    /// The memory that bodies may take, in all workers together.
    pub room: Room,
    /// Whether to stop when the queue is empty.
    pub drain: bool,
    /// From which delivery on a message is suspect.
    pub suspect_from: u32,
    /// Polls in the next wave.
    wave: usize,
    /// How many of them are worth having at once, by how long they take.
    pace: Pace,
    /// The largest body seen lately, in bytes: what the next one is expected to have at most.
    largest: u64,
    /// Polls under way.
    polls: FuturesUnordered<Poll>,
    /// What the batch before could not settle: it goes into the next.
    pub(super) carried: Option<Taken>,
    /// How often that was tried since something else came.
    doubts: u32,
    /// What of it was refused when the table had taken rows so often.
    pub(super) doubted: HashMap<Key, u64>,
    /// Messages received whose end has not been counted.
    in_hand: u64,
}

impl Clone for Intake {
    /// Another worker's: set the same, with empty hands.
    fn clone(&self) -> Self {
        Self { suspect_from: self.suspect_from, ..Self::new(self.visibility, self.room.clone(), self.drain) }
    }
}

impl Intake {
    /// An intake that starts with single polls and knows nothing of the queue's bodies.
    pub fn new(visibility: Duration, room: Room, drain: bool) -> Self {
        let polls = FuturesUnordered::new();
        Self {
            visibility,
            room,
            drain,
            suspect_from: SUSPECT_FROM,
            wave: 1,
            pace: Pace::default(),
            largest: 1024,
            polls,
            carried: None,
            doubts: 0,
            doubted: HashMap::new(),
            in_hand: 0,
        }
    }

    /// Keeps messages for the next batch.
    pub(super) fn carry<Q: Queue>(&mut self, messages: Vec<Message>, queue: &Q, metrics: &Arc<Metrics>) {
        let lease = Lease::new(queue, self.visibility, metrics);
        lease.take_over(&messages);
        self.carried = Some(Taken { messages, lease });
    }

    /// Remembers of what is carried how often the table had taken rows when it was first refused.
    pub(super) fn doubt(&mut self, carried: &[Message], rows_taken: u64) {
        let then = |message: &Message| (message.key, *self.doubted.get(&message.key).unwrap_or(&rows_taken));
        self.doubted = carried.iter().map(then).collect();
    }

    /// So many messages have come to their end.
    pub(super) fn let_go(&mut self, messages: u64) {
        self.in_hand = self.in_hand.saturating_sub(messages);
    }

    /// Drops all that is in hand, and answers how much that was.
    pub(super) fn drop_all(&mut self) -> u64 {
        self.carried = None;
        std::mem::take(&mut self.in_hand)
    }

    /// For how many more answers there is room, if bodies are as large as they have been lately.
    pub(super) fn answers_left(&self) -> usize {
        usize::try_from(self.room.free() / (self.largest * POLL as u64)).unwrap_or(BATCH / POLL)
    }

    /// How many polls the next wave may have, beside so many messages.
    fn wave(&self, messages: usize) -> usize {
        self.wave.min(BATCH.saturating_sub(messages) / POLL).min(self.answers_left())
    }

    /// Learns from an answer or a wave that was asked of so many polls.
    fn learn(&mut self, polls: usize, brought: &Brought) {
        let messages = &brought.messages;
        let many = messages.len() * 2 > polls * POLL;
        self.wave = match many {
            _ if brought.is_throttled() => 1,
            true => (self.wave * 2).min(self.pace.at_once()),
            false => (self.wave / 2).max(1),
        };
        let largest = messages.iter().map(Message::body_len).max().unwrap_or(0);
        // Forgets slowly: one small answer among large ones must not lift the guard.
        self.largest = largest.max(self.largest - self.largest / 8).max(1024);
    }

    fn ask<Q: Queue>(&self, queue: &Q, polls: usize, wait: Duration) {
        for _ in 0..polls {
            let (queue, visibility, room) = (queue.clone(), self.visibility, self.room.clone());
            self.polls.push(Box::pin(async move { queue.receive(wait, visibility, &room).await }));
        }
    }

    /// Adds what the polls under way bring. Once something is here, polls that wait for room are left for the next
    /// batch: room is made by settling what is here.
    async fn gather(&mut self, brought: &mut Brought) {
        loop {
            tokio::select! {
                biased;
                answer = self.polls.next() => match answer {
                    Some(Ok(messages)) => {
                        if let Some(sent) = brought.wave_sent {
                            self.pace.learn(sent.elapsed());
                        }
                        brought.messages.extend(messages);
                    }
                    Some(Err(error)) => brought.failure = Some(error),
                    None => return,
                },
                () = self.room.runs_short(), if !brought.messages.is_empty() => return,
                // What is held may be what leaves a poll no room.
                () = sleep(DOUBT_POLL), if self.carried.is_some() => return,
            }
        }
    }

    /// The same, but no longer than a moment after the signal to stop.
    async fn gather_until(&mut self, shutdown: &Shutdown, brought: &mut Brought) {
        let last_moment = async {
            shutdown.started().await;
            sleep(LAST_ANSWER).await;
        };
        tokio::select! {
            biased;
            () = self.gather(brought) => {}
            () = last_moment => {}
        }
    }
}

/// What polls brought: messages, and the error of the last one that failed.
#[derive(Default)]
struct Brought {
    messages: Vec<Message>,
    failure: Option<QueueError>,
    /// When the polls were sent, if they are a wave: what it takes them is the way, not a wait for messages.
    wave_sent: Option<Instant>,
}

impl Brought {
    fn is_throttled(&self) -> bool {
        matches!(self.failure, Some(QueueError::Unavailable { cause: Cause::Throttled | Cause::Crowded, .. }))
    }
}

/// From which delivery on a message is suspect on a queue whose redrive policy has this `maxReceiveCount`: three more
/// deliveries must be left, the last of which makes a dead letter of it.
pub fn suspect_from(max_receive_count: Option<u32>) -> u32 {
    max_receive_count.map_or(SUSPECT_FROM, |most| most.saturating_sub(3).clamp(2, SUSPECT_FROM))
}

/// The next batch, or `None` when it is time to stop. Waits out every trouble of the queue, and does not receive while
/// there is trouble elsewhere that would keep it from being settled.
pub async fn receive<Q: Queue>(queue: &Q, intake: &mut Intake, surroundings: Surroundings<'_>) -> Option<Taken> {
    let Surroundings { metrics, status, shutdown } = surroundings;
    status.may_receive(shutdown).await;
    let first = first_answer(queue, intake, status, shutdown).await?;
    let carried = intake.carried.take();
    let mut taken =
        carried.unwrap_or_else(|| Taken { messages: Vec::new(), lease: Lease::new(queue, intake.visibility, metrics) });
    let before = taken.messages.len();
    let mut full = first.len() >= POLL;
    taken.add(first);

    while full && !shutdown.has_started() {
        let polls = intake.wave(taken.messages.len());
        if polls == 0 {
            break;
        }
        intake.ask(queue, polls, Duration::ZERO);
        // A poll that failed brought nothing; the next long poll meets the same trouble and waits it out.
        let mut brought = Brought { wave_sent: Some(Instant::now()), ..Brought::default() };
        intake.gather_until(shutdown, &mut brought).await;
        intake.learn(polls, &brought);
        full = brought.messages.len() * 2 > polls * POLL && !brought.is_throttled();
        taken.add(brought.messages);
    }
    let received = (taken.messages.len() - before) as u64;
    metrics.received.inc_by(received);
    intake.in_hand += received;
    Some(taken)
}

/// Polls until something comes, or for a while where something is held already. `None`: the signal to stop came first,
/// or the queue is drained.
async fn first_answer<Q: Queue>(
    queue: &Q,
    intake: &mut Intake,
    status: &Status,
    shutdown: &Shutdown,
) -> Option<Vec<Message>> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(20));
    let mut empty_in_a_row = 0;
    // Polls that had to wait for room are awaited even if it is time to stop: they may have messages on their way.
    while !shutdown.has_started() || !intake.polls.is_empty() {
        if intake.polls.is_empty() {
            intake.ask(queue, 1, patience(intake));
        }
        let mut brought = Brought::default();
        intake.gather_until(shutdown, &mut brought).await;
        intake.learn(1, &brought);
        if let (Some(error), true) = (&brought.failure, brought.messages.is_empty()) {
            status.set(Trouble::Queue, error);
            shutdown.sleep(backoff.next(fastrand::f64())).await;
            continue;
        }
        status.clear(Trouble::Queue);
        if !brought.messages.is_empty() {
            intake.doubts = 0;
            return Some(brought.messages);
        }
        if shutdown.has_started() {
            break;
        }
        if intake.carried.is_some() {
            intake.doubts += 1;
            let is_left = intake.drain && intake.doubts > DOUBTS && holds_nothing_else(queue).await;
            return if is_left { None } else { Some(Vec::new()) };
        }
        empty_in_a_row += 1;
        if intake.drain && is_drained(queue, empty_in_a_row).await {
            break;
        }
    }
    None
}

/// How long the next long poll may wait.
fn patience(intake: &Intake) -> Duration {
    match (&intake.carried, intake.drain) {
        (Some(_), _) => DOUBT_POLL,
        (None, true) => DRAIN_POLL,
        (None, false) => LONG_POLL,
    }
}

/// Whether the queue says that nothing will come that could vouch for a table.
async fn holds_nothing_else<Q: Queue>(queue: &Q) -> bool {
    queue.depth().await.is_ok_and(|depth| depth.visible == 0 && depth.delayed == 0)
}

/// Whether the queue says that it holds nothing, not even in other workers' hands. Its figures lag, so two empty
/// answers in a row are asked for too. A queue that cannot say is not drained.
async fn is_drained<Q: Queue>(queue: &Q, empty_in_a_row: u32) -> bool {
    empty_in_a_row >= 2 && queue.depth().await.is_ok_and(Depth::is_empty)
}
