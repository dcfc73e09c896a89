//! The configuration, checked and typed.
//!
//! Two steps: [`raw`] reads what was written and where, [`Config::check`] makes of it what the program runs on, or
//! *all* complaints at once. Nothing here reads the environment or the command line: `cli/` does, and passes them in.

pub mod raw;
pub mod schema;

use std::{path::PathBuf, time::Duration};

/// Everything that a pipeline needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[queue]`
    pub queue: QueueConfig,
    /// `[database]`
    pub database: DatabaseConfig,
    /// `[keys]`
    pub keys: KeysConfig,
    /// `[ledger]`
    pub ledger: LedgerConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[table]`
    pub table: TableName,
    /// `[columns]`, in the order written. Never empty; names are distinct.
    pub columns: Vec<Column>,
    /// `unknown_fields`
    pub unknown_fields: UnknownFields,
    /// `accept_reversible_masks`
    pub accept_reversible_masks: bool,
}

/// `[queue]`
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// The queue's URL, where anything named one.
    pub url: Option<String>,
    /// Where the service answers, if not where AWS's rules say.
    pub endpoint: Option<String>,
    /// How long a received message is hidden from others; `None`: as the queue itself says.
    pub visibility: Option<Duration>,
    /// Bytes of message bodies held in memory at most, over all workers.
    pub max_in_flight_bytes: u64,
}

/// `[database]`
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// A connection string as libpq's users write it, URL or keywords; `None`: the `PG*` variables alone.
    pub url: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Workers, each with a connection of its own.
    pub connections: usize,
    /// `connect_timeout`
    pub connect_timeout: Duration,
    /// `lock_timeout` of the sessions.
    pub lock_timeout: Duration,
    /// `statement_timeout` of the sessions.
    pub statement_timeout: Duration,
}

/// `[keys]`
#[derive(Clone, Debug)]
pub struct KeysConfig {
    /// The directory with `token.key`, `subject.key` and `recovery.pub`.
    pub dir: Option<PathBuf>,
}

/// `[ledger]`
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// How long the key of a message is remembered. Longer than a message can live on the queue.
    pub retention: Duration,
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where `/livez`, `/readyz` and `/metrics` answer; `None`: nowhere.
    pub listen: Option<std::net::SocketAddr>,
}

/// A table's name: literal identifiers, quoted by whoever makes SQL of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// `None`: found by the session's search path, as in psql.
    pub schema: Option<String>,
    /// As it stands in the catalogue: case matters.
    pub name: String,
}

/// One column of the target table and where its value comes from.
#[derive(Clone, Debug)]
pub struct Column {
    /// As it stands in the catalogue.
    pub name: String,
    /// Which field of the message.
    pub from: Path,
    /// The type with which the table is created if it is missing.
    pub column_type: ColumnType,
    /// What the value means and so how it is checked.
    pub meaning: Meaning,
    /// How it is masked.
    pub mask: Option<Mask>,
    /// Missing, null and empty are dead letters.
    pub required: bool,
    /// This field names the person whom the message is about. At most one column.
    pub subject: bool,
    /// Stands in for a value that is missing, null or empty.
    pub default: Option<Default>,
    /// What becomes of a value that is not what `as` says.
    pub on_invalid: OnInvalid,
}

/// Where in a message a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// As it was written: the name of the field in reasons, and the token's domain.
    pub text: String,
    /// The keys from the outside in. Of a JSON Pointer (RFC 6901), a number may also be an array's index.
    pub segments: Vec<String>,
    /// Whether it was written as a JSON Pointer.
    pub pointer: bool,
}

/// A type of PostgreSQL's from the closed set that masq creates and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // PostgreSQL's own names
pub enum ColumnType {
    Text,
    /// With its length in characters; none is as long as one likes.
    Varchar(Option<u32>),
    Char(u32),
    SmallInt,
    Integer,
    BigInt,
    Real,
    DoublePrecision,
    Numeric,
    Boolean,
    Date,
    Timestamp,
    TimestampTz,
    Uuid,
    Inet,
    Json,
    Jsonb,
    Bytea,
}

/// What a value means: `as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the words of the configuration, described in default.toml
pub enum Meaning {
    Text,
    Integer,
    Number,
    Boolean,
    Date,
    Timestamp,
    Uuid,
    Ip,
    Version,
    Json,
}

/// How a value is masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// A keyed token: equal values of one domain stay equal.
    Hmac {
        /// `domain`, or the path of the field.
        domain: String,
    },
    /// SHA-256 of the string as it came: reversible by trying, for those who must match old values.
    Sha256,
    /// An address's /24 or /48.
    Prefix,
    /// NULL.
    Redact,
}

/// `default`
#[derive(Clone, Debug, PartialEq)]
pub enum Default {
    /// A literal: a string, number or boolean.
    Literal(serde_json::Value),
    /// The day on which SQS got the message, UTC.
    SentDate,
    /// The moment at which SQS got the message.
    SentAt,
}

/// `on_invalid`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the words of the configuration
pub enum OnInvalid {
    DeadLetter,
    Null,
}

/// `unknown_fields`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the words of the configuration
pub enum UnknownFields {
    Drop,
    Reject,
}
