//! What has to be there before a transaction: partitions, the header of the epoch, slots in a database of their own; and
//! what has to go, bit by bit. Each is a transaction of its own, and none holds a message up for long.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_postgres::Error;

use crate::{
    db::{Session, sqlstate},
    sink::{
        Batch, Entry, SinkError, dead_letters, entries, ledger,
        postgres::{PostgresSink, Target},
    },
    vault::{erase, retention},
};

/// How often the ledger's days are made and forgotten.
const UPKEEP: Duration = Duration::from_secs(3600);

impl PostgresSink {
    /// What has to be there before a transaction of these entries.
    pub(super) async fn prepare(&mut self, batch: &Batch, part: Range<usize>) -> Result<(), SinkError> {
        self.keep_up().await?;
        let is_sealed = |entry: &Entry| entry.seals().is_none_or(|seals| !seals.is_empty());
        if batch.entries[part.clone()].iter().any(is_sealed) {
            self.keep_epoch(batch).await?;
            self.keep_slots(batch, part).await?;
        }
        Ok(())
    }

    /// The ledger is looked after by whichever worker finds that it is time.
    async fn keep_up(&mut self) -> Result<(), SinkError> {
        let target = Arc::clone(&self.target);
        let open = self.open().await?;
        if open.kept_at.elapsed() >= UPKEEP {
            (open.kept_at, open.prune) = (Instant::now(), true);
            let kept = keep_partitions(&open.session, &target).await;
            self.oldest = kept.map_err(|error| self.explain_own(&error))?;
            self.slots = None; // opened anew it looks after its months
        }
        self.prune().await
    }

    /// The database with the slots, if they have one of their own.
    async fn slots(&mut self) -> Result<Option<&Session>, SinkError> {
        let Some(connector) = &self.target.slots else { return Ok(None) };
        if self.slots.as_ref().is_none_or(|session| session.is_closed()) {
            let session = connector.connect().await.map_err(SinkError::from)?;
            let kept = session.within(entries::keep_months(&session, "masq_slots")).await;
            kept.map_err(|error| self.explain_own(&error))?;
            self.slots = Some(session);
        }
        Ok(self.slots.as_ref())
    }

    /// Slots in a database of their own are written first: one without a value is nothing, a value without its slot
    /// never opens.
    async fn keep_slots(&mut self, batch: &Batch, part: Range<usize>) -> Result<(), SinkError> {
        let values = batch.seals.needed(batch.entries[part].iter().filter_map(Entry::seals));
        if values.is_empty() {
            return Ok(());
        }
        let Some(session) = self.slots().await? else { return Ok(()) };
        let written = session.within(entries::write_slots(session, &batch.epoch, &batch.seals, &values)).await;
        let known = written.as_ref().map_or_else(|error| error.as_db_error().map(|_| 0), |slots| Some(*slots));
        self.epochs.wrote_slots(known);
        written.map(drop).map_err(|error| {
            self.slots = None;
            self.explain_own(&error)
        })
    }

    /// Bit by bit, one with each batch. That something cannot be deleted is no reason to load nothing.
    async fn prune(&mut self) -> Result<(), SinkError> {
        let claims = self.target.dedupe_retention;
        let open = self.open().await?;
        if open.prune {
            let pruned = open.session.within(ledger::prune(&open.session, claims)).await;
            open.prune = *pruned.as_ref().unwrap_or(&false);
            warn(&pruned, "cannot prune the schema masq; tried again in an hour");
            let more = self.retain().await?;
            self.open().await?.prune |= more;
        }
        Ok(())
    }

    /// Deletes some of what has been kept long enough. Answers whether there may be more.
    async fn retain(&mut self) -> Result<bool, SinkError> {
        let keep = self.target.keep;
        if keep.values.is_none() && keep.letters.is_none() {
            return Ok(false);
        }
        self.slots().await?;
        let Some(open) = &self.open else { return Ok(false) };
        let kept = retention::keep(&open.session, self.slots.as_ref(), keep).await;
        warn(&kept, "cannot delete what has been kept long enough; tried again in an hour");
        Ok(kept.unwrap_or(false))
    }

    /// Deletes what an epoch that began before an erasure has brought back of an erased person.
    async fn sweep(&mut self) -> Result<(), SinkError> {
        self.slots().await?;
        let Some(open) = &self.open else { return Ok(()) };
        let swept = erase::sweep(&open.session, self.slots.as_ref(), erase::RECENT).await;
        warn(&swept, "cannot delete what came back of erased persons; tried again in a minute");
        Ok(())
    }

    /// The header of an epoch is durable before anything sealed under its key is.
    async fn keep_epoch(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let open = self.open().await?;
        if open.epoch == Some(batch.epoch.id) {
            return Ok(());
        }
        match open.session.within(dead_letters::keep_epoch(&open.session, &batch.epoch)).await {
            Ok(()) => open.epoch = Some(batch.epoch.id),
            Err(error) => return Err(self.explain_own(&error)),
        }
        self.epochs.enter(batch.epoch.id);
        if let Some(open) = &self.open {
            self.epochs.tell(&open.session).await;
        }
        self.sweep().await
    }

    /// Makes the partitions of both logs of days and months. Answers what the ledger remembers.
    pub(super) async fn keep_days(&mut self, session: &Session) -> Result<i64, SinkError> {
        let target = Arc::clone(&self.target);
        keep_partitions(session, &target).await.map_err(|error| self.explain_own(&error))
    }
}

/// Says why something was not done that no message has to wait for.
fn warn<T>(done: &Result<T, Error>, what: &str) {
    if let Err(error) = done {
        tracing::warn!(error = sqlstate::describe(error), "{what}");
    }
}

/// Makes the partitions of days and months, and answers what the ledger remembers.
async fn keep_partitions(session: &Session, target: &Target) -> Result<i64, Error> {
    session
        .within(async {
            entries::keep_months(session, "masq").await?;
            if target.slots.is_none() {
                entries::keep_months(session, "masq_slots").await?;
            }
            ledger::keep_partitions(session, target.retention.get()).await
        })
        .await
}
