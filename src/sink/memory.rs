//! A sink in memory, with the same promises as PostgreSQL: all of a stretch or nothing, each key once.
//!
//! It is what the tests of the pipeline look into. It takes its errors from a script, in order, so that a test says what
//! goes wrong and when.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    db::known_keys::Active,
    event::Reason,
    queue::Key,
    sink::{Batch, Outcome, Sink, SinkError, Verdict, Witness},
};

/// What a message became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The row, as its tuple of COPY BINARY.
    Row(Vec<u8>),
    /// The dead letter's reason.
    Dead(Reason),
}

/// What the sink does instead of what it is asked to.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nothing is written.
    Down,
    /// All is written, and the answer is lost on its way.
    AnswerLost,
    /// Somebody must mend the table first.
    Misconfigured,
}

/// A handle on the tables; all clones are the same tables.
#[derive(Clone, Default)]
pub struct MemorySink {
    tables: Arc<Mutex<Tables>>,
}

#[derive(Default)]
struct Tables {
    outcomes: BTreeMap<Key, Stored>,
    written: Vec<Key>,
    suspects: BTreeMap<Key, u32>,
    faults: VecDeque<Fault>,
    refuse: Option<Vec<u8>>,
    oldest: i64,
    transactions: usize,
}

impl MemorySink {
    /// Empty tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// What went wrong next, and after that.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.tables().faults.extend(faults);
    }

    /// Refuses every row that contains these bytes, as a constraint would.
    pub fn refuse(&self, bytes: &[u8]) {
        self.tables().refuse = Some(bytes.to_vec());
    }

    /// Forgets what was sent before, in milliseconds since 1970-01-01 UTC.
    pub fn forget_before(&self, oldest: i64) {
        self.tables().oldest = oldest;
    }

    /// All outcomes, by key.
    pub fn outcomes(&self) -> BTreeMap<Key, Stored> {
        self.tables().outcomes.clone()
    }

    /// The messages that have an outcome, in the order in which it was written.
    pub fn written(&self) -> Vec<Key> {
        self.tables().written.clone()
    }

    /// The messages that are on record, and how many readers each had.
    pub fn suspects(&self) -> BTreeMap<Key, u32> {
        self.tables().suspects.clone()
    }

    /// How many transactions were tried.
    pub fn transactions(&self) -> usize {
        self.tables().transactions
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// Fails if the script says so, before anything is done.
    fn fail_before(&mut self) -> Result<(), SinkError> {
        match self.faults.pop_front() {
            None => Ok(()),
            Some(Fault::Misconfigured) => Err(SinkError::Misconfigured("a column is missing".to_owned())),
            Some(Fault::Down | Fault::AnswerLost) => Err(SinkError::Unavailable("the database is away".to_owned())),
        }
    }

    fn refuses(&self, stored: &Stored) -> bool {
        match (stored, &self.refuse) {
            (Stored::Row(row), Some(bytes)) => row.windows(bytes.len()).any(|window| window == bytes),
            _ => false,
        }
    }

    /// What becomes of a row of the batch, and of one that is there already.
    fn witness(&self, other: Option<&Stored>) -> Witness {
        let old = self.outcomes.values().find(|stored| matches!(stored, Stored::Row(_)));
        match (other.map(|row| self.refuses(row)), old.map(|row| self.refuses(row))) {
            (Some(false), _) => Witness::TakesNew,
            (_, Some(false)) => Witness::TakesOld,
            (_, Some(true)) => Witness::TakesNone,
            (_, None) => Witness::Unknown,
        }
    }

    fn write(&mut self, batch: &Batch, part: Range<usize>) -> Result<Vec<Outcome>, SinkError> {
        let stored: Vec<(Key, Stored)> = part.map(|at| (batch.entries[at].message.key, stored(batch, at))).collect();
        if stored.iter().any(|(key, stored)| !self.outcomes.contains_key(key) && self.refuses(stored)) {
            let witness = Witness::Unknown;
            return Err(SinkError::Refused { sqlstate: "23514".to_owned(), place: String::new(), witness });
        }
        let mut outcomes = Vec::with_capacity(stored.len());
        for (key, stored) in stored {
            let is_new = !self.outcomes.contains_key(&key);
            if is_new {
                self.written.push(key);
                self.outcomes.insert(key, stored);
            }
            outcomes.push(if is_new { Outcome::Written } else { Outcome::Duplicate });
        }
        Ok(outcomes)
    }
}

/// What an entry becomes if nobody refuses it.
fn stored(batch: &Batch, at: usize) -> Stored {
    match &batch.entries[at].verdict {
        Verdict::Row(row) => Stored::Row(batch.rows[row.bytes.clone()].to_vec()),
        Verdict::Dead(dead) => Stored::Dead(dead.reason.clone()),
    }
}

impl Sink for MemorySink {
    async fn write(&mut self, batch: &Batch, part: Range<usize>) -> Result<Vec<Outcome>, SinkError> {
        let mut tables = self.tables();
        tables.transactions += 1;
        match tables.faults.pop_front() {
            None => tables.write(batch, part),
            Some(Fault::Down) => Err(SinkError::Unavailable("the database is away".to_owned())),
            Some(Fault::Misconfigured) => Err(SinkError::Misconfigured("a column is missing".to_owned())),
            Some(Fault::AnswerLost) => {
                tables.write(batch, part)?;
                Err(SinkError::Unavailable("the answer to COMMIT was lost".to_owned()))
            }
        }
    }

    async fn write_alone(&mut self, batch: &Batch, at: usize, other: Option<usize>) -> Result<Vec<Outcome>, SinkError> {
        let written = self.write(batch, at..at + 1).await;
        written.map_err(|error| match error {
            SinkError::Refused { sqlstate, place, .. } => {
                let witness = self.tables().witness(other.map(|at| stored(batch, at)).as_ref());
                SinkError::Refused { sqlstate, place, witness }
            }
            error => error,
        })
    }

    fn oldest(&self) -> i64 {
        self.tables().oldest
    }

    async fn suspect(&mut self, keys: &[Key]) -> Result<Vec<(Key, u32)>, SinkError> {
        let mut tables = self.tables();
        tables.fail_before()?;
        let known = keys.iter().filter_map(|key| Some((*key, *tables.suspects.get(key)?))).collect();
        for key in keys {
            tables.suspects.entry(*key).or_insert(1);
        }
        Ok(known)
    }

    async fn suspect_again(&mut self, key: Key, readers: u32) -> Result<(), SinkError> {
        let mut tables = self.tables();
        tables.fail_before()?;
        let noted = tables.suspects.entry(key).or_default();
        *noted = readers.max(*noted);
        Ok(())
    }

    async fn absolve(&mut self, keys: &[Key]) -> Result<(), SinkError> {
        let mut tables = self.tables();
        tables.fail_before()?;
        for key in keys {
            tables.suspects.remove(key);
        }
        Ok(())
    }

    async fn active_key(&mut self) -> Result<Option<Active>, SinkError> {
        Ok(None)
    }

    fn reset(&mut self) {}
}
