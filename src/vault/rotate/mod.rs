//! Other keys in the place of those that there are, while workers run: on the record, page by page, and resumable after
//! every page, so that nothing but the database says how far it is.
//!
//! [`recovery`] seals epochs to further recovery keys. [`token`] takes the token key from state to state; [`rekey`] makes
//! entries of its old tokens entries of the new ones with the pure [`reseal`], and [`rows`] lets the rows follow.

pub mod recovery;
pub mod rekey;
pub mod reseal;
pub mod rows;
pub mod token;

use std::{num::NonZeroU8, time::Duration};

use serde_json::Value;
use thiserror::Error;
use tokio::time::sleep;
use tokio_postgres::{
    Error, Row,
    types::{ToSql, Type},
};

use crate::{
    backoff::Backoff,
    db::{DbError, Session},
    vault::keyfile::KeyError,
};

/// How often a statement is tried again that was in another transaction's way. With delays of up to two seconds that is
/// more patience than any of masq's own transactions needs.
const ATTEMPTS: u32 = 10;

/// Why a rotation did not go on. What was done stays done.
#[derive(Debug, Error)]
pub enum RotateError {
    /// The database cannot do what was asked of it.
    #[error(transparent)]
    Database(#[from] DbError),
    /// A key cannot be read or made.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A key is not the one that the database knows by its key id.
    #[error("the key with id {kid} in this directory is not the one that made tokens in this database")]
    AnotherKey {
        /// The key id.
        kid: NonZeroU8,
    },
}

/// Who rotates, and why.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    /// The user at the terminal, as this machine says; the database adds the login.
    pub claimed: &'a str,
    /// At least ten characters: the database asks for them.
    pub reason: &'a str,
    /// Where it was decided, if that has a number.
    pub ticket: Option<&'a str>,
}

/// A rotation that is on the record: all its calls are made for that entry.
pub struct Rotation<'a> {
    session: &'a Session,
    why: Why<'a>,
    detail: Value,
    request: i64,
}

impl<'a> Rotation<'a> {
    /// Puts it on the record. `detail` says what is to be done: key ids and fingerprints.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub async fn request(session: &'a Session, why: Why<'a>, detail: Value) -> Result<Self, DbError> {
        let mut rotation = Self { session, why, detail, request: 0 };
        rotation.record().await?;
        Ok(rotation)
    }

    /// Who rotates, and why.
    pub fn why(&self) -> Why<'a> {
        self.why
    }

    /// In no transaction, so that it is committed when this returns; the database does nothing before.
    async fn record(&mut self) -> Result<(), DbError> {
        let detail = self.detail.to_string();
        let Why { claimed, reason, ticket } = self.why;
        let parameters: [(&(dyn ToSql + Sync), Type); 4] =
            [(&reason, Type::TEXT), (&ticket, Type::TEXT), (&claimed, Type::TEXT), (&detail, Type::TEXT)];
        let recorded = self.session.query_typed_one("SELECT masq.request_rotate($1, $2, $3, $4)", &parameters).await;
        let failed = |error| DbError::new("recording the rotation", &error);
        self.request = recorded.and_then(|row| row.try_get(0)).map_err(failed)?;
        Ok(())
    }

    /// Puts on the record what came of it.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub async fn outcome(&mut self, detail: &Value) -> Result<(), DbError> {
        let (claimed, detail) = (self.why.claimed, detail.to_string());
        let rest: [(&(dyn ToSql + Sync), Type); 2] = [(&claimed, Type::TEXT), (&detail, Type::TEXT)];
        self.call("recording the outcome", "SELECT masq.rotated($1, $2, $3)", &rest).await.map(drop)
    }

    /// Calls a function whose first parameter is the request. Waits for who is in the way, and asks anew when the request
    /// has become too old, as it does in the middle of long work.
    async fn call(
        &mut self,
        doing: &str,
        sql: &str,
        rest: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, DbError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut left = ATTEMPTS;
        loop {
            let request = self.request;
            let first: [(&(dyn ToSql + Sync), Type); 1] = [(&request, Type::INT8)];
            let parameters: Vec<_> = first.into_iter().chain(rest.iter().cloned()).collect();
            let error = match self.session.query_typed(sql, &parameters).await {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            left -= 1;
            match sqlstate(&error) {
                "MQ006" if left > 0 => self.record().await?,
                "40001" | "40P01" | "55P03" if left > 0 => sleep(backoff.next(fastrand::f64())).await,
                _ => return Err(DbError::new(doing, &error)),
            }
        }
    }

    /// The same where the answer is one row.
    async fn call_one(&mut self, doing: &str, sql: &str, rest: &[(&(dyn ToSql + Sync), Type)]) -> Result<Row, DbError> {
        let missing = || DbError::Misconfigured(format!("{doing} fails: the database answers nothing"));
        self.call(doing, sql, rest).await?.into_iter().next().ok_or_else(missing)
    }
}

fn sqlstate(error: &Error) -> &str {
    error.code().map_or("", |code| code.code())
}
