//! The keywords of a connection string, their environment variables, and which of them masq heeds.
//!
//! From PostgreSQL 15, "34.1.2. Parameter Key Words" and "34.15. Environment Variables".

use super::ConninfoError;

/// What masq heeds, with the variable that stands in for it where libpq knows one.
const HEEDED: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("dbname", "PGDATABASE"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("keepalives", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("keepalives_count", ""),
    ("tcp_user_timeout", ""),
];

/// What changes nothing here: masq always speaks UTF-8, never GSSAPI, and never compresses TLS.
const IDLE: &[&str] =
    &["client_encoding", "fallback_application_name", "gssencmode", "gsslib", "krbsrvname", "sslcompression", "sslsni"];

/// What would be a weaker promise if it were passed over, so it is refused: its variable, and what to do.
const REFUSED: &[(&str, &str, &str)] = &[
    ("service", "PGSERVICE", "write out what the service file says"),
    ("sslcrl", "PGSSLCRL", "revocation lists are not checked; take it out"),
    ("sslcrldir", "PGSSLCRLDIR", "revocation lists are not checked; take it out"),
    ("sslpassword", "", "give sslkey a key file without a passphrase"),
    ("requirepeer", "PGREQUIREPEER", "use sslmode=verify-full over TCP"),
    ("requiressl", "PGREQUIRESSL", "write sslmode=require"),
    ("require_auth", "PGREQUIREAUTH", "use sslmode=verify-full, with channel_binding=require if need be"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", "TLS 1.2 is the least that masq speaks; take it out"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", "TLS 1.2 and 1.3 are always offered; take it out"),
    ("sslnegotiation", "PGSSLNEGOTIATION", "only the server's classic negotiation is spoken; take it out"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", "hosts are tried in the order written; take it out"),
    ("replication", "", "masq writes through an ordinary session; take it out"),
];

/// The keyword as this program knows it. `after` is the keyword before it: what follows a password may be the rest of
/// one that should have been quoted, and is not shown.
///
/// # Errors
/// If libpq has no such keyword, or masq cannot keep what it promises.
pub(super) fn known(written: &str, after: Option<&str>) -> Result<&'static str, ConninfoError> {
    let heeded = HEEDED.iter().map(|(keyword, _)| keyword).chain(IDLE).find(|keyword| **keyword == written);
    if let Some(keyword) = heeded {
        return Ok(keyword);
    }
    if let Some((keyword, _, instead)) = REFUSED.iter().find(|(keyword, ..)| *keyword == written) {
        return Err(ConninfoError::Refused { keyword, instead });
    }
    if after == Some("password") || !written.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
        return Err(ConninfoError::Syntax(
            "the connection string has a keyword that libpq does not know: is a value with spaces, & or = not quoted?"
                .into(),
        ));
    }
    Err(ConninfoError::Unknown { keyword: written.to_owned(), meant: nearest(written) })
}

/// The variable that stands in for a keyword.
pub(super) fn variable(keyword: &str) -> Option<&'static str> {
    HEEDED.iter().find(|(name, variable)| *name == keyword && !variable.is_empty()).map(|(_, variable)| *variable)
}

/// Refuses what the environment asks for and masq cannot keep.
///
/// # Errors
/// If a variable of a refused keyword is set to anything.
pub(super) fn refuse(lookup: &dyn Fn(&str) -> Option<String>) -> Result<(), ConninfoError> {
    let set = |variable: &str| !variable.is_empty() && lookup(variable).is_some_and(|value| !value.is_empty());
    match REFUSED.iter().find(|(_, variable, _)| set(variable)) {
        Some((_, variable, instead)) => Err(ConninfoError::Refused { keyword: variable, instead }),
        None => Ok(()),
    }
}

/// ` (did you mean …?)`, or nothing where no keyword is near.
fn nearest(written: &str) -> String {
    let every = HEEDED.iter().map(|(keyword, _)| *keyword).chain(REFUSED.iter().map(|(keyword, ..)| *keyword));
    did_you_mean(written, every)
}

/// ` (did you mean …?)` for the candidate that is nearest to what was written, or nothing.
pub(super) fn did_you_mean<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    // Jaro-Winkler: 0.8 forgives a slip or two of the fingers and still tells `user` from `host`.
    let near = candidates.map(|candidate| (strsim::jaro_winkler(written, candidate), candidate));
    match near.filter(|(likeness, _)| *likeness >= 0.8).max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((_, candidate)) => format!(" (did you mean {candidate}?)"),
        None => String::new(),
    }
}
