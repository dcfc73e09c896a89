//! Asks PostgreSQL for what the judgements of [`crate::check`] are about. Nothing here changes anything.

use tokio_postgres::types::{ToSql, Type};

use super::{
    DbError, Session,
    catalog::{self, Table},
    known_keys, migrations, roles,
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
    /// The keys with the token key that makes tokens here, if it is another one of theirs.
    pub active_keys: Option<KeyRing>,
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
    let lacking = missing_grants(session).await?;
    // Without them nothing more can be asked.
    let schema_missing =
        lacking.is_none() && migrations::are_missing(session, migrations::beside_rows(&config.vault)).await?;
    let mut active_keys = None;
    if let Some(keys) = keys.filter(|_| lacking.is_none() && !schema_missing) {
        active_keys = known_keys::active_keys(session, keys).await?;
        findings.extend(known_keys::compare(session, active_keys.as_ref().unwrap_or(keys)).await?);
    }
    findings.extend(lacking);
    if findings.iter().any(|finding| finding.severity == Severity::Denied) {
        let remedy = roles::remedy(session).await?;
        let denied = findings.iter_mut().filter(|finding| finding.severity == Severity::Denied);
        denied.for_each(|finding| finding.remedy.clone_from(&remedy));
    }
    let needs_migration = schema_missing || table.is_none();
    if needs_migration {
        findings.extend(missing_rights_to_create(session, config).await?);
    }
    Ok(Examined { findings, table, stored, active_keys, needs_migration })
}

/// Rights that are named when several are missing. One role has them all, so more names would help nobody.
const SHOWN: usize = 4;

/// What a worker needs and this login lacks, in the words of GRANT: what `migrations/roles/` gives to masq_writer. By the
/// catalogue's numbers, since a name in a schema that one may not use is an error. What is not there yet is not asked for.
const GRANTS: &str = "\
    WITH schemas AS (SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('masq', 'masq_slots')),
         tables (name, privilege, columns) AS (VALUES
             ('masq.migrations', 'SELECT', NULL), ('masq.key_checks', 'SELECT', NULL), ('masq.token_keys', 'SELECT', NULL),
             ('masq.recipients', 'SELECT', NULL), ('masq.ledger', 'SELECT', NULL), ('masq.ledger', 'INSERT', NULL),
             ('masq.dedupe', 'SELECT', '{key}'), ('masq.dedupe', 'INSERT', '{key}'),
             ('masq.suspects', 'SELECT', NULL), ('masq.suspects', 'INSERT', '{sent_at, message_id, readers}'),
             ('masq.suspects', 'UPDATE', '{readers}'), ('masq.suspects', 'DELETE', NULL),
             ('masq.epochs', 'INSERT', '{id, started_at}'), ('masq.epoch_wraps', 'INSERT', NULL),
             ('masq.entries', 'INSERT', NULL),
             ('masq.dead_letters', 'INSERT',
              '{sent_at, message_id, reason, queue, receive_count, body_bytes, epoch, sealed, subject_tag}'),
             ('masq_slots.migrations', 'SELECT', NULL), ('masq_slots.slots', 'INSERT', NULL)),
         functions (name) AS (VALUES
             ('masq.keep_partitions'), ('masq.make_partition'), ('masq.prune'), ('masq.ledger_oldest'),
             ('masq.keep_months'), ('masq.hold_key'), ('masq.close_epoch'),
             ('masq_slots.keep_months'))
    SELECT array_agg(what) FROM (
        SELECT format('USAGE ON SCHEMA %s', nspname), has_schema_privilege(oid, 'USAGE') FROM schemas
        UNION ALL
        SELECT format('%s%s ON %s', privilege, ' (' || array_to_string(columns::text[], ', ') || ')', name),
               has_table_privilege(c.oid, privilege) OR columns IS NOT NULL AND NOT EXISTS (
                   SELECT FROM unnest(columns::text[]) AS col
                   WHERE NOT has_column_privilege(c.oid, col, privilege))
        FROM tables JOIN schemas s ON s.nspname = split_part(name, '.', 1)
        JOIN pg_class c ON relnamespace = s.oid AND relname = split_part(name, '.', 2)
        UNION ALL
        SELECT format('EXECUTE ON FUNCTION %s', name), has_function_privilege(p.oid, 'EXECUTE')
        FROM functions JOIN schemas s ON s.nspname = split_part(name, '.', 1)
        JOIN pg_proc p ON pronamespace = s.oid AND proname = split_part(name, '.', 2)
    ) AS needed (what, granted) WHERE NOT granted";

async fn missing_grants(session: &Session) -> Result<Option<Finding>, DbError> {
    let failed = |error| DbError::new("reading this login's permissions", &error);
    let row = session.query_typed_one(GRANTS, &[]).await.map_err(failed)?;
    let lacking: Option<Vec<String>> = row.try_get(0).map_err(failed)?;
    Ok(lacking.map(|lacking| {
        let mut what = lacking[..lacking.len().min(SHOWN)].join(", ");
        if lacking.len() > SHOWN {
            what.push_str(&format!(" and {} more", lacking.len() - SHOWN));
        }
        Finding::new(Severity::Denied, "database", format!("this login lacks {what}"), "")
    }))
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
