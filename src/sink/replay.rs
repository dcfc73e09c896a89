//! Dead letters become rows: the transaction that resolves letters, writes their rows and says so in the ledger.
//!
//! It is exact in the way in which the first write is: a letter's row is locked, and only whoever finds it unresolved
//! writes its row, in the transaction that resolves it. Of two operators one finds it resolved, and so does whoever
//! tries again after a COMMIT whose answer was lost. Reading and masking the letters is not done here.

use std::{collections::HashSet, ops::Range};

use tokio_postgres::{
    Client, Error,
    types::{ToSql, Type},
};

use crate::{
    db::{DbError, Session},
    queue::Key,
    sink::{
        Batch, Entry, SinkError, Verdict, dedupe,
        ledger::{self, KeyColumns},
        postgres::PostgresSink,
        transaction::{Transaction, WriteError},
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
    /// Another message that brought the same event is a row. It stays a letter.
    Repeated,
}

impl PostgresSink {
    /// A session of its own with the database that it writes to.
    ///
    /// # Errors
    /// If there is none to be had.
    pub async fn connect(&self) -> Result<Session, DbError> {
        Ok(self.target.connector.connect().await?)
    }

    /// Makes rows of letters in one transaction, or changes nothing: of those entries of this stretch that are rows.
    ///
    /// # Errors
    /// As [`super::Sink::write`].
    pub async fn replay(
        &mut self,
        batch: &Batch,
        part: Range<usize>,
        opening: Opening<'_>,
    ) -> Result<Vec<(Key, Replayed)>, SinkError> {
        if !batch.entries[part.clone()].iter().any(|entry| matches!(entry.verdict, Verdict::Row(_))) {
            return Ok(Vec::new());
        }
        self.prepare(batch, part.clone()).await?;
        let replayed = match self.transaction(batch, part).await {
            Ok(transaction) => transaction.replay(opening).await,
            Err(error) => Err(WriteError::Unreachable(error)),
        };
        let replayed = self.end(replayed).await;
        replayed.map_err(|error| self.remedy(error))
    }
}

impl Transaction<'_> {
    /// From BEGIN to COMMIT. After an error it is still open.
    async fn replay(&self, opening: Opening<'_>) -> Result<Vec<(Key, Replayed)>, WriteError> {
        self.begin().await?;
        let rows = || self.entries().iter().filter(|entry| matches!(entry.verdict, Verdict::Row(_)));
        let unresolved = lock(self.session, &KeyColumns::of(rows().map(|entry| entry.message.key))).await?;
        // Whoever would change what the ledger says of these has to have the letters first.
        let columns = KeyColumns::of(unresolved.iter().copied());
        let (keyed, keyless) = (dead(self.session, &columns).await?, forgotten(self.session, &columns).await?);
        let is_free = |entry: &&Entry| keyed.contains(&entry.message.key) || keyless.contains(&entry.message.key);
        let claims = dedupe::claim(self.session, rows().filter(is_free)).await?;
        let new: Vec<&Entry> =
            rows().filter(|entry| is_free(entry) && !claims.lost.contains(&entry.message.key)).collect();

        if !new.is_empty() {
            let keys = || new.iter().map(|entry| entry.message.key);
            note_in_ledger(self.session, &KeyColumns::of(keys().filter(|key| keyed.contains(key)))).await?;
            resolve(self.session, &KeyColumns::of(keys())).await?;
            record(self.session, opening, new.len(), keys().filter(|key| keyless.contains(key)).count()).await?;
            self.write_rows(new.iter().copied()).await?;
            self.write_values(new.iter().copied()).await?;
            // Last, for until the end of the transaction nobody else gets an entry into the audit log.
            audit(self.session, opening, new.len()).await?;
        }
        if unresolved.len() < rows().count() {
            self.write_wal().await?;
        }
        self.commit().await?;
        let written: HashSet<Key> = new.iter().map(|entry| entry.message.key).collect();
        let replayed = |entry: &Entry| match entry.message.key {
            key if written.contains(&key) => (key, Replayed::Written),
            key if claims.lost.contains(&key) => (key, Replayed::Repeated),
            key if unresolved.contains(&key) => (key, Replayed::Contradicted),
            key => (key, Replayed::Settled),
        };
        Ok(rows().map(replayed).collect())
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

/// Those of these keys that the ledger calls dead letters. A plain ledger may still hold keys that it has forgotten.
async fn dead(client: &Client, keys: &KeyColumns) -> Result<HashSet<Key>, Error> {
    let sql = format!(
        "SELECT sent_at, message_id FROM masq.ledger \
         JOIN unnest($1::timestamptz[], $2::uuid[]) AS k (sent_at, message_id) USING (sent_at, message_id) \
         WHERE outcome = {} AND sent_at >= masq.ledger_oldest()",
        ledger::DEAD
    );
    keys.select(client, &sql).await
}

/// Those of these keys that are older than the ledger's memory.
async fn forgotten(client: &Client, keys: &KeyColumns) -> Result<HashSet<Key>, Error> {
    const FORGOTTEN: &str = "SELECT k.sent_at, k.message_id \
         FROM unnest($1::timestamptz[], $2::uuid[]) AS k (sent_at, message_id) WHERE sent_at < masq.ledger_oldest()";
    keys.select(client, FORGOTTEN).await
}

async fn note_in_ledger(client: &Client, keys: &KeyColumns) -> Result<(), WriteError> {
    let sql = format!(
        "UPDATE masq.ledger l SET outcome = {} FROM unnest($1::timestamptz[], $2::uuid[]) AS k (sent_at, message_id) \
         WHERE l.sent_at = k.sent_at AND l.message_id = k.message_id",
        ledger::REPLAYED
    );
    changed(keys.execute(client, &sql).await?, keys, "masq.ledger")
}

async fn resolve(client: &Client, keys: &KeyColumns) -> Result<(), WriteError> {
    const RESOLVE: &str = "UPDATE masq.dead_letters d SET resolved_at = now() \
         FROM unnest($1::timestamptz[], $2::uuid[]) AS k (sent_at, message_id) \
         WHERE d.sent_at = k.sent_at AND d.message_id = k.message_id AND d.resolved_at IS NULL";
    changed(keys.execute(client, RESOLVE).await?, keys, "masq.dead_letters")
}

/// Each of them must have changed: they are there and under a lock.
fn changed(rows: u64, keys: &KeyColumns, table: &str) -> Result<(), WriteError> {
    if rows == keys.len() as u64 {
        return Ok(());
    }
    let what = format!("a trigger, a rule or a hand keeps rows of {table} from being changed: drop it");
    Err(WriteError::Unreachable(SinkError::Misconfigured(what)))
}

async fn audit(client: &Client, opening: Opening<'_>, rows: usize) -> Result<(), Error> {
    let rows = i32::try_from(rows).unwrap_or(i32::MAX);
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&opening.claimed, Type::TEXT), (&opening.reason, Type::TEXT), (&rows, Type::INT4)];
    client.query_typed("SELECT masq.resolved($1, $2, $3)", &parameters).await.map(drop)
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
