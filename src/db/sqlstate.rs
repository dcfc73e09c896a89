//! What PostgreSQL's errors mean for a pipeline: the [`Remedy`], and a description that quotes no row.
//!
//! The five characters are from PostgreSQL 15, "Appendix A. PostgreSQL Error Codes". An error's message, detail, hint
//! and context may quote rows and are never read here; neither may they be logged, so `{:?}` of a
//! `tokio_postgres::Error` has no place anywhere.

use std::{error::Error as _, fmt::Write as _, io};

use tokio_postgres::{Error, error::DbError};

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The same batch again, soon: another transaction was in its way, or a plan or statement had gone stale.
    Again,
    /// The same batch again, later. Also the answer to everything that has no row in the table of remedies.
    Wait,
    /// A smaller batch: this one ran into a limit of time.
    Halve,
    /// Stop receiving until the server takes writes again: its disk is full, or it is no longer the primary.
    Pause,
    /// Find the row that is at fault.
    Isolate,
    /// Somebody must change something first. No message is at fault.
    Stop,
}

/// The table that rows go into, to tell a row's fault from the system's.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub table: &'a str,
    /// Its rows live in partitions, by whose names PostgreSQL complains.
    pub partitioned: bool,
    /// The columns that are written.
    pub columns: &'a [String],
}

/// The schema of masq's own tables, whose constraints no row of the target can break.
const OWN_SCHEMA: &str = "masq";

/// The remedy for an error of a transaction that writes to `target`.
pub fn remedy(error: &Error, target: &Target<'_>) -> Remedy {
    match error.as_db_error() {
        Some(error) => by_sqlstate(error, target),
        // The connection is gone, or what came over it made no sense: either way a new one is needed.
        None => Remedy::Wait,
    }
}

fn by_sqlstate(error: &DbError, target: &Target<'_>) -> Remedy {
    match error.code().code() {
        "40001" | "40P01" | "55P03" | "25P03" | "0A000" | "26000" | "42P05" => Remedy::Again,
        "57014" => Remedy::Halve,
        "53100" | "25006" => Remedy::Pause,
        "08P01" | "22P03" | "22P04" | "42P01" | "42703" | "42804" | "42501" | "3D000" | "3F000" => Remedy::Stop,
        // What names no table is a domain's, or was raised by a trigger.
        "23502" | "23505" | "23514" | "23P01" if error.table().is_none() => Remedy::Isolate,
        "23502" if target.holds(error) && target.writes(error.column()) => Remedy::Isolate,
        "23502" => Remedy::Stop,
        "23505" | "23P01" if target.holds(error) => Remedy::Isolate,
        // Without a constraint's name it is a partition that is missing, which is nobody's row's fault.
        "23514" if target.holds(error) && error.constraint().is_some() => Remedy::Isolate,
        "23514" if target.holds(error) => Remedy::Stop,
        // 54000: a value too large for an index of the target.
        "23503" | "54000" | "54001" | "P0001" => Remedy::Isolate,
        code if code.starts_with("22") => Remedy::Isolate,
        code if code.starts_with("28") => Remedy::Stop,
        _ => Remedy::Wait,
    }
}

/// Whether somebody held a lock for longer than `lock_timeout`.
pub fn is_locked(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code() == "55P03")
}

impl Target<'_> {
    /// Whether the error is about this table, or about one of its partitions.
    fn holds(&self, error: &DbError) -> bool {
        match (error.schema(), error.table()) {
            (Some(schema), Some(table)) if schema == self.schema && table == self.table => true,
            (Some(schema), Some(_)) => self.partitioned && schema != OWN_SCHEMA,
            _ => false,
        }
    }

    fn writes(&self, column: Option<&str>) -> bool {
        column.is_some_and(|column| self.columns.iter().any(|written| written == column))
    }
}

/// What happened, in words that quote no row: the SQLSTATE, its condition's name, the constraint, table and column
/// where PostgreSQL names them, and what helps; of an error without SQLSTATE its kind, and the system's error.
pub fn describe(error: &Error) -> String {
    let Some(error) = error.as_db_error() else {
        let mut text = error.to_string();
        if let Some(io) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
            let _infallible = write!(text, ": {io}");
        }
        return text;
    };
    let code = error.code().code();
    let mut text = format!("SQLSTATE {code}");
    if let Some(name) = condition(code) {
        let _infallible = write!(text, " ({name})");
    }
    text += &place(error);
    if let Some(advice) = advice(code) {
        let _infallible = write!(text, ": {advice}");
    }
    text
}

/// The cause and what helps, where an operator can do something that the condition's name does not say.
fn advice(code: &str) -> Option<&'static str> {
    let advice = match code {
        "MQ015" => "the database keeps it longer than the configuration says: run `masq migrate` as its owner",
        "25006" => "the server takes no writes, as a standby does: connect to the primary",
        "40001" | "40P01" => "another transaction was in the way; masq tries again by itself",
        "42501" => {
            "this login lacks a permission: `masq check` says what a worker's lacks; for anything else GRANT it the role \
             whose work it is, which `masq migrate --roles` makes: masq_operator (dead letters, reconcile, keys rotate), \
             masq_revealer (find, reveal, approve), masq_eraser (forget) or masq_auditor (audit)"
        }
        "42703" | "42804" | "42P01" => "the table is not as it was: restore it, or start masq again",
        "53100" => "the server's disk is full: make room there",
        "53200" => "the server is out of memory: give it more, or lower its work_mem or max_connections",
        "53300" => "too many connections: lower connections in [database], or raise the server's max_connections",
        "55P03" => {
            "somebody holds a lock on the table, such as ALTER TABLE or VACUUM FULL: wait for it, or end it \
             (pg_stat_activity)"
        }
        "57014" => {
            "it took longer than statement_timeout, or somebody cancelled it: look for locks and load on the server, or \
             raise statement_timeout in [database]"
        }
        "57P01" | "57P02" | "57P03" => "the server is shutting down or starting: wait for it",
        _ => return None,
    };
    Some(advice)
}

/// `, constraint … of table …, column …` as far as PostgreSQL names them; they are names in the catalogue, not values.
pub fn place(error: &DbError) -> String {
    let named = [("constraint", error.constraint()), ("table", error.table()), ("column", error.column())];
    named.into_iter().filter_map(|(what, name)| name.map(|name| format!(", {what} \"{name}\""))).collect()
}

/// The conditions that operators of a loader meet; others are told by their code alone.
fn condition(code: &str) -> Option<&'static str> {
    let name = match code {
        "01000" => "warning",
        "08000" => "connection_exception",
        "08003" => "connection_does_not_exist",
        "08006" => "connection_failure",
        "08P01" => "protocol_violation",
        "0A000" => "feature_not_supported",
        "22001" => "string_data_right_truncation",
        "22003" => "numeric_value_out_of_range",
        "22007" => "invalid_datetime_format",
        "22008" => "datetime_field_overflow",
        "22021" => "character_not_in_repertoire",
        "22P02" => "invalid_text_representation",
        "22P03" => "invalid_binary_representation",
        "22P04" => "bad_copy_file_format",
        "23502" => "not_null_violation",
        "23503" => "foreign_key_violation",
        "23505" => "unique_violation",
        "23514" => "check_violation",
        "23P01" => "exclusion_violation",
        "25006" => "read_only_sql_transaction",
        "25P02" => "in_failed_sql_transaction",
        "25P03" => "idle_in_transaction_session_timeout",
        "26000" => "invalid_sql_statement_name",
        "28000" => "invalid_authorization_specification",
        "28P01" => "invalid_password",
        "3D000" => "invalid_catalog_name",
        "3F000" => "invalid_schema_name",
        "40001" => "serialization_failure",
        "40P01" => "deadlock_detected",
        "42501" => "insufficient_privilege",
        "42601" => "syntax_error",
        "42703" => "undefined_column",
        "42804" => "datatype_mismatch",
        "42883" => "undefined_function",
        "42P01" => "undefined_table",
        "42P05" => "duplicate_prepared_statement",
        "42P07" => "duplicate_table",
        "53100" => "disk_full",
        "53200" => "out_of_memory",
        "53300" => "too_many_connections",
        "54000" => "program_limit_exceeded",
        "54001" => "statement_too_complex",
        "55P03" => "lock_not_available",
        "57014" => "query_canceled",
        "57P01" => "admin_shutdown",
        "57P02" => "crash_shutdown",
        "57P03" => "cannot_connect_now",
        "P0001" => "raise_exception",
        "XX000" => "internal_error",
        "XX001" => "data_corrupted",
        _ => return None,
    };
    Some(name)
}
