//! A queue of which every hundredth delete gets lost: the message comes again although it is settled, as after a crash
//! between COMMIT and delete.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::queue::{Depth, Message, Queue, QueueError, Receipt, room::Room};

/// Of so many deletes one is lost.
const EVERY: u64 = 100;

/// A queue with a bad line for deletes.
#[derive(Clone)]
pub(super) struct Forgetful<Q> {
    queue: Q,
    deletes: Arc<AtomicU64>,
    forgotten: Arc<AtomicU64>,
}

impl<Q> Forgetful<Q> {
    pub(super) fn new(queue: Q) -> Self {
        Self { queue, deletes: Arc::default(), forgotten: Arc::default() }
    }

    /// How many deletes were lost.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    fn is_lost(&self) -> bool {
        let lost = self.deletes.fetch_add(1, Ordering::Relaxed) % EVERY == EVERY - 1;
        self.forgotten.fetch_add(u64::from(lost), Ordering::Relaxed);
        lost
    }
}

impl<Q: Queue> Queue for Forgetful<Q> {
    async fn receive(&self, wait: Duration, visibility: Duration, room: &Room) -> Result<Vec<Message>, QueueError> {
        self.queue.receive(wait, visibility, room).await
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Result<Vec<usize>, QueueError> {
        self.queue.extend(receipts, visibility).await
    }

    async fn delete(&self, receipts: &[Receipt]) -> Result<Vec<usize>, QueueError> {
        let sent: Vec<usize> = (0..receipts.len()).filter(|_| !self.is_lost()).collect();
        let receipts: Vec<Receipt> = sent.iter().map(|&at| receipts[at].clone()).collect();
        let failed = self.queue.delete(&receipts).await?;
        Ok(failed.into_iter().map(|at| sent[at]).collect())
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.queue.depth().await
    }
}
