//! Reads rows of the target table as an analyst may, and no more of them than was asked for. Nothing but SELECT, in a
//! transaction that cannot write.

use std::{
    collections::HashSet,
    hash::RandomState,
    sync::atomic::{AtomicU64, Ordering},
};

use super::column::Column;
use crate::{
    config::{ColumnType, Config, Mask},
    db::{
        DbError, Session,
        catalog::{self, Kind, Table, TableColumn, quote_ident},
    },
};

/// Rows taken from the server at a time. More would take more memory than they save round trips.
const PORTION: u64 = 10_000;

/// Characters of a value that are read. Nothing that is attacked is longer; of two longer values that begin alike nobody
/// is told that they differ.
const CHARACTERS: u32 = 256;

/// A column of the table, with what was seen in it.
pub struct Read {
    /// Its name.
    pub name: String,
    /// How the configuration masks it.
    pub mask: Option<Mask>,
    /// By this column the configuration knows a person.
    pub is_subject: bool,
    /// Its type is a day or a moment.
    pub is_date: bool,
    /// What its values look like.
    pub seen: Column,
}

/// What was read.
pub struct Sample {
    /// Schema and name of the table, quoted.
    pub table: String,
    /// Rows that the table has by PostgreSQL's statistics; `None` if they do not say.
    pub estimate: Option<u64>,
    /// Rows read.
    pub rows: u64,
    /// Whether these are all that this login may see.
    pub is_whole: bool,
    /// Columns that this login may not read.
    pub hidden: Vec<String>,
    /// The others, in the table's order.
    pub columns: Vec<Read>,
    /// Of each row one number for each column: equal values of a column have equal numbers.
    pub cells: Vec<u64>,
}

/// Reads up to `limit` rows of the table that the configuration names. `seen` counts them.
///
/// # Errors
/// There is no such table, this login may not read it, or the database fails.
pub async fn read(session: &Session, config: &Config, limit: u64, seen: &AtomicU64) -> Result<Sample, DbError> {
    let Some(table) = catalog::table(session, &config.table).await? else {
        let name = catalog::quote_table(&config.table);
        return Err(DbError::Misconfigured(format!(
            "there is no table {name}: name it in [table] of the configuration"
        )));
    };
    let mut sample = prepare(session, config, &table).await?;
    let failed = |error| DbError::new("reading the table", &error);
    session.begin().await.map_err(failed)?;
    let cursor = declare(&sample, &table, limit);
    session.batch_execute(&cursor).await.map_err(failed)?;
    let hasher = RandomState::new();
    while sample.rows < limit {
        let portion = PORTION.min(limit - sample.rows);
        let rows = session.texts("reading the table", &format!("FETCH {portion} FROM masq_risk")).await?;
        for row in &rows {
            let values = sample.columns.iter_mut().zip(row);
            sample.cells.extend(values.map(|(column, value)| column.seen.add(value.as_deref(), &hasher)));
        }
        sample.rows += rows.len() as u64;
        seen.store(sample.rows, Ordering::Relaxed);
        if (rows.len() as u64) < portion {
            sample.is_whole = percent(&sample, &table, limit).is_none();
            break;
        }
    }
    session.batch_execute("ROLLBACK").await.map_err(failed)?;
    Ok(sample)
}

/// What is to be read, before anything is.
async fn prepare(session: &Session, config: &Config, table: &Table) -> Result<Sample, DbError> {
    let oid = table.oid;
    let readable = format!(
        "SELECT attname FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped \
         AND has_column_privilege(attrelid, attnum, 'SELECT')"
    );
    let readable = session.texts("reading the catalogue", &readable).await?;
    let readable: HashSet<String> = readable.into_iter().flatten().flatten().collect();
    let (columns, hidden): (Vec<_>, Vec<_>) = table.columns.iter().partition(|column| readable.contains(&column.name));
    let name = format!("{}.{}", quote_ident(&table.schema), quote_ident(&table.name));
    if columns.is_empty() {
        return Err(DbError::Denied(format!("this login may not read {name}: GRANT SELECT on it")));
    }
    Ok(Sample {
        table: name,
        estimate: estimate(session, oid).await?,
        rows: 0,
        is_whole: false,
        hidden: hidden.into_iter().map(|column| column.name.clone()).collect(),
        columns: columns.into_iter().map(|column| described(column, config)).collect(),
        cells: Vec::new(),
    })
}

fn described(column: &TableColumn, config: &Config) -> Read {
    let configured = config.columns.iter().find(|configured| configured.name == column.name);
    let dates = [ColumnType::Date, ColumnType::Timestamp, ColumnType::TimestampTz];
    Read {
        name: column.name.clone(),
        mask: configured.and_then(|configured| configured.mask.clone()),
        is_subject: configured.is_some_and(|configured| configured.subject),
        is_date: column.column_type.as_ref().is_ok_and(|column_type| dates.contains(column_type)),
        seen: Column::new(),
    }
}

/// Rows by the statistics of the table and its partitions: -1 (0 before PostgreSQL 14) where they were never made.
async fn estimate(session: &Session, oid: u32) -> Result<Option<u64>, DbError> {
    let sql = format!(
        "WITH RECURSIVE part(oid) AS (
             SELECT {oid}::oid UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN part p ON i.inhparent = p.oid
         )
         SELECT sum(greatest(c.reltuples, 0))::bigint FROM part p JOIN pg_class c ON c.oid = p.oid WHERE c.relkind = 'r'"
    );
    let answer = session.texts("reading the catalogue", &sql).await?;
    let rows = answer.into_iter().flatten().flatten().next().and_then(|rows| rows.parse().ok());
    Ok(rows.filter(|rows| *rows > 0))
}

/// How much of a large table is sampled, in percent of its pages; `None` if it is read from its first row on.
fn percent(sample: &Sample, table: &Table, limit: u64) -> Option<f64> {
    let can_be_sampled = matches!(table.kind, Kind::Table | Kind::Partitioned);
    let large = sample.estimate.filter(|rows| can_be_sampled && *rows > limit);
    // A tenth more, since pages are not equally full.
    large.map(|rows| (limit as f64 / rows as f64 * 110.0).min(100.0))
}

/// A cursor: the server makes the rows as they are fetched.
fn declare(sample: &Sample, table: &Table, limit: u64) -> String {
    let columns: Vec<_> = sample
        .columns
        .iter()
        .map(|column| format!("pg_catalog.left({}::pg_catalog.text, {CHARACTERS})", quote_ident(&column.name)))
        .collect();
    let sampled = percent(sample, table, limit).map(|percent| format!(" TABLESAMPLE SYSTEM ({percent:.6})"));
    format!(
        "SET TRANSACTION READ ONLY; SET LOCAL bytea_output = hex; SET LOCAL DateStyle = ISO; \
         DECLARE masq_risk NO SCROLL CURSOR FOR SELECT {} FROM {}{} LIMIT {limit}",
        columns.join(", "),
        sample.table,
        sampled.unwrap_or_default(),
    )
}
