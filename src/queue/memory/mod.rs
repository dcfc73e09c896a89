//! A real queue in memory, with the promises of an Amazon SQS standard or FIFO queue: it hides, delays, expires, counts,
//! redrives, and where its name ends in `.fifo` keeps groups in order. The local server, the demo and the tests run on it.
//!
//! [`MemoryQueues`] is an account, [`MemoryQueue`] one queue of it, [`Settings`] what SQS calls a queue's attributes.
//! It is not durable, and knows nothing of HTTP or JSON: that is `local/sqs`.

mod backlog;
mod clock;
mod event;
mod fifo;
mod queue;
mod receipt;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, btree_map},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;

pub(crate) use self::backlog::random_id;
pub use self::{
    backlog::{Delivery, Outgoing},
    event::{Event, Lapse, Removal, Watch},
    fifo::Ordered,
    queue::{Accepted, MemoryQueue},
    receipt::ReceiptError,
};
use self::{clock::Clock, queue::Shared};

/// The longest name of a queue, in characters (AWS, "Amazon SQS standard queue quotas"); the end of a FIFO queue's counts.
const LONGEST_NAME: usize = 80;

/// How the name of a FIFO queue ends, and no other.
const FIFO: &str = ".fifo";

/// What can be set on a queue; the defaults are the service's. Whoever takes values from outside checks their ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a received message stays hidden (VisibilityTimeout).
    pub visibility: Duration,
    /// How long a new message stays hidden (DelaySeconds).
    pub delay: Duration,
    /// How long after it was sent a message is dropped (MessageRetentionPeriod).
    pub retention: Duration,
    /// How long a poll waits that does not say (ReceiveMessageWaitTimeSeconds).
    pub receive_wait: Duration,
    /// The largest message, attributes included, in bytes (MaximumMessageSize). The sender's door checks it.
    pub maximum_message_size: usize,
    /// Where messages go that were received too often (RedrivePolicy).
    pub redrive: Option<Redrive>,
    /// On a FIFO queue: messages without a deduplication id of their own are told apart by their content
    /// (ContentBasedDeduplication).
    pub content_based_deduplication: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            visibility: Duration::from_secs(30),
            delay: Duration::ZERO,
            retention: Duration::from_secs(4 * 24 * 60 * 60),
            receive_wait: Duration::ZERO,
            maximum_message_size: 1024 * 1024,
            redrive: None,
            content_based_deduplication: false,
        }
    }
}

/// When a message moves to a dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// The dead-letter queue's name, in the same account. While there is no such queue of the same kind, messages stay.
    pub target: String,
    /// How often a message may be received; the receive after that moves it instead.
    pub max_receive_count: u32,
}

/// Why a queue was not created.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CreateError {
    /// A queue of this name has other settings.
    #[error("a queue of this name exists with other attributes; delete it or ask for the attributes that it has")]
    Exists,
    /// Not a name that SQS takes.
    #[error("a queue's name is 1 to 80 letters, digits, hyphens and underscores; a FIFO queue's ends in .fifo")]
    Name,
}

/// An account: queues by name. A handle: all clones are the same account.
#[derive(Clone)]
pub struct MemoryQueues(Arc<Account>);

struct Account {
    clock: Clock,
    queues: Mutex<BTreeMap<String, Arc<Shared>>>,
}

impl Default for MemoryQueues {
    fn default() -> Self {
        Self(Arc::new(Account { clock: Clock::start(), queues: Mutex::default() }))
    }
}

impl MemoryQueues {
    /// An account without queues. Its clock starts here: tokio's, so a test that pauses it pauses it before.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a queue, or finds the one that has this name and these settings.
    pub fn create(&self, name: &str, settings: Settings) -> Result<MemoryQueue, CreateError> {
        check_name(name)?;
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = match queues.entry(name.to_owned()) {
            btree_map::Entry::Vacant(free) => Arc::clone(free.insert(Shared::new(name, settings, self.0.clock))),
            btree_map::Entry::Occupied(taken) if taken.get().settings() == settings => Arc::clone(taken.get()),
            btree_map::Entry::Occupied(_) => return Err(CreateError::Exists),
        };
        drop(queues);
        Ok(MemoryQueue::new(self.clone(), shared))
    }

    /// The queue of this name.
    pub fn get(&self, name: &str) -> Option<MemoryQueue> {
        let queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.get(name).map(|shared| MemoryQueue::new(self.clone(), Arc::clone(shared)))
    }

    /// Deletes the queue and its messages; polls that wait on it end empty. Answers whether there was one.
    pub fn delete(&self, name: &str) -> bool {
        let removed = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        removed.inspect(|shared| shared.close()).is_some()
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

/// Whether a queue of this name is a FIFO queue.
pub fn is_fifo(name: &str) -> bool {
    name.ends_with(FIFO)
}

fn check_name(name: &str) -> Result<(), CreateError> {
    let stem = name.strip_suffix(FIFO).unwrap_or(name);
    let fits = name.len() <= LONGEST_NAME
        && !stem.is_empty()
        && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fits { Ok(()) } else { Err(CreateError::Name) }
}
