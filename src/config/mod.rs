//! The configuration, checked and typed.
//!
//! Two steps: [`raw`] reads what was written and where, [`Config::check`] makes of it what the program runs on, or
//! *all* complaints at once. Which settings there are stands in [`settings`], their defaults in `default.toml`.
//! Nothing here reads the environment, the command line or a file: `cli/` does, and passes them in.

mod column;
mod column_type;
pub mod complaint;
mod dedupe;
mod keys;
mod kind;
mod layers;
mod path;
pub mod raw;
pub mod schema;
mod sections;
pub mod settings;
pub mod template;
mod vault;

use std::time::Duration;

pub(crate) use complaint::suggestion;
pub use complaint::{Complaint, Complaints, Place};
pub use dedupe::Dedupe;
pub use keys::KeysConfig;
pub use path::Path;
pub use sections::{Auth, DatabaseConfig, Envelope, HttpConfig, LedgerConfig, Protocol, QueueConfig, TableName};
pub use template::template;
pub use vault::{AuditConfig, DeadLettersConfig, VaultConfig};

use layers::{Layers, Values};

/// What a configuration is made of. A flag or variable beats the file, which beats the built-in default.
/// Without `Debug`, since both may hold a password.
#[derive(Clone, Default)]
pub struct Sources<'a> {
    /// The user's file, if there is one: its name, as complaints give it, and its text.
    pub file: Option<(&'a str, &'a str)>,
    /// What was said beside it.
    pub overrides: Overrides,
}

/// Settings from flags or the environment, each as it came.
#[derive(Clone, Default)]
#[allow(missing_docs)] // each is the setting of that name
pub struct Overrides {
    pub queue_url: Option<Override>,
    pub endpoint: Option<Override>,
    pub visibility: Option<Override>,
    pub database_url: Option<Override>,
    pub connections: Option<Override>,
    pub keys_dir: Option<Override>,
    pub listen: Option<Override>,
}

/// One setting from a flag or the environment. Without `Debug`, since the value may hold a password.
#[derive(Clone)]
pub struct Override {
    /// As it came.
    pub value: String,
    /// Which flag or variable said so, as complaints give it: `--queue-url`, `MASQ_QUEUE_URL`.
    pub source: String,
}

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
    /// `[vault]`
    pub vault: VaultConfig,
    /// `[dead_letters]`
    pub dead_letters: DeadLettersConfig,
    /// `[audit]`
    pub audit: AuditConfig,
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

impl Config {
    /// Puts the layers together and checks them: the whole configuration, or every mistake in it.
    pub fn check(sources: &Sources<'_>) -> Result<Self, Complaints> {
        let mut complaints = Complaints::default();
        let mut layers = Layers::default();
        for (name, text) in [Some(("default.toml", template::DEFAULT)), sources.file].into_iter().flatten() {
            match raw::read(name, text) {
                Ok(entries) => layers.lay(entries, &mut complaints),
                Err(broken) => complaints.append(broken),
            }
        }
        for (section, key, said) in sources.overrides.each() {
            let place = Place::outside(&said.source);
            layers.lay_one((section, key), &said.value, place, &mut complaints);
        }
        let config = Self::build(&mut layers, &mut complaints);
        if complaints.is_empty() { Ok(config) } else { Err(complaints.sorted()) }
    }

    fn build(layers: &mut Layers, complaints: &mut Complaints) -> Self {
        let top = layers.section("");
        let accept_reversible_masks = top.flag("accept_reversible_masks");
        Self {
            queue: QueueConfig::build(&layers.section("queue")),
            database: DatabaseConfig::build(&layers.section("database")),
            keys: KeysConfig::build(&layers.section("keys")),
            ledger: LedgerConfig::build(&layers.section("ledger")),
            vault: VaultConfig::build(&layers.section("vault")),
            dead_letters: DeadLettersConfig::build(&layers.section("dead_letters")),
            audit: AuditConfig::build(&layers.section("audit")),
            http: HttpConfig::build(&layers.section("http")),
            table: TableName::build(&layers.section("table")),
            columns: column::columns(&given(layers.columns.take()), accept_reversible_masks, complaints),
            unknown_fields: match given(top.text("unknown_fields")) {
                "reject" => UnknownFields::Reject,
                _ => UnknownFields::Drop,
            },
            accept_reversible_masks,
        }
    }
}

/// The value of a setting that is not optional.
fn given<T>(value: Option<T>) -> T {
    value.expect("default.toml gives every setting that is not optional")
}

/// A time as the configuration writes it, such as `30d`, from `least` to `most`.
///
/// # Errors
/// The end of a sentence that begins with the name of what was given.
pub fn parse_duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let kind = kind::Kind::Duration(millis(least), millis(most));
    match kind.check(&raw::Value::Text(text.to_owned()))? {
        kind::Checked::Integer(time) => Ok(Duration::from_millis(time.unsigned_abs())),
        _ => Err("must be a time".to_owned()),
    }
}

fn duration(values: &Values, key: &str) -> Option<Duration> {
    values.integer(key).map(Duration::from_millis)
}

impl Overrides {
    /// Each that was given, with its section and key.
    fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, &Override)> {
        [
            ("queue", "url", &self.queue_url),
            ("queue", "endpoint", &self.endpoint),
            ("queue", "visibility", &self.visibility),
            ("database", "url", &self.database_url),
            ("database", "connections", &self.connections),
            ("keys", "dir", &self.keys_dir),
            ("http", "listen", &self.listen),
        ]
        .into_iter()
        .filter_map(|(section, key, said)| said.as_ref().map(|said| (section, key, said)))
    }
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
    /// Whether the original is sealed for recovery; only with [`Mask::Hmac`] and a required subject.
    pub vault: bool,
    /// Missing, null and empty are dead letters.
    pub required: bool,
    /// This field names the person whom the message is about. At most one column.
    pub subject: bool,
    /// Stands in for a value that is missing, null or empty.
    pub default: Option<Default>,
    /// What becomes of a value that is not what `as` says.
    pub on_invalid: OnInvalid,
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

impl Mask {
    /// How many characters what it leaves may have, where that is stored as text.
    pub fn longest(&self) -> u32 {
        match self {
            // 32 bytes as hexadecimal digits.
            Self::Hmac { .. } | Self::Sha256 => 64,
            // ffff:ffff:ffff::/48
            Self::Prefix => 19,
            Self::Redact => 0,
        }
    }
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

#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod tests;
