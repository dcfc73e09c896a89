//! Erasing one person: rows unlinked, sealed copies deleted, slots gone, on the record and in a file that a restore can be
//! measured against. Others who share an address with that person keep theirs.
//!
//! The work is done by SECURITY DEFINER functions (migrations/0006_forget.sql); here is the order: the request, committed;
//! the file; slots in a database of their own; the rows' database in one transaction; the file again; a sweep. Whatever
//! cuts it off, the same command finishes it.

pub mod journal;
mod replay;
mod sweep;

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tokio_postgres::{
    Error, Row,
    types::{ToSql, Type},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use self::{
    journal::{Erasure, Journal, JournalError},
    sweep::ALL,
};
pub use self::{
    replay::Replayed,
    sweep::{RECENT, sweep},
};
use super::{
    refusal::Refusal,
    seal::{SubjectKey, SubjectTag},
};
use crate::db::{DbError, Session, sqlstate};

/// How long the table's lock is waited for, while writers queue behind: longer than the second after which autovacuum
/// gives way, and shorter than writers would mind.
const LOCK: &str = "2s";

/// How long it is tried again. Longer hides what is in the way from whoever waits; shorter gives up on a busy table.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two attempts, so that the writers who waited get their turn.
const PAUSE: Duration = Duration::from_millis(500);

/// Why an erasure was not done, or not to its end.
#[derive(Debug, Error)]
pub enum EraseError {
    /// The database's own rules.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The file of erasures.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The file is none of this database.
    #[error("the file of erasures is another database's: erasure {number} is one there and another one here")]
    Foreign {
        /// Its number.
        number: i64,
    },
    /// Lines of the file are gone.
    #[error("the file of erasures lacks erasure {number}, which was before others in it: restore the file from a copy")]
    Gap {
        /// Its number.
        number: i64,
    },
    /// The file is a copy from before, or the wrong one.
    #[error("the file of erasures lacks erasure {number}, which this database knows: it is an old copy, or none of it")]
    Old {
        /// Its number.
        number: i64,
    },
    /// The file and the database know of no erasure: either there never was one, or both are from before the first.
    #[error("neither the file of erasures nor the restored database knows of any erasure")]
    Nobody,
    /// With another key nobody would be found.
    #[error("subject.key is not the key with which this database was written")]
    WrongKey,
    /// A tag that is none.
    #[error("masq.erasures holds a tag that is none: compare it with a backup")]
    Tag,
    /// What the database answered cannot be read.
    #[error("the database answered what this version does not know: use the masq that migrated it")]
    Answer(#[from] serde_json::Error),
}

impl EraseError {
    fn of(doing: &str, error: &Error) -> Self {
        Refusal::of(error).map_or_else(|| DbError::new(doing, error).into(), Self::Refused)
    }
}

/// Why, as it stands on the record.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    /// One of `masq.purposes`.
    pub purpose: &'a str,
    /// Of the ticket.
    pub ticket: &'a str,
    /// In words.
    pub reason: &'a str,
    /// The user at the terminal, as this machine says; the database adds the login.
    pub claimed: &'a str,
}

/// A request that is on the record.
struct Asked<'a> {
    request: i64,
    claimed: &'a str,
    /// Shows the database whom the request names; nowhere written down, so that nobody finds the name by trial.
    secret: Uuid,
}

/// Who is erased.
pub struct Person {
    /// As the vault knows them.
    pub tag: SubjectTag,
    /// As messages and rows name them.
    pub id: Zeroizing<String>,
    /// As rows name them where that column is masked, too: tokens in hexadecimal digits.
    pub tokens: Vec<String>,
}

/// What there is of a person.
#[derive(Clone, Debug, Deserialize)]
pub struct Plan {
    /// Rows, by table.
    pub rows: BTreeMap<String, u64>,
    /// Different tokens in these rows.
    pub tokens: u64,
    /// Those of them that others have, too.
    pub shared_tokens: u64,
    /// Sealed values.
    pub entries: u64,
    /// Salts without which they stay shut.
    #[serde(default)]
    pub slots: u64,
    /// Dead letters.
    pub letters: u64,
    /// Tables of which no column is known to name a person.
    pub tables_without_persons: Vec<String>,
}

/// What was erased.
#[derive(Clone, Debug, Deserialize)]
pub struct Erased {
    /// Its place among all erasures.
    pub number: i64,
    /// Rows, by table.
    pub rows: BTreeMap<String, u64>,
    /// Whether they were deleted, not unlinked.
    pub rows_deleted: bool,
    /// Sealed values.
    pub entries: u64,
    /// Their salts.
    pub slots: u64,
    /// Dead letters.
    pub letters: u64,
    /// As in [`Plan`].
    pub tables_without_persons: Vec<String>,
    /// What a worker had brought back by then, and was deleted, too.
    #[serde(default)]
    pub swept: u64,
}

/// Sessions of a login that may erase.
pub struct Eraser {
    /// With the database of the rows.
    pub rows: Session,
    /// With that of the slots, if they have one of their own.
    pub slots: Option<Session>,
}

impl Eraser {
    /// Whether the tags of this database are made with this key.
    ///
    /// # Errors
    /// [`EraseError::WrongKey`] if they are not.
    pub async fn check_key(&self, key: &SubjectKey) -> Result<(), EraseError> {
        const CHECK: &str = "SELECT masq.is_subject_key($1)";
        let value: &[u8] = &key.check_value();
        let checked = self.rows.query_typed_one(CHECK, &[(&value, Type::BYTEA)]).await;
        let is_ours =
            checked.and_then(|row| row.try_get(0)).map_err(|error| EraseError::of("comparing subject.key", &error))?;
        if is_ours { Ok(()) } else { Err(EraseError::WrongKey) }
    }

    /// Says what there is of a person, and puts on the record that somebody asked.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn plan(&self, why: Why<'_>, person: &Person) -> Result<Plan, EraseError> {
        const PLAN: &str = "SELECT masq.plan_erasure($1, $2, $3, $4)::text";
        const SLOTS: &str = "SELECT masq_slots.count($1)";
        let failed = |error| EraseError::of("looking for what there is of this person", &error);
        let asked = self.ask(why, Some(person)).await?;
        let subjects = [person.id.as_str()];
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&asked.request, Type::INT8),
            (&asked.secret, Type::UUID),
            (&subjects.as_slice(), Type::TEXT_ARRAY),
            (&person.tokens, Type::TEXT_ARRAY),
        ];
        let plan = self.patiently(&self.rows, PLAN, &parameters).await.map_err(failed)?;
        let mut plan: Plan = serde_json::from_str(plan.try_get(0).map_err(failed)?)?;
        let session = self.slots.as_ref().unwrap_or(&self.rows);
        let tag: &[u8] = &person.tag.0;
        let slots = session.query_typed_one(SLOTS, &[(&tag, Type::BYTEA)]).await;
        let slots: i64 = slots.and_then(|row| row.try_get(0)).map_err(failed)?;
        plan.slots = slots.unsigned_abs();
        Ok(plan)
    }

    /// Erases a person.
    ///
    /// # Errors
    /// What is left undone the same call finishes.
    pub async fn erase(
        &self,
        why: Why<'_>,
        person: &Person,
        delete_rows: bool,
        journal: &mut Journal,
    ) -> Result<Erased, EraseError> {
        self.catch_up(journal).await?;
        let asked = self.ask(why, Some(person)).await?;
        let begun = journal.unfinished(person.tag).cloned();
        let erasure = match begun {
            Some(begun) => begun,
            None => {
                let key = Uuid::new_v4();
                let erasure = Erasure { key, subject: person.tag, delete_rows, number: None };
                journal.write(&erasure)?;
                erasure
            }
        };
        let elsewhere = self.erase_slots(&erasure).await?;
        let erased = self.erase_rows(&asked, person, &erasure, elsewhere.as_deref()).await;
        let mut erased: Erased = match erased {
            Ok(erased) => erased,
            Err(error) => {
                // An answer of the database says that nothing was done; silence says nothing.
                if error.as_db_error().is_some() && self.slots.is_none() {
                    journal.withdraw(erasure.key)?;
                }
                return Err(EraseError::of("erasing", &error));
            }
        }?;
        journal.write(&Erasure { number: Some(erased.number), ..erasure })?;
        erased.swept = self.sweep_all().await?;
        Ok(erased)
    }

    async fn erase_rows(
        &self,
        asked: &Asked<'_>,
        person: &Person,
        erasure: &Erasure,
        elsewhere: Option<&str>,
    ) -> Result<Result<Erased, EraseError>, Error> {
        const ERASE: &str = "SELECT masq.erase($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb)::text";
        let subjects = [person.id.as_str()];
        let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
            (&asked.request, Type::INT8),
            (&asked.claimed, Type::TEXT),
            (&erasure.key, Type::UUID),
            (&asked.secret, Type::UUID),
            (&subjects.as_slice(), Type::TEXT_ARRAY),
            (&person.tokens, Type::TEXT_ARRAY),
            (&erasure.delete_rows, Type::BOOL),
            (&elsewhere, Type::TEXT),
        ];
        let row = self.patiently(&self.rows, ERASE, &parameters).await?;
        Ok(serde_json::from_str(row.try_get(0)?).map_err(EraseError::from))
    }

    /// Deletes a person's slots where they have a database of their own. Answers how many, by epoch, as JSON.
    async fn erase_slots(&self, erasure: &Erasure) -> Result<Option<String>, EraseError> {
        const ERASE: &str = "SELECT masq_slots.erase($1, $2)::text";
        let Some(session) = &self.slots else { return Ok(None) };
        let failed = |error| EraseError::of("deleting the slots", &error);
        let tag: &[u8] = &erasure.subject.0;
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&erasure.key, Type::UUID), (&tag, Type::BYTEA)];
        let row = self.patiently(session, ERASE, &parameters).await.map_err(failed)?;
        row.try_get(0).map(Some).map_err(failed)
    }

    /// In no transaction, so that it is committed when this returns; the database does nothing before.
    async fn ask<'a>(&self, why: Why<'a>, person: Option<&Person>) -> Result<Asked<'a>, EraseError> {
        const REQUEST: &str = "SELECT masq.request_erasure($1, $2, $3, $4, $5, $6, $7, $8)";
        let (tag, secret) = (person.map(|person| person.tag.0.as_slice()), Uuid::new_v4());
        let subjects = person.map(|person| [person.id.as_str()]);
        let (subjects, tokens) = (subjects.as_ref().map(<[_; 1]>::as_slice), person.map(|person| &person.tokens));
        let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
            (&why.purpose, Type::TEXT),
            (&why.ticket, Type::TEXT),
            (&why.reason, Type::TEXT),
            (&why.claimed, Type::TEXT),
            (&tag, Type::BYTEA),
            (&secret, Type::UUID),
            (&subjects, Type::TEXT_ARRAY),
            (&tokens, Type::TEXT_ARRAY),
        ];
        let request = self.rows.query_typed_one(REQUEST, &parameters).await.and_then(|row| row.try_get(0));
        let request = request.map_err(|error| EraseError::of("putting the request on the record", &error))?;
        Ok(Asked { request, claimed: why.claimed, secret })
    }

    /// One statement in a transaction of its own, as long as it takes; what waits for a lock is tried again.
    async fn patiently(
        &self,
        session: &Session,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Row, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let done = session
                .within(async {
                    let limits = format!("SET LOCAL lock_timeout = '{LOCK}'; SET LOCAL statement_timeout = 0");
                    session.batch_execute(&limits).await?;
                    session.query_typed_one(sql, parameters).await
                })
                .await;
            match done {
                Err(error) if is_in_the_way(&error) && Instant::now() < deadline => {
                    tracing::info!(error = sqlstate::describe(&error), "waiting for a lock");
                    sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// The erasures that the database knows.
    async fn known(&self) -> Result<Vec<Erasure>, EraseError> {
        const KNOWN: &str = "SELECT id, key, subject_tag, delete_rows FROM masq.known_erasures()";
        let failed = |error| EraseError::of("reading which erasures there are", &error);
        let rows = self.rows.query_typed(KNOWN, &[]).await.map_err(failed)?;
        let erasure = |row: &Row| {
            let (tag, number): (Vec<u8>, i64) = (row.try_get(2).map_err(failed)?, row.try_get(0).map_err(failed)?);
            Ok(Erasure {
                key: row.try_get(1).map_err(failed)?,
                subject: SubjectTag(tag.try_into().map_err(|_| EraseError::Tag)?),
                delete_rows: row.try_get(3).map_err(failed)?,
                number: Some(number),
            })
        };
        rows.iter().map(erasure).collect()
    }

    /// Writes into the file what the database knows and the file does not: after a crash between the two, or where the
    /// file is new.
    async fn catch_up(&self, journal: &mut Journal) -> Result<Vec<Erasure>, EraseError> {
        let known = self.known().await?;
        for here in &known {
            let there = journal.erasures().iter().find(|there| there.number == here.number || there.key == here.key);
            match (there, here.number) {
                (Some(there), Some(number)) if there.key != here.key => return Err(EraseError::Foreign { number }),
                (Some(there), _) if there.number == here.number => {}
                _ => journal.write(here)?,
            }
        }
        Ok(known)
    }

    async fn sweep_all(&self) -> Result<u64, EraseError> {
        let swept = sweep(&self.rows, self.slots.as_ref(), ALL).await;
        swept.map_err(|error| EraseError::of("sweeping what came back", &error))
    }
}

/// A lock or a deadlock: nothing was done, and the same statement may do it.
fn is_in_the_way(error: &Error) -> bool {
    error.code().is_some_and(|code| ["55P03", "40P01", "40001"].contains(&code.code()))
}
