//! The left edge: where messages come from.
//!
//! [`Queue`] is the contract between the pipeline and a queue with Amazon SQS's promises: at least once, no order,
//! a message is hidden while it is being worked on. [`sqs`] is Amazon SQS, [`memory`] a real queue in memory that the
//! local server, the demo and the tests run on, [`lease`] keeps a batch hidden while a worker holds it,
//! [`room`] keeps what is held in memory within a bound, [`pace`] the requests at the same time to what the network asks
//! for, [`redriven`] reads a dead-letter queue.

pub mod lease;
pub mod memory;
pub mod pace;
pub mod redriven;
pub mod room;
pub mod sqs;

use std::{future::Future, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

use self::room::{Room, Share};
use crate::pii::Pii;

/// The last millisecond of the year 9999, counted from 1970-01-01 UTC: later no day has eight digits, by which the
/// ledger's partitions are named.
const LAST_MS: i64 = 253_402_300_799_999;

/// What a message is known by: SQS's SentTimestamp and MessageId, both the same in every delivery of it.
///
/// The order (time first) is the order in which batches are written, so that two workers take the same locks in the
/// same sequence and the ledger's index grows at its right edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// SentTimestamp: milliseconds since 1970-01-01 UTC. 0 where the server did not say or said nonsense, which is
    /// older than any ledger and so ends as a dead letter.
    pub sent_at: i64,
    /// MessageId.
    pub id: Uuid,
}

impl Key {
    /// The key of a message. An id that is no UUID (some stand-ins for SQS) is hashed to one, with the queue's name in
    /// the hash: the first 128 bits of SHA-256(queue name, 0, id).
    pub fn new(queue_name: &str, message_id: &str, sent_at: i64) -> Self {
        let id = Uuid::parse_str(message_id).unwrap_or_else(|_| {
            let digest = Sha256::new().chain_update(queue_name).chain_update([0]).chain_update(message_id).finalize();
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&digest[..16]);
            Uuid::from_bytes(bytes)
        });
        Self { sent_at: if (0..=LAST_MS).contains(&sent_at) { sent_at } else { 0 }, id }
    }
}

/// What takes a message off the queue or keeps it hidden. Every delivery of a message has its own. Both whoever works on
/// the message and whoever keeps it hidden hold one, so cloning it is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receipt(pub Arc<str>);

/// A message's place on a FIFO queue: rows of one group are written in the order of their sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The group: the first 128 bits of SHA-256(MessageGroupId), since a group may be named after a person.
    pub group: u128,
    /// SequenceNumber: grows within a group.
    pub sequence: u128,
}

impl Place {
    /// The place of a message whose queue says these of it.
    pub fn new(group_id: &str, sequence: u128) -> Self {
        let digest = Sha256::digest(group_id);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self { group: u128::from_be_bytes(bytes), sequence }
    }
}

/// One delivery of a message.
pub struct Message {
    /// The same in every delivery.
    pub key: Key,
    /// How often it has been delivered, this time included (ApproximateReceiveCount); 1 where the server did not say.
    pub attempt: u32,
    /// The body as it came: bytes, since a stand-in may deliver what is no UTF-8.
    pub body: Pii<Vec<u8>>,
    /// This delivery's handle.
    pub receipt: Receipt,
    /// Its place, on a FIFO queue.
    pub place: Option<Place>,
    /// The producer's own id of the event, where the configuration looks for it in a message attribute and there is one.
    pub event_id: Option<Pii<String>>,
    /// The memory that it takes, given back when it is dropped.
    pub share: Option<Share>,
}

impl Message {
    /// A message of a standard queue, without attributes.
    pub fn new(key: Key, attempt: u32, body: Vec<u8>, receipt: Receipt) -> Self {
        Self { key, attempt, body: Pii::new(body), receipt, place: None, event_id: None, share: None }
    }

    /// The order in which messages are written: on a FIFO queue its own, else by key. Of two deliveries of a message the
    /// one counted last is the newer.
    pub fn order(&self) -> (Option<u128>, Key, u32) {
        (self.place.map(|place| place.sequence), self.key, self.attempt)
    }

    /// The length of the body in bytes.
    pub fn body_len(&self) -> u64 {
        self.body.len() as u64
    }
}

/// How much a queue holds. SQS's own figures are approximate and may lag by a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Ready to be received.
    pub visible: u64,
    /// Delivered, hidden, not deleted.
    pub in_flight: u64,
    /// Not ready yet.
    pub delayed: u64,
}

impl Depth {
    /// Whether nothing at all is left.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Why a queue did not do what it was asked to, by what helps.
#[derive(Debug, Error)]
pub enum QueueError {
    /// Wait and ask again: the network, a time-out, throttling, a fault of the service, a queue that does not exist yet.
    #[error("{action}: {reason}")]
    Unavailable {
        /// The call, by its SQS name.
        action: &'static str,
        /// What happened, without any value from a message.
        reason: String,
        /// What kind of trouble that is.
        cause: Cause,
    },
    /// Somebody must change something: credentials, permissions, the address.
    #[error("{action}: {reason}")]
    Denied {
        /// The call, by its SQS name.
        action: &'static str,
        /// What the service said.
        reason: String,
    },
}

/// Why a queue is unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The queue said that it does not exist.
    Missing,
    /// It asks for fewer requests.
    Throttled,
    /// As many messages are in flight as may be: nothing comes until some of them are deleted.
    Crowded,
    /// Anything else: the network, a time-out, a fault of the service.
    Fault,
}

/// A queue with SQS's promises. A handle: cloning it is cheap, all clones are the same queue.
///
/// Receipts go in and out in the caller's order; an implementation sends them on in requests of at most ten, several
/// at once. A future that is dropped may strand messages until their visibility ends: the pipeline never drops a
/// `receive`.
pub trait Queue: Clone + Send + Sync + 'static {
    /// One poll: at most ten messages, hidden from others for `visibility`. Waits up to `wait` (at most 20 s) for the
    /// first one; an empty answer is no error. What comes takes a share of `room`, and is waited for where there is
    /// none: before it is read, as far as an implementation can know its size by then.
    fn receive(
        &self,
        wait: Duration,
        visibility: Duration,
        room: &Room,
    ) -> impl Future<Output = Result<Vec<Message>, QueueError>> + Send;

    /// Hides these messages for `visibility` from now; zero gives them back at once. Answers the positions in
    /// `receipts` that could not be changed (for example because another delivery has overtaken them).
    fn extend(
        &self,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> impl Future<Output = Result<Vec<usize>, QueueError>> + Send;

    /// Deletes these messages for good. Answers the positions in `receipts` that were not deleted. Deleting twice is
    /// harmless; deleting with an old receipt may do nothing, and the message comes again.
    fn delete(&self, receipts: &[Receipt]) -> impl Future<Output = Result<Vec<usize>, QueueError>> + Send;

    /// How much is left.
    fn depth(&self) -> impl Future<Output = Result<Depth, QueueError>> + Send;
}
