//! The schema `masq` and the target table: which migrations there are, which a database has, and applying the rest.
//!
//! Plain SQL, forward only, all that are missing in one transaction under a lock, so that many workers may start at
//! once. The target table is created if it is missing and otherwise never touched.

use tokio_postgres::types::{ToSql, Type};

use super::{
    DbError, Session,
    catalog::{Table, quote_ident, quote_table},
};
use crate::config::{Column, TableName};

/// The migrations, in order. The number of one is its place here, from 1.
const MIGRATIONS: [(&str, &str); 3] = [
    ("ledger", include_str!("../../migrations/0001_ledger.sql")),
    ("survival", include_str!("../../migrations/0002_survival.sql")),
    ("operators", include_str!("../../migrations/0003_operators.sql")),
];

/// Keeps two migrations of one database apart: the ASCII letters of "masq".
const LOCK: i64 = 0x6d61_7371;

/// Before the first migration there is nowhere to note it.
const PREPARE: &str = "CREATE SCHEMA IF NOT EXISTS masq;\n\
     CREATE TABLE IF NOT EXISTS masq.migrations (\n  \
       version    integer     PRIMARY KEY,\n  \
       name       text        NOT NULL,\n  \
       applied_at timestamptz NOT NULL DEFAULT now()\n);\n";

/// How many of the migrations a database has.
///
/// # Errors
/// If the database cannot say, or if it has been migrated by a newer masq than this one.
pub async fn applied(session: &Session) -> Result<usize, DbError> {
    let failed = |error| DbError::new("reading which migrations the database has", &error);
    let there = session.query_typed_one("SELECT to_regclass('masq.migrations') IS NOT NULL", &[]).await;
    if !there.and_then(|row| row.try_get::<_, bool>(0)).map_err(failed)? {
        return Ok(0);
    }
    let row = session.query_typed_one("SELECT count(*) FROM masq.migrations", &[]).await.map_err(failed)?;
    let count: i64 = row.try_get(0).map_err(failed)?;
    let count = usize::try_from(count).unwrap_or(0);
    if count > MIGRATIONS.len() {
        return Err(DbError::Misconfigured(format!(
            "the schema masq is at version {count}, and this masq knows {} at most: use the newer masq",
            MIGRATIONS.len()
        )));
    }
    Ok(count)
}

/// Whether a database lacks migrations.
///
/// # Errors
/// As [`applied`].
pub async fn are_missing(session: &Session) -> Result<bool, DbError> {
    Ok(applied(session).await? < MIGRATIONS.len())
}

/// The SQL that brings a database from so many migrations to all of them.
pub fn sql(applied: usize) -> String {
    let mut sql = if applied < MIGRATIONS.len() { PREPARE.to_owned() } else { String::new() };
    for (index, (name, migration)) in MIGRATIONS.iter().enumerate().skip(applied) {
        let version = index + 1;
        sql.push_str(&format!(
            "\n{migration}\nINSERT INTO masq.migrations (version, name) VALUES ({version}, '{name}');\n"
        ));
    }
    sql
}

/// The SQL that creates the target table, unless it is there.
pub fn create_table(table: &TableName, columns: &[Column]) -> String {
    format!("CREATE TABLE IF NOT EXISTS {}", definition(table, columns))
}

fn definition(table: &TableName, columns: &[Column]) -> String {
    let columns: Vec<String> =
        columns.iter().map(|column| format!("  {} {}", quote_ident(&column.name), column.column_type)).collect();
    format!("{} (\n{}\n);\n", quote_table(table), columns.join(",\n"))
}

/// Creates the target table, and notes in the same transaction that it was empty.
///
/// # Errors
/// If it is there, or the login may not.
pub async fn create_target(session: &Session, table: &TableName, columns: &[Column]) -> Result<(), DbError> {
    let literal = quote_table(table).replace('\'', "''");
    // Several statements in one message are one transaction.
    let sql = format!(
        "CREATE TABLE {}SELECT masq.note_target(nspname, relname, true) FROM pg_class \
         JOIN pg_namespace n ON n.oid = relnamespace WHERE pg_class.oid = to_regclass('{literal}')",
        definition(table, columns)
    );
    session.batch_execute(&sql).await.map_err(|error| DbError::new("creating the target table", &error))
}

/// Notes a table that rows go into, and that may have held some before.
///
/// # Errors
/// If the database refuses.
pub async fn note_target(session: &Session, table: &Table) -> Result<(), DbError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&table.schema, Type::TEXT), (&table.name, Type::TEXT)];
    let noted = session.query_typed("SELECT masq.note_target($1, $2, false)", &parameters).await;
    noted.map(|_| ()).map_err(|error| DbError::new("noting the target table", &error))
}

/// What [`migrate`] did to the schema `masq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the words say it
pub enum Migrated {
    Nothing,
    Created,
    Upgraded,
}

/// Applies what is missing.
///
/// # Errors
/// If a statement fails, for example because the login may not create a schema. Nothing has changed then.
pub async fn migrate(session: &mut Session) -> Result<Migrated, DbError> {
    let failed = |error| DbError::new("migrating the schema masq", &error);
    let lock = session.transaction().await.map_err(failed)?;
    lock.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await.map_err(failed)?;
    // Asked under the lock: another worker may just have done it.
    let there = lock.query_typed("SELECT to_regclass('masq.migrations')::text", &[]).await.map_err(failed)?;
    let is_there = there.first().and_then(|row| row.get::<_, Option<String>>(0)).is_some();
    let applied = if is_there {
        let rows = lock.query_typed("SELECT version FROM masq.migrations", &[]).await.map_err(failed)?;
        rows.len()
    } else {
        0
    };
    if applied < MIGRATIONS.len() {
        lock.batch_execute(&sql(applied)).await.map_err(failed)?;
    }
    lock.commit().await.map_err(failed)?;
    Ok(match applied {
        0 => Migrated::Created,
        _ if applied < MIGRATIONS.len() => Migrated::Upgraded,
        _ => Migrated::Nothing,
    })
}
