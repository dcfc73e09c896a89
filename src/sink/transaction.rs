//! One transaction of the sink: the ledger's keys, the claims, the rows, the dead letters and the sealed values of a
//! stretch of a batch.
//!
//! The fast way copies all of them and is aborted as a whole by a key that is there already. The safe way asks the
//! ledger which keys are new and writes only what belongs to those. Both take claims before keys, so that no two of
//! them wait for each other in a circle. What an error means is not decided here.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::Error;

use crate::{
    db::{Session, catalog::quote_ident},
    event::Reason,
    queue::Key,
    sink::{
        Batch, Entry, Outcome, SinkError, Verdict, copy, dead_letters, dedupe, entries, epochs::Kept, ledger,
        postgres::Target, shape,
    },
};

/// Bytes of rows that are sent at a time, about. More would hold large rows several times over; a batch of small ones
/// fits into one.
const PIECE: usize = 1024 * 1024;

/// What a transaction answers: an outcome for each entry, or why there is none.
pub(super) type Written = Result<Vec<Outcome>, WriteError>;

pub(super) enum WriteError {
    /// PostgreSQL or the driver said no.
    Database(Error),
    /// It said no to the rows, or to the COMMIT, where deferred constraints speak. Nowhere else can a row be at fault.
    Rows(Error),
    /// The COMMIT went through here but may not have reached the standby that it should have waited for.
    NotReplicated,
    /// The table took fewer rows than it was given.
    RowsVanished,
    /// The table's columns are no longer of the types that were written.
    Reshaped,
    /// A message that had claimed its event got another outcome meanwhile: its claim must not stand.
    Overtaken,
    /// There is no session.
    Unreachable(SinkError),
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

/// How a transaction claims its keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// With COPY: all are new.
    Fast,
    /// With ON CONFLICT: some may be there already.
    Safe,
}

/// What is written, and where.
pub(super) struct Transaction<'a> {
    pub(super) session: &'a Session,
    pub(super) target: Arc<Target>,
    /// The types of the columns, as they were when they were last compared with those that are written.
    pub(super) shape: Option<&'a str>,
    pub(super) batch: &'a Batch,
    pub(super) part: Range<usize>,
    /// What it has written into the vault so far.
    pub(super) kept: Arc<Kept>,
}

impl Transaction<'_> {
    /// From BEGIN to COMMIT. After an error it is still open.
    pub(super) async fn run(&self, way: Way) -> Written {
        #[cfg(feature = "mutants")]
        if let Some(written) = self.run_broken().await {
            return written;
        }
        self.begin().await?;
        let outcomes = match way {
            Way::Fast => self.copy_all().await?,
            Way::Safe => self.copy_new().await?,
        };
        self.finish(outcomes).await
    }

    /// Its limits and statements are the transaction's own: behind a pooler the next one may be in another session. It
    /// holds the key of its tokens until it ends, so that no rotation can overtake it.
    pub(super) async fn begin(&self) -> Result<(), Error> {
        self.session.begin_with(&format!("SELECT masq.hold_key({}::smallint)", self.batch.kid)).await
    }

    /// Commits, so that these outcomes are durable when it returns.
    pub(super) async fn finish(&self, outcomes: Vec<Outcome>) -> Written {
        if outcomes.contains(&Outcome::Duplicate) {
            self.write_wal().await?;
        }
        self.commit().await?;
        Ok(outcomes)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.batch.entries[self.part.clone()]
    }

    /// Those that have a key in the ledger.
    pub(super) fn keyed(&self) -> impl Iterator<Item = &Entry> {
        self.entries().iter().filter(|entry| !is_late(entry))
    }

    /// Claims every key and copies every row; a key that is there already aborts all.
    async fn copy_all(&self) -> Written {
        let claims = dedupe::claim(self.session, self.keyed()).await?;
        self.copy(ledger::COPY, ledger::tuples(self.keyed(), &claims.lost)).await?;
        self.write(|_| true, &claims.lost).await
    }

    /// Claims the keys that are new and writes what belongs to them.
    pub(super) async fn copy_new(&self) -> Written {
        let keyed: Vec<&Entry> = self.keyed().collect();
        // What has its outcome already claims nothing.
        let known = if keyed.iter().any(|entry| dedupe::claims(entry)) {
            ledger::known(self.session, &keyed).await?
        } else {
            HashSet::new()
        };
        let unknown = keyed.iter().copied().filter(|entry| !known.contains(&entry.message.key));
        let claims = dedupe::claim(self.session, unknown).await?;
        let new = ledger::claim(self.session, &keyed, &claims.lost).await?;
        if !claims.won.is_subset(&new) {
            return Err(WriteError::Overtaken);
        }
        self.write(|key| new.contains(key), &claims.lost).await
    }

    /// Writes the rows and dead letters of what is new, and those that are late. Of what is new, the repeated ones are
    /// no rows.
    pub(super) async fn write(&self, is_new: impl Fn(&Key) -> bool, repeated: &HashSet<Key>) -> Written {
        let new = || self.keyed().filter(|entry| is_new(&entry.message.key));
        let rows = || new().filter(|entry| !repeated.contains(&entry.message.key));
        self.write_rows(rows()).await?;
        let (queue, epoch) = (&self.target.queue, self.batch.epoch.id);
        let letters = dead_letters::write(self.session, queue, epoch, new()).await?;
        let late = self.entries().iter().filter(|entry| is_late(entry));
        let written_late = dead_letters::write_late(self.session, queue, epoch, late).await?;
        self.kept.letters.fetch_add(letters + written_late.len() as u64, Ordering::Relaxed);
        self.write_values(rows()).await?;
        let outcome = |entry: &Entry| {
            let key = &entry.message.key;
            match if is_late(entry) { written_late.contains(key) } else { is_new(key) } {
                false => Outcome::Duplicate,
                true if repeated.contains(key) => Outcome::Repeated,
                true => Outcome::Written,
            }
        };
        Ok(self.entries().iter().map(outcome).collect())
    }

    pub(super) async fn write_rows<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Result<(), WriteError> {
        let bytes = |entry: &'a Entry| match &entry.verdict {
            Verdict::Row(row) => Some(&self.batch.rows[row.bytes.clone()]),
            Verdict::Dead(_) => None,
        };
        let tuples: Vec<&[u8]> = entries.filter_map(bytes).collect();
        if tuples.is_empty() {
            return Ok(());
        }
        let copied = self.copy_rows(&tuples).await.map_err(WriteError::Rows)?;
        if copied != tuples.len() as u64 {
            return Err(WriteError::RowsVanished);
        }
        let shape = shape::now(self.session, &self.target).await?;
        if shape.as_deref() == self.shape { Ok(()) } else { Err(WriteError::Reshaped) }
    }

    /// Writes the sealed values of these rows, and the slots that they need unless those are elsewhere.
    pub(super) async fn write_values<'a>(&'a self, entries: impl Iterator<Item = &'a Entry>) -> Result<(), WriteError> {
        let (seals, epoch) = (&self.batch.seals, &self.batch.epoch);
        let values = seals.needed(entries.filter_map(Entry::seals));
        if self.target.slots.is_none() {
            let slots = entries::write_slots(self.session, epoch, seals, &values).await?;
            self.kept.slots.fetch_add(slots, Ordering::Relaxed);
        }
        let written = entries::write(self.session, epoch, seals, &values).await?;
        self.kept.entries.fetch_add(written, Ordering::Relaxed);
        Ok(())
    }

    async fn copy(&self, sql: &str, tuples: Vec<u8>) -> Result<u64, Error> {
        let sink = self.session.copy_in(sql).await?;
        let mut sink = std::pin::pin!(sink);
        sink.send(Bytes::from(tuples)).await?;
        sink.finish().await
    }

    /// Copies rows piece by piece, since each piece is copied again on its way. Answers how many the table took.
    pub(super) async fn copy_rows(&self, tuples: &[&[u8]]) -> Result<u64, Error> {
        let sink = self.session.copy_in(&copy_rows(&self.target)).await?;
        let mut sink = std::pin::pin!(sink);
        let mut piece = copy::HEADER.to_vec();
        for tuple in tuples {
            piece.extend_from_slice(tuple);
            if piece.len() >= PIECE {
                sink.send(Bytes::from(std::mem::take(&mut piece))).await?;
            }
        }
        piece.extend_from_slice(copy::TRAILER);
        sink.send(Bytes::from(piece)).await?;
        sink.finish().await
    }

    /// Without any WAL of its own a COMMIT would not wait for a synchronous standby that may not have the earlier
    /// transaction yet, on which this one relies.
    pub(super) async fn write_wal(&self) -> Result<(), Error> {
        self.session.batch_execute("SELECT pg_logical_emit_message(true, 'masq', '')").await
    }

    pub(super) async fn commit(&self) -> Result<(), WriteError> {
        self.session.take_warnings();
        self.session.batch_execute("COMMIT").await.map_err(WriteError::Rows)?;
        if self.session.take_warnings() == 0 { Ok(()) } else { Err(WriteError::NotReplicated) }
    }
}

/// Whether a message is older than the ledger and so has no key there.
pub(super) fn is_late(entry: &Entry) -> bool {
    matches!(&entry.verdict, Verdict::Dead(dead) if dead.reason == Reason::OlderThanLedger)
}

/// Its statement that copies rows.
pub(super) fn copy_rows(target: &Target) -> String {
    let columns: Vec<String> = target.columns.iter().map(|name| quote_ident(name)).collect();
    format!(
        "COPY {}.{} ({}) FROM STDIN BINARY",
        quote_ident(&target.table.schema),
        quote_ident(&target.table.name),
        columns.join(", ")
    )
}
