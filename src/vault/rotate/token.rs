//! The states of token keys: pending until every worker has the file, active, read-only until no token of it is left,
//! retired. The order is Tink's: a key is handed out before it is used.

use std::num::NonZeroU8;

use tokio_postgres::types::{ToSql, Type};

use super::{RotateError, Rotation};
use crate::{
    db::{DbError, Session},
    vault::token::TokenRoot,
};

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Handed out, not used yet.
    Pending,
    /// Makes the tokens.
    Active,
    /// Its tokens are still there, and none are made.
    ReadOnly,
    /// It has no tokens any more.
    Retired,
}

impl State {
    /// As the database and people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::ReadOnly => "read-only",
            Self::Retired => "retired",
        }
    }
}

/// A key as the database knows it.
#[derive(Clone, Debug)]
pub struct TokenKey {
    /// Its id.
    pub kid: NonZeroU8,
    /// Where it stands.
    pub state: State,
    /// Whether somebody else may have it.
    pub leaked: bool,
    /// Whether it was retired within the last day, by the server's clock.
    pub ended_lately: bool,
    check_value: Vec<u8>,
}

impl TokenKey {
    /// Whether this is its root.
    ///
    /// # Errors
    /// If it is another key of the same id.
    pub fn verify(&self, root: &TokenRoot) -> Result<(), RotateError> {
        if root.check_value() == *self.check_value { Ok(()) } else { Err(RotateError::AnotherKey { kid: self.kid }) }
    }
}

/// The keys that a database knows, by key id.
///
/// # Errors
/// If it cannot say.
pub async fn keys(session: &Session) -> Result<Vec<TokenKey>, DbError> {
    const READ: &str = "SELECT kid, state, leaked, state = 'retired' AND since > now() - interval '1 day', check_value \
                        FROM masq.token_keys ORDER BY kid";
    let failed = |error| DbError::new("reading which keys make tokens", &error);
    let key = |row: &tokio_postgres::Row| {
        let state = match row.try_get(1)? {
            "pending" => State::Pending,
            "active" => State::Active,
            "read-only" => State::ReadOnly,
            _ => State::Retired,
        };
        let kid = u8::try_from(row.try_get::<_, i16>(0)?).ok().and_then(NonZeroU8::new);
        let (leaked, ended_lately, check_value) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        Ok(kid.map(|kid| TokenKey { kid, state, leaked, ended_lately, check_value }))
    };
    let rows = session.query_typed(READ, &[]).await.map_err(failed)?;
    rows.iter().filter_map(|row| key(row).transpose()).collect::<Result<_, _>>().map_err(failed)
}

/// Takes up a new key, as pending; or, where the others have leaked, as the one that makes tokens from now on.
///
/// # Errors
/// If another rotation is not over.
pub async fn add(rotation: &mut Rotation<'_>, root: &TokenRoot, leaked: bool) -> Result<(), DbError> {
    let (kid, check) = (i16::from(root.kid().get()), root.check_value());
    let check = check.as_slice();
    let rest: [(&(dyn ToSql + Sync), Type); 3] = [(&kid, Type::INT2), (&check, Type::BYTEA), (&leaked, Type::BOOL)];
    rotation.call("taking up the new key", "SELECT masq.add_token_key($1, $2, $3, $4)", &rest).await.map(drop)
}

/// Makes a pending key the one that makes tokens. When this returns, no token of the old one can be committed any more.
///
/// # Errors
/// If it is not pending.
pub async fn activate(rotation: &mut Rotation<'_>, kid: NonZeroU8) -> Result<(), DbError> {
    let kid = i16::from(kid.get());
    let rest: [(&(dyn ToSql + Sync), Type); 1] = [(&kid, Type::INT2)];
    rotation.call("making the key active", "SELECT masq.activate_token_key($1, $2)", &rest).await.map(drop)
}

/// Ends the keys that are read-only, and takes bridge and views away. Answers their ids.
///
/// # Errors
/// If there are entries of theirs, unless forced.
pub async fn retire(rotation: &mut Rotation<'_>, force: bool) -> Result<Vec<NonZeroU8>, DbError> {
    let doing = "retiring the old key";
    let rest: [(&(dyn ToSql + Sync), Type); 1] = [(&force, Type::BOOL)];
    let row = rotation.call_one(doing, "SELECT masq.retire_token_keys($1, $2)", &rest).await?;
    let kids: Vec<i16> = row.try_get(0).map_err(|error| DbError::new(doing, &error))?;
    Ok(kids.into_iter().filter_map(|kid| u8::try_from(kid).ok().and_then(NonZeroU8::new)).collect())
}
