//! What must be true before the first message: asked by `masq check`, which says it all, and by `masq run`, which does
//! not start over a problem.
//!
//! Here are the judgements, which are pure; `db/examine.rs` asks PostgreSQL for what they judge.

use std::{collections::HashSet, time::Duration};

use crate::{
    config::{Column, ColumnType, Config, Dedupe, Envelope, Mask, Meaning},
    db::catalog::{Durability, Kind, Persistence, Table, TableColumn},
    event::Reason,
    pipeline::{decode::bad_default, value::Limits},
    queue::sqs::QueueAttributes,
};

/// How much longer than a message can live its key must be remembered.
const MARGIN: Duration = Duration::from_secs(86_400);

/// On a FIFO queue, moving to a dead-letter queue begins a message's life again.
const FIFO_MOVES: u32 = 2;

/// The oldest PostgreSQL on which all of this is tested, as `server_version_num` counts.
const OLDEST_POSTGRESQL: i32 = 100_000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, but somebody should know.
    Note,
    /// A fault of what was configured: `run` refuses to start.
    Refused,
    /// A permission is missing: `run` refuses to start.
    Denied,
    /// Something does not answer: `run` waits for it.
    Absent,
}

/// Something to know or to change, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: `queue`, `database`, `table`, `keys`, `configuration`.
    pub part: &'static str,
    /// The cause.
    pub what: String,
    /// The remedy; empty where there is nothing to do.
    pub remedy: String,
}

impl Finding {
    /// A finding of any severity.
    pub fn new(severity: Severity, part: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity, part, what: what.into(), remedy: remedy.into() }
    }

    pub(crate) fn refused(part: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Refused, part, what, remedy)
    }

    fn note(part: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Note, part, what, remedy)
    }
}

/// What the configuration alone says: defaults that are no values, what a reversible mask costs, ids that nothing has.
pub fn configuration(config: &Config) -> Vec<Finding> {
    let reversible = config.columns.iter().filter(|column| column.mask == Some(Mask::Sha256));
    let costs = reversible.map(|column| {
        let cost = if column.meaning == Meaning::Ip {
            "all IPv4 addresses are tried in about 320 s on one processor core, in 0.2 s on one graphics card"
        } else {
            "values of nine digits are tried in about 74 s on one processor core, in 0.05 s on one graphics card"
        };
        Finding::note(
            "configuration",
            format!("column \"{}\" has a reversible mask: {cost}", column.name),
            "mask = \"hmac\"",
        )
    });
    defaults(config).into_iter().chain(costs).chain(lost_attribute(config)).collect()
}

/// SNS puts a message's attributes into the envelope, and EventBridge knows none.
fn lost_attribute(config: &Config) -> Option<Finding> {
    let is_wrapped = matches!(config.queue.envelope, Envelope::Sns | Envelope::EventBridge);
    (is_wrapped && matches!(config.queue.dedupe, Some(Dedupe::Attribute(_)))).then(|| {
        Finding::note(
            "configuration",
            "[queue] dedupe names a message attribute, and a message that comes in an envelope has none of its producer's",
            "name a field of the message with dedupe = \"body:…\"",
        )
    })
}

/// Literal defaults that are no values for their columns as configured. Known before there is a table.
pub fn defaults(config: &Config) -> Vec<Finding> {
    config.columns.iter().filter_map(|column| unusable_default(column, column.column_type)).collect()
}

/// How long the ledger of this queue must remember, where the queue says how long it keeps messages.
pub fn needed_retention(attributes: &QueueAttributes) -> Option<Duration> {
    let moves = if attributes.fifo && attributes.redrive.is_some() { FIFO_MOVES } else { 1 };
    attributes.retention.map(|retention| retention * moves + MARGIN)
}

/// The remedy for a ledger that remembers less than this.
pub fn set_retention(needed: Duration) -> String {
    format!("set retention = \"{}d\" or more in [ledger]", needed.as_secs().div_ceil(86_400))
}

/// Whether the ledger remembers longer than a message can live on this queue, and what else is worth knowing of it.
pub fn queue(config: &Config, attributes: &QueueAttributes) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(needed) = needed_retention(attributes).filter(|needed| config.ledger.retention < *needed) {
        findings.push(Finding::refused(
            "queue",
            format!(
                "a message can live {} on the queue and the ledger forgets after {}, so it could be written twice",
                days(needed - MARGIN),
                days(config.ledger.retention)
            ),
            set_retention(needed),
        ));
    }
    if config.queue.dedupe.is_some() && attributes.arn.is_empty() {
        findings.push(Finding::note(
            "queue",
            "the queue does not say its ARN, so ids of events are remembered under its name",
            "let no other queue of this name write to this database",
        ));
    }
    if attributes.redrive.is_none() {
        findings.push(Finding::note(
            "queue",
            "the queue has no dead-letter queue: a message that nobody can settle comes again until its retention ends",
            "set a RedrivePolicy with maxReceiveCount 5 or more",
        ));
    }
    if attributes.redrive.as_ref().is_some_and(|redrive| redrive.max_receive_count < 3) {
        findings.push(Finding::note(
            "queue",
            "the queue's maxReceiveCount is below 3: a restart or two moves good messages to the dead-letter queue",
            "raise maxReceiveCount in its RedrivePolicy",
        ));
    }
    if attributes.fifo {
        findings.push(Finding::note(
            "queue",
            "the queue is a FIFO queue: the rows of a group are written in its order, and a group whose message cannot be \
             settled waits",
            "",
        ));
    }
    findings
}

/// Whether what the server commits stays committed.
pub fn durability(durability: &Durability, allow_unsafe: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if durability.server_version_num < OLDEST_POSTGRESQL {
        findings.push(Finding::refused(
            "database",
            "PostgreSQL is too old: 10 is the oldest that masq writes to",
            "use PostgreSQL 10 or newer",
        ));
    }
    let severity = if allow_unsafe { Severity::Note } else { Severity::Refused };
    let mut unsafe_setting = |what: &str, remedy: &str| {
        findings.push(Finding::new(severity, "database", what, remedy));
    };
    if durability.in_recovery {
        unsafe_setting("the server is a standby or being restored: it takes no writes", "connect to the primary");
    }
    if !durability.fsync {
        unsafe_setting(
            "fsync is off: a crash of its machine can lose what masq has deleted from the queue",
            "fsync = on",
        );
    }
    if !durability.full_page_writes {
        unsafe_setting("full_page_writes is off: a crash of its machine can damage tables", "full_page_writes = on");
    }
    if durability.synchronous_commit == "off" {
        unsafe_setting(
            "synchronous_commit is off: a crash loses commits that masq has deleted from the queue",
            "synchronous_commit = on, for this login too",
        );
    }
    findings
}

/// Whether the table takes what the configuration writes. The second answer is the type of each configured column.
pub fn table(config: &Config, table: &Table, allow_unsafe: bool) -> (Vec<Finding>, Vec<ColumnType>) {
    let mut findings = Vec::new();
    let name = format!("{}.{}", table.schema, table.name);
    if !matches!(table.kind, Kind::Table | Kind::Partitioned) {
        findings.push(Finding::refused("table", format!("{name} is no table"), "name a table in [table]"));
    }
    if table.persistence != Persistence::Permanent {
        let severity = if allow_unsafe { Severity::Note } else { Severity::Refused };
        findings.push(Finding::new(
            severity,
            "table",
            format!("{name} is unlogged or temporary: a crash empties it after masq has deleted the messages"),
            format!("ALTER TABLE {name} SET LOGGED"),
        ));
    }
    let said = defaults(config);
    let mut stored = Vec::with_capacity(config.columns.len());
    for column in &config.columns {
        match table.columns.iter().find(|there| there.name == column.name) {
            Some(there) => match judge_column(column, there) {
                Ok(column_type) => {
                    findings.extend(differing_type(column, column_type));
                    findings.extend(unusable_default(column, column_type).filter(|found| !said.contains(found)));
                    stored.push(column_type);
                }
                Err(finding) => findings.push(finding),
            },
            None => findings.push(Finding::refused(
                "table",
                format!("{name} has no column \"{}\"", column.name),
                format!(
                    "ALTER TABLE {name} ADD COLUMN \"{}\" {}, or take it out of [columns]",
                    column.name, column.column_type
                ),
            )),
        }
    }
    findings.extend(unwritten_columns(config, table, &name));
    findings.extend(forbidden_columns(config, table, &name));
    (findings, stored)
}

fn judge_column(column: &Column, there: &TableColumn) -> Result<ColumnType, Finding> {
    let refused =
        |what: String, remedy: String| Finding::refused("table", format!("column \"{}\" {what}", there.name), remedy);
    let stored = there.column_type.clone().map_err(|unknown| {
        refused(
            format!("has type {unknown}, which masq does not write"),
            "change its type, or leave it out of [columns]".into(),
        )
    })?;
    if there.generated || there.identity_always {
        return Err(refused("is generated by PostgreSQL".into(), "take it out of [columns]".into()));
    }
    let fits = match &column.mask {
        None => column.meaning.fits(stored),
        Some(Mask::Hmac { .. } | Mask::Sha256) => stored.is_text() || stored == ColumnType::Bytea,
        Some(Mask::Prefix) => stored.is_text() || stored == ColumnType::Inet,
        Some(Mask::Redact) => true,
    };
    if !fits {
        let what = if column.mask.is_some() { "a masked value" } else { "a value" };
        return Err(refused(
            format!("has type {stored}, which cannot hold {what} that means {}", column.meaning),
            format!("give the column another type, such as {}, or change \"as\"", column.column_type),
        ));
    }
    let longest = column.mask.as_ref().map_or(0, Mask::longest);
    if stored.length().is_some_and(|length| length < longest) {
        let what = if column.mask == Some(Mask::Prefix) { "a network of up to" } else { "a token of" };
        return Err(refused(
            format!("has type {stored}, too short for {what} {longest} characters"),
            format!("make it varchar({longest}) or longer"),
        ));
    }
    Ok(stored)
}

fn differing_type(column: &Column, stored: ColumnType) -> Option<Finding> {
    let (name, configured) = (&column.name, column.column_type);
    let what = format!("column \"{name}\" is {stored} in the table and {configured} in the configuration");
    (stored != configured).then(|| Finding::note("table", format!("{what}; the table's holds"), ""))
}

fn unusable_default(column: &Column, stored: ColumnType) -> Option<Finding> {
    let reason = bad_default(column, &Limits::of(stored, column.mask.as_ref()))?;
    let why = match reason {
        Reason::BadDate(_) if column.meaning == Meaning::Date => "it is no day, written as 2024-02-29",
        Reason::BadDate(_) => "it is no moment, written as 2024-02-29T12:00:00Z",
        Reason::BadIp(_) => "it is no IP address",
        Reason::BadVersion(_) => "it is no version that the column can hold, such as 2.3.0",
        Reason::BadUuid(_) => "it is no UUID",
        Reason::FieldTooLong(_) => "it is longer than the column",
        Reason::NumberOutOfRange => "it is a number that the column cannot hold",
        _ => "it has another type",
    };
    Some(Finding::refused(
        "configuration",
        format!("the default of column \"{}\" is no value for it: {why} ({})", column.name, reason.kind()),
        format!("write a default that means {}", column.meaning),
    ))
}

/// Columns that PostgreSQL would have to fill and cannot.
fn unwritten_columns<'a>(config: &'a Config, table: &'a Table, name: &'a str) -> impl Iterator<Item = Finding> + 'a {
    let written: HashSet<&str> = config.columns.iter().map(|column| column.name.as_str()).collect();
    let unwritten = table.columns.iter().filter(move |there| !written.contains(there.name.as_str()));
    unwritten.filter(|there| there.not_null && !there.has_default && !there.generated).map(move |there| {
        Finding::refused(
            "table",
            format!("{name} has a column \"{}\" that is NOT NULL without a default, and nothing writes it", there.name),
            format!("ALTER TABLE {name} ALTER COLUMN \"{}\" DROP NOT NULL, or list it in [columns]", there.name),
        )
    })
}

/// Columns that this login may not write, all in one: a grant on the table is the remedy for all of them.
fn forbidden_columns(config: &Config, table: &Table, name: &str) -> Option<Finding> {
    let there = config.columns.iter().filter_map(|column| table.columns.iter().find(|there| there.name == column.name));
    let forbidden: Vec<String> =
        there.filter(|there| !there.may_insert).map(|there| format!("\"{}\"", there.name)).collect();
    (!forbidden.is_empty()).then(|| {
        Finding::new(
            Severity::Denied,
            "table",
            format!("this login may not write {} of {name}", forbidden.join(", ")),
            format!("GRANT INSERT ON {name} to it"),
        )
    })
}

fn days(duration: Duration) -> String {
    let (days, hours) = (duration.as_secs() / 86_400, duration.as_secs() % 86_400 / 3_600);
    match (days, hours) {
        (0, hours) => format!("{hours} h"),
        (1, 0) => "1 day".to_owned(),
        (days, 0) => format!("{days} days"),
        (days, hours) => format!("{days} days {hours} h"),
    }
}
