//! The right edge: where outcomes go.
//!
//! [`Sink`] is the contract: one transaction that holds the ledger's keys, the rows and the dead letters of a stretch of
//! a [`Batch`], or nothing. [`postgres`] is PostgreSQL, [`memory`] keeps tables in memory for tests of the pipeline.

pub mod copy;
pub mod dead_letters;
pub mod dedupe;
pub mod entries;
mod epochs;
pub mod ledger;
pub mod lookup;
pub mod memory;
#[cfg(feature = "mutants")]
mod mutants;
pub mod postgres;
pub mod replay;
mod shape;
mod stalled;
mod suspects;
mod transaction;
mod upkeep;
pub mod witness;

use std::{future::Future, num::NonZeroU8, ops::Range};

use thiserror::Error;
use uuid::Uuid;

use crate::{
    db::known_keys::Active,
    event::Reason,
    queue::{Key, Message},
    vault::{
        seal::{EpochHeader, SealedBody, SubjectTag},
        sealer::Seals,
    },
};

/// What masking makes of a batch of messages: an outcome for each, sorted by key, no key twice.
///
/// The messages that are to be rows stay with it, as they came, until they are settled: one that the database refuses
/// must still be sealed as a dead letter. Of one that is sealed already the body is gone.
pub struct Batch {
    /// Sorted by key.
    pub entries: Vec<Entry>,
    /// Deliveries left out because a newer delivery of the same message is in this batch.
    pub doubles: usize,
    /// The rows as tuples of COPY BINARY, one after the other, in the order of the entries.
    pub rows: Vec<u8>,
    /// Of the epoch under whose key the dead letters and values of this batch are sealed.
    pub epoch: EpochHeader,
    /// The sealed originals of values in columns with `vault = true`, as far as they are not in the vault already.
    pub seals: Seals,
    /// The key id of its tokens.
    pub kid: NonZeroU8,
}

/// A message and what is to become of it.
pub struct Entry {
    /// The message, with the newest receipt if it came more than once.
    pub message: Message,
    /// Row or dead letter.
    pub verdict: Verdict,
}

impl Entry {
    /// What it needs of [`Batch::seals`], if it is to be a row.
    pub fn seals(&self) -> Option<&Range<usize>> {
        match &self.verdict {
            Verdict::Row(row) => Some(&row.seals),
            Verdict::Dead(_) => None,
        }
    }
}

/// What a message becomes.
pub enum Verdict {
    /// A row of the target table.
    Row(MaskedRow),
    /// A dead letter.
    Dead(DeadLetter),
}

/// A row with every value masked that is to be masked.
#[derive(Clone, Debug)]
pub struct MaskedRow {
    /// Where it stands in [`Batch::rows`].
    pub bytes: Range<usize>,
    /// What it is known by if its producer may send it twice: of the rows with one claim, the first is written.
    pub claim: Option<Uuid>,
    /// What it needs of [`Batch::seals`].
    pub seals: Range<usize>,
}

/// A message that did not become a row: why, and its body for whoever holds the recovery key.
pub struct DeadLetter {
    /// Why.
    pub reason: Reason,
    /// The length of the body, in bytes.
    pub body_bytes: u64,
    /// The body, sealed.
    pub sealed: SealedBody,
    /// Whom it concerns, where that could be read.
    pub subject: Option<SubjectTag>,
}

impl Batch {
    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What became of one entry in a committed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written now.
    Written,
    /// Its key was there already: an earlier delivery has an outcome, this one changes nothing.
    Duplicate,
    /// Written now as what it is: another message with the same claim is a row already, so this one is none.
    Repeated,
}

/// Why a stretch of a batch was not written, by what helps. Nothing of it is in the database, except after
/// [`SinkError::Unavailable`], [`SinkError::Busy`] and [`SinkError::TooSlow`], which cannot know: writing the same
/// stretch again tells.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The database is away or takes no writes: wait until it is back, then the same again.
    #[error("{0}")]
    Unavailable(String),
    /// Something was in the way of this stretch just now, such as another transaction: the same again, soon.
    #[error("{0}")]
    Busy(String),
    /// The stretch takes too long for the session's limits, or the server is frozen: halve it.
    #[error("{0}")]
    TooSlow(String),
    /// A row of it is not acceptable to the table: find out which.
    #[error("PostgreSQL refuses a row with SQLSTATE {sqlstate}{place}")]
    Refused {
        /// The five characters.
        sqlstate: String,
        /// The constraint or column, where PostgreSQL names one. Never a value.
        place: String,
        /// Whether it is the row that is at fault. Only [`Sink::write_alone`] asks.
        witness: Witness,
    },
    /// Somebody must change something first; no message is at fault.
    #[error("{0}")]
    Misconfigured(String),
    /// The key that made the tokens makes none any more: the messages have to be masked anew with the one that does.
    #[error("{0}")]
    KeyReplaced(String),
}

/// What the table does with rows that nobody has complained of, in the transaction in which it refuses another. Nothing
/// of that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// It takes one that is new to it: the refused one is at fault.
    TakesNew,
    /// It takes one that it took before. Whether it takes any new one is not known.
    TakesOld,
    /// It refuses even what it took before: the table is at fault.
    TakesNone,
    /// It takes no row twice, so nothing can be said.
    Absent,
    /// There is no such row, or nobody asked.
    Unknown,
}

/// A place for outcomes.
///
/// Every worker has a sink of its own.
pub trait Sink: Send + 'static {
    /// Writes the outcomes of these entries in one transaction, or nothing, and answers one [`Outcome`] an entry.
    /// Writing them again changes nothing and answers [`Outcome::Duplicate`].
    fn write(
        &mut self,
        batch: &Batch,
        part: Range<usize>,
    ) -> impl Future<Output = Result<Vec<Outcome>, SinkError>> + Send;

    /// Writes one entry that was refused before, alone or among others. If it is refused again, finds out whether it is
    /// the row or the table that is at fault; `other` is a row of the batch, not written yet, that may bear witness.
    fn write_alone(
        &mut self,
        batch: &Batch,
        at: usize,
        other: Option<usize>,
    ) -> impl Future<Output = Result<Vec<Outcome>, SinkError>> + Send;

    /// The oldest SentTimestamp (milliseconds since 1970-01-01 UTC) whose keys the ledger still remembers. An entry
    /// that is older must be a dead letter `older_than_ledger`, which is unique by its message id alone.
    fn oldest(&self) -> i64;

    /// Puts on record that these messages are about to be read, since they have come so often that reading one of them
    /// may be what ends the process. Answers those that were on record already, each with the number of its readers who
    /// did not live to say that it was harmless; nothing changes for these.
    fn suspect(&mut self, keys: &[Key]) -> impl Future<Output = Result<Vec<(Key, u32)>, SinkError>> + Send;

    /// Notes that a message that is on record is about to be read alone, as which reader in a row.
    fn suspect_again(&mut self, key: Key, readers: u32) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Takes them off the record: they have been read, and nothing happened.
    fn absolve(&mut self, keys: &[Key]) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// The key that makes tokens now, after [`SinkError::KeyReplaced`]. `None`: none has been noted.
    fn active_key(&mut self) -> impl Future<Output = Result<Option<Active>, SinkError>> + Send;

    /// Forgets what was under way: a call was broken off, so the session may be in any state.
    fn reset(&mut self);

    /// Says what has to be said when nothing more is written, such as what the last epoch has sealed. Nothing depends
    /// on it.
    fn finish(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}
