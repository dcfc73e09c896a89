//! Keeps a batch hidden from other workers for as long as one holds it.
//!
//! A lease is a courtesy, not a lock: it spares others work that would turn out to be done already. Nothing depends on
//! it, so an extension that fails is counted and otherwise ignored.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    metrics::Metrics,
    queue::{Message, Queue, Receipt},
};

/// Extends the visibility of what it holds at half-life, until it is dropped.
pub struct Lease {
    held: Arc<Mutex<Vec<Held>>>,
    visibility: Duration,
    keeper: JoinHandle<()>,
}

/// What one poll brought, and when its visibility is to be extended.
struct Held {
    receipts: Vec<Receipt>,
    due: Instant,
}

impl Lease {
    /// A lease on nothing yet, for messages hidden for `visibility` at a time.
    pub fn new<Q: Queue>(queue: &Q, visibility: Duration, metrics: &Arc<Metrics>) -> Self {
        let held = Arc::new(Mutex::new(Vec::new()));
        let keeper = tokio::spawn(keep(queue.clone(), Arc::clone(&held), visibility, Arc::clone(metrics)));
        Self { held, visibility, keeper }
    }

    /// Takes on what a poll just brought.
    pub fn hold(&self, messages: &[Message]) {
        self.hold_until(messages, Instant::now() + self.visibility / 2);
    }

    /// Takes on what another lease has held, for who knows how long: it is extended soon.
    pub fn take_over(&self, messages: &[Message]) {
        self.hold_until(messages, Instant::now());
    }

    fn hold_until(&self, messages: &[Message], due: Instant) {
        let receipts = messages.iter().map(|message| message.receipt.clone()).collect();
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(Held { receipts, due });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep<Q: Queue>(queue: Q, held: Arc<Mutex<Vec<Held>>>, visibility: Duration, metrics: Arc<Metrics>) {
    let half_life = visibility / 2;
    loop {
        // What is taken on later is due later, so nothing is missed while this sleeps.
        let next = held.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|held| held.due).min();
        sleep_until(next.unwrap_or_else(|| Instant::now() + half_life)).await;

        let now = Instant::now();
        let due: Vec<Receipt> = {
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            let due = held.iter_mut().filter(|held| held.due <= now);
            due.flat_map(|held| {
                held.due = now + half_life;
                held.receipts.clone()
            })
            .collect()
        };
        if due.is_empty() {
            continue;
        }
        match queue.extend(&due, visibility).await {
            Ok(failed) => {
                metrics.extended.inc_by((due.len() - failed.len()) as u64);
                metrics.extend_failures.inc_by(failed.len() as u64);
            }
            Err(error) => {
                metrics.extend_failures.inc_by(due.len() as u64);
                tracing::warn!(%error, messages = due.len(), "could not keep messages hidden; others may receive them");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::queue::{
        memory::{MemoryQueue, MemoryQueues, Settings},
        room::Room,
    };

    const VISIBILITY: Duration = Duration::from_secs(30);

    struct Case {
        queues: MemoryQueues,
        queue: MemoryQueue,
        metrics: Arc<Metrics>,
        lease: Lease,
    }

    fn case() -> Case {
        let queues = MemoryQueues::new();
        let queue = queues.create("q", Settings::default()).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let lease = Lease::new(&queue, VISIBILITY, &metrics);
        Case { queues, queue, metrics, lease }
    }

    impl Case {
        async fn hold(&self, count: usize) {
            for _ in 0..count {
                self.queue.send(b"body".to_vec());
            }
            let messages = self.queue.receive(Duration::ZERO, VISIBILITY, &Room::new(1 << 20)).await.unwrap();
            assert_eq!(messages.len(), count);
            self.lease.hold(&messages);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_stays_hidden_and_is_extended_at_half_life() {
        let (case, start) = (case(), Instant::now());
        case.hold(3).await;
        sleep(Duration::from_secs(10)).await;
        case.hold(2).await;
        // Each poll's messages have their own half-lives: 15 s and 30 s, 25 s and 40 s.
        for (seconds, extended) in [(14, 0), (16, 3), (24, 3), (26, 5), (31, 8), (41, 10)] {
            sleep_until(start + Duration::from_secs(seconds)).await;
            assert_eq!(case.metrics.extended.get(), extended, "after {seconds} s");
        }
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(case.queue.count().visible, 0);
        assert_eq!(case.metrics.extend_failures.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_dropped_extends_nothing_more() {
        let case = case();
        case.hold(3).await;
        sleep(Duration::from_secs(20)).await;
        drop(case.lease);
        sleep(Duration::from_secs(26)).await;
        assert_eq!((case.metrics.extended.get(), case.queue.count().visible), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_extended_is_counted_and_the_rest_goes_on() {
        let case = case();
        case.hold(2).await;
        case.queue.purge();
        case.hold(1).await;
        sleep(Duration::from_secs(16)).await;
        assert_eq!((case.metrics.extended.get(), case.metrics.extend_failures.get()), (1, 2));
        case.queues.delete("q");
        sleep(Duration::from_secs(15)).await;
        assert_eq!((case.metrics.extended.get(), case.metrics.extend_failures.get()), (1, 5));
    }
}
