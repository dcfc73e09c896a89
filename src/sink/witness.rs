//! Whose fault is it that the table refuses a row: the row's or the table's? A row that the table took before is the
//! witness. In the transaction in which it refuses the one, it is given the other again, and nothing of that stays.
//!
//! Between the two nobody can change the table, since the transaction holds its lock. Where the table takes no row
//! twice, as one with a unique constraint, there is no witness.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio_postgres::Error;

use crate::sink::{
    Batch, Outcome, SinkError, Verdict, Witness,
    postgres::PostgresSink,
    transaction::{Transaction, WriteError, Written},
};

/// The row that all workers of a process call as their witness.
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

    /// The witness, or why there is none.
    pub(super) fn witness(&self) -> Result<Bytes, Witness> {
        match &*self.state() {
            State::Took(tuple) | State::Doubted(tuple) => Ok(tuple.clone()),
            State::Empty => Err(Witness::Unknown),
            State::Useless => Err(Witness::Absent),
        }
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
    /// The table does not even take nothing.
    Shut(Error),
    /// The table refuses the row, and takes the witness or not.
    Refused { row: Error, witness: Result<(), Error> },
}

impl<E: Into<WriteError>> From<E> for Alone {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Transaction<'_> {
    /// Like `run`, for a part that is one row. If the table refuses it, calls the witness.
    async fn run_alone(&self, witness: Bytes) -> Result<Vec<Outcome>, Alone> {
        self.session.begin().await?;
        // A COPY of nothing locks the table until the end, and needs no permission that others do not need.
        self.try_copy(&[]).await.map_err(Alone::Shut)?;
        self.session.batch_execute("SAVEPOINT alone").await?;
        match self.try_row().await {
            Err(WriteError::Rows(row)) => Err(Alone::Refused { row, witness: self.call(&witness).await }),
            written => Ok(self.finish(written?).await?),
        }
    }

    async fn try_row(&self) -> Written {
        let outcomes = self.copy_new().await?;
        self.try_deferred().await.map_err(WriteError::Rows)?;
        Ok(outcomes)
    }

    async fn call(&self, witness: &[u8]) -> Result<(), Error> {
        self.session.batch_execute("ROLLBACK TO SAVEPOINT alone").await?;
        self.try_copy(witness).await
    }

    /// Whether the table takes a row that it has just taken. Nothing of it stays.
    async fn try_again(&self, tuple: &[u8]) -> Result<(), WriteError> {
        self.session.begin().await?;
        self.try_copy(tuple).await.map_err(WriteError::Rows)?;
        Ok(self.session.batch_execute("ROLLBACK").await?)
    }

    /// Whether the table takes a row, before anything is committed.
    async fn try_copy(&self, tuple: &[u8]) -> Result<(), Error> {
        self.copy_rows(&[tuple]).await?;
        self.try_deferred().await
    }

    /// Constraints that speak only at COMMIT speak now.
    async fn try_deferred(&self) -> Result<(), Error> {
        self.session.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await
    }
}

/// What the witness says, where a row was refused.
pub(super) fn with_witness(error: SinkError, witness: Witness) -> SinkError {
    match error {
        SinkError::Refused { sqlstate, place, .. } => SinkError::Refused { sqlstate, place, witness },
        error => error,
    }
}

impl PostgresSink {
    /// Writes a row that was refused before, with a witness at hand.
    pub(super) async fn write_before(
        &mut self,
        batch: &Batch,
        at: usize,
        witness: Bytes,
    ) -> Result<Vec<Outcome>, SinkError> {
        let written = match self.transaction(batch, at..at + 1).await {
            Ok(transaction) => transaction.run_alone(witness).await,
            Err(error) => Err(Alone::Failed(WriteError::Unreachable(error))),
        };
        let (error, witness) = match written {
            Ok(outcomes) => return Ok(outcomes),
            Err(Alone::Failed(error)) => (error, Ok(Witness::Unknown)),
            Err(Alone::Shut(error)) => (WriteError::Rows(error), Ok(Witness::Refused)),
            Err(Alone::Refused { row, witness }) => (WriteError::Rows(row), self.testimony(witness)),
        };
        let failed = self.end(Err(error)).await;
        match (self.settle(failed, &batch.entries[at..=at]).await, witness) {
            (Err(error), Ok(witness)) => Err(with_witness(error, witness)),
            // What kept the witness away has to be over first.
            (Err(SinkError::Refused { .. }), Err(error)) => Err(error),
            (settled, _) => settled,
        }
    }

    /// What the table did with the witness, or what kept it from being asked.
    fn testimony(&mut self, witness: Result<(), Error>) -> Result<Witness, SinkError> {
        let Err(error) = witness else { return Ok(Witness::Taken) };
        // The witness is there already, and may not be there twice.
        if error.code().is_some_and(|code| matches!(code.code(), "23505" | "23P01")) {
            return Ok(Witness::Absent);
        }
        match self.explain(&error) {
            SinkError::Refused { .. } => {
                self.target.stand.doubt();
                Ok(Witness::Refused)
            }
            other => Err(other),
        }
    }

    /// Remembers the last row that the table took just now. Where an earlier one was refused later, this is when the
    /// table is known to be sound, and so when it shows whether it takes any row twice.
    pub(super) async fn call_to_stand(&mut self, batch: &Batch, part: Range<usize>, outcomes: &[Outcome]) {
        let row = part.zip(outcomes).rev().find_map(|(at, outcome)| match (&batch.entries[at].verdict, outcome) {
            (Verdict::Row(row), Outcome::Written) => Some(row.bytes.clone()),
            _ => None,
        });
        let Some(bytes) = row else { return };
        let Some(tuple) = self.target.stand.took(&batch.rows[bytes]) else { return };
        let tried = match self.transaction(batch, 0..0).await {
            Ok(transaction) => transaction.try_again(&tuple).await,
            Err(_) => return,
        };
        match self.end(tried).await {
            Ok(()) => self.target.stand.decide(State::Took(tuple)),
            Err(WriteError::Rows(error)) if matches!(self.explain(&error), SinkError::Refused { .. }) => {
                self.target.stand.decide(State::Useless);
            }
            // The next row asks again.
            Err(_) => {}
        }
    }
}
