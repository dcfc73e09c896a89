//! Connection strings as libpq's users write them, and the layers below them: the `PG*` variables, the password file,
//! libpq's defaults. So `masq` reaches whatever `psql` reaches with the same words (PostgreSQL 15, chapter 34.1).
//!
//! Nothing here opens a connection. The environment and the account's name are passed in; the password file is read.

mod keywords;
mod parse;
mod passfile;
mod settings;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use thiserror::Error;
use zeroize::Zeroizing;

use settings::Settings;

/// Everything needed to reach one database. It has no `Debug`, since it holds a password; its `Display` is
/// `host:port/dbname as user`.
#[derive(Clone)]
pub struct Conninfo {
    /// Where to try, in this order. Never empty.
    pub endpoints: Vec<Endpoint>,
    /// Who connects.
    pub user: String,
    /// To which database.
    pub database: String,
    /// What the server shows in `pg_stat_activity`; `masq` unless something else was asked for.
    pub application_name: String,
    /// Settings for the server in the form of its command line. Some poolers refuse them.
    pub options: Option<String>,
    /// The limit for one attempt, where the user set one.
    pub connect_timeout: Option<Duration>,
    /// Only a server that takes writes will do. Without `target_session_attrs` that is so with several hosts, since
    /// masq always writes.
    pub read_write: bool,
    /// Whether SCRAM must be, may be or must not be bound to the TLS channel.
    pub channel_binding: ChannelBinding,
    /// How to encrypt and whom to trust.
    pub tls: TlsOptions,
    /// When to give a silent connection up.
    pub keepalives: Keepalives,
    /// What the user should know although nothing is wrong yet, such as a password file that was passed over.
    pub warnings: Vec<String>,
}

/// One place to try.
#[derive(Clone)]
pub struct Endpoint {
    /// The host by name, or the directory of a Unix-domain socket.
    pub host: Host,
    /// Its address, where no name should be looked up (`hostaddr`).
    pub address: Option<IpAddr>,
    /// The port, which also names the socket's file.
    pub port: u16,
    /// The password for this place, wherever it was found.
    pub password: Option<Zeroizing<String>>,
}

/// A host, or the directory of a Unix-domain socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // said above
pub enum Host {
    Tcp(String),
    Unix(PathBuf),
}

/// `sslmode` (PostgreSQL 15, table 34.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // libpq's own words
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Whom to trust (`sslrootcert`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// The certificates in a PEM file.
    File(PathBuf),
    /// The system's own roots.
    System,
}

/// The `ssl*` keywords.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// `sslmode`
    pub mode: SslMode,
    /// `sslrootcert`, where one was named.
    pub root: Option<Root>,
    /// `sslcert`, where one was named.
    pub certificate: Option<PathBuf>,
    /// `sslkey`, where one was named.
    pub key: Option<PathBuf>,
    /// `~/.postgresql`, where libpq's users keep root.crt, postgresql.crt and postgresql.key.
    pub directory: Option<PathBuf>,
}

/// `channel_binding`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // libpq's own words
pub enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// The `keepalives*` keywords and `tcp_user_timeout`, where the user set them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalives {
    /// `keepalives=0`
    pub off: bool,
    /// `keepalives_idle`
    pub idle: Option<Duration>,
    /// `keepalives_interval`
    pub interval: Option<Duration>,
    /// `keepalives_count`
    pub count: Option<u32>,
    /// `tcp_user_timeout`, which libpq counts in milliseconds.
    pub user_timeout: Option<Duration>,
}

/// What is wrong with a connection string. All are for the user to mend; none quotes a value.
#[derive(Debug, Error)]
pub enum ConninfoError {
    /// It cannot be taken apart.
    #[error("{0}")]
    Syntax(String),
    /// libpq has no such keyword.
    #[error("the connection string has a keyword that libpq does not know: {keyword}{meant}")]
    Unknown {
        /// As written.
        keyword: String,
        /// ` (did you mean …?)` or nothing.
        meant: String,
    },
    /// libpq would heed it and masq cannot.
    #[error("{keyword} is not supported: {instead}")]
    Refused {
        /// The keyword or variable.
        keyword: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// A keyword's value is not one of its kind.
    #[error("{place} must be {expected}")]
    Value {
        /// The keyword or variable.
        place: String,
        /// What it can be.
        expected: String,
    },
}

impl Conninfo {
    /// Reads a connection string; `""` leaves everything to the environment. `account` is the operating system's name
    /// of whoever runs this, the default user.
    ///
    /// # Errors
    /// If it, or a variable that it leaves room for, is not what libpq takes or not what masq can keep.
    pub fn parse(
        text: &str,
        account: Option<&str>,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConninfoError> {
        keywords::refuse(lookup)?;
        let settings = Settings { written: parse::parse(text)?, lookup };
        let user = settings
            .get("user")
            .or_else(|| account.map(str::to_owned))
            .ok_or_else(|| ConninfoError::Syntax("nothing names the database user: add user=… or set PGUSER".into()))?;
        let database = settings.get("dbname").unwrap_or_else(|| user.clone());
        let mut endpoints = settings.endpoints()?;
        let warnings = settings.fill_passwords(&mut endpoints, &user, &database);
        Ok(Self {
            read_write: settings.read_write(endpoints.len())?,
            endpoints,
            user,
            database,
            application_name: settings.get("application_name").unwrap_or_else(|| "masq".into()),
            options: settings.get("options"),
            connect_timeout: settings.seconds("connect_timeout")?,
            channel_binding: settings.channel_binding()?,
            tls: settings.tls()?,
            keepalives: settings.keepalives()?,
            warnings,
        })
    }

    /// Uses this password everywhere.
    pub fn set_password(&mut self, password: &str) {
        for endpoint in &mut self.endpoints {
            endpoint.password = Some(Zeroizing::new(password.to_owned()));
        }
    }
}

impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            write!(f, "{}{endpoint}", if index == 0 { "" } else { "," })?;
        }
        write!(f, "/{} as {}", self.database, self.user)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Host::Tcp(host) => write!(f, "{host}:{}", self.port),
            Host::Unix(directory) => write!(f, "{}:{}", directory.display(), self.port),
        }
    }
}
