//! The messages of one queue and when each may be seen: a state machine without clock, lock or task. Times are
//! milliseconds since 1970-01-01 UTC and always come from the caller.
//!
//! Three ordered indexes, each entry in exactly one of `ready` and `hidden`: every step is O(log n), nothing goes stale,
//! and the oldest message is always first, which makes expiry a look at the front.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    event::Removal,
    receipt::{Handle, ReceiptError},
};
use crate::queue::Depth;

/// How many messages may be in flight (AWS, "Amazon SQS standard queue quotas"). Beyond it a poll comes back empty.
const IN_FLIGHT_LIMIT: usize = 120_000;
/// How long after its delivery a message may stay hidden, in milliseconds (AWS, ChangeMessageVisibility).
const LONGEST_HIDDEN: i64 = 12 * 60 * 60 * 1000;

/// Where a message stands: by age, then by arrival. It is the message's key inside its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) sent_at: i64,
    pub(super) arrival: u64,
}

/// A message to send.
pub struct Outgoing {
    /// The body; the queue does not look into it.
    pub body: Arc<[u8]>,
    /// The message attributes, in whatever form the sender's and receiver's doors agree on.
    pub attributes: Option<Arc<[u8]>>,
    /// How long it stays hidden at first; the queue's own delay where there is none.
    pub delay: Option<std::time::Duration>,
}

impl<B: Into<Arc<[u8]>>> From<B> for Outgoing {
    fn from(body: B) -> Self {
        Self { body: body.into(), attributes: None, delay: None }
    }
}

/// One delivery of a message.
pub struct Delivery {
    /// The same in every delivery, also after a move to a dead-letter queue.
    pub id: Uuid,
    /// When it was sent, in milliseconds since 1970-01-01 UTC; survives a move too.
    pub sent_at: i64,
    /// When it was first received, likewise.
    pub first_received_at: i64,
    /// How often it has been received, this time included. A move to a dead-letter queue does not reset it.
    pub count: u32,
    /// The body.
    pub body: Arc<[u8]>,
    /// The message attributes as they were sent.
    pub attributes: Option<Arc<[u8]>>,
    /// This delivery's handle.
    pub receipt: String,
}

/// A message as it is kept.
pub(super) struct Entry {
    id: Uuid,
    body: Arc<[u8]>,
    attributes: Option<Arc<[u8]>>,
    count: u32,
    first_received_at: i64,
    received_at: i64,
    /// When it can be seen again; in the past for one that is ready.
    visible_at: i64,
}

impl Entry {
    pub(super) fn new(message: Outgoing, visible_at: i64) -> Self {
        let Outgoing { body, attributes, delay: _ } = message;
        Self { id: random_id(), body, attributes, count: 0, first_received_at: 0, received_at: 0, visible_at }
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    fn delivery(&self, place: Place, receipt: String) -> Delivery {
        Delivery {
            id: self.id,
            sent_at: place.sent_at,
            first_received_at: self.first_received_at,
            count: self.count,
            body: Arc::clone(&self.body),
            attributes: self.attributes.clone(),
            receipt,
        }
    }
}

/// A UUID of version 4 from the generator that tests seed: ids are no secrets.
fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid()
}

/// What a receive asks for.
pub(super) struct Taking {
    pub(super) max: usize,
    pub(super) now: i64,
    pub(super) hidden_until: i64,
    /// Messages received this often are moved, not delivered.
    pub(super) max_receive_count: Option<u32>,
}

/// What a receive gets: deliveries, and what belongs on the dead-letter queue.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) dead: Vec<(i64, Entry)>,
}

#[derive(Default)]
pub(super) struct Backlog {
    entries: BTreeMap<Place, Entry>,
    ready: BTreeSet<Place>,
    hidden: BTreeSet<(i64, Place)>,
    /// Deleted, and yet to come again.
    ghosts: BTreeMap<(i64, Place), Entry>,
    /// How many of `hidden` were never received.
    delayed: usize,
    arrivals: u64,
}

impl Backlog {
    /// Adds a message; it is ready if its time has come.
    pub(super) fn put(&mut self, sent_at: i64, now: i64, entry: Entry) {
        let place = Place { sent_at, arrival: self.arrivals };
        self.arrivals += 1;
        if entry.visible_at <= now {
            self.ready.insert(place);
        } else {
            self.delayed += usize::from(entry.count == 0);
            self.hidden.insert((entry.visible_at, place));
        }
        self.entries.insert(place, entry);
    }

    /// Takes the oldest ready messages. `issue` makes a delivery's handle.
    pub(super) fn take(&mut self, taking: &Taking, issue: impl Fn(Handle) -> String) -> Taken {
        let mut taken = Taken::default();
        let max = taking.max.min(IN_FLIGHT_LIMIT.saturating_sub(self.hidden.len() - self.delayed));
        while taken.deliveries.len() < max {
            let Some(place) = self.ready.pop_first() else { break };
            let Some(entry) = self.entries.get_mut(&place) else { continue };
            if taking.max_receive_count.is_some_and(|most| entry.count >= most) {
                let dead = self.entries.remove(&place);
                taken.dead.extend(dead.map(|entry| (place.sent_at, entry)));
                continue;
            }
            entry.count += 1;
            entry.received_at = taking.now;
            if entry.count == 1 {
                entry.first_received_at = taking.now;
            }
            entry.visible_at = taking.hidden_until;
            self.hidden.insert((taking.hidden_until, place));
            let handle = Handle { place, count: entry.count, id: entry.id };
            taken.deliveries.push(entry.delivery(place, issue(handle)));
        }
        taken
    }

    /// Makes the newest delivery's message visible at `visible_at`. A message whose time is over but which nobody else
    /// has received yet is hidden again, as on Amazon SQS.
    pub(super) fn hide(&mut self, place: Place, count: u32, visible_at: i64) -> Result<(), ReceiptError> {
        let entry = self.entries.get_mut(&place).filter(|entry| entry.count == count).ok_or(ReceiptError::Gone)?;
        if visible_at > entry.received_at + LONGEST_HIDDEN {
            return Err(ReceiptError::TooLong);
        }
        if !self.ready.remove(&place) {
            self.hidden.remove(&(entry.visible_at, place));
        }
        entry.visible_at = visible_at;
        self.hidden.insert((visible_at, place));
        Ok(())
    }

    /// What deleting by the handle of this delivery does.
    pub(super) fn removal(&self, place: Place, count: u32) -> Removal {
        match self.entries.get(&place) {
            Some(entry) if entry.count == count => Removal::Deleted,
            Some(_) => Removal::Stale,
            None => Removal::Gone,
        }
    }

    /// Deletes the message if this is its newest delivery, hidden or not. With `again_at` it comes again then.
    pub(super) fn delete(&mut self, place: Place, count: u32, again_at: Option<i64>) {
        if self.removal(place, count) == Removal::Deleted
            && let Some(entry) = self.entries.remove(&place)
        {
            self.forget(place, &entry);
            self.ghosts.extend(again_at.map(|at| ((at, place), entry)));
        }
    }

    /// Lets time pass: what was sent before `oldest` is dropped, what is due at `now` becomes ready.
    pub(super) fn advance(&mut self, now: i64, oldest: i64) {
        while let Some(first) = self.ghosts.first_entry().filter(|first| first.key().0 <= now) {
            let ((due, place), entry) = first.remove_entry();
            self.entries.insert(place, Entry { visible_at: due, ..entry });
            self.ready.insert(place);
        }
        while let Some(first) = self.entries.first_entry().filter(|first| first.key().sent_at < oldest) {
            let (place, entry) = first.remove_entry();
            self.forget(place, &entry);
        }
        while let Some(&(due, place)) = self.hidden.first().filter(|(due, _)| *due <= now) {
            self.hidden.remove(&(due, place));
            self.delayed -= usize::from(self.is_new(place));
            self.ready.insert(place);
        }
    }

    /// Deletes everything.
    pub(super) fn clear(&mut self) {
        *self = Self { arrivals: self.arrivals, ..Self::default() };
    }

    /// Whether a receive would find something.
    pub(super) fn has_some(&self) -> bool {
        !self.ready.is_empty() && !self.is_full()
    }

    /// When the next message is due that cannot be seen yet.
    pub(super) fn next_due(&self) -> Option<i64> {
        let hidden = self.hidden.first().map(|(due, _)| *due);
        hidden.into_iter().chain(self.ghosts.keys().next().map(|(due, _)| *due)).min()
    }

    pub(super) fn depth(&self) -> Depth {
        Depth {
            visible: self.ready.len() as u64,
            in_flight: (self.hidden.len() - self.delayed) as u64,
            delayed: self.delayed as u64,
        }
    }

    /// Whether as many messages are in flight as may be.
    pub(super) fn is_full(&self) -> bool {
        self.hidden.len() - self.delayed >= IN_FLIGHT_LIMIT
    }

    fn is_new(&self, place: Place) -> bool {
        self.entries.get(&place).is_some_and(|entry| entry.count == 0)
    }

    /// Takes a removed entry out of the index that holds it.
    fn forget(&mut self, place: Place, entry: &Entry) {
        if !self.ready.remove(&place) {
            self.hidden.remove(&(entry.visible_at, place));
            self.delayed -= usize::from(entry.count == 0);
        }
    }
}
