//! What the commands of the way back have in common: sessions with a database that has a vault, the token keys, lines from
//! stdin, and who sits at the terminal.

use std::{
    io::{self, Read},
    time::Duration,
};

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{connect, environment::lookup, exit::Exit, report::Failure};
use crate::{
    config::Config,
    db::{DbError, Session, account},
    start,
    vault::{
        kms,
        token_keys::{TokenKeys, TokenKeysError},
    },
};

/// How long a database is waited for. Somebody sits in front of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most that is read from stdin: a million tokens. A wrong file is not read to its end.
const MAX_INPUT: u64 = 65 * 1024 * 1024;

/// Sessions with the database of the vault and with the one of the slots, where that is another.
pub(super) struct Databases {
    rows: Session,
    slots: Option<Session>,
}

impl Databases {
    /// # Errors
    /// One of them cannot be reached, or is not named.
    pub(super) async fn connect(config: &Config) -> Result<Self, Failure> {
        let rows = session(config).await?;
        let slots = match connect::slots(config)? {
            Some(slots) => Some(start::connect_slots(&rows, &slots, Instant::now() + PATIENCE).await?),
            None => None,
        };
        Ok(Self { rows, slots })
    }

    /// With the vault.
    pub(super) fn rows(&self) -> &Session {
        &self.rows
    }

    /// With the slots.
    pub(super) fn slots(&self) -> &Session {
        self.slots.as_ref().unwrap_or(&self.rows)
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        self.rows.close().await;
        if let Some(slots) = self.slots {
            slots.close().await;
        }
    }
}

/// A session with the database of the vault alone.
///
/// # Errors
/// It cannot be reached, or is not named.
pub(super) async fn session(config: &Config) -> Result<Session, Failure> {
    Ok(start::connect(&connect::connector(config)?, Instant::now() + PATIENCE).await?)
}

/// The token keys of a database, from the directory that the configuration names.
///
/// # Errors
/// None is named, or the keys there are not those of the database.
pub(super) async fn token_keys(config: &Config, session: &Session) -> Result<TokenKeys, Failure> {
    let Some(dir) = &config.keys.dir else {
        return Err(Failure::new(Exit::Config, "no keys are named")
            .hint("name the directory with token.key in it with --keys, MASQ_KEYS or dir in [keys]"));
    };
    let roots = kms::token::all(dir, &lookup).await?;
    Ok(TokenKeys::load(session, dir, roots).await?)
}

impl From<TokenKeysError> for Failure {
    fn from(error: TokenKeysError) -> Self {
        match error {
            TokenKeysError::File(error) => error.into(),
            TokenKeysError::Database(error) => refused(error),
            error => Self::of(Exit::Config, &error),
        }
    }
}

/// What a database says to somebody who asks for more than their login may, or asks a database without a vault.
pub(super) fn refused(error: DbError) -> Failure {
    let is_denied = matches!(error, DbError::Denied(_));
    // No such schema, table or function.
    let strange = ["SQLSTATE 3F000", "SQLSTATE 42"];
    let is_strange = matches!(&error, DbError::Misconfigured(what) if strange.iter().any(|code| what.contains(code)));
    match Failure::from(error) {
        failure if is_denied => {
            failure.hint("`masq migrate --roles` makes the role masq_revealer: GRANT it to this login")
        }
        failure if is_strange => {
            failure.hint("name the database that `masq run` writes to; `masq migrate` upgrades one")
        }
        failure => failure,
    }
}

/// The user at the terminal, as this machine says: no more than a claim.
pub(super) fn claimed() -> String {
    account::me(&lookup).unwrap_or_else(|| "unknown".to_owned())
}

/// All of stdin.
///
/// # Errors
/// It cannot be read, or is far too long.
pub(super) fn stdin() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(Exit::Usage, "cannot read from stdin").because(&error))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(Failure::new(Exit::Usage, format!("stdin has more than {MAX_INPUT} bytes: ask for less at once")));
    }
    Ok(bytes)
}

/// The lines that are not empty, each with its number and without its end.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.is_empty())
}

/// What is put on the record stays there: it must not quote the person or the value that it is about.
///
/// # Errors
/// It does.
pub(super) fn quotes_nothing(text: &str, secret: &str) -> Result<(), Failure> {
    match quotes(text, secret) {
        true => Err(Failure::new(
            Exit::Usage,
            "ticket and reason are kept for good, and one of them says what has to stay secret",
        )
        .hint("say it without the id or the value; nothing was asked for")),
        false => Ok(()),
    }
}

/// Whether the secret stands there by itself. A short one may by chance.
fn quotes(text: &str, secret: &str) -> bool {
    let (text, secret) = (Zeroizing::new(text.to_lowercase()), Zeroizing::new(secret.to_lowercase()));
    let is_apart = |(at, found): (usize, &str)| {
        let inside = |beside: Option<char>| beside.is_some_and(char::is_alphanumeric);
        !inside(text[..at].chars().next_back()) && !inside(text[at + found.len()..].chars().next())
    };
    secret.chars().count() >= 4 && text.match_indices(secret.as_str()).any(is_apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_white_space_and_lose_their_ends() {
        let read: Vec<_> = lines(b" one \r\n\n\xfftwo\t\r\r\nlast").collect();
        assert_eq!(read, [(1, &b" one "[..]), (3, b"\xfftwo\t\r"), (4, b"last")]);
        assert_eq!(lines(b"").count() + lines(b"\n\n").count(), 0);
    }

    #[test]
    fn a_reason_quotes_a_secret_that_stands_by_itself() {
        for text in ["10.0.0.1", "why 10.0.0.1?", "(10.0.0.1)", "110.0.0.1 and 10.0.0.1", "10.0.0.10, 10.0.0.1"] {
            assert!(quotes(text, "10.0.0.1"), "{text}");
        }
        assert!(quotes("letter of JANE@example.org", "Jane@example.org"));
        for (text, secret) in [("110.0.0.1", "10.0.0.1"), ("a letter", "let"), ("of the 3rd, 403", "403"), ("", "")] {
            assert!(!quotes(text, secret), "{text}");
        }
    }
}
