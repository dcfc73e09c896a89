//! `masq migrate`: the schema `masq` and the target table, created or upgraded.

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
    check::{self, Severity},
    db::{catalog, migrations},
    start,
};

/// Create or upgrade the schema masq and, if it is missing, the target table
///
/// A table that is there is never touched; what does not fit in it is said. `masq run` does the same by itself where its login may.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseSource,
    /// Print the SQL for an empty database and change nothing
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { database: args.database, ..Sources::default() }.config(context)?;
    if args.print {
        let table = migrations::create_table(&config.table, &config.columns);
        let schemas: String = migrations::beside_rows(&config.vault).iter().map(|schema| schema.sql(0)).collect();
        report::print(format!("BEGIN;\n{schemas}\n{table}COMMIT;\n"))?;
        return Ok(Exit::Done);
    }
    let connector = connect::connector(&config)?;
    let mut session = start::connect(&connector, Instant::now() + Duration::from_secs(10)).await?;
    start::migrate(&mut session, &config).await?;
    let table = catalog::table(&session, &config.table).await?;
    session.close().await;
    if let Some(table) = table {
        let (mut findings, _) = check::table(&config, &table, false);
        // The login that migrates need not be the one that writes.
        findings.retain(|finding| finding.severity != Severity::Denied);
        start::refuse_problems(&mut findings)?;
    }
    context.say("The schema masq and the target table are up to date.");
    Ok(Exit::Done)
}
