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
use crate::{setup, start};

/// Create or upgrade the schema masq and, if it is missing, the target table
///
/// A table that is there is never touched; what does not fit in it is said. `masq run` does the same by itself where its login may.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseSource,
    /// Make the roles masq_writer, masq_operator, masq_analyst, masq_revealer, masq_eraser and masq_auditor too, and give
    /// each what it needs and no more; once they are there, every migration keeps them right
    #[arg(long)]
    roles: bool,
    /// Print the SQL for an empty database and change nothing
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { database: args.database, ..Sources::default() }.config(context)?;
    if args.print {
        report::print(setup::sql(&config, args.roles))?;
        return Ok(Exit::Done);
    }
    let (connector, slots) = (connect::connector(&config)?, connect::slots(&config)?);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut session = start::connect(&connector, deadline).await?;
    let slots = match slots {
        Some(slots) => Some(start::connect_slots(&session, &slots, deadline).await?),
        None => None,
    };
    let mut findings = setup::database(&mut session, &config, args.roles).await?;
    session.close().await;
    if let Some(slots) = slots {
        findings.extend(setup::slots(&slots, &config, args.roles).await?);
        slots.close().await;
    }
    start::refuse_problems(&mut findings)?;
    context.say("The schema masq and the target table are up to date.");
    if args.roles {
        context.say("The roles are there: GRANT masq_writer TO the workers' login. SECURITY.md says what each may.");
    }
    Ok(Exit::Done)
}
