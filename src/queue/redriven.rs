//! A dead-letter queue as a source: its messages go under the keys by which they are known already, if they are.
//!
//! So the ordinary pipeline finds that they have their outcome, and deletes them as the duplicates that they are. What
//! is not known goes through like any other message.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{Cause, Depth, Message, Queue, QueueError, Receipt, room::Room};
use crate::sink::lookup::Lookup;

/// Messages that are looked up at a time. More wait longer for each other while their visibility runs; fewer cost a
/// scan of the ledger more often.
const GATHERED: usize = 1_000;

/// Polls at the same time.
const WAVE: usize = 16;

/// Messages in one answer, at most.
const POLL: usize = 10;

/// A dead-letter queue, and where its messages are looked up.
#[derive(Clone)]
pub struct Redriven<Q> {
    queue: Q,
    lookup: Arc<Lookup>,
}

impl<Q: Queue> Redriven<Q> {
    /// Of this queue.
    pub fn new(queue: Q, lookup: Lookup) -> Self {
        Self { queue, lookup: Arc::new(lookup) }
    }

    /// What the queue gives at once, beginning with one poll that waits.
    async fn gather(&self, wait: Duration, visibility: Duration, room: &Room) -> Result<Vec<Message>, QueueError> {
        let mut messages = self.queue.receive(wait, visibility, room).await?;
        let mut is_full = messages.len() >= POLL;
        while is_full && messages.len() < GATHERED {
            let largest = messages.iter().map(Message::body_len).max().unwrap_or(0).max(1024);
            let fitting = usize::try_from(room.free() / (largest * POLL as u64)).unwrap_or(WAVE);
            let polls = WAVE.min(fitting);
            let brought = self.wave(polls, visibility, room).await;
            is_full = polls > 0 && brought.len() * 2 > polls * POLL;
            messages.extend(brought);
        }
        Ok(messages)
    }

    /// What so many polls bring. Whoever holds messages must not wait for room that only they can give back: polls that
    /// wait for it, since bodies are larger than those before, are given up, and their messages come again.
    async fn wave(&self, polls: usize, visibility: Duration, room: &Room) -> Vec<Message> {
        let mut polls: FuturesUnordered<_> =
            (0..polls).map(|_| self.queue.receive(Duration::ZERO, visibility, room)).collect();
        let mut brought = Vec::new();
        loop {
            tokio::select! {
                biased;
                answer = polls.next() => match answer {
                    Some(Ok(messages)) => brought.extend(messages),
                    // A poll that failed brought nothing; the next one that waits meets the same trouble.
                    Some(Err(_)) => {}
                    None => return brought,
                },
                () = room.runs_short() => return brought,
            }
        }
    }
}

impl<Q: Queue> Queue for Redriven<Q> {
    /// Brings more than ten messages, and nothing to a poll that does not wait: each answer costs a look into the ledger.
    async fn receive(&self, wait: Duration, visibility: Duration, room: &Room) -> Result<Vec<Message>, QueueError> {
        if wait.is_zero() {
            return Ok(Vec::new());
        }
        let mut messages = self.gather(wait, visibility, room).await?;
        let keys: Vec<_> = messages.iter().map(|message| message.key).collect();
        let known = self.lookup.other_keys(&keys).await.map_err(|error| QueueError::Unavailable {
            action: "ReceiveMessage",
            reason: format!("{error}; the messages come again when their visibility ends"),
            cause: Cause::Fault,
        })?;
        for message in &mut messages {
            message.key = known.get(&message.key.id).copied().unwrap_or(message.key);
        }
        Ok(messages)
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Result<Vec<usize>, QueueError> {
        self.queue.extend(receipts, visibility).await
    }

    async fn delete(&self, receipts: &[Receipt]) -> Result<Vec<usize>, QueueError> {
        self.queue.delete(receipts).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.queue.depth().await
    }
}
