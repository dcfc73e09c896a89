//! Dead letters as they stand in the database: counted, listed without their bodies, and taken out on the record.
//!
//! [`take`] writes down who opens letters and why before it reads what is sealed; [`Taken::open`] needs the recovery key
//! and no database. How letters get there, and out of there as rows, is the business of [`crate::sink`].

use std::{collections::HashMap, time::SystemTime};

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    recovery::RecoveryKey,
    seal::{self, EpochHeader, OpenEpoch, OpenError, SealedBody},
};
use crate::{
    db::{DbError, Session},
    queue::Key,
    sink::ledger::{KeyColumns, millis, time_of},
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

/// Puts openings on the record, one a letter, and only then reads what is sealed. A letter that is no longer there is
/// left out.
///
/// # Errors
/// If they cannot be recorded, or the letters not be read.
pub async fn take(session: &Session, keys: &[Key], opening: Opening<'_>) -> Result<Vec<Taken>, DbError> {
    let keys = KeyColumns::of(keys.iter().copied());
    record(session, &keys, opening).await?;
    const READ: &str = "SELECT d.sent_at, d.message_id, d.sealed, e.id, e.started_at, e.recipient, e.wrapped \
                        FROM masq.dead_letters d JOIN masq.epochs e ON e.id = d.epoch \
                        JOIN unnest($1::timestamptz[], $2::uuid[]) AS k (sent_at, message_id) \
                        ON k.sent_at = d.sent_at AND k.message_id = d.message_id";
    let rows = session.query_typed(READ, &keys.parameters()).await;
    let rows = rows.map_err(|error| DbError::new("reading the sealed dead letters", &error))?;
    rows.iter().map(taken).collect()
}

fn taken(row: &Row) -> Result<Taken, DbError> {
    let failed = |error| DbError::new("reading a sealed dead letter", &error);
    let recipient: Vec<u8> = row.try_get(5).map_err(failed)?;
    let header = EpochHeader {
        id: row.try_get(3).map_err(failed)?,
        started_at: row.try_get(4).map(millis).map_err(failed)?,
        recipient: recipient.try_into().map_err(|_| {
            let text = "the fingerprint in masq.epochs was changed: look for the epoch in a backup of the database";
            DbError::Misconfigured(text.to_owned())
        })?,
        wrapped: row.try_get(6).map_err(failed)?,
    };
    let key = Key { sent_at: row.try_get(0).map(millis).map_err(failed)?, id: row.try_get(1).map_err(failed)? };
    Ok(Taken { key, header, sealed: SealedBody(row.try_get(2).map_err(failed)?) })
}

/// In no transaction, so that it is committed when this returns.
async fn record(session: &Session, keys: &KeyColumns, opening: Opening<'_>) -> Result<(), DbError> {
    const INSERT: &str = "INSERT INTO masq.openings (claimed, reason, sent_at, message_id) \
                          SELECT $3, $4, k.* FROM unnest($1::timestamptz[], $2::uuid[]) AS k";
    let [sent, ids] = keys.parameters();
    let parameters = [sent, ids, (&opening.claimed as _, Type::TEXT), (&opening.reason as _, Type::TEXT)];
    let recorded = session.execute_typed(INSERT, &parameters).await;
    recorded.map(|_| ()).map_err(|error| DbError::new("recording the opening", &error))
}

impl Taken {
    /// Of the message.
    pub fn key(&self) -> Key {
        self.key
    }

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

/// Epochs whose keys are kept open. More would open fewer of them twice, of letters that lie far apart.
const EPOCHS: usize = 1_000;

/// Opens many letters, the key of each epoch once.
pub struct Opener<'a> {
    key: &'a RecoveryKey,
    epochs: HashMap<Uuid, OpenEpoch>,
}

impl<'a> Opener<'a> {
    /// With this key.
    pub fn new(key: &'a RecoveryKey) -> Self {
        Self { key, epochs: HashMap::new() }
    }

    /// The body, byte for byte.
    ///
    /// # Errors
    /// As [`Taken::open`].
    pub fn open(&mut self, taken: &Taken) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if let Some(epoch) = self.epochs.get(&taken.header.id) {
            return epoch.open(taken.key, &taken.sealed);
        }
        if self.epochs.len() >= EPOCHS {
            self.epochs.clear();
        }
        let epoch = OpenEpoch::new(self.key, &taken.header)?;
        self.epochs.entry(taken.header.id).or_insert(epoch).open(taken.key, &taken.sealed)
    }
}
