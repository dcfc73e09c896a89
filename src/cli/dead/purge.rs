//! `masq dead purge`: deletes dead letters that have been kept long enough. Nothing brings them back, so it asks.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use super::{list, session};
use crate::{
    cli::{
        context::Context,
        environment::lookup,
        exit::Exit,
        progress::Progress,
        report::Failure,
        signals,
        sources::{DatabaseSource, KeysSource, Sources},
    },
    config,
    db::{Session, account},
    vault::{
        audit::checkpoint_after,
        purge::{Condition, Purge},
    },
};

/// The longest age that can be asked for: a slip with a unit is more likely than a letter of that age.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Delete dead letters for good; what, who and when is put on the record
///
/// The body, the subject tag and the reason go. The ledger keeps that the message had its outcome, so a purged message that
/// comes again changes nothing for as long as the ledger remembers it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq dead purge --older-than 30d --resolved
  masq dead purge --older-than 90d --dry-run")]
pub(super) struct Args {
    /// Delete letters that were recorded longer ago than this, such as 30d
    #[arg(long, value_name = "TIME", value_parser = age)]
    older_than: Duration,
    /// Delete only those of the reason with this code, with its field or without, as in bad_ip:ip or bad_ip
    #[arg(long, value_name = "CODE", value_parser = list::code)]
    code: Option<String>,
    /// Delete only those that were replayed into rows
    #[arg(long)]
    resolved: bool,
    /// Say how many there are, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    database: DatabaseSource,
    #[command(flatten)]
    keys: KeysSource,
}

fn age(text: &str) -> Result<Duration, String> {
    config::parse_duration(text, Duration::ZERO, LONGEST)
}

impl Args {
    /// As it stands on the record.
    fn asked(&self) -> String {
        let mut asked = format!("--older-than {}s", self.older_than.as_secs());
        if let Some(code) = &self.code {
            asked += &format!(" --code {code}");
        }
        if self.resolved {
            asked += " --resolved";
        }
        asked
    }
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let asked = args.asked();
    let config = Sources { database: args.database, keys: args.keys, ..Sources::default() }.config(context)?;
    let session = session(&config).await?;
    let condition = Condition { older_than: args.older_than, reason: args.code.as_deref(), resolved: args.resolved };
    let mut purge = Purge::new(&session, condition).await?;
    let Purge { letters, unreplayed, .. } = purge;
    if args.dry_run || letters == 0 {
        context.say(format_args!("{letters} dead letters would be deleted, {unreplayed} of them never replayed."));
        return Ok(Exit::Done);
    }
    if !args.yes {
        context.say(format_args!(
            "{letters} dead letters will be deleted. {unreplayed} of them were never replayed: of their messages nothing \
             remains."
        ));
        confirm(context)?;
    }
    let ended = delete(&session, &mut purge, &asked, context).await;
    checkpoint_after(&session, &config).await;
    session.close().await;
    ended.map(|()| Exit::Done)
}

/// Goes on only if somebody types yes.
fn confirm(context: &Context) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "there is no terminal to ask on, so nothing was deleted")
            .hint("to delete them without being asked, say --yes"));
    }
    context.say("Type yes to delete them:");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::new(Exit::Usage, "cannot read from the terminal").because(&error))?;
    if answer.trim() == "yes" { Ok(()) } else { Err(Failure::new(Exit::Usage, "nothing was deleted")) }
}

async fn delete(session: &Session, purge: &mut Purge<'_>, asked: &str, context: &Context) -> Result<(), Failure> {
    let me = account::me(&lookup);
    let claimed = me.as_deref().unwrap_or("unknown");
    let stop = signals::listen()?;
    let mut progress = Progress::new(context, "deleting", Some(purge.letters));
    let mut deleted = 0;
    let ended = loop {
        if stop.gently.has_started() {
            break Err(signals::stopped().hint("the same command goes on with the rest"));
        }
        match purge.next(session, claimed, asked).await {
            Ok(0) => break Ok(()),
            Ok(more) => deleted += more,
            Err(error) => break Err(Failure::from(error).hint("the same command goes on with the rest")),
        }
        progress.set(deleted);
    };
    progress.finish();
    context.say(format_args!("{deleted} dead letters were deleted."));
    ended
}
