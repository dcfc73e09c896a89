//! The messages of one queue and when each may be seen: a state machine without clock, lock or task. Times are
//! milliseconds since 1970-01-01 UTC and always come from the caller.
//!
//! Ordered indexes: an entry is in `hidden` or it is visible, and what is visible is in `ready` unless its group keeps it
//! waiting. Every step is O(log n), nothing goes stale, and the oldest message is always first, which makes expiry a look
//! at the front.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    event::Removal,
    fifo::{self, Groups, Ordered, Recent},
    receipt::{Handle, ReceiptError},
};
use crate::queue::{Depth, Key};

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
    /// The MD5 of `body`, if the sender's door has it: the receiver's need not take it for every delivery.
    pub md5: Option<u128>,
    /// The message attributes, in whatever form the sender's and receiver's doors agree on.
    pub attributes: Option<Arc<[u8]>>,
    /// How long it stays hidden at first; the queue's own delay where there is none.
    pub delay: Option<std::time::Duration>,
    /// On a FIFO queue, MessageGroupId; the group without a name where there is none.
    pub group: Option<Arc<str>>,
    /// On a FIFO queue, MessageDeduplicationId; by its content, or else unlike any other, where there is none.
    pub deduplication_id: Option<Arc<str>>,
}

impl<B: Into<Arc<[u8]>>> From<B> for Outgoing {
    fn from(body: B) -> Self {
        Self { body: body.into(), md5: None, attributes: None, delay: None, group: None, deduplication_id: None }
    }
}

/// One delivery of a message.
pub struct Delivery {
    /// The same in every delivery, also after a move to a dead-letter queue.
    pub id: Uuid,
    /// When it was sent, in milliseconds since 1970-01-01 UTC; survives a move too, but not between FIFO queues.
    pub sent_at: i64,
    /// When it was first received, likewise; survives any move.
    pub first_received_at: i64,
    /// How often it has been received, this time included. A move to a dead-letter queue does not reset it.
    pub count: u32,
    /// The body.
    pub body: Arc<[u8]>,
    /// What [`Outgoing::md5`] was.
    pub md5: Option<u128>,
    /// The message attributes as they were sent.
    pub attributes: Option<Arc<[u8]>>,
    /// Its place in its group, on a FIFO queue.
    pub order: Option<Ordered>,
    /// The queue that it was moved from, on a dead-letter queue.
    pub source: Option<Arc<str>>,
    /// This delivery's handle.
    pub receipt: String,
}

/// A message as it is kept.
pub(super) struct Entry {
    id: Uuid,
    body: Arc<[u8]>,
    md5: Option<u128>,
    attributes: Option<Arc<[u8]>>,
    order: Option<Ordered>,
    source: Option<Arc<str>>,
    count: u32,
    first_received_at: i64,
    received_at: i64,
    /// When it can be seen again; in the past for one that is visible.
    visible_at: i64,
}

impl Entry {
    /// A message of a standard queue.
    pub(super) fn new(message: Outgoing, visible_at: i64) -> Self {
        let Outgoing { body, md5, attributes, .. } = message;
        Self {
            id: random_id(),
            body,
            md5,
            attributes,
            order: None,
            source: None,
            count: 0,
            first_received_at: 0,
            received_at: 0,
            visible_at,
        }
    }

    /// Puts it into a group; without a deduplication id it is like no other message.
    pub(super) fn in_group(mut self, group: Arc<str>, deduplication_id: Option<Arc<str>>) -> Self {
        let deduplication_id = deduplication_id.unwrap_or_else(|| self.id.to_string().into());
        self.order = Some(Ordered { group, deduplication_id, sequence: 0 });
        self
    }

    /// The same on its dead-letter queue. A FIFO queue gives it a new deduplication id there: the message's own.
    pub(super) fn moved_from(mut self, source: &str) -> Self {
        self.source = Some(source.into());
        if let Some(order) = &mut self.order {
            order.deduplication_id = self.id.to_string().into();
        }
        self
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    fn group(&self) -> Option<Arc<str>> {
        self.order.as_ref().map(|order| Arc::clone(&order.group))
    }

    fn delivery(&self, place: Place, receipt: String) -> Delivery {
        Delivery {
            id: self.id,
            sent_at: place.sent_at,
            first_received_at: self.first_received_at,
            count: self.count,
            body: Arc::clone(&self.body),
            md5: self.md5,
            attributes: self.attributes.clone(),
            order: self.order.clone(),
            source: self.source.clone(),
            receipt,
        }
    }
}

/// A UUID of version 4 from the generator that tests seed: ids are no secrets.
pub(crate) fn random_id() -> Uuid {
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
    /// What a receive may begin with: all that is visible, of a group the first if none of it is in flight.
    ready: BTreeSet<Place>,
    hidden: BTreeSet<(i64, Place)>,
    /// Deleted, and yet to come again.
    ghosts: BTreeMap<(i64, Place), Entry>,
    groups: Groups,
    recent: Recent,
    /// How many of `hidden` were never received.
    delayed: usize,
    arrivals: u64,
}

impl Backlog {
    /// Adds a message; it is visible if its time has come. Answers its sequence number, if it is in a group.
    pub(super) fn put(&mut self, sent_at: i64, now: i64, mut entry: Entry) -> Option<u64> {
        let place = Place { sent_at, arrival: self.arrivals };
        self.arrivals += 1;
        let sequence = entry.order.as_mut().map(|order| {
            order.sequence = fifo::sequence(place.arrival);
            let key = Key { sent_at, id: entry.id };
            self.recent.keep(Arc::clone(&order.deduplication_id), key, order.sequence);
            order.sequence
        });
        self.insert(place, now, entry);
        sequence
    }

    /// The message that was sent with this deduplication id within the last five minutes, with its sequence number.
    pub(super) fn recent(&mut self, deduplication_id: &str, now: i64) -> Option<(Key, u64)> {
        self.recent.find(deduplication_id, now)
    }

    /// Takes the oldest ready messages, and with each what may follow it in its group. `issue` makes a delivery's handle.
    pub(super) fn take(&mut self, taking: &Taking, issue: impl Fn(Handle) -> String) -> Taken {
        let mut taken = Taken::default();
        let max = taking.max.min(IN_FLIGHT_LIMIT.saturating_sub(self.hidden.len() - self.delayed));
        let mut next = None;
        while taken.deliveries.len() < max {
            let Some(place) = next.take().or_else(|| self.ready.pop_first()) else { break };
            let Some(entry) = self.entries.get_mut(&place) else { continue };
            let group = entry.group();
            if taking.max_receive_count.is_some_and(|most| entry.count >= most) {
                let dead = self.remove(place);
                taken.dead.extend(dead.map(|entry| (place.sent_at, entry)));
            } else {
                let visible_at = std::mem::replace(&mut entry.visible_at, taking.hidden_until);
                debug_assert!(visible_at <= taking.now, "what is ready is visible");
                entry.count += 1;
                entry.received_at = taking.now;
                if entry.count == 1 {
                    entry.first_received_at = taking.now;
                }
                let handle = Handle { place, count: entry.count, id: entry.id };
                taken.deliveries.push(entry.delivery(place, issue(handle)));
                self.put_away(place, taking.hidden_until, false, group.as_deref());
            }
            // Of a group that nothing is in flight of, the next one is ready by itself.
            next = group.and_then(|group| self.follower(&group, place)).filter(|next| !self.ready.contains(next));
        }
        taken
    }

    /// Makes the newest delivery's message visible at `visible_at`. A message whose time is over but which nobody else
    /// has received yet is hidden again, as on Amazon SQS.
    pub(super) fn hide(&mut self, place: Place, count: u32, visible_at: i64) -> Result<(), ReceiptError> {
        let entry = self.entries.get(&place).filter(|entry| entry.count == count).ok_or(ReceiptError::Gone)?;
        if visible_at > entry.received_at + LONGEST_HIDDEN {
            return Err(ReceiptError::TooLong);
        }
        self.reveal(place);
        self.conceal(place, visible_at);
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

    /// Deletes a message, hidden or not. With `again_at` it comes again then.
    pub(super) fn delete(&mut self, place: Place, again_at: Option<i64>) {
        let entry = self.remove(place);
        self.ghosts.extend(again_at.zip(entry).map(|(at, entry)| ((at, place), entry)));
    }

    /// Lets time pass: what was sent before `oldest` is dropped, what is due at `now` becomes visible.
    pub(super) fn advance(&mut self, now: i64, oldest: i64) {
        while let Some(first) = self.ghosts.first_entry().filter(|first| first.key().0 <= now) {
            let ((due, place), entry) = first.remove_entry();
            self.insert(place, now, Entry { visible_at: due, ..entry });
        }
        while let Some(place) = self.entries.keys().next().copied().filter(|place| place.sent_at < oldest) {
            self.remove(place);
        }
        while let Some(&(_, place)) = self.hidden.first().filter(|(due, _)| *due <= now) {
            self.reveal(place);
        }
    }

    /// Deletes everything. What was sent within the last five minutes is still known.
    pub(super) fn clear(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        *self = Self { arrivals: self.arrivals, recent, ..Self::default() };
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
            visible: (self.entries.len() - self.hidden.len()) as u64,
            in_flight: (self.hidden.len() - self.delayed) as u64,
            delayed: self.delayed as u64,
        }
    }

    /// Whether as many messages are in flight as may be.
    pub(super) fn is_full(&self) -> bool {
        self.hidden.len() - self.delayed >= IN_FLIGHT_LIMIT
    }

    fn insert(&mut self, place: Place, now: i64, entry: Entry) {
        let visible_at = entry.visible_at;
        if let Some(group) = entry.group() {
            self.groups.add(&group, place);
        }
        self.entries.insert(place, entry);
        if visible_at <= now {
            self.offer(place);
        } else {
            self.conceal(place, visible_at);
        }
    }

    fn remove(&mut self, place: Place) -> Option<Entry> {
        let entry = self.entries.remove(&place)?;
        let (is_new, was_hidden) = (entry.count == 0, self.hidden.remove(&(entry.visible_at, place)));
        if was_hidden {
            self.delayed -= usize::from(is_new);
        } else {
            self.ready.remove(&place);
        }
        if let Some(group) = entry.group() {
            self.groups.count_in_flight(&group, -i64::from(was_hidden && !is_new));
            self.groups.remove(&group, place);
            self.offer_first(&group);
        }
        Some(entry)
    }

    /// Hides what is visible.
    fn conceal(&mut self, place: Place, visible_at: i64) {
        let Some(entry) = self.entries.get_mut(&place) else { return };
        entry.visible_at = visible_at;
        let (is_new, group) = (entry.count == 0, entry.group());
        self.ready.remove(&place);
        self.put_away(place, visible_at, is_new, group.as_deref());
    }

    /// Notes that an entry, already out of `ready`, is hidden. `is_new`: it was never received.
    fn put_away(&mut self, place: Place, visible_at: i64, is_new: bool, group: Option<&str>) {
        self.hidden.insert((visible_at, place));
        self.delayed += usize::from(is_new);
        if let Some(group) = group {
            self.groups.count_in_flight(group, i64::from(!is_new));
            self.offer_first(group);
        }
    }

    /// Shows what is hidden, if it is.
    fn reveal(&mut self, place: Place) {
        let Some(entry) = self.entries.get(&place) else { return };
        let (is_new, group) = (entry.count == 0, entry.group());
        if self.hidden.remove(&(entry.visible_at, place)) {
            self.delayed -= usize::from(is_new);
            if let Some(group) = group {
                self.groups.count_in_flight(&group, -i64::from(!is_new));
            }
            self.offer(place);
        }
    }

    /// Lets a receive find what is visible now, unless its group keeps it waiting.
    fn offer(&mut self, place: Place) {
        match self.entries.get(&place).and_then(Entry::group) {
            Some(group) => self.offer_first(&group),
            None => drop(self.ready.insert(place)),
        }
    }

    /// Lets a receive find the first of a group, and no other.
    fn offer_first(&mut self, group: &str) {
        let is_visible = |place: &Place| self.is_visible(*place);
        let first = self.groups.first(group).filter(is_visible);
        if let Some(before) = self.groups.offer(group, first) {
            self.ready.remove(&before);
        }
        self.ready.extend(first);
    }

    /// What may be delivered together with this message of a group: the next one, if it is visible.
    fn follower(&self, group: &str, place: Place) -> Option<Place> {
        self.groups.behind(group, place).filter(|place| self.is_visible(*place))
    }

    fn is_visible(&self, place: Place) -> bool {
        self.entries.get(&place).is_some_and(|entry| !self.hidden.contains(&(entry.visible_at, place)))
    }
}
