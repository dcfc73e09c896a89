//! `masq migrate`: the schemas `masq` and `masq_slots` and the target table, created or upgraded; with `--roles`, the roles
//! that may do what with them.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    connect,
    context::Context,
    exit::Exit,
    report::{self, Failure},
    sources::{DatabaseSource, Sources},
};
use crate::{
    check::{self, Finding, Severity},
    config::Config,
    db::{Session, catalog, migrations, roles},
    start,
};

/// Create or upgrade the schema masq and, if it is missing, the target table
///
/// A table that is there is never touched; what does not fit in it is said. `masq run` does the same by itself where its login may.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseSource,
    /// Make the roles masq_writer, masq_operator, masq_analyst, masq_revealer, masq_eraser and masq_auditor too, and give
    /// each what it needs and no more. Once they are there, every migration keeps them right
    #[arg(long)]
    roles: bool,
    /// Print the SQL for an empty database and change nothing
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { database: args.database, ..Sources::default() }.config(context)?;
    if args.print {
        report::print(sql(&config, args.roles))?;
        return Ok(Exit::Done);
    }
    let connector = connect::connector(&config)?;
    let mut session = start::connect(&connector, Instant::now() + Duration::from_secs(10)).await?;
    start::migrate(&mut session, &config).await?;
    let mut findings = if args.roles { roles::apply(&session, &migrations::BOTH).await? } else { Vec::new() };
    findings.extend(table(&session, &config).await?);
    session.close().await;
    start::refuse_problems(&mut findings)?;
    context.say("The schema masq and the target table are up to date.");
    if args.roles {
        context.say("The roles are there. GRANT masq_writer TO the worker's login; SECURITY.md says what each may.");
    }
    Ok(Exit::Done)
}

/// What does not fit in the table, or its roles cannot be given.
async fn table(session: &Session, config: &Config) -> Result<Vec<Finding>, Failure> {
    let Some(table) = catalog::table(session, &config.table).await? else { return Ok(Vec::new()) };
    let (mut findings, _) = check::table(config, &table, false);
    // The login that migrates need not be the one that writes.
    findings.retain(|finding| finding.severity != Severity::Denied);
    if findings.is_empty() && roles::are_there(session).await? {
        findings.extend(roles::grant_target(session, &table, &columns(config)).await?);
    }
    Ok(findings)
}

fn columns(config: &Config) -> Vec<&str> {
    config.columns.iter().map(|column| column.name.as_str()).collect()
}

/// What makes an empty database ready, the roles in a transaction before.
fn sql(config: &Config, roles: bool) -> String {
    let table = migrations::create_table(&config.table, &config.columns);
    let schemas: String = migrations::BOTH.iter().map(|schema| schema.sql(0)).collect();
    let (create, grants) = if roles {
        let target = roles::target_sql(&catalog::quote_table(&config.table), &columns(config));
        (roles::CREATE, format!("\n{}\n{target}", roles::sql(&migrations::BOTH)))
    } else {
        ("", String::new())
    };
    format!("{create}BEGIN;\n{schemas}\n{table}{grants}COMMIT;\n")
}
