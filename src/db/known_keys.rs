//! Which keys a database was written with: a check value of each, which says nothing of the key. A worker with others
//! stops before its first write, since two keys in one column would silently end equality.

use std::num::NonZeroU8;

use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use super::{DbError, Session};
use crate::{
    check::{Finding, Severity},
    vault::{backend::Recipient, keyring::KeyRing},
};

/// What a database knows.
struct Known {
    subject: Vec<u8>,
    /// Key ids with their check values and states.
    tokens: Vec<(i16, Vec<u8>, String)>,
    /// Fingerprints with their states.
    recipients: Vec<(Vec<u8>, String)>,
}

/// Keys that are not those with which this database was written, or that it does not know and this login cannot note.
///
/// # Errors
/// If the database cannot answer.
pub async fn compare(session: &Session, keys: &KeyRing) -> Result<Vec<Finding>, DbError> {
    match known(session).await.map_err(|error| DbError::new("comparing the keys", &error))? {
        Some(known) => Ok(known.judge(keys)),
        None => missing_right_to_claim(session).await,
    }
}

/// Notes the keys in a database that has never seen any; afterwards only these write there.
///
/// # Errors
/// If the database refuses.
pub async fn claim(session: &Session, keys: &KeyRing) -> Result<Vec<Finding>, DbError> {
    let failed = |error| DbError::new("noting the keys", &error);
    // Asked first: a login that may not claim passes once the keys are known.
    if known(session).await.map_err(failed)?.is_none() {
        // All in one call: of two workers with different keys one claims everything and the other nothing.
        let kid = i16::from(keys.token.kid().get());
        let (token, subject) = (keys.token.check_value(), keys.subject.check_value());
        let fingerprints = keys.fingerprints();
        let recipients: Vec<&[u8]> = fingerprints.iter().map(<[u8; 32]>::as_slice).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&kid, Type::INT2),
            (&token.as_slice(), Type::BYTEA),
            (&subject.as_slice(), Type::BYTEA),
            (&recipients, Type::BYTEA_ARRAY),
        ];
        session.query_typed("SELECT masq.claim_keys($1, $2, $3, $4)", &parameters).await.map_err(failed)?;
    }
    compare(session, keys).await
}

/// The id of the key that makes tokens in this database; `None` if it has never seen any keys.
///
/// # Errors
/// If it cannot say.
pub async fn active(client: &Client) -> Result<Option<Active>, tokio_postgres::Error> {
    let rows = client.query_typed("SELECT kid, check_value FROM masq.token_keys WHERE state = 'active'", &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let kid = u8::try_from(row.try_get::<_, i16>(0)?).ok().and_then(NonZeroU8::new);
    let check = row.try_get(1)?;
    Ok(kid.map(|kid| Active { kid, check }))
}

/// The keys with another token key of theirs, if that is the one that makes tokens now. One that is not here is said by
/// [`compare`].
///
/// # Errors
/// If the database cannot answer.
pub async fn active_keys(session: &Session, keys: &KeyRing) -> Result<Option<KeyRing>, DbError> {
    let active = active(session).await.map_err(|error| DbError::new("asking which key makes tokens", &error))?;
    let other = active.filter(|active| active.kid != keys.token.kid());
    Ok(match other {
        Some(active) => keys.with_kid(active.kid).await.ok(),
        None => None,
    })
}

/// The key that makes tokens now, as far as a database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its id.
    pub kid: NonZeroU8,
    /// [`crate::vault::token::TokenRoot::check_value`] of it.
    pub check: Vec<u8>,
}

/// `None`: it has never seen any keys.
async fn known(session: &Session) -> Result<Option<Known>, tokio_postgres::Error> {
    let subject = session.query_typed("SELECT value FROM masq.key_checks WHERE name = 'subject'", &[]).await?;
    let Some(subject) = subject.first().map(|row| row.try_get(0)).transpose()? else { return Ok(None) };
    let tokens = session.query_typed("SELECT kid, check_value, state FROM masq.token_keys", &[]).await?;
    let tokens = tokens.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)));
    let tokens = tokens.collect::<Result<_, tokio_postgres::Error>>()?;
    let recipients = session.query_typed("SELECT fingerprint, state FROM masq.recipients", &[]).await?;
    let recipients = recipients.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let recipients = recipients.collect::<Result<_, tokio_postgres::Error>>()?;
    Ok(Some(Known { subject, tokens, recipients }))
}

impl Known {
    fn judge(&self, keys: &KeyRing) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.subject != keys.subject.check_value() {
            findings.push(other("subject.key"));
        }
        findings.extend(self.judge_token(keys));
        for Recipient { name, fingerprint } in keys.recipients() {
            match self.recipients.iter().find(|(known, _)| known == fingerprint.as_slice()) {
                Some((_, state)) if state == "active" => {}
                Some(_) => findings.push(Finding::refused(
                    "keys",
                    format!("{name} holds a key that is retired"),
                    "take it out of the file or the configuration; `masq keys status` shows fingerprints",
                )),
                None => findings.push(unknown_recipient(&name)),
            }
        }
        findings
    }

    fn judge_token(&self, keys: &KeyRing) -> Option<Finding> {
        let kid = keys.token.kid().get();
        let Some((_, check, state)) = self.tokens.iter().find(|(known, ..)| *known == i16::from(kid)) else {
            return Some(other("token.key"));
        };
        if *check != keys.token.check_value() {
            return Some(other("token.key"));
        }
        let active = self.tokens.iter().find(|(.., state)| state == "active").map_or(0, |(kid, ..)| *kid);
        (state != "active").then(|| {
            Finding::refused(
                "keys",
                format!("token.key has key id {kid}, which is {state} here"),
                format!(
                    "tokens are made with key id {active}: put token-{active}.key, from `masq keys rotate`, into --keys"
                ),
            )
        })
    }
}

fn other(file: &str) -> Finding {
    let remedy = "point --keys at the right directory; with other keys equal values would no longer be equal";
    Finding::refused("keys", not_known(file), remedy)
}

fn not_known(key: &str) -> String {
    format!("{key} is not the key with which this database was written")
}

/// One may be added, with the reason on record.
fn unknown_recipient(name: &str) -> Finding {
    let remedy = if name.starts_with("arn:") {
        format!("to have it open things here, too: masq keys rotate --recovery --add-kms {name}")
    } else {
        "point --keys at the right directory; to add a key: masq keys rotate --recovery --add FILE".to_owned()
    };
    Finding::refused("keys", not_known(name), remedy)
}

/// Only the first worker needs it.
async fn missing_right_to_claim(session: &Session) -> Result<Vec<Finding>, DbError> {
    const LACKS: &str = "\
        SELECT format('GRANT EXECUTE ON FUNCTION masq.claim_keys(smallint, bytea, bytea, bytea[]) TO %I', current_user)
        WHERE NOT has_function_privilege('masq.claim_keys(smallint, bytea, bytea, bytea[])', 'EXECUTE')";
    let failed = |error| DbError::new("comparing the keys", &error);
    let grant = session.query_typed(LACKS, &[]).await.map_err(failed)?;
    let what = "this login lacks EXECUTE ON FUNCTION masq.claim_keys, with which the first worker notes its keys";
    grant
        .first()
        .map(|row| Ok(Finding::new(Severity::Denied, "database", what, row.try_get::<_, &str>(0).map_err(failed)?)))
        .into_iter()
        .collect()
}
