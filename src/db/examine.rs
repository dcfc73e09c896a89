//! Asks PostgreSQL for what the judgements of [`crate::check`] are about. Nothing here changes anything.

use tokio_postgres::types::{ToSql, Type};

use super::{
    DbError, Session,
    catalog::{self, Table},
    known_keys, migrations,
};
use crate::{
    check::{self, Finding, Severity},
    config::{ColumnType, Config},
    vault::keyring::KeyRing,
};

/// What the database is like.
pub struct Examined {
    /// Everything to know or change.
    pub findings: Vec<Finding>,
    /// The target table, if it is there.
    pub table: Option<Table>,
    /// The types of the configured columns, in their order; short of some if there are problems.
    pub stored: Vec<ColumnType>,
    /// Whether `masq migrate` has something to do: a part of the schema `masq` or the target table is missing.
    pub needs_migration: bool,
}

/// Examines the database under the session's login.
///
/// # Errors
/// If the database cannot answer.
pub async fn examine(
    session: &Session,
    config: &Config,
    keys: Option<&KeyRing>,
    allow_unsafe: bool,
) -> Result<Examined, DbError> {
    let mut findings = check::durability(&catalog::durability(session).await?, allow_unsafe);
    let table = catalog::table(session, &config.table).await?;
    let mut stored = Vec::new();
    if let Some(table) = &table {
        let (judged, types) = check::table(config, table, allow_unsafe);
        findings.extend(judged);
        stored = types;
    }
    let grants = missing_grants(session).await?;
    // Without them nothing more can be asked.
    let schema_missing =
        grants.is_empty() && migrations::are_missing(session, migrations::beside_rows(&config.vault)).await?;
    if let Some(keys) = keys.filter(|_| grants.is_empty() && !schema_missing) {
        findings.extend(known_keys::compare(session, keys).await?);
    }
    findings.extend(grants);
    let needs_migration = schema_missing || table.is_none();
    if needs_migration {
        findings.extend(missing_rights_to_create(session, config).await?);
    }
    Ok(Examined { findings, table, stored, needs_migration })
}

/// By the catalogue's numbers, since a name in a schema that one may not use is an error. What is not there yet is not
/// asked for.
const GRANTS: &str = "\
    SELECT what, format('GRANT %s TO %I', what, current_user) FROM (
        SELECT 'USAGE ON SCHEMA masq', has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'masq'
        UNION ALL
        SELECT format('%s ON masq.%s', needed.privilege, relname), has_table_privilege(c.oid, needed.privilege)
        FROM (VALUES ('migrations', 'SELECT'), ('ledger', 'INSERT'), ('ledger', 'SELECT'), ('dead_letters', 'INSERT'),
                     ('epoch_wraps', 'INSERT'), ('entries', 'INSERT'), ('key_checks', 'SELECT'),
                     ('token_keys', 'SELECT'), ('recipients', 'SELECT'), ('dedupe', 'INSERT'), ('dedupe', 'SELECT'),
                     ('suspects', 'INSERT'), ('suspects', 'SELECT'), ('suspects', 'UPDATE'), ('suspects', 'DELETE'))
                AS needed (name, privilege)
        JOIN pg_class c ON relname = needed.name
        WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'masq')
        UNION ALL
        SELECT format('EXECUTE ON FUNCTION masq.%s(%s)', proname, pg_get_function_identity_arguments(oid)),
               has_function_privilege(oid, 'EXECUTE')
        FROM pg_proc
        WHERE proname IN ('keep_partitions', 'make_partition', 'prune', 'keep_months', 'hold_key', 'close_epoch')
          AND pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'masq')
    ) AS needed (what, granted) WHERE NOT granted";

async fn missing_grants(session: &Session) -> Result<Vec<Finding>, DbError> {
    let failed = |error| DbError::new("reading this login's permissions", &error);
    let rows = session.query_typed(GRANTS, &[]).await.map_err(failed)?;
    rows.iter()
        .map(|row| {
            let (what, remedy): (&str, &str) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            Ok(Finding::new(Severity::Denied, "database", format!("this login lacks {what}"), remedy))
        })
        .collect()
}

/// Whether the schema masq is there or may be made; the same of the table, which is NULL where its schema is missing.
const MAY_CREATE: &str = "\
    SELECT current_database()::text, coalesce($1, current_schema()::text, ''),
           to_regnamespace('masq') IS NOT NULL OR has_database_privilege(current_database(), 'CREATE'),
           to_regclass($2) IS NOT NULL
           OR (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = coalesce($1, current_schema()))";

/// What keeps this login from creating what is not there.
async fn missing_rights_to_create(session: &Session, config: &Config) -> Result<Vec<Finding>, DbError> {
    let failed = |error| DbError::new("reading what this login may create", &error);
    let table = catalog::quote_table(&config.table);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&config.table.schema, Type::TEXT), (&table, Type::TEXT)];
    let row = session.query_typed_one(MAY_CREATE, &parameters).await.map_err(failed)?;
    let (database, schema): (&str, &str) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    let may_create_masq: bool = row.try_get(2).map_err(failed)?;
    let may_create_table: Option<bool> = row.try_get(3).map_err(failed)?;

    let (table, remedy) = (&config.table.name, "run `masq migrate` once with a login that may");
    let mut findings = Vec::new();
    if !may_create_masq {
        let what = format!("the schema masq is missing, and this login may not create schemas in {database}");
        findings.push(Finding::refused("database", what, remedy));
    }
    match may_create_table {
        Some(true) => {}
        Some(false) => {
            let what = format!("{table} is missing, and this login may not create tables in the schema {schema}");
            findings.push(Finding::refused("table", what, remedy));
        }
        None => {
            let what = format!("{table} is missing, and so is its schema {schema}");
            findings.push(Finding::refused("table", what, "create the schema, or name another in [table]"));
        }
    }
    Ok(findings)
}
