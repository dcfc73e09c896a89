//! Why no session came about, and what helps.
//!
//! Before a session there is no row that an error could quote, so the server's own words are given here, unlike
//! anywhere else.

use std::{error::Error as _, io};

use rustls::{CertificateError, Error as RustlsError};
use thiserror::Error;
use tokio_postgres::{Error, error::DbError};

use super::{
    conninfo::{Conninfo, Endpoint, Host, SslMode},
    tls::TlsError,
};

/// No session, by what helps. The text names the place, the cause and the remedy, and never a password.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Wait, then the same again: the server, the network or the name service is away.
    #[error("{0}")]
    Unavailable(String),
    /// The server knows us and says no.
    #[error("{0}")]
    Denied(String),
    /// What was configured cannot work.
    #[error("{0}")]
    Misconfigured(String),
    /// A certificate or key file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Which of the three, and the text after `cannot connect to …: `.
type Verdict = (fn(String) -> ConnectError, String);

/// Explains a failed attempt at one endpoint.
pub(super) fn explain(error: &Error, endpoint: &Endpoint, conninfo: &Conninfo) -> ConnectError {
    let (kind, text) = match error.as_db_error() {
        Some(server) => server_said(server, conninfo),
        None => match cause::<RustlsError>(error) {
            Some(tls) => certificate(tls, endpoint, conninfo),
            None => network(error, endpoint, conninfo),
        },
    };
    kind(format!("cannot connect to {endpoint}/{} as {}: {text}", conninfo.database, conninfo.user))
}

/// Explains that an attempt took longer than it may.
pub(super) fn too_slow(endpoint: &Endpoint, conninfo: &Conninfo, limit: std::time::Duration) -> ConnectError {
    ConnectError::Unavailable(format!(
        "cannot connect to {endpoint}/{} as {}: no answer within {limit:?} (connect_timeout): is the host right, and \
         does a firewall let us through?",
        conninfo.database, conninfo.user
    ))
}

/// Whether plain text may work where TLS did not: what libpq tries next under `prefer` and `allow`.
pub(super) fn is_about_tls(error: &Error) -> bool {
    cause::<RustlsError>(error).is_some() || error.code().is_some_and(|code| code.code() == "28000")
}

fn server_said(error: &DbError, conninfo: &Conninfo) -> Verdict {
    let code = error.code().code();
    let said = format!("{} (SQLSTATE {code})", error.message());
    match code {
        "28P01" => (ConnectError::Denied, format!("{said}: check the password: {PASSWORD_PLACES}")),
        // The function's name tells the cases apart in any language of the server's messages.
        "28000" if error.routine() == Some("InitializeSessionUserId") => {
            (ConnectError::Denied, format!("{said}: create the role, or name another with user=… or PGUSER"))
        }
        "28000" => {
            let remedy = if conninfo.tls.mode < SslMode::Require {
                "a line of the server's pg_hba.conf must let this user in; if it asks for TLS, sslmode=require helps"
            } else {
                "a line of the server's pg_hba.conf must let this user in from here, with TLS"
            };
            (ConnectError::Denied, format!("{said}: {remedy}"))
        }
        "3D000" => {
            (ConnectError::Misconfigured, format!("{said}: create it, or name another with dbname=… or PGDATABASE"))
        }
        "42501" => (ConnectError::Denied, format!("{said}: GRANT CONNECT ON DATABASE is missing")),
        "53300" => (
            ConnectError::Unavailable,
            format!("{said}: lower the number of connections here, or raise the server's max_connections"),
        ),
        _ if ["08P01", "22", "42"].iter().any(|class| code.starts_with(class)) => {
            (ConnectError::Misconfigured, format!("{said}: does a pooler refuse options or PGOPTIONS?"))
        }
        _ => (ConnectError::Unavailable, said),
    }
}

const PASSWORD_PLACES: &str = "in the connection string, PGPASSWORD, password_file or the password file ~/.pgpass";

fn certificate(error: &RustlsError, endpoint: &Endpoint, conninfo: &Conninfo) -> Verdict {
    let text = match error {
        // BadSignature: an authority of that name is trusted, and this certificate is not its work.
        RustlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the server's certificate is not signed by anybody whom sslrootcert names: put the CA's certificate there (a \
             self-signed server's own certificate is its CA)"
                .into()
        }
        RustlsError::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
            let names = if presented.is_empty() {
                "names no host in its subjectAltName".into()
            } else {
                format!("is for {}", presented.join(", "))
            };
            format!(
                "the server's certificate {names}, and sslmode=verify-full wants {endpoint}: connect by a name that it \
                 has, or use sslmode=verify-ca"
            )
        }
        // Among others: it is a CA's certificate, as PostgreSQL's own recipe for a self-signed server makes it.
        RustlsError::InvalidCertificate(CertificateError::Other(reason)) => format!(
            "the server's certificate cannot be verified ({reason}): put that very certificate into sslrootcert, or give \
             the server one that is signed by a CA"
        ),
        other => format!("TLS fails: {other}; sslmode={}", word(conninfo.tls.mode)),
    };
    (ConnectError::Misconfigured, text)
}

fn network(error: &Error, endpoint: &Endpoint, conninfo: &Conninfo) -> Verdict {
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    if source == "server does not support TLS" {
        let mode = word(conninfo.tls.mode);
        let remedy = "turn ssl on there, or use sslmode=prefer if the network between is trusted";
        return (
            ConnectError::Misconfigured,
            format!("the server does not support TLS, and sslmode={mode} wants it: {remedy}"),
        );
    }
    if source == "password missing" {
        return (
            ConnectError::Denied,
            format!("the server asks for a password and there is none: put one {PASSWORD_PLACES}"),
        );
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(io) => system(io, endpoint),
        None if error.is_closed() => {
            (ConnectError::Unavailable, "the server hung up: is it PostgreSQL that listens there?".into())
        }
        None if source.is_empty() => (ConnectError::Unavailable, error.to_string()),
        None => (ConnectError::Misconfigured, format!("{error}: {source}")),
    }
}

fn system(error: &io::Error, endpoint: &Endpoint) -> Verdict {
    let remedy = match (error.kind(), &endpoint.host) {
        (io::ErrorKind::ConnectionRefused, _) => "is PostgreSQL running there, and is the port right?",
        (io::ErrorKind::NotFound, Host::Unix(_)) => {
            "no server has its socket there; is it running, and are directory and port right?"
        }
        (io::ErrorKind::PermissionDenied, Host::Unix(_)) => "the socket's directory cannot be entered by this user",
        (io::ErrorKind::PermissionDenied, Host::Tcp(_)) => "target_session_attrs asks for a server that takes writes",
        (io::ErrorKind::UnexpectedEof, _) => "the server hung up: is it PostgreSQL that listens there?",
        _ if error.to_string().contains("lookup") => "check the host's name, and the name service",
        _ => "",
    };
    let separator = if remedy.is_empty() { "" } else { ": " };
    (ConnectError::Unavailable, format!("{error}{separator}{remedy}"))
}

/// The first cause of this kind. rustls' errors arrive inside an `io::Error`, which hides them from `source`.
fn cause<T: std::error::Error + 'static>(error: &Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inside.and_then(|inside| inside.downcast_ref::<T>()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// As it is written in connection strings.
fn word(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    }
}
