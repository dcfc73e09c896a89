//! PostgreSQL as a sink: the ledger's keys, the rows and the dead letters of a stretch of a batch in one transaction.
//!
//! The fast way copies all of them and is aborted as a whole by a key that is there already. The safe way asks the
//! ledger which keys are new and copies only those; it is taken for a while after an aborted copy and wherever a message
//! has been delivered before, since an aborted copy leaves dead tuples behind.
//! What an error means for the caller is decided in `db::sqlstate`; the driver is not named outside `db/`, `sink/` and
//! `vault/`.

use std::{
    collections::HashSet,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::Error;

use crate::{
    db::{
        ConnectError, Connector, Session,
        catalog::{Kind, Table, quote_ident},
        sqlstate::{self, Remedy},
    },
    event::Reason,
    queue::Key,
    sink::{Batch, Entry, Outcome, Sink, SinkError, Verdict, copy, dead_letters, ledger, shape, suspects},
};

/// For how many batches the safe way is taken after a copy was aborted. More would pay its price (about 1.5 times the
/// server's work) for longer; fewer would risk another aborted copy while redeliveries are still coming.
const SAFE_BATCHES: u32 = 16;

/// How often partitions are made and pruned.
const PARTITION_UPKEEP: Duration = Duration::from_secs(3600);

/// What a worker's sink writes to.
pub struct Target {
    /// How a session is opened.
    pub connector: Connector,
    /// The target table as the catalogue describes it.
    pub table: Table,
    /// The columns that are written, in the configuration's order.
    pub columns: Vec<String>,
    /// How long the ledger remembers.
    pub retention: Duration,
    /// The queue's name, for the dead letters.
    pub queue: String,
}

/// One worker's sink, with at most one session.
pub struct PostgresSink {
    pub(super) target: Arc<Target>,
    pub(super) open: Option<Open>,
    oldest: i64,
    safe_batches: u32,
}

/// A session, and what is known of the database through it.
pub(super) struct Open {
    pub(super) session: Session,
    shape: Option<String>,
    kept_at: Instant,
    /// The epoch whose header this session has written. Not the sink's: after a failover the header may be gone.
    epoch: Option<uuid::Uuid>,
}

type Written = Result<Vec<Outcome>, WriteError>;

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
    /// There is no session.
    Unreachable(SinkError),
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl PostgresSink {
    /// A sink without a session yet. `oldest`: what the ledger remembers, as the start-up found it.
    pub fn new(target: Arc<Target>, oldest: i64) -> Self {
        Self { target, open: None, oldest, safe_batches: 0 }
    }

    pub(super) async fn open(&mut self) -> Result<&mut Open, SinkError> {
        if self.open.as_ref().is_some_and(|open| open.session.is_closed()) {
            self.open = None;
        }
        if self.open.is_none() {
            let session = self.target.connector.connect().await.map_err(SinkError::from)?;
            let shape = shape::as_started(&session, &self.target).await?;
            let oldest = ledger::keep_partitions(&session, self.target.retention).await;
            self.oldest = oldest.map_err(|error| self.explain_own(&error))?;
            self.open = Some(Open { session, shape, kept_at: Instant::now(), epoch: None });
        }
        self.open.as_mut().ok_or_else(|| SinkError::Unavailable("the session is gone".to_owned()))
    }

    /// Partitions are looked after by whichever worker finds that it is time.
    async fn keep_partitions(&mut self) -> Result<(), SinkError> {
        let retention = self.target.retention;
        let open = self.open().await?;
        if open.kept_at.elapsed() < PARTITION_UPKEEP {
            return Ok(());
        }
        open.kept_at = Instant::now();
        let oldest = ledger::keep_partitions(&open.session, retention).await;
        self.oldest = oldest.map_err(|error| self.explain_own(&error))?;
        Ok(())
    }

    /// The header of an epoch is durable before anything sealed under its key is.
    async fn keep_epoch(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let open = self.open().await?;
        if open.epoch == Some(batch.epoch.id) {
            return Ok(());
        }
        match dead_letters::keep_epoch(&open.session, &batch.epoch).await {
            Ok(()) => open.epoch = Some(batch.epoch.id),
            Err(error) => return Err(self.explain_own(&error)),
        }
        Ok(())
    }

    /// What the caller can do about an error. A session whose state is unknown is not used again.
    fn explain(&mut self, error: &Error) -> SinkError {
        let Target { table, columns, .. } = &*self.target;
        let target = sqlstate::Target {
            schema: &table.schema,
            table: &table.name,
            partitioned: table.kind == Kind::Partitioned,
            columns,
        };
        match (sqlstate::remedy(error, &target), error.as_db_error()) {
            (Remedy::Isolate, Some(refused)) => {
                SinkError::Refused { sqlstate: refused.code().code().to_owned(), place: sqlstate::place(refused) }
            }
            (Remedy::Halve, _) => SinkError::TooSlow(sqlstate::describe(error)),
            (Remedy::Stop, _) => {
                self.open = None;
                SinkError::Misconfigured(sqlstate::describe(error))
            }
            (Remedy::Again, _) => {
                self.open = None;
                SinkError::Busy(sqlstate::describe(error))
            }
            (Remedy::Isolate | Remedy::Wait | Remedy::Pause, _) => {
                self.open = None;
                SinkError::Unavailable(sqlstate::describe(error))
            }
        }
    }

    /// The same for statements that write none of the target's rows: no message can be at fault there.
    fn explain_own(&mut self, error: &Error) -> SinkError {
        match self.explain(error) {
            SinkError::Refused { .. } => {
                self.open = None;
                SinkError::Misconfigured(format!("masq's own tables: {}", sqlstate::describe(error)))
            }
            other => other,
        }
    }
}

impl From<ConnectError> for SinkError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unavailable(text) => Self::Unavailable(text),
            lasting => Self::Misconfigured(lasting.to_string()),
        }
    }
}

impl Sink for PostgresSink {
    async fn write(&mut self, batch: &Batch, part: Range<usize>) -> Result<Vec<Outcome>, SinkError> {
        self.keep_partitions().await?;
        let entries = &batch.entries[part];
        if entries.iter().any(|entry| matches!(entry.verdict, Verdict::Dead(_))) {
            self.keep_epoch(batch).await?;
        }
        let redelivered = entries.iter().any(|entry| entry.message.attempt > 1);
        if self.safe_batches == 0 && !redelivered {
            match self.write_with(batch, entries, Way::Fast).await {
                Err(WriteError::Database(error)) if is_known_key(&error) => self.safe_batches = SAFE_BATCHES,
                written => return self.settle(written, entries).await,
            }
        }
        self.safe_batches = self.safe_batches.saturating_sub(1);
        let written = self.write_with(batch, entries, Way::Safe).await;
        self.settle(written, entries).await
    }

    fn oldest(&self) -> i64 {
        self.oldest
    }

    async fn suspect(&mut self, key: Key) -> Result<bool, SinkError> {
        let open = self.open().await?;
        suspects::record(&open.session, key).await.map_err(|error| self.explain_own(&error))
    }

    async fn absolve(&mut self, key: Key) -> Result<(), SinkError> {
        let open = self.open().await?;
        suspects::clear(&open.session, key).await.map_err(|error| self.explain_own(&error))
    }

    fn reset(&mut self) {
        self.open = None;
    }
}

/// How a transaction claims its keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Fast,
    Safe,
}

impl PostgresSink {
    async fn write_with(&mut self, batch: &Batch, entries: &[Entry], way: Way) -> Written {
        let target = Arc::clone(&self.target);
        let open = self.open().await.map_err(WriteError::Unreachable)?;
        let written = open.transact(&target, batch, entries, way).await;
        self.end(written).await
    }

    /// Ends a transaction that failed, and says of refused rows whether it was the table that had changed.
    pub(super) async fn end<T>(&mut self, written: Result<T, WriteError>) -> Result<T, WriteError> {
        let (Err(error), Some(open)) = (&written, &self.open) else { return written };
        // If even the ROLLBACK fails the session is lost, and with it the transaction.
        if open.session.batch_execute("ROLLBACK").await.is_err() {
            self.open = None;
            return written;
        }
        // Bytes of another type may look like a bad value, too.
        if matches!(error, WriteError::Rows(_))
            && shape::now(&open.session, &self.target).await.is_ok_and(|shape| shape != open.shape)
        {
            return Err(WriteError::Reshaped);
        }
        written
    }

    async fn settle(&mut self, written: Written, entries: &[Entry]) -> Result<Vec<Outcome>, SinkError> {
        match written {
            Ok(outcomes) => Ok(outcomes),
            Err(WriteError::Database(error)) if is_missing_partition(&error) => self.find_day(entries).await,
            Err(error) => Err(self.remedy(error)),
        }
    }

    /// What the caller can do about a transaction that failed.
    pub(super) fn remedy(&mut self, error: WriteError) -> SinkError {
        match error {
            WriteError::NotReplicated => {
                self.open = None;
                SinkError::Unavailable("the commit was not confirmed by the synchronous standby".to_owned())
            }
            WriteError::Unreachable(error) => error,
            WriteError::Reshaped => {
                self.open = None;
                shape::changed(&self.target)
            }
            WriteError::RowsVanished => SinkError::Misconfigured(format!(
                "a trigger or rule on {} drops rows that are written to it; masq cannot call them loaded",
                self.target.table.name
            )),
            WriteError::Database(error) => self.explain_own(&error),
            WriteError::Rows(error) => self.explain(&error),
        }
    }

    /// A day's partition is not there: make it, or learn that the ledger's memory begins later. Then try again.
    async fn find_day(&mut self, entries: &[Entry]) -> Result<Vec<Outcome>, SinkError> {
        let keyed: Vec<&Entry> = entries.iter().filter(|entry| !is_late(entry)).collect();
        let open = self.open().await?;
        let found = async {
            ledger::make_days(&open.session, &keyed).await?;
            ledger::oldest(&open.session).await
        };
        self.oldest = found.await.map_err(|error| self.explain_own(&error))?;
        Err(SinkError::Busy("a partition of the ledger was missing".to_owned()))
    }
}

impl Open {
    async fn transact(&self, target: &Target, batch: &Batch, entries: &[Entry], way: Way) -> Written {
        // Its limits and statements are the transaction's own: behind a pooler the next one may be in another session.
        self.session.batch_execute(&format!("BEGIN; {}", target.connector.limits())).await?;
        let outcomes = match way {
            Way::Fast => self.copy_all(target, batch, entries).await?,
            Way::Safe => self.copy_new(target, batch, entries).await?,
        };
        if outcomes.contains(&Outcome::Duplicate) {
            self.write_wal().await?;
        }
        self.commit().await?;
        Ok(outcomes)
    }

    /// Claims every key and copies every row; a key that is there already aborts all.
    async fn copy_all(&self, target: &Target, batch: &Batch, entries: &[Entry]) -> Written {
        let keyed = || entries.iter().filter(|entry| !is_late(entry));
        self.copy(ledger::COPY, ledger::tuples(keyed())).await?;
        self.write_rows(target, batch, entries).await?;
        dead_letters::write(&self.session, &target.queue, batch.epoch.id, keyed()).await?;
        let late = self.write_late(target, batch, entries).await?;
        Ok(entries.iter().map(|entry| outcome(!is_late(entry) || late.contains(&entry.message.key))).collect())
    }

    /// Claims the keys that are new and writes what belongs to them.
    async fn copy_new(&self, target: &Target, batch: &Batch, entries: &[Entry]) -> Written {
        let keyed: Vec<&Entry> = entries.iter().filter(|entry| !is_late(entry)).collect();
        let new = ledger::claim(&self.session, &keyed).await?;
        let is_new = |entry: &&Entry| new.contains(&entry.message.key);
        self.write_rows(target, batch, entries.iter().filter(is_new)).await?;
        dead_letters::write(&self.session, &target.queue, batch.epoch.id, entries.iter().filter(is_new)).await?;
        let late = self.write_late(target, batch, entries).await?;
        Ok(entries.iter().map(|entry| outcome(is_new(&entry) || late.contains(&entry.message.key))).collect())
    }

    pub(super) async fn write_rows<'a>(
        &self,
        target: &Target,
        batch: &Batch,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<(), WriteError> {
        let mut tuples = Vec::with_capacity(copy::HEADER.len() + batch.rows.len() + copy::TRAILER.len());
        tuples.extend_from_slice(copy::HEADER);
        let mut rows = 0;
        for entry in entries {
            if let Verdict::Row(row) = &entry.verdict {
                tuples.extend_from_slice(&batch.rows[row.bytes.clone()]);
                rows += 1;
            }
        }
        if rows == 0 {
            return Ok(());
        }
        tuples.extend_from_slice(copy::TRAILER);
        let copied = self.copy(&copy_rows(target), tuples).await.map_err(WriteError::Rows)?;
        if copied != rows {
            return Err(WriteError::RowsVanished);
        }
        if shape::now(&self.session, target).await? == self.shape { Ok(()) } else { Err(WriteError::Reshaped) }
    }

    async fn copy(&self, sql: &str, tuples: Vec<u8>) -> Result<u64, Error> {
        let sink = self.session.copy_in(sql).await?;
        let mut sink = std::pin::pin!(sink);
        sink.send(Bytes::from(tuples)).await?;
        sink.finish().await
    }

    async fn write_late(&self, target: &Target, batch: &Batch, entries: &[Entry]) -> Result<HashSet<Key>, Error> {
        let late = entries.iter().filter(|entry| is_late(entry));
        dead_letters::write_late(&self.session, &target.queue, batch.epoch.id, late).await
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

fn outcome(written: bool) -> Outcome {
    if written { Outcome::Written } else { Outcome::Duplicate }
}

/// Whether a message is older than the ledger and so has no key there.
fn is_late(entry: &Entry) -> bool {
    matches!(&entry.verdict, Verdict::Dead(dead) if dead.reason == Reason::OlderThanLedger)
}

/// A key of the ledger's is there already. The same SQLSTATE from the target table is a row that it refuses.
fn is_known_key(error: &Error) -> bool {
    is_of_ledger(error, "23505")
}

fn is_missing_partition(error: &Error) -> bool {
    is_of_ledger(error, "23514")
}

fn is_of_ledger(error: &Error, sqlstate: &str) -> bool {
    error.as_db_error().is_some_and(|error| {
        error.code().code() == sqlstate
            && error.schema() == Some("masq")
            && error.table().is_some_and(|table| table.starts_with("ledger"))
    })
}

fn copy_rows(target: &Target) -> String {
    let columns: Vec<String> = target.columns.iter().map(|name| quote_ident(name)).collect();
    format!(
        "COPY {}.{} ({}) FROM STDIN BINARY",
        quote_ident(&target.table.schema),
        quote_ident(&target.table.name),
        columns.join(", ")
    )
}
