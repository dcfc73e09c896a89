//! What `masq migrate` does: everything that a database needs before workers come, made by the login that owns it.
//!
//! Workers that may do it themselves do the first half of it when they start, by [`migrate`] and [`migrate_slots`]: see
//! [`crate::start`].

use crate::{
    check::{self, Finding, Severity},
    config::Config,
    db::{
        DbError, Session, catalog,
        migrations::{self, Migrated, SLOTS},
        roles, slots, targets,
    },
    start::StartError,
};

/// Creates or upgrades the schema `masq` and, if it is missing, the target table.
///
/// # Errors
/// With the remedy for a login that may not.
pub async fn migrate(session: &mut Session, config: &Config) -> Result<(), StartError> {
    let migrated = async {
        match migrations::migrate(session, migrations::beside_rows(&config.vault)).await? {
            Migrated::Created => tracing::info!("created the schema masq"),
            Migrated::Upgraded => tracing::info!("upgraded the schema masq"),
            Migrated::Nothing => {}
        }
        roles::set_limits(session, config).await?;
        if config.vault.slots_url.is_none() {
            slots::set_limit(session, &config.vault).await?;
        }
        if catalog::table(session, &config.table).await?.is_none() {
            match migrations::create_target(session, &config.table, &config.columns).await {
                Ok(()) => tracing::info!(table = config.table.name, "created the target table"),
                // Another worker was faster.
                Err(_) if catalog::table(session, &config.table).await?.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok::<_, DbError>(())
    };
    migrated.await.map_err(not_migrated)
}

fn not_migrated(error: DbError) -> StartError {
    match error {
        DbError::Denied(what) => {
            let remedy = "run `masq migrate` once with a login that may create schemas and tables";
            StartError::Problems(vec![Finding::new(Severity::Denied, "database", what, remedy)])
        }
        other => other.into(),
    }
}

/// Creates or upgrades the schema `masq_slots` in a database that has the slots alone. Answers whether it did.
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_slots(session: &Session, config: &Config) -> Result<bool, StartError> {
    if !migrations::are_missing(session, &[&SLOTS]).await? {
        return Ok(false);
    }
    migrations::migrate(session, &[&SLOTS]).await.map_err(not_migrated)?;
    slots::set_limit(session, &config.vault).await?;
    tracing::info!("created or upgraded the schema masq_slots");
    Ok(true)
}

/// Migrates the schemas beside the rows and creates the target table if it is missing; with `with_roles`, makes the roles
/// and hands the schemas over to them. Where there are roles they get their rights again. Answers what is still to be
/// changed, by others or by hand.
///
/// # Errors
/// If the database refuses.
pub async fn database(session: &mut Session, config: &Config, with_roles: bool) -> Result<Vec<Finding>, StartError> {
    migrate(session, config).await?;
    let mut findings = Vec::new();
    if with_roles {
        findings.extend(roles::apply(session, migrations::beside_rows(&config.vault)).await?);
    }
    findings.extend(table(session, config).await?);
    Ok(findings)
}

/// What does not fit in the target table, or rights on it that only somebody else can give.
async fn table(session: &Session, config: &Config) -> Result<Vec<Finding>, DbError> {
    let Some(table) = catalog::table(session, &config.table).await? else { return Ok(Vec::new()) };
    let (mut findings, _) = check::table(config, &table, false);
    // The login that migrates need not be the one that writes.
    findings.retain(|finding| finding.severity != Severity::Denied);
    findings.extend(targets::describe(session, &table, &config.columns).await?);
    let fits = findings.iter().all(|finding| finding.severity == Severity::Note);
    if fits && roles::are_there(session).await? {
        let columns: Vec<&str> = config.columns.iter().map(|column| column.name.as_str()).collect();
        findings.extend(roles::grant_target(session, &table, &columns).await?);
    }
    Ok(findings)
}

/// The same for a database that has the slots alone.
///
/// # Errors
/// As [`database`].
pub async fn slots(session: &Session, config: &Config, with_roles: bool) -> Result<Vec<Finding>, StartError> {
    if !migrate_slots(session, config).await? {
        slots::set_limit(session, &config.vault).await?;
    }
    if with_roles { Ok(roles::apply(session, &[&SLOTS]).await?) } else { Ok(Vec::new()) }
}

/// The SQL that does it in an empty database, for a configuration without a database for the slots.
pub fn sql(config: &Config, with_roles: bool) -> String {
    let schemas = migrations::beside_rows(&config.vault);
    let migrating: String = schemas.iter().map(|schema| schema.sql(0)).collect();
    let table = migrations::create_table(&config.table, &config.columns);
    if !with_roles {
        return format!("BEGIN;\n{migrating}\n{table}COMMIT;\n");
    }
    let columns: Vec<&str> = config.columns.iter().map(|column| column.name.as_str()).collect();
    let target = roles::target_sql(&catalog::quote_table(&config.table), &columns);
    format!("{}BEGIN;\n{migrating}\n{table}{}\n{target}COMMIT;\n", roles::CREATE, roles::sql(schemas))
}
