//! The way back from a token to its value, as far as the database goes: a request that says why, an approval where one is
//! needed, and only then what is sealed. [`super::entry`] opens that, and needs no database.
//!
//! Every function is a statement of its own in no transaction, so a request is committed when its number is known; the
//! database gives nothing for one that is not (migrations/0005_audit.sql).

use std::{
    collections::{BTreeSet, HashMap},
    time::SystemTime,
};

use thiserror::Error;
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{
    entry::{Entry, Locks, Shut, Value},
    epochs::{self, Opener},
    kms::KmsError,
    token::{Token, TokenRoot},
};
use crate::{
    db::{DbError, Session},
    sink::ledger::millis,
};

/// How often further entries of a token are asked for, a thousand at a time. More helps against somebody who poisons more
/// than that under one token; fewer keeps everybody else waiting less for what is hopeless.
const FURTHER: usize = 10;

/// Who asks, and why. The database decides whether that is enough.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    /// One of `masq.purposes`.
    pub purpose: &'a str,
    /// The ticket or case.
    pub ticket: &'a str,
    /// In words.
    pub reason: &'a str,
    /// The user at the terminal, as this machine says; the database adds the login.
    pub claimed: &'a str,
}

/// A request that is on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number: that of its entry in the audit log.
    pub number: i64,
    /// Whether a second person must approve it first.
    pub needs_approval: bool,
    /// How many tokens this login may still ask for today.
    pub quota_left: i64,
    /// And how many of them without a second person.
    pub alone_left: i64,
}

/// Asks for the values of these tokens. A token that is named twice counts once.
///
/// # Errors
/// [`DbError::Refused`] if the database does not take it; then it is not on record.
pub async fn request(session: &Session, why: Why<'_>, tokens: &[Token]) -> Result<Request, DbError> {
    const ASK: &str =
        "SELECT request, needs_approval, quota_left, alone_left FROM masq.request_reveal($1, $2, $3, $4, $5)";
    let failed = |error| DbError::new("asking for the values", &error);
    let mut seen = BTreeSet::new();
    let tokens: Vec<&[u8]> =
        tokens.iter().map(|token| token.0.as_slice()).filter(|token| seen.insert(*token)).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
        (&why.purpose, Type::TEXT),
        (&why.ticket, Type::TEXT),
        (&why.reason, Type::TEXT),
        (&why.claimed, Type::TEXT),
        (&tokens, Type::BYTEA_ARRAY),
    ];
    let row = session.query_typed_one(ASK, &parameters).await.map_err(failed)?;
    let request = || {
        let (number, needs_approval) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Request { number, needs_approval, quota_left: row.try_get(2)?, alone_left: row.try_get(3)? })
    };
    request().map_err(failed)
}

/// The tokens that this login asked for with that number.
///
/// # Errors
/// As [`request`].
pub async fn requested(session: &Session, number: i64) -> Result<Vec<Token>, DbError> {
    let failed = |error| DbError::new("reading the request", &error);
    let row = session.query_typed_one("SELECT masq.requested($1)", &[(&number, Type::INT8)]).await;
    let tokens: Vec<Vec<u8>> = row.and_then(|row| row.try_get(0)).map_err(failed)?;
    // The database takes none of another length.
    Ok(tokens.into_iter().filter_map(|token| token.try_into().ok().map(Token)).collect())
}

/// What a second person has to know of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// When it was made: milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// Who made it, by the login.
    pub login: String,
    /// And by the name at the terminal.
    pub claimed: String,
    /// One of `masq.purposes`.
    pub purpose: String,
    /// The ticket or case.
    pub ticket: String,
    /// In words.
    pub reason: String,
    /// The tokens that it is for, each with its field where the vault has something under it.
    pub tokens: Vec<(Token, Option<String>)>,
    /// The login of whoever else approved it already.
    pub approved_by: Option<String>,
}

/// The request with that number, if there is one.
///
/// # Errors
/// If it cannot be read.
pub async fn pending(session: &Session, number: i64) -> Result<Option<Pending>, DbError> {
    const READ: &str =
        "SELECT at, login, claimed, purpose, ticket, reason, tokens, fields, approved_by FROM masq.pending($1)";
    let failed = |error| DbError::new("reading the request", &error);
    let rows = session.query_typed(READ, &[(&number, Type::INT8)]).await.map_err(failed)?;
    let pending = |row: &Row| {
        let (tokens, fields): (Vec<Vec<u8>>, Vec<Option<String>>) = (row.try_get(6)?, row.try_get(7)?);
        // The database takes none of another length.
        let token = |(token, field): (Vec<u8>, _)| Some((Token(token.try_into().ok()?), field));
        Ok(Pending {
            at: millis(row.try_get::<_, SystemTime>(0)?),
            login: row.try_get(1)?,
            claimed: row.try_get(2)?,
            purpose: row.try_get(3)?,
            ticket: row.try_get(4)?,
            reason: row.try_get(5)?,
            tokens: tokens.into_iter().zip(fields).filter_map(token).collect(),
            approved_by: row.try_get(8)?,
        })
    };
    rows.first().map(pending).transpose().map_err(failed)
}

/// Approves somebody else's request.
///
/// # Errors
/// [`DbError::Refused`] if it is this login's own, too old, or none.
pub async fn approve(session: &Session, number: i64, claimed: &str, reason: Option<&str>) -> Result<(), DbError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&number, Type::INT8), (&claimed, Type::TEXT), (&reason, Type::TEXT)];
    let approved = session.query_typed("SELECT masq.approve($1, $2, $3)", &parameters).await;
    approved.map(drop).map_err(|error| DbError::new("approving the request", &error))
}

/// Puts on record that somebody looked for these tokens.
///
/// # Errors
/// If that cannot be recorded.
pub async fn record_find(
    session: &Session,
    claimed: &str,
    reason: Option<&str>,
    (field, tokens): (&str, &[Token]),
) -> Result<(), DbError> {
    let tokens: Vec<&[u8]> = tokens.iter().map(|token| token.0.as_slice()).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&claimed, Type::TEXT), (&reason, Type::TEXT), (&field, Type::TEXT), (&tokens, Type::BYTEA_ARRAY)];
    let found = session.query_typed("SELECT masq.found($1, $2, $3, $4)", &parameters).await;
    found.map(drop).map_err(|error| DbError::new("recording what is looked for", &error))
}

/// Puts on record what came of a request: tokens that were shown and that were not, and entries that were tampered with.
///
/// # Errors
/// If that cannot be recorded.
pub async fn record(session: &Session, number: i64, claimed: &str, counts: [usize; 3]) -> Result<(), DbError> {
    let [shown, missing, tampered] = counts.map(|count| i32::try_from(count).unwrap_or(i32::MAX));
    let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
        (&number, Type::INT8),
        (&claimed, Type::TEXT),
        (&shown, Type::INT4),
        (&missing, Type::INT4),
        (&tampered, Type::INT4),
    ];
    let recorded = session.query_typed("SELECT masq.revealed($1, $2, $3, $4, $5)", &parameters).await;
    recorded.map(drop).map_err(|error| DbError::new("recording the outcome", &error))
}

/// Why an answer cannot be opened, whatever is in it.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// The database does not give it away.
    #[error(transparent)]
    Database(#[from] DbError),
    /// KMS does not open it.
    #[error(transparent)]
    Kms(#[from] KmsError),
}

/// What a request was answered with, still sealed.
pub struct Answer<'a> {
    request: i64,
    session: &'a Session,
    slots: &'a Session,
    entries: HashMap<Token, Vec<Entry>>,
    locks: Locks,
}

/// What became of one token.
pub struct Outcome {
    /// Its value, or why the last of its entries stayed shut; `None`: there was no entry.
    pub value: Result<Value, Option<Shut>>,
    /// How many of its entries were not what they should be.
    pub tampered: usize,
}

impl<'a> Answer<'a> {
    /// Fetches what the request is for. `slots` is a session with the database where the slots are; it may be the same.
    ///
    /// # Errors
    /// [`DbError::Refused`] if the request may not be answered, or not now.
    pub async fn fetch(session: &'a Session, slots: &'a Session, request: i64) -> Result<Self, DbError> {
        const READ: &str = "SELECT item, token, field, subject_tag, sealed, epoch FROM masq.fetch_entries($1)";
        let mut answer = Self { request, session, slots, entries: HashMap::new(), locks: Locks::default() };
        let entries = read_entries(session, READ, &[(&request, Type::INT8)]).await?;
        answer.unlockable(&entries).await?;
        for entry in entries {
            answer.entries.entry(entry.item).or_default().push(entry);
        }
        Ok(answer)
    }

    /// Opens a token's value: the first of its entries that is what it should be. `root` is of the token's key id.
    ///
    /// # Errors
    /// If KMS is needed, or further entries are, and cannot be had.
    pub async fn open(
        &mut self,
        token: &Token,
        opener: &mut Opener<'_>,
        root: &TokenRoot,
    ) -> Result<Outcome, AnswerError> {
        let mut entries = self.entries.remove(token).unwrap_or_default();
        let (mut tried, mut tampered, mut shut) = (0, 0, None);
        for _ in 0..=FURTHER {
            opener.fetch(self.locks.headers.values()).await?; // of all tokens at once; what is there is not asked for again
            for entry in &entries {
                match entry.open(&self.locks, opener, root) {
                    Ok(value) => return Ok(Outcome { value: Ok(value), tampered }),
                    Err(why) => {
                        tampered += usize::from(why.is_tampering());
                        shut = Some(why);
                    }
                }
            }
            if entries.is_empty() {
                break;
            }
            tried += entries.len();
            entries = self.further(token, tried).await?;
        }
        Ok(Outcome { value: Err(shut), tampered })
    }

    async fn further(&mut self, token: &Token, skip: usize) -> Result<Vec<Entry>, DbError> {
        const READ: &str = "SELECT item, token, field, subject_tag, sealed, epoch FROM masq.fetch_further($1, $2, $3)";
        let skip = i32::try_from(skip).unwrap_or(i32::MAX);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.request, Type::INT8), (&token.0.as_slice(), Type::BYTEA), (&skip, Type::INT4)];
        let entries = read_entries(self.session, READ, &parameters).await?;
        self.unlockable(&entries).await?;
        Ok(entries)
    }

    /// Reads what these entries are locked with.
    async fn unlockable(&mut self, entries: &[Entry]) -> Result<(), DbError> {
        if entries.is_empty() {
            return Ok(());
        }
        let ids: BTreeSet<Uuid> = entries.iter().map(|entry| entry.epoch).collect();
        let headers = epochs::headers(self.session, &Vec::from_iter(ids)).await?;
        self.locks.headers.extend(headers.into_iter().map(|header| (header.id, header)));
        const READ: &str = "SELECT subject_tag, epoch, salt FROM masq_slots.fetch_slots($1, $2)";
        let failed = |error| DbError::new("reading the slots", &error);
        let (subjects, ids): (Vec<&[u8]>, Vec<Uuid>) =
            entries.iter().map(|entry| (entry.subject.as_slice(), entry.epoch)).unzip();
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&subjects, Type::BYTEA_ARRAY), (&ids, Type::UUID_ARRAY)];
        for row in self.slots.query_typed(READ, &parameters).await.map_err(failed)? {
            let slot = || Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?));
            let (owner, salt) = slot().map_err(failed)?;
            self.locks.salts.entry(owner).or_default().push(salt);
        }
        Ok(())
    }
}

async fn read_entries(
    session: &Session,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Entry>, DbError> {
    let failed = |error| DbError::new("reading the sealed values", &error);
    let rows = session.query_typed(sql, parameters).await.map_err(failed)?;
    let entry = |row: &Row| {
        let (item, token): (Vec<u8>, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
        let (field, subject) = (row.try_get(2)?, row.try_get(3)?);
        let (sealed, epoch) = (row.try_get(4)?, row.try_get(5)?);
        // One of those that were asked for, and what replaced it: both have 32 bytes.
        let tokens = item.try_into().ok().map(Token).zip(token.try_into().ok().map(Token));
        Ok(tokens.map(|(item, token)| Entry { item, token, field, subject, sealed, epoch }))
    };
    rows.iter().filter_map(|row| entry(row).transpose()).collect::<Result<_, _>>().map_err(failed)
}
