//! Dead letters become rows: the transaction that resolves letters, writes their rows and says so in the ledger.
//!
//! It is exact in the way in which the first write is: a letter's row is locked, and only whoever finds it unresolved
//! writes its row, in the transaction that resolves it. Of two operators one finds it resolved, and so does whoever
//! tries again after a COMMIT whose answer was lost. Reading and masking the letters is not done here.

use std::{collections::HashSet, sync::Arc};

use tokio_postgres::{
    Client, Error,
    types::{ToSql, Type},
};

use crate::{
    db::{DbError, Session},
    queue::Key,
    sink::{
        Batch, Entry, SinkError,
        ledger::{self, KeyColumns},
        postgres::{Open, PostgresSink, Target, WriteError},
    },
    vault::dead::Opening,
};

/// What became of a letter in a committed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// Its row was written now.
    Written,
    /// It has been resolved or purged already; this changed nothing.
    Settled,
    /// The ledger says of its message something else than that it is a dead letter. It stays one.
    Contradicted,
}

impl PostgresSink {
    /// A session of its own with the database that it writes to.
    ///
    /// # Errors
    /// If there is none to be had.
    pub async fn connect(&self) -> Result<Session, DbError> {
        Ok(self.target.connector.connect().await?)
    }

    /// Makes rows of letters in one transaction, or changes nothing. The entries are rows of the batch, sorted by key.
    ///
    /// # Errors
    /// As [`super::Sink::write`].
    pub async fn replay(
        &mut self,
        batch: &Batch,
        entries: &[&Entry],
        opening: Opening<'_>,
    ) -> Result<Vec<Replayed>, SinkError> {
        let target = Arc::clone(&self.target);
        let replayed = match self.open().await {
            Ok(open) => open.replay(&target, batch, entries, opening).await,
            Err(error) => Err(WriteError::Unreachable(error)),
        };
        let replayed = self.end(replayed).await;
        replayed.map_err(|error| self.remedy(error))
    }
}

impl Open {
    async fn replay(
        &self,
        target: &Target,
        batch: &Batch,
        entries: &[&Entry],
        opening: Opening<'_>,
    ) -> Result<Vec<Replayed>, WriteError> {
        self.session.batch_execute(&format!("BEGIN; {}", target.connector.limits())).await?;
        let unresolved = lock(&self.session, &KeyColumns::of(entries.iter().map(|entry| entry.message.key))).await?;
        let keyed = note_in_ledger(&self.session, &KeyColumns::of(unresolved.iter().copied())).await?;
        let others = unresolved.difference(&keyed).copied();
        let keyless = forgotten(&self.session, &KeyColumns::of(others)).await?;

        let is_row = |key: &Key| keyed.contains(key) || keyless.contains(key);
        let rows: Vec<&Entry> = entries.iter().copied().filter(|entry| is_row(&entry.message.key)).collect();
        if !rows.is_empty() {
            resolve(&self.session, &KeyColumns::of(rows.iter().map(|entry| entry.message.key))).await?;
            record(&self.session, opening, rows.len(), keyless.len()).await?;
            self.write_rows(target, batch, rows).await?;
        }
        if unresolved.len() < entries.len() {
            self.write_wal().await?;
        }
        self.commit().await?;
        let replayed = |entry: &&Entry| match entry.message.key {
            key if is_row(&key) => Replayed::Written,
            key if unresolved.contains(&key) => Replayed::Contradicted,
            _ => Replayed::Settled,
        };
        Ok(entries.iter().map(replayed).collect())
    }
}

/// Locks those of the letters that are unresolved. In the order of their keys, so that two operators wait for each other
/// instead of standing in each other's way.
async fn lock(client: &Client, keys: &KeyColumns) -> Result<HashSet<Key>, Error> {
    const LOCK: &str = "SELECT d.sent_at, d.message_id FROM masq.dead_letters d \
         JOIN unnest($1::timestamptz[], $2::uuid[]) AS k (sent_at, message_id) USING (sent_at, message_id) \
         WHERE d.resolved_at IS NULL ORDER BY d.sent_at, d.message_id FOR UPDATE OF d";
    keys.select(client, LOCK).await
}

/// Turns dead letters into replayed ones in the ledger, and answers which of these keys were there as dead letters.
async fn note_in_ledger(client: &Client, keys: &KeyColumns) -> Result<HashSet<Key>, Error> {
    let sql = format!(
        "UPDATE masq.ledger l SET outcome = {} FROM unnest($1::timestamptz[], $2::uuid[]) AS k (sent_at, message_id) \
         WHERE l.sent_at = k.sent_at AND l.message_id = k.message_id AND l.outcome = {} \
         RETURNING l.sent_at, l.message_id",
        ledger::REPLAYED,
        ledger::DEAD
    );
    keys.select(client, &sql).await
}

/// Those of these keys that are not in the ledger because its memory begins later.
async fn forgotten(client: &Client, keys: &KeyColumns) -> Result<HashSet<Key>, Error> {
    const FORGOTTEN: &str = "SELECT k.sent_at, k.message_id \
         FROM unnest($1::timestamptz[], $2::uuid[]) AS k (sent_at, message_id) \
         LEFT JOIN masq.ledger l ON l.sent_at = k.sent_at AND l.message_id = k.message_id \
         WHERE l.message_id IS NULL AND k.sent_at < masq.ledger_oldest()";
    keys.select(client, FORGOTTEN).await
}

async fn resolve(client: &Client, keys: &KeyColumns) -> Result<(), WriteError> {
    const RESOLVE: &str = "UPDATE masq.dead_letters d SET resolved_at = now() \
         FROM unnest($1::timestamptz[], $2::uuid[]) AS k (sent_at, message_id) \
         WHERE d.sent_at = k.sent_at AND d.message_id = k.message_id AND d.resolved_at IS NULL";
    if keys.execute(client, RESOLVE).await? == keys.len() as u64 {
        return Ok(());
    }
    let what = "a trigger or rule on masq.dead_letters keeps letters from being resolved: drop it".to_owned();
    Err(WriteError::Unreachable(SinkError::Misconfigured(what)))
}

async fn record(client: &Client, opening: Opening<'_>, rows: usize, keyless: usize) -> Result<(), Error> {
    const INSERT: &str = "INSERT INTO masq.replays (claimed, reason, letters, keyless) VALUES ($1, $2, $3, $4)";
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let (rows, keyless) = (count(rows), count(keyless));
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&opening.claimed, Type::TEXT), (&opening.reason, Type::TEXT), (&rows, Type::INT4), (&keyless, Type::INT4)];
    client.execute_typed(INSERT, &parameters).await?;
    Ok(())
}
