//! What happens to messages, told while it happens: under the queue's lock, before anybody can see its effect.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use crate::queue::Key;

/// One thing that happens to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// It is on the queue from now on.
    Sent {
        /// The message.
        key: Key,
    },
    /// It is delivered.
    Received {
        /// The message.
        key: Key,
        /// How often, this time included.
        count: u32,
        /// This delivery's handle.
        receipt: &'a str,
    },
    /// It is deleted, or would be by a newer handle.
    Deleted {
        /// The message.
        id: Uuid,
        /// Of which delivery the handle was.
        count: u32,
        /// Whether the message goes.
        removal: Removal,
    },
    /// It will come again although it is deleted.
    Haunts {
        /// The message.
        id: Uuid,
    },
    /// It stays hidden, or with zero is given back.
    Hidden {
        /// The message.
        id: Uuid,
        /// How long from now.
        visibility: Duration,
    },
    /// It moves to the dead-letter queue of this name.
    Dead {
        /// The message, by its key on the queue that it leaves.
        key: Key,
        /// The dead-letter queue.
        to: &'a str,
    },
}

/// What deleting does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The message is deleted.
    Deleted,
    /// A later delivery has overtaken this one: nothing is deleted.
    Stale,
    /// There is no such message any more.
    Gone,
}

/// How a deletion that succeeds may fail to last, as Amazon SQS says of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// Nothing is deleted.
    Ignored,
    /// The message comes again after so long: a server that held a copy was away.
    Ghost(Duration),
}

/// Who is told. It is called with the queue locked, so it must not ask that queue anything.
pub type Watch = Arc<dyn Fn(&Event<'_>) + Send + Sync>;
