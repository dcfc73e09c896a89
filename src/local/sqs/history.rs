//! What happened on the server's queues, as JSON lines in the order in which it happened: for a checker that compares
//! it with what a consumer did. Ids and numbers only, never a body.
//!
//! `{"at":1700000000000.125,"by":"KEY","event":"delete","queue":"q","id":"…","count":1,"outcome":"deleted"}`
//!
//! `by` is the access key id with which the request is signed, so that a test can tell its consumers apart.
//! `at` is in milliseconds since 1970-01-01 UTC by the clock that the database on this machine also uses, held back from
//! ever going back. It is the time of the event, for a delete the time at which its request came in: a line further up
//! may be a little younger.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::script::Trouble;
use crate::queue::memory::{Event, Removal, Watch};

/// A moment: microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Moment(i64);

impl Moment {
    /// Milliseconds since 1970-01-01 UTC.
    pub(super) fn millis(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

/// Where the lines go. A handle: all clones are the same history. The default keeps none.
#[derive(Clone, Default)]
pub struct History(Option<Arc<Book>>);

struct Book {
    latest: AtomicI64,
    file: Mutex<File>,
}

struct File {
    out: Box<dyn Write + Send>,
    /// Why the history is not whole.
    failure: Option<io::Error>,
}

#[derive(Serialize)]
struct Line<'a> {
    at: f64,
    #[serde(skip_serializing_if = "str::is_empty")]
    by: &'a str,
    #[serde(flatten)]
    entry: Entry<'a>,
}

/// What a line says. `queue` is a queue's name, `count` the delivery's number, `sent_at` SentTimestamp.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Entry<'a> {
    Send {
        queue: &'a str,
        id: Id,
        sent_at: i64,
    },
    /// `receipt` is the beginning of the handle's SHA-256.
    Receive {
        queue: &'a str,
        id: Id,
        count: u32,
        receipt: String,
    },
    /// Written before it takes effect. `stale`: a newer delivery has overtaken it, or the script has it do nothing.
    Delete {
        queue: &'a str,
        id: Id,
        count: u32,
        outcome: &'static str,
    },
    /// A deleted message that will come again.
    Ghost {
        queue: &'a str,
        id: Id,
    },
    Extend {
        queue: &'a str,
        id: Id,
        seconds: f64,
    },
    Dead {
        queue: &'a str,
        id: Id,
        to: &'a str,
    },
    Fault {
        action: &'a str,
        fault: Trouble,
    },
    /// The last line: how often each trouble of the script happened.
    End {
        faults: BTreeMap<String, u64>,
    },
}

/// A MessageId.
struct Id(Uuid);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl History {
    /// A history that is written to `out`, a line at a time.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        let file = Mutex::new(File { out: Box::new(out), failure: None });
        Self(Some(Arc::new(Book { latest: AtomicI64::new(0), file })))
    }

    pub(super) fn now(&self) -> Moment {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
        let latest = self.0.as_ref().map_or(now, |book| book.latest.fetch_max(now, Ordering::Relaxed).max(now));
        Moment(latest)
    }

    /// Who writes down what a request of `by` does to the messages of `queue`, if anybody does.
    pub(super) fn watch(&self, queue: &str, by: &str, requested_at: Moment) -> Option<Watch> {
        let history = self.0.is_some().then(|| self.clone())?;
        let (queue, by) = (queue.to_owned(), by.to_owned());
        Some(Arc::new(move |event: &Event<'_>| {
            let at = if let Event::Deleted { .. } = event { requested_at } else { history.now() };
            history.write(at, &by, Entry::of(&queue, event));
        }))
    }

    pub(super) fn trouble(&self, action: &str, by: &str, fault: Trouble) {
        self.write(self.now(), by, Entry::Fault { action, fault });
    }

    /// Writes the last line.
    pub(super) fn end(&self, faults: BTreeMap<String, u64>) {
        self.write(self.now(), "", Entry::End { faults });
    }

    /// Whether all lines have been written.
    ///
    /// # Errors
    /// Why the first one was not that was not. It is told once.
    pub fn check(&self) -> io::Result<()> {
        let Some(book) = &self.0 else { return Ok(()) };
        let mut file = book.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.failure.take().map_or(Ok(()), Err)
    }

    fn write(&self, at: Moment, by: &str, entry: Entry) {
        let Some(book) = &self.0 else { return };
        let mut line = serde_json::to_vec(&Line { at: at.millis(), by, entry }).unwrap_or_default();
        line.push(b'\n');
        let mut file = book.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.out.write_all(&line)
            && file.failure.is_none()
        {
            tracing::error!(%error, "the history of the local queue is not whole");
            file.failure = Some(error);
        }
    }
}

impl<'a> Entry<'a> {
    fn of(queue: &'a str, event: &Event<'a>) -> Self {
        match *event {
            Event::Sent { key } => Self::Send { queue, id: Id(key.id), sent_at: key.sent_at },
            Event::Received { key, count, receipt } => {
                let digest = Sha256::digest(receipt);
                let receipt = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
                Self::Receive { queue, id: Id(key.id), count, receipt }
            }
            Event::Deleted { id, count, removal } => {
                let outcome = match removal {
                    Removal::Deleted => "deleted",
                    Removal::Stale => "stale",
                    Removal::Gone => "gone",
                };
                Self::Delete { queue, id: Id(id), count, outcome }
            }
            Event::Haunts { id } => Self::Ghost { queue, id: Id(id) },
            Event::Hidden { id, visibility } => Self::Extend { queue, id: Id(id), seconds: visibility.as_secs_f64() },
            Event::Dead { key, to } => Self::Dead { queue, id: Id(key.id), to },
        }
    }
}
