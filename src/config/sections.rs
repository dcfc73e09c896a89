//! What stands at the pipeline's edges: `[queue]`, `[database]`, `[ledger]`, `[http]` and `[table]`, typed.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use super::{Dedupe, duration, given, kind::Checked, layers::Values};

/// `[queue]`
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// The queue's URL, where anything named one.
    pub url: Option<String>,
    /// Where the service answers, if not where AWS's rules say.
    pub endpoint: Option<String>,
    /// How SQS is spoken with.
    pub protocol: Protocol,
    /// How long a received message is hidden from others; `None`: as the queue itself says.
    pub visibility: Option<Duration>,
    /// What messages come wrapped in.
    pub envelope: Envelope,
    /// Where the producer's own id of an event stands; `None`: it is not looked for.
    pub dedupe: Option<Dedupe>,
    /// Bytes of message bodies held in memory at most, over all workers.
    pub max_in_flight_bytes: u64,
}

impl QueueConfig {
    pub(super) fn build(values: &Values) -> Self {
        Self {
            url: values.text("url").map(str::to_owned),
            endpoint: values.text("endpoint").map(str::to_owned),
            protocol: match given(values.text("protocol")) {
                "json" => Protocol::Json,
                "query" => Protocol::Query,
                _ => Protocol::Auto,
            },
            visibility: duration(values, "visibility"),
            envelope: match given(values.text("envelope")) {
                "sns" => Envelope::Sns,
                "eventbridge" => Envelope::EventBridge,
                "auto" => Envelope::Auto,
                _ => Envelope::None,
            },
            dedupe: match values.get("dedupe") {
                Some(Checked::Dedupe(dedupe)) => Some(dedupe.clone()),
                _ => None,
            },
            max_in_flight_bytes: given(values.integer("max_in_flight_bytes")),
        }
    }
}

/// `protocol`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the words of the configuration
pub enum Protocol {
    Auto,
    Json,
    Query,
}

/// `envelope`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the words of the configuration
pub enum Envelope {
    None,
    Sns,
    EventBridge,
    Auto,
}

/// `auth` and `slots_auth`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Nothing: a password, if one is given.
    Password,
    /// A token of AWS credentials, which RDS takes.
    RdsIam,
}

impl Auth {
    pub(super) fn build(values: &Values, key: &str) -> Self {
        if given(values.text(key)) == "rds-iam" { Self::RdsIam } else { Self::Password }
    }
}

/// `[database]`
#[derive(Clone)]
pub struct DatabaseConfig {
    /// A connection string as libpq's users write it, URL or keywords; `None`: the `PG*` variables alone.
    pub url: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// What stands in where no password is given.
    pub auth: Auth,
    /// Workers, each with a connection of its own.
    pub connections: usize,
    /// `connect_timeout`
    pub connect_timeout: Duration,
    /// `lock_timeout` of the sessions.
    pub lock_timeout: Duration,
    /// `statement_timeout` of the sessions.
    pub statement_timeout: Duration,
}

impl DatabaseConfig {
    pub(super) fn build(values: &Values) -> Self {
        Self {
            url: values.text("url").map(str::to_owned),
            password_file: values.text("password_file").map(PathBuf::from),
            auth: Auth::build(values, "auth"),
            connections: given(values.integer("connections").and_then(|number| usize::try_from(number).ok())),
            connect_timeout: given(duration(values, "connect_timeout")),
            lock_timeout: given(duration(values, "lock_timeout")),
            statement_timeout: given(duration(values, "statement_timeout")),
        }
    }
}

impl fmt::Debug for DatabaseConfig {
    /// Without the connection string, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("password_file", &self.password_file)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// `[ledger]`
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// How long the key of a message is remembered. Longer than a message can live on the queue.
    pub retention: Duration,
    /// How long an event is remembered by its producer's id.
    pub dedupe_retention: Duration,
}

impl LedgerConfig {
    pub(super) fn build(ledger: &Values) -> Self {
        Self {
            retention: given(duration(ledger, "retention")),
            dedupe_retention: given(duration(ledger, "dedupe_retention")),
        }
    }
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where `/livez`, `/readyz` and `/metrics` answer; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

impl HttpConfig {
    pub(super) fn build(http: &Values) -> Self {
        // Checked to be an address or the word "off".
        Self { listen: given(http.text("listen")).parse().ok() }
    }
}

/// A table's name: literal identifiers, quoted by whoever makes SQL of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// `None`: found by the session's search path, as in psql.
    pub schema: Option<String>,
    /// As it stands in the catalogue: case matters.
    pub name: String,
}

impl TableName {
    pub(super) fn build(values: &Values) -> Self {
        Self { schema: values.text("schema").map(str::to_owned), name: given(values.text("name")).to_owned() }
    }
}
