//! PostgreSQL as a sink: a worker's session, which way its next transaction goes, and what an error means for it.
//!
//! The transaction itself is in `transaction`. Its fast way is aborted as a whole by a key that is there already; the
//! safe way is taken for a while after that and wherever a message has been delivered before, since an aborted copy
//! leaves dead tuples behind. What an error means for the caller is decided in `db::sqlstate`; the driver is not named
//! outside `db/`, `sink/` and `vault/`.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{error::Elapsed, timeout};
use tokio_postgres::Error;

use crate::{
    db::{
        ConnectError, Connector, Session,
        catalog::{Kind, Table},
        known_keys::{self, Active},
        sqlstate::{self, Remedy},
    },
    queue::Key,
    sink::{
        Batch, Entry, Outcome, Sink, SinkError, Verdict, Witness,
        epochs::Epochs,
        ledger::{self, Retention},
        shape, stalled, suspects,
        transaction::{Transaction, Way, WriteError, Written, is_late},
        witness::Stand,
    },
    vault::retention::Keep,
};

/// For how many batches the safe way is taken after a copy was aborted. More would pay its price (about 1.5 times the
/// server's work) for longer; fewer would risk another aborted copy while redeliveries are still coming.
const SAFE_BATCHES: u32 = 16;

/// What `masq.hold_key` answers when another key makes the tokens now.
const KEY_REPLACED: &str = "MQ010";

/// What the database answers to an epoch that is sealed to a retired recipient.
const RETIRED: &str = "MQ012";

/// What a worker's sink writes to.
pub struct Target {
    /// How a session is opened.
    pub connector: Connector,
    /// The target table as the catalogue describes it.
    pub table: Table,
    /// The columns that are written, in the configuration's order.
    pub columns: Vec<String>,
    /// How long the ledger remembers.
    pub retention: Retention,
    /// How long an event is remembered by its producer's id.
    pub dedupe_retention: Duration,
    /// The queue's name, for the dead letters.
    pub queue: String,
    /// What the table is known to have taken.
    pub stand: Stand,
    /// How long sealed values and dead letters are kept.
    pub keep: Keep,
    /// How the database with the slots is reached, if they are in one of their own.
    pub slots: Option<Connector>,
}

/// One worker's sink, with at most one session.
pub struct PostgresSink {
    pub(super) target: Arc<Target>,
    pub(super) open: Option<Open>,
    /// With the slots in a database of their own.
    pub(super) slots: Option<Session>,
    pub(super) epochs: Epochs,
    pub(super) oldest: i64,
    safe_batches: u32,
}

/// A session, and what is known of the database through it.
pub(super) struct Open {
    pub(super) session: Session,
    pub(super) shape: Option<String>,
    pub(super) kept_at: Instant,
    /// Whether there may be something to prune.
    pub(super) prune: bool,
    /// The epoch whose header this session has written. Not the sink's: after a failover the header may be gone.
    pub(super) epoch: Option<uuid::Uuid>,
}

impl PostgresSink {
    /// A sink without a session yet. `oldest`: what the ledger remembers, as the start-up found it.
    pub fn new(target: Arc<Target>, oldest: i64) -> Self {
        Self { target, open: None, slots: None, epochs: Epochs::default(), oldest, safe_batches: 0 }
    }

    pub(super) async fn open(&mut self) -> Result<&mut Open, SinkError> {
        if self.open.as_ref().is_some_and(|open| open.session.is_closed()) {
            self.open = None;
        }
        if self.open.is_none() {
            let session = self.target.connector.connect().await.map_err(SinkError::from)?;
            let shape = shape::as_started(&session, &self.target).await?;
            self.oldest = self.keep_days(&session).await?;
            self.open = Some(Open { session, shape, kept_at: Instant::now(), prune: true, epoch: None });
        }
        self.open.as_mut().ok_or_else(|| SinkError::Unavailable("the session is gone".to_owned()))
    }

    /// What the caller can do about an error. A session whose state is unknown is not used again.
    pub(super) fn explain(&mut self, error: &Error) -> SinkError {
        let Target { table, columns, .. } = &*self.target;
        let target = sqlstate::Target {
            schema: &table.schema,
            table: &table.name,
            partitioned: table.kind == Kind::Partitioned,
            columns,
        };
        match (sqlstate::remedy(error, &target), error.as_db_error()) {
            (Remedy::Isolate, Some(refused)) => {
                let (sqlstate, place) = (refused.code().code().to_owned(), sqlstate::place(refused));
                SinkError::Refused { sqlstate, place, witness: Witness::Unknown }
            }
            (_, Some(refused)) if refused.code().code() == RETIRED => {
                self.open = None;
                let what = "recovery.pub holds a recipient that is retired: take it out and start the worker again";
                SinkError::Misconfigured(what.to_owned())
            }
            (_, Some(refused)) if refused.code().code() == KEY_REPLACED => {
                SinkError::KeyReplaced("the key of these tokens is no longer the active one".to_owned())
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
    pub(super) fn explain_own(&mut self, error: &Error) -> SinkError {
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
        let answer = timeout(self.limit(), self.write_part(batch, part)).await;
        self.unless_silent(answer)
    }

    async fn write_alone(&mut self, batch: &Batch, at: usize, other: Option<usize>) -> Result<Vec<Outcome>, SinkError> {
        let answer = timeout(self.limit(), self.write_one(batch, at, other)).await;
        self.unless_silent(answer)
    }

    fn oldest(&self) -> i64 {
        self.oldest
    }

    async fn suspect(&mut self, keys: &[Key]) -> Result<Vec<(Key, u32)>, SinkError> {
        self.on_record(async |session| suspects::record(session, keys).await).await
    }

    async fn suspect_again(&mut self, key: Key, readers: u32) -> Result<(), SinkError> {
        self.on_record(async |session| suspects::record_again(session, key, readers).await).await
    }

    async fn absolve(&mut self, keys: &[Key]) -> Result<(), SinkError> {
        self.on_record(async |session| suspects::clear(session, keys).await).await
    }

    async fn active_key(&mut self) -> Result<Option<Active>, SinkError> {
        self.on_record(async |session| known_keys::active(session).await).await
    }

    fn reset(&mut self) {
        self.open = None;
        self.slots = None;
    }

    async fn finish(&mut self) {
        self.epochs.end();
        if let Some(open) = &self.open {
            self.epochs.tell(&open.session).await;
        }
    }
}

impl PostgresSink {
    /// How long a server that is alive may take for all of a call: each statement has its own limit there.
    fn limit(&self) -> Duration {
        let connector = &self.target.connector;
        connector.limit() + connector.timeouts().statement * 4
    }

    /// A server that is frozen keeps its connections and answers nothing: without a limit of our own nothing would ever
    /// be tried elsewhere. Smaller, what is only slow gets through.
    fn unless_silent<T>(&mut self, answer: Result<Result<T, SinkError>, Elapsed>) -> Result<T, SinkError> {
        answer.unwrap_or_else(|_elapsed| {
            self.open = None;
            let limit = self.limit();
            Err(SinkError::TooSlow(format!("the database has not answered within {limit:?}: is its server frozen?")))
        })
    }

    async fn on_record<T>(&mut self, work: impl AsyncFnOnce(&Session) -> Result<T, Error>) -> Result<T, SinkError> {
        let limit = self.limit();
        let work = async {
            let open = self.open().await?;
            work(&open.session).await.map_err(|error| self.explain_own(&error))
        };
        let answer = timeout(limit, work).await;
        self.unless_silent(answer)
    }

    async fn write_part(&mut self, batch: &Batch, part: Range<usize>) -> Result<Vec<Outcome>, SinkError> {
        self.prepare(batch, part.clone()).await?;
        let outcomes = self.write_all(batch, part.clone()).await?;
        self.call_to_stand(batch, part, &outcomes).await;
        Ok(outcomes)
    }

    async fn write_one(&mut self, batch: &Batch, at: usize, other: Option<usize>) -> Result<Vec<Outcome>, SinkError> {
        if matches!(batch.entries[at].verdict, Verdict::Dead(_)) {
            return self.write_part(batch, at..at + 1).await;
        }
        self.prepare(batch, at..at + 1).await?;
        let outcomes = self.write_before_witnesses(batch, at, other).await?;
        self.call_to_stand(batch, at..at + 1, &outcomes).await;
        Ok(outcomes)
    }

    async fn write_all(&mut self, batch: &Batch, part: Range<usize>) -> Result<Vec<Outcome>, SinkError> {
        let entries = &batch.entries[part.clone()];
        let redelivered = entries.iter().any(|entry| entry.message.attempt > 1);
        if self.safe_batches == 0 && !redelivered {
            match self.write_with(batch, part.clone(), Way::Fast).await {
                Err(WriteError::Database(error)) if is_known_key(&error) => self.safe_batches = SAFE_BATCHES,
                written => return self.settle(written, entries).await,
            }
        }
        self.safe_batches = self.safe_batches.saturating_sub(1);
        let written = self.write_with(batch, part, Way::Safe).await;
        self.settle(written, entries).await
    }

    async fn write_with(&mut self, batch: &Batch, part: Range<usize>, way: Way) -> Written {
        let transaction = self.transaction(batch, part).await.map_err(WriteError::Unreachable)?;
        let written = transaction.run(way).await;
        self.end(written).await
    }

    /// A transaction that has not begun, on a session that is open.
    pub(super) async fn transaction<'a>(
        &'a mut self,
        batch: &'a Batch,
        part: Range<usize>,
    ) -> Result<Transaction<'a>, SinkError> {
        let target = Arc::clone(&self.target);
        self.open().await?;
        let kept = self.epochs.begin(batch.epoch.id);
        let Open { session, shape, .. } = self.open().await?;
        Ok(Transaction { session, target, shape: shape.as_deref(), batch, part, kept })
    }

    /// Ends a transaction that failed, and says of refused rows whether it was the table that had changed.
    pub(super) async fn end<T>(&mut self, written: Result<T, WriteError>) -> Result<T, WriteError> {
        self.epochs.ended(&written);
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

    pub(super) async fn settle(&mut self, written: Written, entries: &[Entry]) -> Result<Vec<Outcome>, SinkError> {
        match written {
            Ok(outcomes) => Ok(outcomes),
            Err(WriteError::Database(error)) if is_missing_partition(&error) => self.find_day(entries).await,
            Err(error) => {
                if let (Some(open), WriteError::Database(error) | WriteError::Rows(error)) = (&self.open, &error)
                    && sqlstate::is_locked(error)
                {
                    stalled::make_way(&open.session, &self.target).await;
                }
                Err(self.remedy(error))
            }
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
            WriteError::Overtaken => SinkError::Busy("a message got its outcome from another worker".to_owned()),
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
        let found = open.session.within(async {
            ledger::make_days(&open.session, &keyed).await?;
            ledger::oldest(&open.session).await
        });
        self.oldest = found.await.map_err(|error| self.explain_own(&error))?;
        Err(SinkError::Busy("a partition of the ledger was missing".to_owned()))
    }
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
