//! Whose fault is it that the table refuses a row: the row's or the table's? Other rows bear witness: one of the same
//! batch that is not written yet, and one that the table took before. In the transaction in which it refuses the one, it
//! is given those, and nothing of that stays.
//!
//! Meanwhile the transaction holds the table's lock, so that nobody changes the table itself in between.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio_postgres::Error;

use crate::{
    db::catalog::quote_ident,
    sink::{
        Batch, Outcome, SinkError, Verdict, Witness,
        postgres::{PostgresSink, Target},
        transaction::{Transaction, WriteError, Written},
    },
};

/// The row that a process's workers know the table to have taken.
#[derive(Default)]
pub struct Stand(Mutex<State>);

#[derive(Clone, Default)]
enum State {
    /// The table has not taken a row yet.
    #[default]
    Empty,
    /// It took this one, a tuple of COPY BINARY.
    Took(Bytes),
    /// It took this one and refused it later. Is it the table, or does it take no row twice?
    Doubted(Bytes),
    /// It takes no row twice.
    Useless,
}

impl Stand {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row that the table took.
    fn witness(&self) -> Option<Bytes> {
        match &*self.state() {
            State::Took(tuple) | State::Doubted(tuple) => Some(tuple.clone()),
            State::Empty | State::Useless => None,
        }
    }

    fn is_useless(&self) -> bool {
        matches!(&*self.state(), State::Useless)
    }

    /// Notes that the table took a row just now. Answers it if it is to be tried whether it takes it twice.
    fn took(&self, tuple: &[u8]) -> Option<Bytes> {
        let mut state = self.state();
        let tuple = Bytes::copy_from_slice(tuple);
        match &mut *state {
            State::Useless => None,
            State::Doubted(_) => Some(tuple),
            State::Empty | State::Took(_) => {
                *state = State::Took(tuple);
                None
            }
        }
    }

    fn decide(&self, state: State) {
        *self.state() = state;
    }

    fn doubt(&self) {
        let mut state = self.state();
        if let State::Took(tuple) = &*state {
            *state = State::Doubted(tuple.clone());
        }
    }
}

/// Why a row that was refused before is not written.
enum Alone {
    /// Not for the row.
    Failed(WriteError),
    /// The table refuses the row. What it does with another of the batch, and with the one that it took before.
    Refused { row: Error, other: Option<Result<u64, Error>>, old: Option<Result<u64, Error>> },
}

impl<E: Into<WriteError>> From<E> for Alone {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Transaction<'_> {
    /// Like `run`, for a part that is one row. If the table refuses it, calls the witnesses: the second only if it takes
    /// the first no better.
    async fn run_alone(&self, other: Option<&[u8]>, old: Option<Bytes>) -> Result<Vec<Outcome>, Alone> {
        self.begin().await?;
        self.session.batch_execute(&lock(&self.target)).await?;
        self.session.batch_execute("SAVEPOINT alone").await?;
        let row = match self.try_row().await {
            Err(WriteError::Rows(row)) => row,
            written => return Ok(self.finish(written?).await?),
        };
        let other = self.call(other).await;
        let old = if matches!(other, Some(Ok(1))) { None } else { self.call(old.as_deref()).await };
        Err(Alone::Refused { row, other, old })
    }

    async fn try_row(&self) -> Written {
        let outcomes = self.copy_new().await?;
        self.try_deferred().await.map_err(WriteError::Rows)?;
        Ok(outcomes)
    }

    async fn call(&self, witness: Option<&[u8]>) -> Option<Result<u64, Error>> {
        let tuple = witness?;
        let rolled_back = self.session.batch_execute("ROLLBACK TO SAVEPOINT alone").await;
        Some(match rolled_back {
            Ok(()) => self.try_copy(tuple).await,
            Err(error) => Err(error),
        })
    }

    /// Whether the table takes a row that it has just taken. Nothing of it stays.
    async fn try_again(&self, tuple: &[u8]) -> Result<u64, WriteError> {
        self.session.begin().await?;
        let taken = self.try_copy(tuple).await.map_err(WriteError::Rows)?;
        self.session.batch_execute("ROLLBACK").await?;
        Ok(taken)
    }

    /// How many rows the table takes of one, before anything is committed.
    async fn try_copy(&self, tuple: &[u8]) -> Result<u64, Error> {
        let taken = self.copy_rows(&[tuple]).await?;
        self.try_deferred().await?;
        Ok(taken)
    }

    /// Constraints that speak only at COMMIT speak now.
    async fn try_deferred(&self) -> Result<(), Error> {
        self.session.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await
    }
}

/// Locks the table until the transaction's end as an INSERT does, without one: a statement that is only prepared fires
/// no trigger and needs no permission. LOCK TABLE would need more than a worker has.
fn lock(target: &Target) -> String {
    let (schema, table) = (quote_ident(&target.table.schema), quote_ident(&target.table.name));
    format!("PREPARE masq_lock AS INSERT INTO {schema}.{table} DEFAULT VALUES; DEALLOCATE masq_lock")
}

impl PostgresSink {
    /// Writes a row that was refused before, with witnesses at hand.
    pub(super) async fn write_before_witnesses(
        &mut self,
        batch: &Batch,
        at: usize,
        other: Option<usize>,
    ) -> Result<Vec<Outcome>, SinkError> {
        let other = other.and_then(|at| tuple(batch, at));
        let old = self.target.stand.witness();
        let written = match self.transaction(batch, at..at + 1).await {
            Ok(transaction) => transaction.run_alone(other, old).await,
            Err(error) => Err(Alone::Failed(WriteError::Unreachable(error))),
        };
        let (error, testimony) = match written {
            Ok(outcomes) => {
                self.epochs.ended(&Ok(()));
                return Ok(outcomes);
            }
            Err(Alone::Failed(error)) => (error, Ok(Witness::Unknown)),
            Err(Alone::Refused { row, other, old }) => (WriteError::Rows(row), self.testimony(other, old)),
        };
        let failed = self.end(Err(error)).await;
        match (self.settle(failed, &batch.entries[at..=at]).await, testimony) {
            (Err(SinkError::Refused { sqlstate, place, .. }), Ok(witness)) => {
                Err(SinkError::Refused { sqlstate, place, witness })
            }
            // What kept the witnesses away has to be over first.
            (Err(SinkError::Refused { .. }), Err(error)) => Err(error),
            (settled, _) => settled,
        }
    }

    /// What the table did with the witnesses, or what kept them from being asked.
    fn testimony(
        &mut self,
        other: Option<Result<u64, Error>>,
        old: Option<Result<u64, Error>>,
    ) -> Result<Witness, SinkError> {
        let other = other.map(|taken| self.judge(taken)).transpose()?;
        if other == Some(Some(true)) {
            return Ok(Witness::TakesNew);
        }
        let was_called = old.is_some();
        Ok(match old.map(|taken| self.judge(taken)).transpose()?.flatten() {
            Some(true) => Witness::TakesOld,
            Some(false) => {
                self.target.stand.doubt();
                Witness::TakesNone
            }
            None if was_called || self.target.stand.is_useless() => Witness::Absent,
            // The other one may be bad itself.
            None => Witness::Unknown,
        })
    }

    /// Whether the table takes a row; nothing if it is there already and may not be there twice, or a trigger drops it.
    fn judge(&mut self, taken: Result<u64, Error>) -> Result<Option<bool>, SinkError> {
        let error = match taken {
            Ok(rows) => return Ok((rows == 1).then_some(true)),
            Err(error) => error,
        };
        if is_there(&error) {
            return Ok(None);
        }
        match self.explain(&error) {
            SinkError::Refused { .. } => Ok(Some(false)),
            // Such as a partition that is gone: the other row would not have been refused for it.
            SinkError::Misconfigured(_) => Ok(None),
            other => Err(other),
        }
    }

    /// Remembers the last row that the table took just now. Where an earlier one was refused later, this is when the
    /// table is known to be sound, and so when it shows whether it takes any row twice.
    pub(super) async fn call_to_stand(&mut self, batch: &Batch, part: Range<usize>, outcomes: &[Outcome]) {
        let mut written = part.zip(outcomes).rev().filter(|(_, outcome)| **outcome == Outcome::Written);
        let Some(row) = written.find_map(|(at, _)| tuple(batch, at)) else { return };
        let Some(row) = self.target.stand.took(row) else { return };
        let tried = match self.transaction(batch, 0..0).await {
            Ok(transaction) => transaction.try_again(&row).await,
            Err(_) => return,
        };
        match self.end(tried).await {
            Err(WriteError::Rows(error)) if !is_there(&error) => {
                if matches!(self.explain(&error), SinkError::Refused { .. }) {
                    self.target.stand.decide(State::Useless);
                }
            }
            Ok(_) | Err(WriteError::Rows(_)) => self.target.stand.decide(State::Took(row)),
            // The next row asks again.
            Err(_) => {}
        }
    }
}

/// The row of an entry that is to be one.
fn tuple(batch: &Batch, at: usize) -> Option<&[u8]> {
    match &batch.entries[at].verdict {
        Verdict::Row(row) => Some(&batch.rows[row.bytes.clone()]),
        Verdict::Dead(_) => None,
    }
}

/// Whether a row is not taken because it is there already.
fn is_there(error: &Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "23505" | "23P01"))
}
