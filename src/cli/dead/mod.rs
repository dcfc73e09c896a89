//! `masq dead`: the messages that did not become rows. `list` shows why, `show` opens one, `replay` puts them through the
//! pipeline again, `purge` deletes them.

mod drain;
mod list;
mod purge;
mod replay;
mod show;

use std::time::Duration;

use clap::Subcommand;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    connect,
    context::Context,
    exit::Exit,
    report::Failure,
    sources::{DatabaseSource, Sources},
};
use crate::{config::Config, db::Session, start, vault::dead};

/// How long a database is waited for. Somebody sits in front of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// List dead letters, open one, replay or purge them
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(list::Args),
    Show(show::Args),
    Replay(replay::Args),
    Purge(purge::Args),
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    match args.command {
        Command::List(args) => list::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Replay(args) => Box::pin(replay::run(args, context)).await,
        Command::Purge(args) => purge::run(args, context).await,
    }
}

/// A session with a database that has dead letters.
async fn connect(database: DatabaseSource, context: &Context) -> Result<Session, Failure> {
    session(&Sources { database, ..Sources::default() }.config(context)?).await
}

async fn session(config: &Config) -> Result<Session, Failure> {
    let session = start::connect(&connect::connector(config)?, Instant::now() + PATIENCE).await?;
    if dead::are_kept(&session).await? {
        return Ok(session);
    }
    Err(Failure::new(Exit::Config, "this database has no schema masq, and so no dead letters")
        .hint("name the one that `masq run` writes to; a new one is made ready by `masq migrate`"))
}

/// A moment in UTC as RFC 3339 writes it, from milliseconds since 1970-01-01. All are equally long, for tables.
pub(super) fn moment(millis: i64) -> String {
    let Ok(moment) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000) else {
        return "after the year 9999".to_owned();
    };
    let (hour, minute, second, milli) = moment.to_hms_milli();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", moment.date())
}
