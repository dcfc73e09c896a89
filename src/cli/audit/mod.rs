//! `masq audit`: who did what and why. `list` shows or exports it, `verify` proves that nothing of it was changed,
//! `checkpoint` signs it as it is.

mod checkpoint;
mod list;
mod verify;

use std::time::Duration;

use clap::Subcommand;
use tokio::time::Instant;

use super::{connect, context::Context, exit::Exit, report::Failure};
use crate::{config::Config, db::Session, start, vault::audit::read};

/// How long a database is waited for. Somebody sits in front of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// List the audit log, prove that it is whole, or sign a checkpoint of it
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(list::Args),
    Verify(verify::Args),
    Checkpoint(checkpoint::Args),
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    match args.command {
        Command::List(args) => list::run(args, context).await,
        Command::Verify(args) => Box::pin(verify::run(args, context)).await,
        Command::Checkpoint(args) => checkpoint::run(args, context).await,
    }
}

/// A session with a database that has an audit log.
async fn session(config: &Config) -> Result<Session, Failure> {
    let session = start::connect(&connect::connector(config)?, Instant::now() + PATIENCE).await?;
    if read::is_kept(&session).await? {
        return Ok(session);
    }
    Err(Failure::new(Exit::Config, "this database has no schema masq with an audit log")
        .hint("name the one that `masq run` writes to; one of an older masq is brought up to date by `masq migrate`"))
}
