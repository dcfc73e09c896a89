//! `masq dead replay`: dead letters through the pipeline again, once the configuration or the table has been mended.
//! From the table, each opened on the record; or from an SQS dead-letter queue, which is [`super::drain`]'s.

use std::fmt::Write;

use clap::ArgGroup;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::{PATIENCE, drain, list, moment, session, show};
use crate::{
    cli::{
        connect,
        context::Context,
        environment::lookup,
        exit::Exit,
        opening::OpeningSource,
        progress::Progress,
        report::Failure,
        signals::{self, Stop},
        sources::Sources,
    },
    config::{Config, Dedupe},
    db::{Session, account},
    logging::Escaping,
    queue::sqs::SqsQueue,
    replay::{Became, Fate, Order, Replay, ReplayError},
    start::{self, Options},
    vault::{
        audit::checkpoint_after,
        dead::{self, Opening, Which},
    },
};

/// Put dead letters through the pipeline again, as the configuration and the table are now
///
/// Letters are opened with the recovery key, and who and why is put on the record first. Each becomes one row and counts as
/// resolved, whoever else does the same at the same time. What is refused again stays a dead letter and is listed with
/// its reason.
///
/// A letter older_than_ledger may be a row already, which nobody can know any more: --force replays it all the same.
#[derive(clap::Args)]
#[command(group = ArgGroup::new("which").required(true).args(["ids", "code", "all", "queue"]), after_help = "Examples:
  masq dead replay --code bad_version --identity /media/usb/recovery.key --reason \"app 6.02 is known now, ticket 4711\"
  masq dead replay --all --dry-run --identity recovery.key --reason \"what has the new mask mended?\"
  masq dead replay --queue https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue-dead

Do not use the redrive of the AWS console for messages that masq may have loaded: it gives them new ids, and what was
loaded before becomes a second row.")]
pub(super) struct Args {
    /// Replay the letters of the messages with these ids, as `masq dead list --all` shows them
    #[arg(value_name = "MESSAGE_ID", value_parser = show::message_id)]
    ids: Vec<Uuid>,
    /// Replay the letters of the reason with this code, with its field or without, as in bad_ip:ip or bad_ip
    #[arg(long, value_name = "CODE", value_parser = list::code)]
    code: Option<String>,
    /// Replay all letters
    #[arg(long)]
    all: bool,
    /// Drain this SQS dead-letter queue instead, under the same ledger
    #[arg(long, value_name = "URL", conflicts_with_all = ["identity", "kms", "reason", "passphrase_file", "limit", "force", "dry_run", "json"])]
    queue: Option<String>,
    /// Say why they have to be opened; that is kept in the database
    #[arg(long, value_name = "TEXT", value_parser = show::reason, required_unless_present = "queue")]
    reason: Option<String>,
    #[command(flatten)]
    with: OpeningSource,
    /// Replay at most so many letters, those sent first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Replay also what may be a row already: letters older_than_ledger, and all if dedupe names a message attribute
    #[arg(long)]
    force: bool,
    /// Say what would become of the letters; they are opened and nothing else is written. Whether the table takes a row
    /// is found out only by writing it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    sources: Sources,
    /// Print JSON, one object a letter
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = args.sources.config(context)?;
    match &args.queue {
        Some(url) => drain::run(url, &config, context).await,
        None => letters(&args, &config, context).await,
    }
}

async fn letters(args: &Args, config: &Config, context: &Context) -> Result<Exit, Failure> {
    // Clap asks for it.
    let Some(reason) = &args.reason else { return Ok(Exit::Usage) };
    let with = args.with.get(config).await?;
    let keys = connect::keys(config).await?;
    let first = session(config).await?;
    all_there(&first, &args.ids).await?;
    let options = Options { deadline: Instant::now() + PATIENCE, allow_unsafe: false };
    let queue = claimed_for(config, args.force).await?;
    let name = queue.as_ref().map_or("", SqsQueue::name);
    let mut ready = Box::pin(start::database(connect::databases(config)?, config, &keys, name, options)).await?;
    if let Some(queue) = &queue {
        ready = ready.of_queue(&start::attributes(queue, options.deadline).await?);
    }

    let me = account::me(&lookup);
    let order = Order {
        which: match &args.code {
            Some(code) => Which::Reason(code),
            None if args.all => Which::All,
            None => Which::Messages(&args.ids),
        },
        opening: Opening { claimed: me.as_deref().unwrap_or("unknown"), reason },
        key: with.key.as_ref(),
        kms: with.kms.as_ref(),
        force: args.force,
        dry_run: args.dry_run,
    };
    let stop = signals::listen()?;
    let (mut replay, count) = Replay::new(order, ready.reader(config, &keys).await?, first, &stop.gently).await?;
    let total = count.min(args.limit.unwrap_or(u64::MAX));
    let mut shown = Shown { json: args.json, tally: Tally::default(), context };
    let ended = shown.follow(&mut replay, &stop, total).await;
    if let Ok(session) = replay.session().await {
        checkpoint_after(session, config).await;
    }
    context.say(shown.tally.summary(args.dry_run));
    ended?;
    Ok(if shown.tally.stay > 0 { Exit::Rejects } else { Exit::Done })
}

/// The queue for which rows claim the ids of their events, if they claim any: it has to be asked for its ARN.
async fn claimed_for(config: &Config, force: bool) -> Result<Option<SqsQueue>, Failure> {
    match &config.queue.dedupe {
        Some(Dedupe::Body(_)) => connect::queue(config).await.map(Some),
        Some(Dedupe::Attribute(_)) if !force => Err(Failure::new(
            Exit::Config,
            "[queue] dedupe names a message attribute, which letters do not keep: their events may be rows already, by \
             other messages",
        )
        .hint("if they are known not to be, say --force")),
        Some(Dedupe::Attribute(_)) | None => Ok(None),
    }
}

/// A slip of the hand would replay nothing, which looks like good news.
async fn all_there(session: &Session, ids: &[Uuid]) -> Result<(), Failure> {
    for id in ids {
        if dead::find(session, *id).await?.is_empty() {
            return Err(show::none_of(*id, ""));
        }
    }
    Ok(())
}

/// What is shown while letters are replayed.
struct Shown<'a> {
    json: bool,
    tally: Tally,
    context: &'a Context,
}

impl Shown<'_> {
    /// Replays so many letters. The first signal lets finish what is in hand.
    async fn follow(&mut self, replay: &mut Replay<'_>, stop: &Stop, total: u64) -> Result<(), Failure> {
        let mut progress = Progress::new(self.context, "replaying", Some(total));
        let ended = loop {
            let left = total - self.tally.all();
            if left == 0 {
                break Ok(());
            }
            if stop.gently.has_started() {
                break Err(signals::stopped().hint("the same command goes on with the rest"));
            }
            let next = tokio::select! {
                next = replay.next(left) => next,
                () = stop.now.started() => Err(ReplayError::Stopped),
            };
            match next {
                Ok(Some(fates)) => {
                    for fate in &fates {
                        self.show(fate)?;
                    }
                    progress.set(self.tally.all());
                }
                Ok(None) => break Ok(()),
                Err(ReplayError::Stopped) => {
                    break Err(signals::stopped().hint("the same command goes on with the rest"));
                }
                Err(ReplayError::Database(error)) => break Err(error.into()),
                Err(ReplayError::Kms(error)) => {
                    break Err(Failure::from(error).hint("the same command goes on with the rest"));
                }
            }
        };
        progress.finish();
        ended
    }

    fn show(&mut self, fate: &Fate) -> Result<(), Failure> {
        let Fate { letter, became } = fate;
        let (id, sent) = (letter.key.id, moment(letter.key.sent_at));
        let (outcome, why) = match became {
            Became::Row => ("row", None),
            Became::Settled => ("settled", None),
            Became::Stays(why) => ("dead_letter", Some(why.to_string())),
        };
        self.tally.add(became);
        if self.json {
            let letter = json!({"message_id": id.to_string(), "sent_at": sent, "reason": letter.reason, "outcome": outcome, "why": why});
            return self.context.print(format_args!("{letter}\n"));
        }
        let Some(why) = why else { return Ok(()) };
        let mut line = String::new();
        let _infallible = Escaping(&mut line).write_str(&format!("{id}  {sent}  {}: {why}", letter.reason));
        self.context.print(line + "\n")
    }
}

/// How many became what.
#[derive(Default)]
struct Tally {
    rows: u64,
    settled: u64,
    stay: u64,
}

impl Tally {
    fn add(&mut self, became: &Became) {
        match became {
            Became::Row => self.rows += 1,
            Became::Settled => self.settled += 1,
            Became::Stays(_) => self.stay += 1,
        }
    }

    fn all(&self) -> u64 {
        self.rows + self.settled + self.stay
    }

    fn summary(&self, dry_run: bool) -> String {
        let Self { rows, settled, stay } = self;
        if dry_run {
            return format!(
                "{rows} would become rows, {stay} would stay dead letters. Nothing but the openings was written."
            );
        }
        let mut summary = format!("{rows} became rows, {stay} stay dead letters");
        if *settled > 0 {
            let _infallible = write!(summary, ", {settled} were replayed or purged by then");
        }
        summary + "."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_was_done_and_what_was_not() {
        let mut tally = Tally { rows: 12, settled: 0, stay: 3 };
        assert_eq!(tally.summary(false), "12 became rows, 3 stay dead letters.");
        tally.settled = 2;
        assert_eq!(tally.summary(false), "12 became rows, 3 stay dead letters, 2 were replayed or purged by then.");
        assert!(tally.summary(true).starts_with("12 would become rows, 3 would stay"));
    }
}
