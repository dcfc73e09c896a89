//! Dead letters as they stand in the database: counted, listed without their bodies, and taken out on the record.
//!
//! [`take`] writes down who opens letters and why before it reads what is sealed; [`Taken::open`] needs the recovery key
//! and no database. How letters get there, and out of there as rows, is the business of [`crate::sink`].

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    epochs::{self, Opener},
    seal::{EpochHeader, OpenError, SealedBody},
};
use crate::{
    db::{DbError, Session},
    queue::Key,
    sink::ledger::{millis, time_of},
};

/// The dead letters of one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// With its field, as in `bad_ip:ip`.
    pub reason: String,
    /// How many there are.
    pub letters: i64,
    /// When the first was recorded: milliseconds since 1970-01-01 UTC.
    pub oldest: i64,
    /// When the last was.
    pub newest: i64,
}

/// What can be known of a dead letter without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Of the message.
    pub key: Key,
    /// With its field.
    pub reason: String,
    /// The queue's name.
    pub queue: String,
    /// How often the message had been delivered.
    pub receive_count: i32,
    /// The length of the body.
    pub body_bytes: i32,
    /// Milliseconds since 1970-01-01 UTC.
    pub recorded_at: i64,
    /// When it was replayed into a row, likewise.
    pub resolved_at: Option<i64>,
}

/// Which letters are meant.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// All of them.
    All,
    /// Those with this reason, with its field or a kind of reasons.
    Reason(&'a str),
    /// Those of the messages with these ids.
    Messages(&'a [Uuid]),
}

impl<'a> Which<'a> {
    /// The condition, whose parameters are the first two of a statement.
    const SQL: &'static str = "($1::text IS NULL OR reason = $1 OR split_part(reason, ':', 1) = $1) \
                               AND ($2::uuid[] IS NULL OR message_id = ANY ($2))";

    fn parameters(self) -> (Option<&'a str>, Option<&'a [Uuid]>) {
        match self {
            Self::All => (None, None),
            Self::Reason(reason) => (Some(reason), None),
            Self::Messages(ids) => (None, Some(ids)),
        }
    }
}

/// Who opens a dead letter, and why.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The user at the terminal, as this machine says; the database adds the login.
    pub claimed: &'a str,
    /// Not blank: the database refuses that.
    pub reason: &'a str,
}

/// A dead letter whose opening is on the record.
pub struct Taken {
    key: Key,
    header: Arc<EpochHeader>,
    sealed: SealedBody,
}

/// Whether this database has dead letters, be there none: without the schema `masq` it cannot.
///
/// # Errors
/// If the database cannot say.
pub async fn are_kept(session: &Session) -> Result<bool, DbError> {
    let failed = |error| DbError::new("looking for the dead letters", &error);
    let row = session.query_typed_one("SELECT to_regclass('masq.dead_letters') IS NOT NULL", &[]).await;
    row.and_then(|row| row.try_get(0)).map_err(failed)
}

/// Counts by reason, the one that was recorded last first: letters that are dead still, or those that were replayed.
///
/// # Errors
/// If they cannot be read.
pub async fn count(session: &Session, resolved: bool) -> Result<Vec<Count>, DbError> {
    const COUNT: &str = "SELECT reason, count(*), min(recorded_at), max(recorded_at) FROM masq.dead_letters \
                         WHERE (resolved_at IS NOT NULL) = $1 GROUP BY reason ORDER BY max(recorded_at) DESC, reason";
    let failed = |error| DbError::new("counting the dead letters", &error);
    let rows = session.query_typed(COUNT, &[(&resolved, Type::BOOL)]).await.map_err(failed)?;
    let count = |row: &Row| {
        let (oldest, newest) = (millis(row.try_get(2)?), millis(row.try_get(3)?));
        Ok(Count { reason: row.try_get(0)?, letters: row.try_get(1)?, oldest, newest })
    };
    rows.iter().map(count).collect::<Result<_, _>>().map_err(failed)
}

/// Lists at most `limit` letters, the one that was recorded last first: letters that are dead still, or those that were
/// replayed.
///
/// # Errors
/// If they cannot be read.
pub async fn list(session: &Session, which: Which<'_>, resolved: bool, limit: i64) -> Result<Vec<Letter>, DbError> {
    let (reason, ids) = which.parameters();
    letters(
        session,
        &format!(
            "WHERE {} AND (resolved_at IS NOT NULL) = $3 ORDER BY recorded_at DESC, sent_at DESC, message_id LIMIT $4",
            Which::SQL
        ),
        &[(&reason, Type::TEXT), (&ids, Type::UUID_ARRAY), (&resolved, Type::BOOL), (&limit, Type::INT8)],
    )
    .await
}

/// The letters that are dead still and were recorded before a moment, in the order of their keys.
#[derive(Clone, Copy, Debug)]
pub struct Unresolved<'a> {
    which: Which<'a>,
    until: SystemTime,
}

impl<'a> Unresolved<'a> {
    /// Those that there are now.
    ///
    /// # Errors
    /// If the database cannot say what time it is.
    pub async fn now(session: &Session, which: Which<'a>) -> Result<Self, DbError> {
        let failed = |error| DbError::new("asking for the time", &error);
        let now = session.query_typed_one("SELECT now()", &[]).await.map_err(failed)?;
        Ok(Self { which, until: now.try_get(0).map_err(failed)? })
    }

    /// How many there are.
    ///
    /// # Errors
    /// If they cannot be counted.
    pub async fn count(&self, session: &Session) -> Result<u64, DbError> {
        let sql = format!(
            "SELECT count(*) FROM masq.dead_letters WHERE {} AND resolved_at IS NULL AND recorded_at <= $3",
            Which::SQL
        );
        let (reason, ids) = self.which.parameters();
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&reason, Type::TEXT), (&ids, Type::UUID_ARRAY), (&self.until, Type::TIMESTAMPTZ)];
        let failed = |error| DbError::new("counting the dead letters", &error);
        let count: i64 =
            session.query_typed_one(&sql, &parameters).await.and_then(|row| row.try_get(0)).map_err(failed)?;
        Ok(count.unsigned_abs())
    }

    /// The first `limit` of them after this key.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn after(&self, session: &Session, key: Option<Key>, limit: i64) -> Result<Vec<Letter>, DbError> {
        let (reason, ids) = self.which.parameters();
        let (sent, id) = key.map(|key| (time_of(key.sent_at), key.id)).unzip();
        letters(
            session,
            &format!(
                "WHERE {} AND resolved_at IS NULL AND recorded_at <= $3 \
                 AND ($4::timestamptz IS NULL OR (sent_at, message_id) > ($4, $5)) \
                 ORDER BY sent_at, message_id LIMIT $6",
                Which::SQL
            ),
            &[
                (&reason, Type::TEXT),
                (&ids, Type::UUID_ARRAY),
                (&self.until, Type::TIMESTAMPTZ),
                (&sent, Type::TIMESTAMPTZ),
                (&id, Type::UUID),
                (&limit, Type::INT8),
            ],
        )
        .await
    }
}

/// The letters of one message id, in the order of sending. They are several only if a queue said different things about
/// when the message was sent.
///
/// # Errors
/// If they cannot be read.
pub async fn find(session: &Session, id: Uuid) -> Result<Vec<Letter>, DbError> {
    letters(session, "WHERE message_id = $1 ORDER BY sent_at", &[(&id, Type::UUID)]).await
}

async fn letters(
    session: &Session,
    which: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Letter>, DbError> {
    let select = "SELECT sent_at, message_id, reason, queue, receive_count, body_bytes, recorded_at, resolved_at \
                  FROM masq.dead_letters";
    let failed = |error| DbError::new("reading the dead letters", &error);
    let rows = session.query_typed(&format!("{select} {which}"), parameters).await.map_err(failed)?;
    rows.iter().map(letter).collect::<Result<_, _>>().map_err(failed)
}

fn letter(row: &Row) -> Result<Letter, tokio_postgres::Error> {
    Ok(Letter {
        key: Key { sent_at: millis(row.try_get(0)?), id: row.try_get(1)? },
        reason: row.try_get(2)?,
        queue: row.try_get(3)?,
        receive_count: row.try_get(4)?,
        body_bytes: row.try_get(5)?,
        recorded_at: millis(row.try_get(6)?),
        resolved_at: row.try_get::<_, Option<SystemTime>>(7)?.map(millis),
    })
}

/// Puts the opening of these letters on the record, and only then reads what is sealed. A letter that is no longer there
/// is left out.
///
/// # Errors
/// If that cannot be recorded, or the letters not be read.
pub async fn take(session: &Session, keys: &[Key], opening: Opening<'_>) -> Result<Vec<Taken>, DbError> {
    let request = record(session, keys, opening).await?;
    const READ: &str = "SELECT sent_at, message_id, sealed, epoch FROM masq.fetch_letters($1)";
    let failed = |error| DbError::new("reading the sealed dead letters", &error);
    let rows = session.query_typed(READ, &[(&request, Type::INT8)]).await.map_err(failed)?;
    let letters = rows.iter().map(sealed_letter).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut epochs: Vec<Uuid> = letters.iter().map(|(.., epoch)| *epoch).collect();
    epochs.sort_unstable();
    epochs.dedup();
    let headers = epochs::headers(session, &epochs).await?;
    let headers: HashMap<Uuid, Arc<EpochHeader>> =
        headers.into_iter().map(|header| (header.id, Arc::new(header))).collect();
    let taken = |(key, sealed, epoch)| Some(Taken { key, sealed, header: Arc::clone(headers.get(&epoch)?) });
    Ok(letters.into_iter().filter_map(taken).collect())
}

fn sealed_letter(row: &Row) -> Result<(Key, SealedBody, Uuid), tokio_postgres::Error> {
    let key = Key { sent_at: row.try_get(0).map(millis)?, id: row.try_get(1)? };
    Ok((key, SealedBody(row.try_get(2)?), row.try_get(3)?))
}

/// In no transaction, so that it is committed when this returns; the database gives nothing away before.
async fn record(session: &Session, keys: &[Key], opening: Opening<'_>) -> Result<i64, DbError> {
    let keys: Vec<Vec<u8>> =
        keys.iter().map(|key| [&key.sent_at.to_be_bytes()[..], key.id.as_bytes()].concat()).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&opening.reason, Type::TEXT), (&opening.claimed, Type::TEXT), (&keys, Type::BYTEA_ARRAY)];
    let recorded = session.query_typed_one("SELECT masq.request_open($1, $2, $3)", &parameters).await;
    recorded.and_then(|row| row.try_get(0)).map_err(|error| DbError::new("recording the opening", &error))
}

impl Taken {
    /// Of the message.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The epoch in which it was sealed.
    pub fn header(&self) -> &EpochHeader {
        &self.header
    }

    /// The fingerprint of each key that it is sealed to.
    pub fn recipients(&self) -> impl Iterator<Item = [u8; 32]> {
        self.header.wraps.iter().map(|wrap| wrap.recipient)
    }

    /// The body, byte for byte.
    ///
    /// # Errors
    /// The key is none of those that it is sealed to, or the sealed bytes were changed.
    pub fn open(&self, opener: &mut Opener<'_>) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        opener.epoch(&self.header)?.open(self.key, &self.sealed)
    }
}
