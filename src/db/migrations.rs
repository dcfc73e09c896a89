//! The schemas `masq` and `masq_slots` and the target table: which migrations there are, which a database has, and applying
//! the rest.
//!
//! Plain SQL, forward only, all that are missing in one transaction under a lock, so that many workers may start at
//! once. The target table is created if it is missing and otherwise never touched. `masq_slots` lies in the same
//! database unless `[vault] slots_url` names another.

use tokio_postgres::types::Type;

use super::{
    DbError, Session,
    catalog::{quote_ident, quote_table},
    roles,
};
use crate::config::{Column, TableName, VaultConfig};

/// A schema and its migrations, in order. The number of one is its place here, from 1.
pub struct Schema {
    name: &'static str,
    migrations: &'static [(&'static str, &'static str)],
    /// Who may do what in it: see [`roles`].
    grants: &'static str,
}

/// What makes each message count once, the vault and the audit log.
pub const MASQ: Schema = Schema {
    name: "masq",
    migrations: &[
        ("ledger", include_str!("../../migrations/0001_ledger.sql")),
        ("survival", include_str!("../../migrations/0002_survival.sql")),
        ("operators", include_str!("../../migrations/0003_operators.sql")),
        ("vault", include_str!("../../migrations/0004_vault.sql")),
        ("audit", include_str!("../../migrations/0005_audit.sql")),
        ("forget", include_str!("../../migrations/0006_forget.sql")),
        ("forgotten", include_str!("../../migrations/0007_forgotten.sql")),
        ("records", include_str!("../../migrations/0008_records.sql")),
        ("retention", include_str!("../../migrations/0009_retention.sql")),
        ("rotate", include_str!("../../migrations/0010_rotate.sql")),
        ("rekey", include_str!("../../migrations/0011_rekey.sql")),
    ],
    grants: include_str!("../../migrations/roles/masq.sql"),
};

/// The salts, deleting which erases a person.
pub const SLOTS: Schema = Schema {
    name: "masq_slots",
    migrations: &[
        ("slots", include_str!("../../migrations/slots/0001_slots.sql")),
        ("forget", include_str!("../../migrations/slots/0002_forget.sql")),
        ("retention", include_str!("../../migrations/slots/0003_retention.sql")),
    ],
    grants: include_str!("../../migrations/roles/masq_slots.sql"),
};

/// Those that lie where the rows are.
pub fn beside_rows(vault: &VaultConfig) -> &'static [&'static Schema] {
    if vault.slots_url.is_some() { &[&MASQ] } else { &[&MASQ, &SLOTS] }
}

/// Keeps two migrations of one database apart: the ASCII letters of "masq".
const LOCK: i64 = 0x6d61_7371;

impl Schema {
    /// Before the first migration there is nowhere to note it.
    fn prepare(&self) -> String {
        let name = self.name;
        format!(
            "CREATE SCHEMA IF NOT EXISTS {name};\n\
             CREATE TABLE IF NOT EXISTS {name}.migrations (\n  \
               version    integer     PRIMARY KEY,\n  \
               name       text        NOT NULL,\n  \
               applied_at timestamptz NOT NULL DEFAULT now()\n);\n"
        )
    }

    /// How many of its migrations a database has.
    ///
    /// # Errors
    /// If the database cannot say, or if it has been migrated by a newer masq than this one.
    pub async fn applied(&self, session: &Session) -> Result<usize, DbError> {
        let (name, known) = (self.name, self.migrations.len());
        let failed = |error| DbError::new("reading which migrations the database has", &error);
        // Not `to_regclass`: it may go by what this session looked up before another one migrated.
        let there = format!(
            "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace \
             WHERE nspname = '{name}' AND relname = 'migrations')"
        );
        let there = session.query_typed_one(&there, &[]).await;
        if !there.and_then(|row| row.try_get::<_, bool>(0)).map_err(failed)? {
            return Ok(0);
        }
        let count = format!("SELECT count(*) FROM {name}.migrations");
        let count: i64 = session.query_typed_one(&count, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
        let count = usize::try_from(count).unwrap_or(0);
        if count > known {
            return Err(DbError::Misconfigured(format!(
                "the schema {name} is at version {count}, and this masq knows {known} at most: use the newer masq"
            )));
        }
        Ok(count)
    }

    /// The SQL that gives its roles their rights, once they are there and it is masq_owner's.
    pub fn grants(&self) -> &'static str {
        self.grants
    }

    /// The SQL that brings a database from so many of its migrations to all of them.
    pub fn sql(&self, applied: usize) -> String {
        let (name, migrations) = (self.name, self.migrations);
        let mut sql = if applied < migrations.len() { self.prepare() } else { String::new() };
        for (index, (title, migration)) in migrations.iter().enumerate().skip(applied) {
            let version = index + 1;
            sql.push_str(&format!(
                "\n{migration}\nINSERT INTO {name}.migrations (version, name) VALUES ({version}, '{title}');\n"
            ));
        }
        sql
    }
}

/// Whether a database lacks migrations of these schemas.
///
/// # Errors
/// As [`Schema::applied`].
pub async fn are_missing(session: &Session, schemas: &[&Schema]) -> Result<bool, DbError> {
    for schema in schemas {
        if schema.applied(session).await? < schema.migrations.len() {
            return Ok(true);
        }
    }
    Ok(false)
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
        "CREATE TABLE {}SELECT masq.note_target(nspname, relname) FROM pg_class \
         JOIN pg_namespace n ON n.oid = relnamespace WHERE pg_class.oid = to_regclass('{literal}')",
        definition(table, columns)
    );
    session.batch_execute(&sql).await.map_err(|error| DbError::new("creating the target table", &error))
}

/// What [`migrate`] did to the schema `masq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the words say it
pub enum Migrated {
    Nothing,
    Created,
    Upgraded,
}

/// Applies what is missing of these schemas. Where they are masq_owner's, what is new becomes its own too, and its roles
/// get their rights.
///
/// # Errors
/// If a statement fails, for example because the login may not create a schema. Nothing has changed then.
pub async fn migrate(session: &Session, schemas: &[&Schema]) -> Result<Migrated, DbError> {
    let failed = |error| DbError::new("migrating the schema masq", &error);
    session.batch_execute("BEGIN").await.map_err(failed)?;
    let migrated = apply(session, schemas).await;
    let end = if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = session.batch_execute(end).await.map_err(failed);
    migrated.and_then(|migrated| ended.map(|()| migrated))
}

async fn apply(session: &Session, schemas: &[&Schema]) -> Result<Migrated, DbError> {
    let failed = |error| DbError::new("migrating the schema masq", &error);
    session.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await.map_err(failed)?;
    let mut migrated = Migrated::Nothing;
    for schema in schemas {
        // Asked under the lock: another worker may just have done it.
        let applied = schema.applied(session).await?;
        if applied == schema.migrations.len() {
            continue;
        }
        session.batch_execute(&schema.sql(applied)).await.map_err(failed)?;
        if migrated == Migrated::Nothing {
            migrated = if applied == 0 { Migrated::Created } else { Migrated::Upgraded };
        }
    }
    if roles::are_mine(session).await? {
        session.batch_execute(&roles::sql(schemas)).await.map_err(failed)?;
    }
    Ok(migrated)
}
