//! Dead letters as they stand in the database: counted, listed without their bodies, and taken out on the record.
//!
//! [`take`] writes down who opens a letter and why before it reads what is sealed; [`Taken::open`] needs the recovery key
//! and no database. How letters get there is the business of [`crate::sink`].

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    recovery::RecoveryKey,
    seal::{self, EpochHeader, OpenError, SealedBody},
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
    header: EpochHeader,
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

/// Counts by reason, the one that was recorded last first.
///
/// # Errors
/// If they cannot be read.
pub async fn count(session: &Session) -> Result<Vec<Count>, DbError> {
    const COUNT: &str = "SELECT reason, count(*), min(recorded_at), max(recorded_at) FROM masq.dead_letters \
                         GROUP BY reason ORDER BY max(recorded_at) DESC, reason";
    let failed = |error| DbError::new("counting the dead letters", &error);
    let rows = session.query_typed(COUNT, &[]).await.map_err(failed)?;
    let count = |row: &Row| {
        let (oldest, newest) = (millis(row.try_get(2)?), millis(row.try_get(3)?));
        Ok(Count { reason: row.try_get(0)?, letters: row.try_get(1)?, oldest, newest })
    };
    rows.iter().map(count).collect::<Result<_, _>>().map_err(failed)
}

/// Lists at most `limit` letters, the one that was recorded last first. `reason` is one with its field or a kind of them.
///
/// # Errors
/// If they cannot be read.
pub async fn list(session: &Session, reason: Option<&str>, limit: i64) -> Result<Vec<Letter>, DbError> {
    letters(
        session,
        "WHERE $1::text IS NULL OR reason = $1 OR split_part(reason, ':', 1) = $1 \
         ORDER BY recorded_at DESC, sent_at DESC, message_id LIMIT $2",
        &[(&reason, Type::TEXT), (&limit, Type::INT8)],
    )
    .await
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
    let select = "SELECT sent_at, message_id, reason, queue, receive_count, body_bytes, recorded_at \
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
    })
}

/// Puts an opening on the record, and only then reads the sealed letter.
///
/// # Errors
/// If it cannot be recorded, or the letter not be read.
pub async fn take(session: &Session, key: Key, opening: Opening<'_>) -> Result<Taken, DbError> {
    record(session, key, opening).await?;
    const READ: &str = "SELECT e.id, e.started_at, e.recipient, e.wrapped, d.sealed \
                        FROM masq.dead_letters d JOIN masq.epochs e ON e.id = d.epoch \
                        WHERE d.sent_at = $1 AND d.message_id = $2";
    let failed = |error| DbError::new("reading the sealed dead letter", &error);
    let sent = time_of(key.sent_at);
    let row = session.query_typed_one(READ, &[(&sent, Type::TIMESTAMPTZ), (&key.id, Type::UUID)]).await;
    let row = row.map_err(failed)?;
    let recipient: Vec<u8> = row.try_get(2).map_err(failed)?;
    let header = EpochHeader {
        id: row.try_get(0).map_err(failed)?,
        started_at: row.try_get(1).map(millis).map_err(failed)?,
        recipient: recipient.try_into().map_err(|_| {
            let text = "the fingerprint in masq.epochs was changed: look for the epoch in a backup of the database";
            DbError::Misconfigured(text.to_owned())
        })?,
        wrapped: row.try_get(3).map_err(failed)?,
    };
    Ok(Taken { key, header, sealed: SealedBody(row.try_get(4).map_err(failed)?) })
}

/// In no transaction, so that it is committed when this returns.
async fn record(session: &Session, key: Key, opening: Opening<'_>) -> Result<(), DbError> {
    const INSERT: &str = "INSERT INTO masq.openings (claimed, sent_at, message_id, reason) VALUES ($1, $2, $3, $4)";
    let sent = time_of(key.sent_at);
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&opening.claimed, Type::TEXT),
        (&sent, Type::TIMESTAMPTZ),
        (&key.id, Type::UUID),
        (&opening.reason, Type::TEXT),
    ];
    let recorded = session.execute_typed(INSERT, &parameters).await;
    recorded.map(|_| ()).map_err(|error| DbError::new("recording the opening", &error))
}

impl Taken {
    /// SHA-256 of the recovery public key that it is sealed to.
    pub fn recipient(&self) -> [u8; 32] {
        self.header.recipient
    }

    /// The body, byte for byte.
    ///
    /// # Errors
    /// The key is not the one it is sealed to, or the sealed bytes were changed.
    pub fn open(&self, key: &RecoveryKey) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        seal::open(key, &self.header, self.key, &self.sealed)
    }
}
