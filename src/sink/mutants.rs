//! The transactions of broken variants (`src/mutant.rs`): each has one mistake that somebody could make, so that tests
//! can show that they would find it. Not part of a release: the feature `mutants` does not build there.

use std::collections::HashSet;

use crate::{
    mutant::{self, Mutant},
    queue::Key,
    sink::{
        Entry, dedupe, ledger,
        transaction::{Transaction, WriteError, Written},
    },
};

/// How long the ledger of [`Mutant::PrunedEarly`] remembers.
const FORGET: &str = "DELETE FROM masq.ledger WHERE sent_at < now() - interval '3 seconds'";

impl Transaction<'_> {
    /// The transaction as this process's mutant makes it; `None` for a process that is none, or broken elsewhere.
    pub(super) async fn run_broken(&self) -> Option<Written> {
        if mutant::is(Mutant::NoLedger) {
            return Some(self.without_ledger().await);
        }
        if mutant::is(Mutant::LedgerFirst) {
            return Some(self.in_two(true).await);
        }
        if mutant::is(Mutant::RowsFirst) {
            return Some(self.in_two(false).await);
        }
        if mutant::is(Mutant::SelectThenInsert) {
            return Some(self.select_then_insert().await);
        }
        if mutant::is(Mutant::PrunedEarly) {
            return Some(self.after(FORGET).await);
        }
        if mutant::is(Mutant::AsynchronousCommit) {
            return Some(self.after("SET LOCAL synchronous_commit = off").await);
        }
        if mutant::is(Mutant::UnknownIsDone) {
            return Some(self.unknown_is_done().await);
        }
        None
    }

    /// Keeps the ledger, but writes everything whatever it says.
    async fn without_ledger(&self) -> Written {
        self.begin().await?;
        let repeated = self.repeated(|_| true).await?;
        self.claim(&repeated).await?;
        let outcomes = self.write(|_| true, &repeated).await?;
        self.commit().await?;
        Ok(outcomes)
    }

    /// Commits between the keys and what belongs to them.
    async fn in_two(&self, ledger_first: bool) -> Written {
        self.begin().await?;
        let new = self.look().await?;
        let repeated = self.repeated(|key| new.contains(key)).await?;
        let outcomes = if ledger_first {
            let new = self.claim(&repeated).await?;
            self.commit().await?;
            self.begin().await?;
            self.write(|key| new.contains(key), &repeated).await?
        } else {
            let outcomes = self.write(|key| new.contains(key), &repeated).await?;
            self.commit().await?;
            self.begin().await?;
            self.claim(&repeated).await?;
            outcomes
        };
        self.commit().await?;
        Ok(outcomes)
    }

    /// Lets no unique index decide.
    async fn select_then_insert(&self) -> Written {
        self.begin().await?;
        let new = self.look().await?;
        let repeated = self.repeated(|key| new.contains(key)).await?;
        let outcomes = self.write(|key| new.contains(key), &repeated).await?;
        self.claim(&repeated).await?;
        self.commit().await?;
        Ok(outcomes)
    }

    /// As it should be, but after a statement that spoils it.
    async fn after(&self, statement: &str) -> Written {
        self.begin().await?;
        self.session.batch_execute(statement).await?;
        let outcomes = self.copy_new().await?;
        self.commit().await?;
        Ok(outcomes)
    }

    /// Takes a COMMIT whose answer is lost for one that was done.
    async fn unknown_is_done(&self) -> Written {
        self.begin().await?;
        let outcomes = self.copy_new().await?;
        match self.commit().await {
            Err(WriteError::Rows(error)) if error.as_db_error().is_none() => Ok(outcomes),
            other => other.map(|()| outcomes),
        }
    }

    /// Claims all keys and answers those that are new.
    async fn claim(&self, repeated: &HashSet<Key>) -> Result<HashSet<Key>, WriteError> {
        let keyed: Vec<&Entry> = self.keyed().collect();
        Ok(ledger::claim(self.session, &keyed, repeated).await?)
    }

    /// Claims the events of what is new, and answers which of them are rows already.
    async fn repeated(&self, is_new: impl Fn(&Key) -> bool) -> Result<HashSet<Key>, WriteError> {
        let new = self.keyed().filter(|entry| is_new(&entry.message.key));
        Ok(dedupe::claim(self.session, new).await?.lost)
    }

    /// Answers the keys that are not there, and claims none.
    async fn look(&self) -> Result<HashSet<Key>, WriteError> {
        let keyed: Vec<&Entry> = self.keyed().collect();
        let known = ledger::known(self.session, &keyed).await?;
        Ok(keyed.iter().map(|entry| entry.message.key).filter(|key| !known.contains(key)).collect())
    }
}
