//! Every setting there is: its key, what it may be, and what it is for.
//!
//! From this table come the reading of a file, its complaints and the JSON Schema. Defaults are not here: they stand in
//! `default.toml`, which is read before the user's file.

pub use super::kind::Kind;

use super::{
    Meaning,
    kind::{DAY, HOUR, MIB, MINUTE, SECOND},
};

/// A table of the file, or its top.
pub struct Section {
    /// Without brackets; the top of the file has none.
    pub name: &'static str,
    /// What belongs here.
    pub about: &'static str,
    /// In the order of `default.toml`.
    pub settings: &'static [Setting],
}

/// One key.
pub struct Setting {
    /// As it is written.
    pub key: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// One sentence.
    pub about: &'static str,
}

/// All sections but `[columns]`, whose keys are the user's own.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "",
        about: "Settings that stand above the first section.",
        settings: &[
            setting(
                "unknown_fields",
                Kind::Word(&["drop", "reject"]),
                "What becomes of fields that no column asks for.",
            ),
            setting("accept_reversible_masks", Kind::Flag, "Allows mask = \"sha256\", which can be undone by trying."),
        ],
    },
    Section {
        name: "queue",
        about: "The Amazon SQS queue that messages are taken from.",
        settings: &[
            setting("url", Kind::Url, "The queue's URL."),
            setting("endpoint", Kind::Url, "Where SQS answers, if it is not where AWS's rules say."),
            setting(
                "protocol",
                Kind::Word(&["auto", "json", "query"]),
                "SQS's JSON protocol, the older query protocol, or whichever the endpoint understands.",
            ),
            setting(
                "visibility",
                // SQS allows 12 h at most; below 2 s a lease would be extended more often than once a second.
                Kind::Duration(2 * SECOND, 12 * HOUR),
                "How long a received message is hidden from other readers; left out, as the queue itself says.",
            ),
            setting(
                "envelope",
                Kind::Word(&["none", "sns", "eventbridge", "auto"]),
                "What messages come wrapped in; one level is unwrapped.",
            ),
            setting(
                "dedupe",
                Kind::Dedupe,
                "Where a producer's own id of an event stands, so that one sent twice is one row; left out, nowhere.",
            ),
            setting(
                "max_in_flight_bytes",
                // One message may have 1 MiB; beyond 64 GiB it is a slip.
                Kind::Size(MIB, 64 * 1024 * MIB),
                "Bytes of message bodies held in memory at most.",
            ),
        ],
    },
    Section {
        name: "database",
        about: "The PostgreSQL database that rows are written to.",
        settings: &[
            setting("url", Kind::Text, "The connection string, as a URL or as keywords, as psql takes it."),
            setting("password_file", Kind::Text, "A file whose first line is the password."),
            setting("auth", Kind::Word(&AUTH), AUTH_IS),
            setting("connections", Kind::Integer(1, 64), "How many workers there are, each with its own connection."),
            setting("connect_timeout", Kind::Duration(SECOND, 5 * MINUTE), "How long a connection may take to open."),
            setting("lock_timeout", Kind::Duration(SECOND / 10, 5 * MINUTE), "How long a statement waits for a lock."),
            setting("statement_timeout", Kind::Duration(SECOND, HOUR), "How long a statement may run."),
        ],
    },
    Section {
        name: "keys",
        about: "The keys with which values are masked and dead letters sealed.",
        settings: &[
            setting("dir", Kind::Text, "The directory that `masq keys new` made."),
            setting(
                "kms_epoch_key",
                Kind::Text,
                "The key of AWS KMS that makes the keys of epochs, by ARN or alias; left out, they are random.",
            ),
        ],
    },
    Section {
        name: "ledger",
        about: "The record of the messages that have been loaded.",
        settings: &[
            setting(
                "retention",
                // SQS keeps a message for 14 days at most (29 with a FIFO queue's dead-letter queue).
                Kind::Duration(DAY, 90 * DAY),
                "How long a message is remembered; longer than it can live on the queue.",
            ),
            setting(
                "dedupe_retention",
                Kind::Duration(DAY, 3650 * DAY),
                "How long an event is remembered by its producer's id, where `dedupe` is set.",
            ),
        ],
    },
    Section {
        name: "vault",
        about: "The sealed originals of masked values, and who may have how many of them revealed.",
        settings: &[
            setting("slots_url", Kind::Text, "The database with the slots; left out, they are where the rows are."),
            setting("slots_password_file", Kind::Text, "A file whose first line is the password for it."),
            setting("slots_auth", Kind::Word(&AUTH), AUTH_IS),
            setting(
                "retention",
                Kind::Duration(DAY, 36500 * DAY),
                "How long a sealed value is kept; left out, until its person is erased.",
            ),
            setting(
                "backup_retention",
                Kind::Duration(0, 36500 * DAY),
                "How long backups of the database with the slots are kept: so long an erasure takes to be complete.",
            ),
            setting("erasures", Kind::Text, "The file to which erasures are appended, to be replayed after a restore."),
            setting(
                "approve_above",
                Kind::Integer(0, 1_000_000),
                "Tokens a login may have on one UTC day without a second login's approval; set by `masq migrate`.",
            ),
            setting(
                "daily_quota",
                Kind::Integer(0, 1_000_000_000),
                "Tokens that a login may have revealed on one UTC day; set by `masq migrate`.",
            ),
        ],
    },
    Section {
        name: "dead_letters",
        about: "The sealed bodies of messages that could not become rows.",
        settings: &[setting(
            "retention",
            Kind::Duration(DAY, 36500 * DAY),
            "How long one is kept; left out, until somebody purges it.",
        )],
    },
    Section {
        name: "audit",
        about: "The record of who looked at what, and why.",
        settings: &[setting("checkpoints", Kind::Text, "The file to which signed checkpoints are appended.")],
    },
    Section {
        name: "http",
        about: "The pages for health checks and metrics.",
        settings: &[setting("listen", Kind::Listen, "The address and port of these pages, or \"off\".")],
    },
    Section {
        name: "table",
        about: "The table that rows are written to.",
        settings: &[
            setting("schema", Kind::Name, "The table's schema; left out, the first of the search path that has it."),
            setting("name", Kind::Name, "The table's name, as it stands in the catalogue: case matters."),
        ],
    },
];

/// How to show a database who connects.
const AUTH: [&str; 2] = ["password", "rds-iam"];
const AUTH_IS: &str = "A password, or where none is given a token that Amazon RDS takes for one, of AWS credentials.";

/// The name of the section whose keys are columns.
pub const COLUMNS: &str = "columns";

/// The keys of one column.
pub const COLUMN: &[Setting] = &[
    setting("from", Kind::Field, "The field of the message: a key, a dotted path, or a JSON Pointer."),
    setting("type", Kind::Type, "The PostgreSQL type with which a missing table is created."),
    setting("as", Kind::Word(&Meaning::WORDS), "What the value means and so how it is checked; left out, as the type."),
    setting(
        "mask",
        Kind::Word(&["hmac", "sha256", "prefix", "redact"]),
        "A keyed token, a plain SHA-256, an address's network, or NULL.",
    ),
    setting("domain", Kind::Text, "Columns of one domain get equal tokens for equal values; left out, the field."),
    setting("required", Kind::Flag, "Makes a message without this value a dead letter; false if left out."),
    setting("subject", Kind::Flag, "This field names the person whom the message is about; false if left out."),
    setting(
        "default",
        Kind::Literal,
        "Stands in for a missing value: a literal, or \"sent_date\" or \"sent_at\", when SQS got the message.",
    ),
    setting(
        "on_invalid",
        Kind::Word(&["dead_letter", "null"]),
        "What becomes of a value that is not what it should be; \"dead_letter\" if left out.",
    ),
    setting("vault", Kind::Flag, "Also seals the original for recovery; false if left out."),
];

const fn setting(key: &'static str, kind: Kind, about: &'static str) -> Setting {
    Setting { key, kind, about }
}
