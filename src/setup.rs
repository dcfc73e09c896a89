//! What `masq migrate` does: everything that a database needs before workers come, made by the login that owns it.
//!
//! Workers that may do it themselves do the first half of it when they start: see [`crate::start`].

use tokio::time::Instant;

use crate::{
    check::{self, Finding, Severity},
    config::Config,
    db::{
        Connector, DbError, Session, catalog,
        migrations::{self, SLOTS},
        roles, targets,
    },
    start::{self, StartError},
};

/// Migrates the schemas beside the rows and creates the target table if it is missing; with `with_roles`, makes the roles
/// and hands the schemas over to them. Where there are roles they get their rights again. Answers what is still to be
/// changed, by others or by hand.
///
/// # Errors
/// If the database refuses.
pub async fn database(session: &mut Session, config: &Config, with_roles: bool) -> Result<Vec<Finding>, StartError> {
    start::migrate(session, config).await?;
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
pub async fn slots(slots: &Connector, deadline: Instant, with_roles: bool) -> Result<Vec<Finding>, StartError> {
    start::prepare_slots(slots, deadline).await?;
    if !with_roles {
        return Ok(Vec::new());
    }
    let session = start::connect(slots, deadline).await?;
    let findings = roles::apply(&session, &[&SLOTS]).await?;
    session.close().await;
    Ok(findings)
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
