//! The ledger: which messages have their outcome. One unique key a message, whoever writes it first.
//!
//! Here are its statements and the two ways of claiming keys: COPY for messages that are new, as nearly all are, and
//! INSERT … ON CONFLICT for batches in which some may be there already. Neither is a transaction of its own.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio_postgres::{
    Client, Error, Row,
    types::{ToSql, Type},
};
use uuid::Uuid;

use crate::{
    queue::Key,
    sink::{Entry, Verdict, copy},
};

/// The ledger's outcome of a row.
pub const ROW: i16 = 1;

/// The ledger's outcome of a dead letter.
pub const DEAD: i16 = 2;

/// The ledger's outcome of a dead letter that was replayed into a row.
pub const REPLAYED: i16 = 3;

/// The ledger's outcome of a message whose event is a row already.
pub const REPEATED: i16 = 4;

/// The ledger's outcome of a dead letter that was purged.
pub const PURGED: i16 = 5;

/// Claims keys of which none is there yet; one that is aborts it with SQLSTATE 23505.
pub const COPY: &str = "COPY masq.ledger (sent_at, message_id, outcome) FROM STDIN BINARY";

const CLAIM: &str = "INSERT INTO masq.ledger (sent_at, message_id, outcome) \
     SELECT * FROM unnest($1::timestamptz[], $2::uuid[], $3::int2[]) \
     ON CONFLICT DO NOTHING RETURNING sent_at, message_id";

const KNOWN: &str = "SELECT sent_at, message_id FROM masq.ledger \
     JOIN unnest($1::timestamptz[], $2::uuid[]) AS asked (sent_at, message_id) USING (sent_at, message_id)";

/// How long the ledger remembers, which may become longer while workers run: whoever owns the queue may let messages live
/// longer.
pub struct Retention(AtomicU64);

impl Retention {
    /// This long, to the second.
    pub fn new(retention: Duration) -> Self {
        Self(AtomicU64::new(retention.as_secs()))
    }

    /// As it is now.
    pub fn get(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    /// At least this long from now on. Answers whether that is longer than before.
    pub fn extend(&self, needed: Duration) -> bool {
        self.0.fetch_max(needed.as_secs(), Ordering::Relaxed) < needed.as_secs()
    }
}

/// Keys as the parameters of a statement: two arrays, `$1::timestamptz[]` and `$2::uuid[]`.
pub struct KeyColumns {
    sent: Vec<SystemTime>,
    ids: Vec<Uuid>,
}

impl KeyColumns {
    /// These keys.
    pub fn of(keys: impl IntoIterator<Item = Key>) -> Self {
        let (sent, ids) = keys.into_iter().map(|key| (time_of(key.sent_at), key.id)).unzip();
        Self { sent, ids }
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The keys that a query answers: `sent_at` and `message_id` first. Without keys it is not asked.
    pub async fn select(&self, client: &Client, sql: &str) -> Result<HashSet<Key>, Error> {
        let rows = if self.is_empty() { Vec::new() } else { client.query_typed(sql, &self.parameters()).await? };
        keys(&rows)
    }

    /// How many rows a statement changes. Without keys it changes none.
    pub async fn execute(&self, client: &Client, sql: &str) -> Result<u64, Error> {
        if self.is_empty() { Ok(0) } else { client.execute_typed(sql, &self.parameters()).await }
    }

    /// Both, for a statement with more parameters than these.
    pub fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 2] {
        [(&self.sent, Type::TIMESTAMPTZ_ARRAY), (&self.ids, Type::UUID_ARRAY)]
    }
}

/// The keys in rows that begin with `sent_at` and `message_id`.
pub fn keys(rows: &[Row]) -> Result<HashSet<Key>, Error> {
    rows.iter().map(|row| Ok(Key { sent_at: millis(row.try_get(0)?), id: row.try_get(1)? })).collect()
}

/// The keys as tuples of COPY BINARY; `repeated`: of messages whose events are rows already.
pub fn tuples<'a>(entries: impl Iterator<Item = &'a Entry>, repeated: &HashSet<Key>) -> Vec<u8> {
    let mut out = copy::HEADER.to_vec();
    for entry in entries {
        copy::tuple(&mut out, 3);
        copy::timestamp(&mut out, entry.message.key.sent_at * 1000);
        copy::bytes(&mut out, entry.message.key.id.as_bytes());
        copy::bytes(&mut out, &outcome(entry, repeated).to_be_bytes());
    }
    out.extend_from_slice(copy::TRAILER);
    out
}

/// Those keys that are there already.
pub async fn known(client: &Client, entries: &[&Entry]) -> Result<HashSet<Key>, Error> {
    columns(entries).select(client, KNOWN).await
}

/// Claims those keys that are not there yet, and answers them.
pub async fn claim(client: &Client, entries: &[&Entry], repeated: &HashSet<Key>) -> Result<HashSet<Key>, Error> {
    let outcomes: Vec<i16> = entries.iter().map(|entry| outcome(entry, repeated)).collect();
    let columns = columns(entries);
    let [sent, ids] = columns.parameters();
    keys(&client.query_typed(CLAIM, &[sent, ids, (&outcomes, Type::INT2_ARRAY)]).await?)
}

fn columns(entries: &[&Entry]) -> KeyColumns {
    KeyColumns::of(entries.iter().map(|entry| entry.message.key))
}

/// Makes the days of these keys that are missing although the ledger's memory reaches back to them: the message is
/// newer than the partitions made ahead.
pub async fn make_days(client: &Client, entries: &[&Entry]) -> Result<(), Error> {
    let days: HashSet<SystemTime> = entries.iter().map(|entry| time_of(entry.message.key.sent_at)).collect();
    let days: Vec<SystemTime> = days.into_iter().collect();
    client
        .query_typed(
            "SELECT masq.make_partition(day) FROM (SELECT DISTINCT (sent AT TIME ZONE 'UTC')::date AS day \
             FROM unnest($1::timestamptz[]) AS sent ORDER BY 1) AS days",
            &[(&days, Type::TIMESTAMPTZ_ARRAY)],
        )
        .await?;
    Ok(())
}

/// Makes partitions ahead and forgets what is older than `retention`. Answers the oldest SentTimestamp that the ledger
/// remembers, in milliseconds since 1970-01-01 UTC.
pub async fn keep_partitions(client: &Client, retention: Duration) -> Result<i64, Error> {
    let seconds = retention.as_secs_f64();
    let row = client
        .query_typed("SELECT masq.keep_partitions(make_interval(secs => $1))", &[(&seconds, Type::FLOAT8)])
        .await?;
    row.first().map_or(Ok(0), |row| row.try_get(0).map(millis))
}

/// Deletes some of what was forgotten, and claims that are older than `claims`. Answers whether there may be more.
pub async fn prune(client: &Client, claims: Duration) -> Result<bool, Error> {
    /// At once, of each kind: the batch that comes next waits for it, some ten milliseconds.
    const MOST: i32 = 10_000;
    let seconds = claims.as_secs_f64();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&seconds, Type::FLOAT8), (&MOST, Type::INT4)];
    client.query_typed_one("SELECT masq.prune(make_interval(secs => $1), $2)", &parameters).await?.try_get(0)
}

/// The oldest SentTimestamp that the ledger remembers.
pub async fn oldest(client: &Client) -> Result<i64, Error> {
    let row = client.query_typed("SELECT masq.ledger_oldest()", &[]).await?;
    row.first().map_or(Ok(0), |row| row.try_get(0).map(millis))
}

fn outcome(entry: &Entry, repeated: &HashSet<Key>) -> i16 {
    match entry.verdict {
        Verdict::Row(_) if repeated.contains(&entry.message.key) => REPEATED,
        Verdict::Row(_) => ROW,
        Verdict::Dead(_) => DEAD,
    }
}

/// A moment, in milliseconds since 1970-01-01 UTC and never before, as the driver takes it.
pub fn time_of(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs())
}

/// A moment of the driver's, in milliseconds since 1970-01-01 UTC; what is earlier is 0.
pub fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
