//! The token keys that a database knows, and those of them that are at hand: what whoever finds or reveals needs. A worker
//! has one, and is compared with the database in [`crate::db::known_keys`].

use std::{
    collections::BTreeMap,
    num::NonZeroU8,
    path::{Path, PathBuf},
};

use thiserror::Error;
use tokio_postgres::Row;

use super::{
    keyfile::{KeyError, Kind},
    token::{Token, TokenRoot},
};
use crate::db::{DbError, Session};

/// The token keys of a database.
pub struct TokenKeys {
    dir: PathBuf,
    keys: BTreeMap<NonZeroU8, TokenKey>,
}

/// One that it knows.
pub struct TokenKey {
    /// `pending`, `active`, `read-only` or `retired`: see `masq.token_keys`.
    pub state: String,
    /// `None`: its file is not there.
    pub root: Option<TokenRoot>,
}

/// Why tokens cannot be made or checked, by what helps.
#[derive(Debug, Error)]
pub enum TokenKeysError {
    /// Mend the files.
    #[error(transparent)]
    File(#[from] KeyError),
    /// See there.
    #[error(transparent)]
    Database(#[from] DbError),
    /// Name another directory.
    #[error(
        "key id {kid} in {} is not the key with which this database was written: point --keys at the right directory",
        dir.display()
    )]
    Other {
        /// Of the key.
        kid: NonZeroU8,
        /// Where it is.
        dir: PathBuf,
    },
    /// Write something first.
    #[error("no worker has written to this database yet, so there are no tokens in it: is it the right one?")]
    Unwritten,
    /// Bring the file.
    #[error("{}", missing(.dir, *.kid))]
    Missing {
        /// Of the key.
        kid: NonZeroU8,
        /// Where it was looked for.
        dir: PathBuf,
    },
}

/// That a key's file is not there.
fn missing(dir: &Path, kid: NonZeroU8) -> String {
    format!(
        "the token key with key id {kid} is not in {}: bring token-{kid}.key there, or {} where that is its name",
        dir.display(),
        Kind::Token.file()
    )
}

impl TokenKeys {
    /// Asks the database which keys there are. `roots` are those that were found in this directory.
    ///
    /// # Errors
    /// If one of them is another than the database knows, or it cannot say.
    pub async fn load(
        session: &Session,
        dir: &Path,
        roots: BTreeMap<NonZeroU8, TokenRoot>,
    ) -> Result<Self, TokenKeysError> {
        let known = session.query_typed("SELECT kid, check_value, state FROM masq.token_keys", &[]).await;
        let known = known.and_then(|rows| rows.iter().map(known_key).collect::<Result<Vec<_>, _>>());
        let known = known.map_err(|error| DbError::new("asking which token keys there are", &error))?;
        Self::of(known, roots, dir)
    }

    fn of(
        known: Vec<(i16, Vec<u8>, String)>,
        mut roots: BTreeMap<NonZeroU8, TokenRoot>,
        dir: &Path,
    ) -> Result<Self, TokenKeysError> {
        let mut keys = BTreeMap::new();
        for (kid, check, state) in known {
            let Some(kid) = u8::try_from(kid).ok().and_then(NonZeroU8::new) else { continue };
            let root = roots.remove(&kid);
            if root.as_ref().is_some_and(|root| root.check_value() != check.as_slice()) {
                return Err(TokenKeysError::Other { kid, dir: dir.to_owned() });
            }
            keys.insert(kid, TokenKey { state, root });
        }
        if keys.is_empty() { Err(TokenKeysError::Unwritten) } else { Ok(Self { dir: dir.to_owned(), keys }) }
    }

    /// The keys that may have tokens in the table, by key id: all that are not retired.
    ///
    /// # Errors
    /// If one of them is not there: without it a value that was seen would not be found.
    pub fn in_use(&self) -> Result<Vec<(&TokenRoot, &str)>, TokenKeysError> {
        let in_use = self.keys.iter().filter(|(_, key)| key.state != "retired");
        in_use
            .map(|(kid, TokenKey { state, root })| match root {
                Some(root) => Ok((root, state.as_str())),
                None => Err(TokenKeysError::Missing { kid: *kid, dir: self.dir.clone() }),
            })
            .collect()
    }

    /// Whether a token is of a key that is over: it was replaced, and what led to the new one is gone.
    pub fn is_over(&self, token: &Token) -> bool {
        NonZeroU8::new(token.0[0]).and_then(|kid| self.keys.get(&kid)).is_some_and(|key| key.state == "retired")
    }

    /// What a token's key id says of it.
    pub fn origin(&self, token: &Token) -> Origin<'_> {
        let Some(kid) = NonZeroU8::new(token.0[0]) else { return Origin::Tombstone };
        match self.keys.get(&kid) {
            None => Origin::Unknown { kid },
            Some(TokenKey { root: None, state }) if state == "retired" => Origin::Retired { kid },
            Some(TokenKey { root: None, .. }) => Origin::Missing(missing(&self.dir, kid)),
            Some(TokenKey { root: Some(root), .. }) => Origin::Root(root),
        }
    }
}

/// Where a token comes from.
pub enum Origin<'a> {
    /// From nowhere: it stands where an erased value was.
    Tombstone,
    /// From no key that this database knows.
    Unknown {
        /// The key id that it has.
        kid: NonZeroU8,
    },
    /// From a key that is over and not there: its tokens were replaced.
    Retired {
        /// The key id that it has.
        kid: NonZeroU8,
    },
    /// From a key that is not there: so it says.
    Missing(String),
    /// From this one, if it is what it seems.
    Root(&'a TokenRoot),
}

fn known_key(row: &Row) -> Result<(i16, Vec<u8>, String), tokio_postgres::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(kid: u8, seed: u8) -> TokenRoot {
        TokenRoot::new(NonZeroU8::new(kid).unwrap(), &[seed; 32])
    }

    fn known(kid: u8, seed: u8, state: &str) -> (i16, Vec<u8>, String) {
        (kid.into(), root(kid, seed).check_value().to_vec(), state.to_owned())
    }

    fn of(known: Vec<(i16, Vec<u8>, String)>, at_hand: &[(u8, u8)]) -> Result<TokenKeys, String> {
        let roots = at_hand.iter().map(|(kid, seed)| root(*kid, *seed)).map(|root| (root.kid(), root)).collect();
        TokenKeys::of(known, roots, Path::new("keys")).map_err(|error| error.to_string())
    }

    fn in_use(keys: &TokenKeys) -> Result<Vec<u8>, String> {
        let kids = |keys: Vec<(&TokenRoot, &str)>| keys.iter().map(|(root, _)| root.kid().get()).collect();
        keys.in_use().map(kids).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_of_another_database_is_refused_and_one_too_many_is_not() {
        let said = of(vec![known(1, 7, "active")], &[(1, 8)]).err().unwrap();
        assert!(said.contains("key id 1 in keys is not the key") && said.contains("--keys"), "{said}");
        assert_eq!(in_use(&of(vec![known(1, 7, "active")], &[(1, 7), (2, 9)]).unwrap()), Ok(vec![1]));
        assert!(of(vec![], &[(1, 7)]).err().unwrap().contains("no worker has written"));
    }

    #[test]
    fn only_a_retired_key_may_be_missing() {
        let known = || vec![known(1, 1, "retired"), known(2, 2, "read-only"), known(3, 3, "active")];
        assert_eq!(in_use(&of(known(), &[(2, 2), (3, 3)]).unwrap()), Ok(vec![2, 3]));
        let said = in_use(&of(known(), &[(3, 3)]).unwrap()).unwrap_err();
        assert!(said.contains("key id 2 is not in keys") && said.contains("token-2.key"), "{said}");
    }

    #[test]
    fn a_token_says_by_its_first_byte_where_it_comes_from() {
        let keys = of(vec![known(1, 1, "retired"), known(2, 2, "active")], &[(2, 2)]).unwrap();
        let origin = |kid| keys.origin(&Token([kid; 32]));
        assert!(matches!(origin(0), Origin::Tombstone));
        assert!(matches!(origin(1), Origin::Retired { kid } if kid.get() == 1));
        let keys = of(vec![known(1, 1, "read-only"), known(2, 2, "active")], &[(2, 2)]).unwrap();
        let origin = |kid| keys.origin(&Token([kid; 32]));
        assert!(matches!(origin(1), Origin::Missing(said) if said.contains("token-1.key")));
        assert!(matches!(origin(2), Origin::Root(root) if root.kid().get() == 2));
        assert!(matches!(origin(9), Origin::Unknown { kid } if kid.get() == 9));
    }
}
