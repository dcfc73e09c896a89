//! Counts what is in masq's own tables and in those that rows go into, for the judgements of [`crate::reconcile`].
//!
//! All in one snapshot, in which rows and ledger fit together while workers go on. The ledger is read day by day. While
//! a count is under way no day of it can be dropped; that is made up for within the hour after.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use time::OffsetDateTime;
use tokio_postgres::{
    Error, Row,
    types::{ToSql, Type},
};

use super::{DbError, Session, catalog::quote_ident};
use crate::sink::ledger::{millis, time_of};

/// A UTC day in milliseconds.
pub const DAY: i64 = 86_400_000;

/// Keys that are compared with each other at a time when none may stand there twice: some 2 GB of temporary files. More
/// need more room there; fewer mean reading the ledger more often.
const COMPARED: u64 = 20_000_000;

/// So many of something, and one of the messages that it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many.
    pub count: u64,
    /// The id of one.
    pub example: Option<String>,
}

impl Found {
    fn read(row: &Row, at: usize) -> Result<Self, Error> {
        Ok(Self { count: row.try_get::<_, i64>(at)?.unsigned_abs(), example: row.try_get(at + 1)? })
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.example = self.example.take().or(other.example);
    }
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// The first moment that the ledger remembers, likewise.
    pub oldest: i64,
    /// Of each day that the ledger remembers, the messages that are rows, replayed ones among them.
    pub settled: BTreeMap<String, i64>,
    /// Dead letters by the ledger, replayed ones among them.
    pub letters: u64,
    /// Those of them of which there is no letter.
    pub missing: Found,
    /// Letters of which the ledger says something else, or nothing although it is old enough to know.
    pub denied: Found,
    /// Letters that are resolved and not replayed by the ledger, or the other way round.
    pub mismarked: Found,
    /// Letters `older_than_ledger`.
    pub late: u64,
    /// Other letters that are older than the ledger's memory.
    pub forgotten: u64,
    /// Messages with more than one key.
    pub twice: Found,
    /// Messages that somebody began to read alone an hour ago or earlier, and never said how it went.
    pub suspects: Found,
    /// Rows without a key in the ledger, made by replaying letters that it does not remember.
    pub keyless: i64,
    /// Rows that erasures have deleted.
    pub erased: i64,
    /// The tables that rows go into.
    pub tables: Vec<Rows>,
    /// What was counted last for later moments to be compared with.
    pub baseline: Option<Baseline>,
}

/// A table that rows go into.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Its schema and name, quoted.
    pub table: String,
    /// When it was noted, in milliseconds since 1970-01-01 UTC.
    pub noted_at: i64,
    /// Whether masq created it, so that it was empty then.
    pub created: bool,
    /// Its rows; `None` if it is gone or this login may not read it.
    pub count: Option<i64>,
    /// Rows deleted from it since PostgreSQL's statistics began, by whomever.
    pub deleted: i64,
}

/// What was there at a moment.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// As [`Rows::count`], by table.
    pub rows: BTreeMap<String, i64>,
    /// As [`Counts::settled`].
    pub settled: BTreeMap<String, i64>,
    /// As [`Counts::keyless`].
    pub keyless: i64,
    /// As [`Counts::erased`].
    pub erased: i64,
}

/// Counts everything. `seen` shows how many keys have been read; with `record` the counts become the next baseline, on
/// the record under this name of the user at the terminal.
///
/// # Errors
/// If something cannot be read or, with `record`, written.
pub async fn count(session: &Session, seen: &AtomicU64, record: Option<&str>) -> Result<Counts, DbError> {
    let failed = |error| DbError::new("counting", &error);
    let access = if record.is_some() { "READ WRITE" } else { "READ ONLY" };
    // The lock before the snapshot: a day that is dropped in between would be missing in it.
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ, {access}; SET LOCAL statement_timeout = 0; \
         SET LOCAL idle_in_transaction_session_timeout = 0; LOCK TABLE masq.ledger IN ACCESS SHARE MODE"
    );
    session.batch_execute(&begin).await.map_err(failed)?;
    let mut counts = all(session, seen).await.map_err(failed)?;
    counts.baseline = baseline(session).await?;
    if let Some(claimed) = record {
        write(session, &counts, claimed).await.map_err(|error| DbError::new("recording the baseline", &error))?;
    }
    session.batch_execute("COMMIT").await.map_err(failed)?;
    Ok(counts)
}

async fn all(session: &Session, seen: &AtomicU64) -> Result<Counts, Error> {
    const BEGINNING: &str = "SELECT now(), coalesce(masq.ledger_oldest(), 'epoch'), \
                             (SELECT coalesce(sum(keyless), 0)::bigint FROM masq.replays), masq.rows_erased()";
    let row = session.query_typed_one(BEGINNING, &[]).await?;
    let mut counts = Counts {
        at: millis(row.try_get(0)?),
        oldest: millis(row.try_get(1)?),
        keyless: row.try_get(2)?,
        erased: row.try_get(3)?,
        ..Counts::default()
    };
    let mut keys = 0;
    // A plain ledger may still hold keys that it has forgotten.
    let mut next = first_after(session, counts.oldest).await?;
    while let Some(day) = next {
        keys += counts.add_day(session, day).await?;
        seen.store(keys, Ordering::Relaxed);
        next = first_after(session, day + DAY).await?;
    }
    counts.twice = twice(session, counts.oldest, keys).await?;
    let old = session.query_typed_one(OLD_LETTERS, &[(&time_of(counts.oldest), Type::TIMESTAMPTZ)]).await?;
    counts.late = old.try_get::<_, i64>(0)?.unsigned_abs();
    counts.forgotten = old.try_get::<_, i64>(1)?.unsigned_abs();
    counts.suspects = Found::read(&session.query_typed_one(SUSPECTS, &[]).await?, 0)?;
    counts.tables = tables(session).await?;
    Ok(counts)
}

const OLD_LETTERS: &str = "SELECT count(*) FILTER (WHERE reason = 'older_than_ledger'), \
     count(*) FILTER (WHERE reason <> 'older_than_ledger' AND sent_at < $1) FROM masq.dead_letters";

const SUSPECTS: &str =
    "SELECT count(*), min(message_id::text) FROM masq.suspects WHERE since < now() - interval '1 hour'";

/// The day, by its first moment, of the first key or letter from this moment on.
async fn first_after(session: &Session, from: i64) -> Result<Option<i64>, Error> {
    const FIRST: &str = "SELECT least((SELECT min(sent_at) FROM masq.ledger WHERE sent_at >= $1), \
         (SELECT min(sent_at) FROM masq.dead_letters WHERE sent_at >= $1 AND reason <> 'older_than_ledger'))";
    let row = session.query_typed_one(FIRST, &[(&time_of(from), Type::TIMESTAMPTZ)]).await?;
    let first: Option<SystemTime> = row.try_get(0)?;
    Ok(first.map(|first| millis(first) / DAY * DAY))
}

impl Counts {
    /// Compares the ledger and the letters of one day. Answers how many keys it has.
    async fn add_day(&mut self, session: &Session, day: i64) -> Result<u64, Error> {
        const DAY_OF: &str = "SELECT count(l.outcome), count(*) FILTER (WHERE l.outcome IN (1, 3)),
                count(*) FILTER (WHERE l.outcome IN (2, 3)),
                count(*) FILTER (WHERE l.outcome IN (2, 3) AND d.letter IS NULL),
                min(message_id::text) FILTER (WHERE l.outcome IN (2, 3) AND d.letter IS NULL),
                count(*) FILTER (WHERE d.letter AND (l.outcome IN (2, 3)) IS NOT TRUE),
                min(message_id::text) FILTER (WHERE d.letter AND (l.outcome IN (2, 3)) IS NOT TRUE),
                count(*) FILTER (WHERE l.outcome IN (2, 3) AND (l.outcome = 3) <> d.is_resolved),
                min(message_id::text) FILTER (WHERE l.outcome IN (2, 3) AND (l.outcome = 3) <> d.is_resolved)
            FROM (SELECT sent_at, message_id, outcome FROM masq.ledger WHERE sent_at >= $1 AND sent_at < $2) l
            FULL JOIN (SELECT sent_at, message_id, true AS letter, resolved_at IS NOT NULL AS is_resolved
                       FROM masq.dead_letters
                       WHERE sent_at >= $1 AND sent_at < $2 AND reason <> 'older_than_ledger') d
            USING (sent_at, message_id)";
        let (from, to) = (time_of(day), time_of(day + DAY));
        let row = session.query_typed_one(DAY_OF, &[(&from, Type::TIMESTAMPTZ), (&to, Type::TIMESTAMPTZ)]).await?;
        self.settled.insert(name(day), row.try_get(1)?);
        self.letters += row.try_get::<_, i64>(2)?.unsigned_abs();
        self.missing.add(Found::read(&row, 3)?);
        self.denied.add(Found::read(&row, 5)?);
        self.mismarked.add(Found::read(&row, 7)?);
        Ok(row.try_get::<_, i64>(0)?.unsigned_abs())
    }
}

/// A day as the baseline names it: 2024-02-29.
pub fn name(day: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(day / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    moment.date().to_string()
}

/// Message ids with several keys. Ids are spread evenly by their last byte, and so are compared in portions.
async fn twice(session: &Session, oldest: i64, keys: u64) -> Result<Found, Error> {
    const TWICE: &str = "SELECT count(*), min(message_id::text) FROM (SELECT message_id FROM masq.ledger \
         WHERE sent_at >= $3 AND ($1 = 1 OR get_byte(uuid_send(message_id), 15) % $1 = $2) \
         GROUP BY message_id HAVING count(*) > 1) AS twice";
    let portions = i32::try_from(keys / COMPARED).unwrap_or(i32::MAX).clamp(0, 255) + 1;
    let mut found = Found::default();
    for portion in 0..portions {
        let oldest = time_of(oldest);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&portions, Type::INT4), (&portion, Type::INT4), (&oldest, Type::TIMESTAMPTZ)];
        found.add(Found::read(&session.query_typed_one(TWICE, &parameters).await?, 0)?);
    }
    Ok(found)
}

/// By the catalogue's numbers, since a name in a schema that one may not use is an error.
const TABLES: &str = "SELECT t.schema, t.name, t.noted_at, t.created, \
     coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), false), \
     coalesce(pg_stat_get_tuples_deleted(c.oid), 0) \
         + (SELECT coalesce(sum(pg_stat_get_tuples_deleted(inhrelid)), 0)::bigint FROM pg_inherits WHERE inhparent = c.oid) \
     FROM masq.targets t LEFT JOIN pg_namespace n ON n.nspname = t.schema \
     LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name ORDER BY 1, 2";

async fn tables(session: &Session) -> Result<Vec<Rows>, Error> {
    let mut tables = Vec::new();
    for row in session.query_typed(TABLES, &[]).await? {
        let (schema, name): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let table = format!("{}.{}", quote_ident(schema), quote_ident(name));
        let count = if row.try_get(4)? {
            let counted = session.query_typed_one(&format!("SELECT count(*) FROM {table}"), &[]).await?;
            Some(counted.try_get(0)?)
        } else {
            None
        };
        let (noted_at, created) = (millis(row.try_get(2)?), row.try_get(3)?);
        tables.push(Rows { table, noted_at, created, count, deleted: row.try_get(5)? });
    }
    Ok(tables)
}

async fn baseline(session: &Session) -> Result<Option<Baseline>, DbError> {
    const LAST: &str =
        "SELECT at, rows::text, ledger::text, keyless, erased FROM masq.baselines ORDER BY id DESC LIMIT 1";
    let failed = |error| DbError::new("reading the baseline", &error);
    let Some(row) = session.query_typed_opt(LAST, &[]).await.map_err(failed)? else { return Ok(None) };
    let counts = |text: &str| {
        serde_json::from_str(text).map_err(|_| {
            DbError::Misconfigured("the last row of masq.baselines was changed: record a new one".to_owned())
        })
    };
    Ok(Some(Baseline {
        at: row.try_get(0).map(millis).map_err(failed)?,
        rows: counts(row.try_get(1).map_err(failed)?)?,
        settled: counts(row.try_get(2).map_err(failed)?)?,
        keyless: row.try_get(3).map_err(failed)?,
        erased: row.try_get(4).map_err(failed)?,
    }))
}

async fn write(session: &Session, counts: &Counts, claimed: &str) -> Result<(), Error> {
    const INSERT: &str = "INSERT INTO masq.baselines (claimed, rows, ledger, keyless, erased) \
                          VALUES ($1, $2::text::jsonb, $3::text::jsonb, $4, $5)";
    let tables = counts.tables.iter().filter_map(|table| Some((table.table.clone(), table.count?.into())));
    let rows = serde_json::Value::Object(tables.collect()).to_string();
    let settled = counts.settled.iter().map(|(day, count)| (day.clone(), (*count).into()));
    let settled = serde_json::Value::Object(settled.collect()).to_string();
    let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
        (&claimed, Type::TEXT),
        (&rows, Type::TEXT),
        (&settled, Type::TEXT),
        (&counts.keyless, Type::INT8),
        (&counts.erased, Type::INT8),
    ];
    session.execute_typed(INSERT, &parameters).await?;
    Ok(())
}
