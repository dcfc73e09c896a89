//! The audit log as it stands in the database, and what there is of the vault to compare it with. Reads only; a row at a
//! time, so that a log of any length needs the memory of one entry.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::{
    Error, Row, RowStream,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{
    epochs::Epochs,
    leaf::Entry,
    merkle::{Hash, Tree},
    verify::{Head, Seen},
};
use crate::db::{DbError, Session};

/// Items in one dimension, as `masq.leaf` hashes them; a moment as PostgreSQL counts it.
const ENTRY: &str = "SELECT seq, timestamptz_send(at), action, login, claimed, purpose, ticket, reason, \
                     ARRAY(SELECT unnest(items)), request, detail, prev, hash";

/// Which entries are asked for.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Those from this moment on, in milliseconds since 1970-01-01 UTC.
    pub since: Option<i64>,
    /// Those of this action.
    pub action: Option<String>,
    /// Those of this login.
    pub login: Option<String>,
    /// Only so many, the last.
    pub limit: Option<i64>,
}

/// Begins a transaction that sees one moment of the database and takes as long as it takes.
///
/// # Errors
/// If the server refuses.
pub async fn begin(session: &Session) -> Result<(), DbError> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = 0; \
                         SET LOCAL idle_in_transaction_session_timeout = 0";
    session.batch_execute(BEGIN).await.map_err(failed)
}

/// Ends it.
///
/// # Errors
/// If the server does not answer.
pub async fn end(session: &Session) -> Result<(), DbError> {
    session.batch_execute("COMMIT").await.map_err(failed)
}

/// Whether this database has an audit log: without the schema `masq`, and in one of an older masq, it cannot.
///
/// # Errors
/// If the database cannot say.
pub async fn is_kept(session: &Session) -> Result<bool, DbError> {
    const KEPT: &str = "SELECT to_regclass('masq.audit') IS NOT NULL AND to_regproc('masq.tip') IS NOT NULL";
    session.query_typed_one(KEPT, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)
}

/// Reads entries in the order of their numbers.
///
/// # Errors
/// If they cannot be read, or what `take` says.
pub async fn entries<E: From<DbError>>(
    session: &Session,
    which: &Which,
    mut take: impl FnMut(Seen) -> Result<(), E>,
) -> Result<(), E> {
    // Without a limit the index is walked, and nothing sorted.
    let order = match which.limit {
        None => format!("{ENTRY} FROM masq.audit WHERE {{}} ORDER BY seq"),
        Some(limit) => format!(
            "{ENTRY} FROM (SELECT * FROM masq.audit WHERE {{}} ORDER BY seq DESC LIMIT {limit}) AS last ORDER BY seq"
        ),
    };
    let condition = "($1::int8 IS NULL OR at >= timestamptz 'epoch' + $1 * interval '1 millisecond') \
                     AND ($2::text IS NULL OR action = $2) AND ($3::text IS NULL OR login = $3)";
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&which.since, Type::INT8), (&which.action, Type::TEXT), (&which.login, Type::TEXT)];
    let rows = stream(session, &order.replace("{}", condition), &parameters).await.map_err(failed)?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let seq = row.try_get(0).map_err(failed)?;
        take(entry(&row).map_or(Seen::Unreadable(seq), |entry| Seen::Entry(Box::new(entry))))?;
    }
    Ok(())
}

fn entry(row: &Row) -> Option<Entry> {
    let hash = |at| row.try_get::<_, &[u8]>(at).ok().and_then(|hash| Hash::try_from(hash).ok());
    Some(Entry {
        seq: row.try_get(0).ok()?,
        at: i64::from_be_bytes(row.try_get::<_, &[u8]>(1).ok()?.try_into().ok()?),
        action: row.try_get(2).ok()?,
        login: row.try_get(3).ok()?,
        claimed: row.try_get(4).ok()?,
        purpose: row.try_get(5).ok()?,
        ticket: row.try_get(6).ok()?,
        reason: row.try_get(7).ok()?,
        items: row.try_get(8).ok()?,
        request: row.try_get(9).ok()?,
        detail: row.try_get(10).ok()?,
        prev: hash(11)?,
        hash: hash(12)?,
    })
}

/// What the database notes of the log's end; `None`: nothing.
///
/// # Errors
/// If it cannot be read.
pub async fn head(session: &Session) -> Result<Option<Head>, DbError> {
    let rows = session.query_typed("SELECT size, hash, peaks FROM masq.audit_head", &[]).await.map_err(failed)?;
    let head = |row: &Row| Ok(Head { size: row.try_get(0)?, hash: row.try_get(1)?, peaks: row.try_get(2)? });
    rows.first().map(head).transpose().map_err(failed)
}

/// The tree of all entries, as the database says, for whoever signs it.
///
/// # Errors
/// If it cannot be read, or was changed into none.
pub async fn tree(session: &Session) -> Result<Tree, DbError> {
    let row = session.query_typed_one("SELECT size, peaks FROM masq.tip()", &[]).await.map_err(failed)?;
    let size: Option<i64> = row.try_get(0).map_err(failed)?;
    let peaks: Option<Vec<Vec<u8>>> = row.try_get(1).map_err(failed)?;
    let hashes = peaks.into_iter().flatten().map(|peak| peak.try_into().ok()).collect::<Option<_>>();
    let tree = size.and_then(|size| Tree::of(size.try_into().ok()?, hashes?));
    tree.ok_or_else(|| {
        DbError::Misconfigured("the head of the audit log was changed: `masq audit verify` says more".to_owned())
    })
}

/// Reads which epochs there are, and how many rows of each. Slots are in the database of `slots`, which may be the same.
///
/// # Errors
/// If they cannot be read.
pub async fn epochs(session: &Session, slots: Option<&Session>, epochs: &mut Epochs) -> Result<(), DbError> {
    // A worker's epoch takes a minute, and its last transaction some more.
    const HEADERS: &str = "SELECT id, recorded_at < now() - interval '10 minutes' FROM masq.epochs";
    let rows = stream(session, HEADERS, &[]).await.map_err(failed)?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        epochs.header(row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    }
    let counts = [
        (session, "masq.entries", 0),
        (slots.unwrap_or(session), "masq_slots.slots", 1),
        (session, "masq.dead_letters", 2),
    ];
    for (session, table, kind) in counts {
        let sql = format!("SELECT epoch, count(*) FROM {table} GROUP BY epoch");
        let rows = stream(session, &sql, &[]).await.map_err(failed)?;
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let (epoch, count): (Uuid, i64) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            let mut found = [0; 3];
            found[kind] = count;
            epochs.rows(epoch, found);
        }
    }
    Ok(())
}

async fn stream(session: &Session, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<RowStream, Error> {
    session.query_typed_raw(sql, parameters.iter().map(|(value, kind)| (*value, kind.clone()))).await
}

fn failed(error: Error) -> DbError {
    DbError::new("reading the audit log", &error)
}
