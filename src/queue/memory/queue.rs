//! One queue: the backlog behind a lock, the clock beside it, and those who wait for messages.
//!
//! The lock is never held across an await. A poll takes its messages in the same step in which it returns them, so a
//! poll that is dropped while it waits has taken nothing.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    MemoryQueues, Redrive, Settings,
    backlog::{Backlog, Delivery, Entry, Outgoing, Taken, Taking},
    clock::{Clock, millis},
    event::{Event, Lapse, Removal, Watch},
    fifo, is_fifo,
    receipt::{Handle, ReceiptError, Receipts},
};
use crate::queue::{Cause, Depth, Key, Message, Place, Queue, QueueError, Receipt, room::Room};

/// How many messages one receive brings at most, as on Amazon SQS.
const BATCH: usize = 10;

/// What all handles of one queue share.
pub(super) struct Shared {
    name: String,
    receipts: Receipts,
    clock: Clock,
    created_at: i64,
    modified_at: AtomicI64,
    deleted: AtomicBool,
    settings: Mutex<Settings>,
    backlog: Mutex<Backlog>,
    /// Told when there is something to take, or something to take earlier than was known.
    changed: Notify,
}

impl Shared {
    pub(super) fn new(name: &str, settings: Settings, clock: Clock) -> Arc<Self> {
        let now = clock.now();
        Arc::new(Self {
            name: name.to_owned(),
            receipts: Receipts::new(),
            clock,
            created_at: now,
            modified_at: AtomicI64::new(now),
            deleted: AtomicBool::new(false),
            settings: Mutex::new(settings),
            backlog: Mutex::default(),
            changed: Notify::new(),
        })
    }

    pub(super) fn settings(&self) -> Settings {
        self.lock_settings().clone()
    }

    /// Ends the queue: empties it and sends those home who wait.
    pub(super) fn close(&self) {
        self.deleted.store(true, Ordering::SeqCst);
        self.change(|backlog, _now| backlog.clear());
        self.changed.notify_waiters();
    }

    fn lock_settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The only way to the backlog: lets time pass, does `step`, and wakes who has something to gain from it. One
    /// waiter for what is ready, and whoever leaves something behind wakes the next; all of them when the earliest
    /// deadline moved forward, since each sleeps until the one it knows.
    fn change<T>(&self, step: impl FnOnce(&mut Backlog, i64) -> T) -> T {
        let retention = millis(self.lock_settings().retention);
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        backlog.advance(now, now - retention);
        let known_due = backlog.next_due().unwrap_or(i64::MAX);
        let result = step(&mut backlog, now);
        let due_earlier = backlog.next_due().is_some_and(|due| due < known_due);
        let has_some = backlog.has_some();
        drop(backlog);
        if due_earlier {
            self.changed.notify_waiters();
        }
        if has_some {
            self.changed.notify_one();
        }
        result
    }
}

/// A message that a queue has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The message; on a FIFO queue perhaps one that was sent before with the same deduplication id.
    pub key: Key,
    /// Its sequence number, on a FIFO queue.
    pub sequence: Option<u64>,
}

/// A queue in memory. A handle: all clones are the same queue, and each may have its own [`Watch`].
#[derive(Clone)]
pub struct MemoryQueue {
    account: MemoryQueues,
    shared: Arc<Shared>,
    watch: Option<Watch>,
}

impl MemoryQueue {
    pub(super) fn new(account: MemoryQueues, shared: Arc<Shared>) -> Self {
        Self { account, shared, watch: None }
    }

    /// A handle by which all that is done to messages is told, as it happens; or one that tells nobody.
    pub fn watched(self, watch: Option<Watch>) -> Self {
        Self { watch, ..self }
    }

    fn tell(&self, event: &Event<'_>) {
        if let Some(watch) = &self.watch {
            watch(event);
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Whether it is a FIFO queue.
    pub fn is_fifo(&self) -> bool {
        is_fifo(self.name())
    }

    /// What is set on it.
    pub fn settings(&self) -> Settings {
        self.shared.settings()
    }

    /// Sets it anew. It holds for what is sent and received from now on, a shorter retention for all that is there.
    pub fn set(&self, settings: Settings) {
        *self.shared.lock_settings() = settings;
        self.shared.modified_at.store(self.shared.clock.now(), Ordering::Relaxed);
    }

    /// When it was made and when it was last set, in milliseconds since 1970-01-01 UTC.
    pub fn timestamps(&self) -> (i64, i64) {
        (self.shared.created_at, self.shared.modified_at.load(Ordering::Relaxed))
    }

    /// Whether [`MemoryQueues::delete`] has ended it.
    pub fn is_deleted(&self) -> bool {
        self.shared.deleted.load(Ordering::SeqCst)
    }

    /// Sends a message.
    pub fn send(&self, message: impl Into<Outgoing>) -> Key {
        self.accept(message).key
    }

    /// The same, and says what a sender hears of it.
    pub fn accept(&self, message: impl Into<Outgoing>) -> Accepted {
        let mut message = message.into();
        let Settings { delay, content_based_deduplication, .. } = self.settings();
        let delay = millis(message.delay.unwrap_or(delay));
        let group = self.is_fifo().then(|| message.group.take().unwrap_or_default());
        let deduplication_id = match message.deduplication_id.take() {
            None if content_based_deduplication => Some(fifo::content_id(&message.body)),
            given => given,
        };
        self.shared.change(|backlog, now| {
            let known = deduplication_id.as_deref().filter(|_| group.is_some());
            if let Some((key, sequence)) = known.and_then(|id| backlog.recent(id, now)) {
                return Accepted { key, sequence: Some(sequence) };
            }
            let mut entry = Entry::new(message, now + delay);
            if let Some(group) = group {
                entry = entry.in_group(group, deduplication_id);
            }
            let key = Key { sent_at: now, id: entry.id() };
            self.tell(&Event::Sent { key });
            Accepted { key, sequence: backlog.put(now, now, entry) }
        })
    }

    /// Receives up to `max` messages, oldest first, and hides them for `visibility`. Waits up to `wait` for the first
    /// one, without polling; wakes on a send and when a hidden message is due.
    ///
    /// Dropping the future strands nothing: nothing is taken before the last step.
    pub async fn take(&self, max: usize, wait: Duration, visibility: Duration) -> Vec<Delivery> {
        let end = Instant::now() + wait;
        loop {
            // Made before the look, so that what happens between the look and the sleep is not missed.
            let changed = self.shared.changed.notified();
            let (deliveries, due) = self.take_ready(max, visibility);
            if !deliveries.is_empty() || self.is_deleted() || Instant::now() >= end {
                return deliveries;
            }
            let wake = due.map_or(end, |due| end.min(self.shared.clock.instant(due)));
            tokio::select! {
                biased; // so that a test with a seed takes the same way each time
                () = changed => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Takes what is ready, moves what was received too often, and says when more is due.
    fn take_ready(&self, max: usize, visibility: Duration) -> (Vec<Delivery>, Option<i64>) {
        let redrive = self.redrive();
        let (Taken { deliveries, dead }, due) = self.shared.change(|backlog, now| {
            let taking = Taking {
                max,
                now,
                hidden_until: now + millis(visibility),
                max_receive_count: redrive.as_ref().map(|(_, most)| *most),
            };
            let taken = backlog.take(&taking, |handle| self.shared.receipts.issue(handle));
            self.tell_taken(&taken, redrive.as_ref().map_or("", |(target, _)| target.name()));
            (taken, backlog.next_due())
        });
        if let Some((target, _)) = redrive.filter(|_| !dead.is_empty()) {
            // Two locks, one after the other: two queues that redrive into each other cannot block each other.
            target.shared.change(|backlog, now| {
                for (sent_at, entry) in dead {
                    // A standard queue's message stays as old as it is; on a FIFO queue its life begins again.
                    let sent_at = if target.is_fifo() { now } else { sent_at };
                    backlog.put(sent_at, now, entry.moved_from(self.name()));
                }
            });
        }
        (deliveries, due)
    }

    fn tell_taken(&self, taken: &Taken, dead_letter_queue: &str) {
        for (sent_at, entry) in &taken.dead {
            self.tell(&Event::Dead { key: Key { sent_at: *sent_at, id: entry.id() }, to: dead_letter_queue });
        }
        for Delivery { id, sent_at, count, receipt, .. } in &taken.deliveries {
            self.tell(&Event::Received { key: Key { sent_at: *sent_at, id: *id }, count: *count, receipt });
        }
    }

    /// The dead-letter queue, if it exists, and the receive count that is still allowed.
    fn redrive(&self) -> Option<(MemoryQueue, u32)> {
        let Redrive { target, max_receive_count } = self.shared.lock_settings().redrive.clone()?;
        let target = self.account.get(&target).filter(|target| target.is_fifo() == self.is_fifo())?;
        Some((target, max_receive_count))
    }

    /// Hides a message for `visibility` from now, or gives it back at once with zero. Only the handle of its newest
    /// delivery does that.
    pub fn hide(&self, receipt: &str, visibility: Duration) -> Result<(), ReceiptError> {
        let Handle { place, count, id } = self.shared.receipts.read(receipt)?;
        self.shared.change(|backlog, now| {
            backlog.hide(place, count, now + millis(visibility))?;
            self.tell(&Event::Hidden { id, visibility });
            backlog.advance(now, i64::MIN);
            Ok(())
        })
    }

    /// Deletes a message. The handle of an older delivery succeeds and deletes nothing, and so does deleting twice:
    /// Amazon SQS answers both with success, and for an old handle does not promise more.
    pub fn remove(&self, receipt: &str) -> Result<Removal, ReceiptError> {
        self.remove_with(receipt, || None)
    }

    /// The same, perhaps with a lapse. `lapse` is asked only if the message would be deleted, and with the queue locked: it
    /// must not ask that queue anything. Answers what the deletion would have been without.
    pub fn remove_with(&self, receipt: &str, lapse: impl FnOnce() -> Option<Lapse>) -> Result<Removal, ReceiptError> {
        let Handle { place, count, id } = self.shared.receipts.read(receipt)?;
        Ok(self.shared.change(|backlog, now| {
            let removal = backlog.removal(place, count);
            if removal != Removal::Deleted {
                self.tell(&Event::Deleted { id, count, removal });
                return removal;
            }
            match lapse() {
                None => {
                    self.tell(&Event::Deleted { id, count, removal });
                    backlog.delete(place, None);
                }
                Some(Lapse::Ignored) => self.tell(&Event::Deleted { id, count, removal: Removal::Stale }),
                Some(Lapse::Ghost(absence)) => {
                    self.tell(&Event::Deleted { id, count, removal });
                    self.tell(&Event::Haunts { id });
                    backlog.delete(place, Some(now + millis(absence)));
                }
            }
            removal
        }))
    }

    /// Deletes all messages, those in flight included.
    pub fn purge(&self) {
        self.shared.change(|backlog, _now| backlog.clear());
    }

    /// How much it holds, exactly; a message on its way to a dead-letter queue is for an instant in neither.
    pub fn count(&self) -> Depth {
        self.shared.change(|backlog, _now| backlog.depth())
    }

    /// Whether as many messages are in flight as may be, so that a receive finds nothing however much is ready.
    pub fn is_full(&self) -> bool {
        self.shared.change(|backlog, _now| backlog.is_full())
    }

    /// How many handles there are: what tells a test that a poll has begun or ended.
    #[cfg(test)]
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.shared)
    }

    fn check(&self, action: &'static str) -> Result<(), QueueError> {
        if self.is_deleted() {
            let reason = format!("the queue {} has been deleted", self.name());
            return Err(QueueError::Unavailable { action, reason, cause: Cause::Missing });
        }
        Ok(())
    }
}

impl Queue for MemoryQueue {
    async fn receive(&self, wait: Duration, visibility: Duration, room: &Room) -> Result<Vec<Message>, QueueError> {
        let deliveries = self.take(BATCH, wait, visibility).await;
        self.check("ReceiveMessage")?;
        let mut share = room.take(deliveries.iter().map(|delivery| delivery.body.len() as u64).sum()).await;
        let mut messages: Vec<Message> = deliveries.into_iter().map(Message::from).collect();
        for message in &mut messages {
            message.share = Some(share.split(message.body_len()));
        }
        Ok(messages)
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Result<Vec<usize>, QueueError> {
        self.check("ChangeMessageVisibility")?;
        Ok(failures(receipts, |receipt| self.hide(receipt, visibility)))
    }

    async fn delete(&self, receipts: &[Receipt]) -> Result<Vec<usize>, QueueError> {
        self.check("DeleteMessage")?;
        Ok(failures(receipts, |receipt| self.remove(receipt).map(drop)))
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.check("GetQueueAttributes")?;
        Ok(self.count())
    }
}

impl From<Delivery> for Message {
    fn from(delivery: Delivery) -> Self {
        let key = Key { sent_at: delivery.sent_at, id: delivery.id };
        let place = delivery.order.map(|order| Place::new(&order.group, order.sequence.into()));
        Self { place, ..Self::new(key, delivery.count, delivery.body.to_vec(), Receipt(delivery.receipt.into())) }
    }
}

/// The positions for which `step` failed.
fn failures(receipts: &[Receipt], step: impl Fn(&str) -> Result<(), ReceiptError>) -> Vec<usize> {
    let outcomes = receipts.iter().map(|Receipt(handle)| step(handle)).enumerate();
    outcomes.filter(|(_, outcome)| outcome.is_err()).map(|(position, _)| position).collect()
}
