//! `masq forget`: erases one person, or says what there is of them; after a restore, erases again who was erased. Who, why
//! and what came of it is on the record. What is printed is in [`receipt`].

mod receipt;

use std::{
    io::{self, BufRead, IsTerminal},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tokio::{task::spawn_blocking, time::Instant};
use zeroize::Zeroizing;

use self::receipt::Receipt;
use super::{
    confirm::confirm,
    connect,
    context::Context,
    environment::lookup,
    exit::Exit,
    report::{self, Failure},
    signals,
    sources::{DatabaseSource, KeysSource, Sources},
    vault,
};
use crate::{
    config::{Config, Mask},
    db::{DbError, account},
    start::{self, Databases},
    vault::{
        audit::checkpoint_after,
        erase::{
            EraseError, Eraser, Person, Replayed, Why,
            journal::{Journal, JournalError},
        },
        keyring,
        refusal::Remedy,
        seal::SubjectKey,
    },
};

/// How long a database is waited for. Somebody sits in front of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// An empty file is that of a vault in which nobody was erased, and also one that was lost and made anew.
const NOBODY: &str = "Neither the file nor the restored database knows of any erasure. Whoever was erased since the backup \
                      becomes readable again. Was nobody ever erased?";
const NOBODY_INSISTED: &str = "the file names nobody, and neither does the restored database: whoever was erased since the \
                               backup would become readable again. If nobody ever was, say --nobody-was-erased";

/// Erase one person: unlink their rows, delete their sealed values and dead letters
///
/// Tokens in their rows become tombstones, which begin with 00 and lead nowhere, and the column that names them NULL, or
/// "erased" where it must not be NULL. Whoever shares an address with them keeps theirs. It is complete when the last
/// backup of the slots is gone; the receipt on stdout says when that is, and what is out of masq's reach.
///
/// Each erasure is also appended to a file beside the database ([vault] erasures, or --erasures). After the database was
/// restored nothing is revealed until --replay has erased again who is in that file.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq forget --dry-run --purpose ERASURE --ticket T-17 \\
    --reason \"asked by letter of 3 May\"
  printf %s \"$ID\" | masq forget --purpose ERASURE --ticket T-17 \\
    --reason \"asked by letter of 3 May\" -
  masq forget --replay erasures.jsonl --purpose OPERATIONS --ticket T-18 \\
    --reason \"restored from the backup of 2 May\"")]
pub(super) struct Args {
    /// Erase the person with this id; `-` or nothing reads it from stdin or asks for it, which is better: other users of
    /// this machine see arguments
    #[arg(value_name = "USER_ID")]
    user: Option<String>,
    /// Say what there is of them and change nothing; that somebody asked is put on the record
    #[arg(long)]
    dry_run: bool,
    /// Delete their rows instead of unlinking them
    #[arg(long)]
    delete_rows: bool,
    /// Erase again, after a restore, who was erased by this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "dry_run", "delete_rows", "erasures"])]
    replay: Option<PathBuf>,
    /// Open the restored vault although FILE names nobody, without being asked: nobody was ever erased. If somebody was since
    /// the backup, they become readable again
    #[arg(long, requires = "replay", conflicts_with_all = ["user", "dry_run", "delete_rows"])]
    nobody_was_erased: bool,
    /// Say what for: one of the table masq.purposes, such as ERASURE
    #[arg(long, value_name = "PURPOSE")]
    purpose: String,
    /// Name the ticket
    #[arg(long, value_name = "TICKET")]
    ticket: String,
    /// Say why, in ten characters or more, without naming the person; that is kept in the database
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Append the erasure to this file
    #[arg(long, value_name = "FILE")]
    erasures: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseSource,
    #[command(flatten)]
    keys: KeysSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    // A signal leaves what the same command finishes.
    signals::unless_stopped(Box::pin(forget(args, context))).await
}

async fn forget(args: Args, context: &Context) -> Result<Exit, Failure> {
    let sources = Sources { database: args.database.clone(), keys: args.keys.clone(), ..Sources::default() };
    let config = sources.config(context)?;
    let key = keyring::subject(keys(&config)?)?;
    let me = account::me(&lookup);
    let claimed = me.as_deref().unwrap_or("unknown");
    let why = Why { purpose: &args.purpose, ticket: &args.ticket, reason: &args.reason, claimed };
    if let Some(file) = &args.replay {
        let mut journal = Journal::open(file, false).map_err(|error| failure(error.into()))?;
        let eraser = eraser(&config, &key).await?;
        let mut replayed = eraser.replay(why, &key, &mut journal, args.nobody_was_erased).await;
        if matches!(replayed, Err(EraseError::Nobody)) {
            confirm(context, NOBODY, "the vault stays shut", NOBODY_INSISTED).await?;
            replayed = eraser.replay(why, &key, &mut journal, true).await;
        }
        let replayed = replayed.map_err(failure)?;
        close(eraser, &config).await;
        tell(&replayed, args.json, context)?;
        return Ok(Exit::Done);
    }
    // Before anybody is asked for anything.
    let journal = if args.dry_run { None } else { Some(journal(&args, &config)?) };
    let person = person(&args, &config, &key).await?;
    for said in [&args.ticket, &args.reason] {
        vault::quotes_nothing(said, &person.id)?;
    }
    let eraser = eraser(&config, &key).await?;
    let receipt = match journal {
        None => Receipt::of_plan(&eraser.plan(why, &person).await.map_err(failure)?, &config),
        Some(mut journal) => {
            let erased = eraser.erase(why, &person, args.delete_rows, &mut journal).await.map_err(failure)?;
            Receipt::of_erasure(&erased, &config)
        }
    };
    close(eraser, &config).await;
    receipt.print(args.json, context)?;
    Ok(Exit::Done)
}

fn tell(replayed: &Replayed, as_json: bool, context: &Context) -> Result<(), Failure> {
    let (erased, was_shut) = (replayed.erased.len(), replayed.was_shut);
    let rows: u64 = replayed.erased.iter().flat_map(|erased| erased.rows.values()).sum();
    if as_json {
        let told = json!({"erased_again": erased, "rows": rows, "swept": replayed.swept, "was_shut": was_shut});
        return report::print_json(&told);
    }
    let shut = if was_shut { "The vault is open." } else { "The vault was open: nothing had been restored or moved." };
    context.say(format_args!("{erased} erasures were done again, with {rows} rows. {shut}"));
    Ok(())
}

async fn eraser(config: &Config, key: &SubjectKey) -> Result<Eraser, Failure> {
    let Databases { rows, slots } = connect::databases(config)?;
    let deadline = Instant::now() + PATIENCE;
    let rows = start::connect(&rows, deadline).await?;
    let slots = match slots {
        Some(slots) => Some(start::connect_slots(&rows, &slots, deadline).await?),
        None => None,
    };
    if !crate::vault::dead::are_kept(&rows).await? {
        return Err(Failure::new(Exit::Config, "this database has no schema masq, and so nothing to forget")
            .hint("name the one that `masq run` writes to"));
    }
    let eraser = Eraser { rows, slots };
    eraser.check_key(key).await.map_err(failure)?;
    Ok(eraser)
}

async fn close(eraser: Eraser, config: &Config) {
    checkpoint_after(&eraser.rows, config).await;
    eraser.rows.close().await;
    if let Some(slots) = eraser.slots {
        slots.close().await;
    }
}

fn keys(config: &Config) -> Result<&Path, Failure> {
    config.keys.dir.as_deref().ok_or_else(|| {
        Failure::new(Exit::Config, "no keys are named")
            .hint("name the directory with subject.key by --keys, MASQ_KEYS or dir in [keys]")
    })
}

/// The file without which no restore could be told from the database as it is.
fn journal(args: &Args, config: &Config) -> Result<Journal, Failure> {
    let Some(path) = args.erasures.as_ref().or(config.vault.erasures.as_ref()) else {
        return Err(Failure::new(Exit::Config, "no file of erasures is named").hint(
            "name one outside of the database with --erasures or erasures in [vault]: after a restore it says who must be \
             erased again",
        ));
    };
    Journal::open(path, true).map_err(|error| failure(error.into()))
}

async fn person(args: &Args, config: &Config, key: &SubjectKey) -> Result<Person, Failure> {
    let id = match args.user.as_deref() {
        None | Some("-") => read_id().await?,
        Some(id) => Zeroizing::new(id.to_owned()),
    };
    if id.is_empty() {
        return Err(Failure::new(Exit::Usage, "the id of the person is empty")
            .hint("pipe it to stdin as the messages have it, or type it when asked"));
    }
    let subject = config.columns.iter().find(|column| column.subject);
    let tokens = match subject.and_then(|column| column.mask.as_ref()) {
        Some(Mask::Hmac { domain }) => {
            let ring = connect::keys(config).await?;
            let domain = ring.token.domain(domain).map_err(|error| Failure::of(Exit::Config, &error))?;
            domain.text(&id).map(|token| vec![token.to_string()]).map_err(|error| Failure::of(Exit::Usage, &error))?
        }
        _ => Vec::new(),
    };
    Ok(Person { tag: key.tag(&id), id, tokens })
}

/// One line, as it came but for its end.
async fn read_id() -> Result<Zeroizing<String>, Failure> {
    if io::stdin().is_terminal() {
        drop(io::Write::write_all(&mut io::stderr(), b"Id of the person to forget: "));
    }
    let read = spawn_blocking(|| {
        let mut id = Zeroizing::new(String::new());
        io::stdin().lock().read_line(&mut id).map(|_| id)
    });
    let mut id = read
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
        .map_err(|error| Failure::new(Exit::Usage, "cannot read the id from stdin").because(&error))?;
    let end = id.trim_end_matches(['\n', '\r']).len();
    id.truncate(end);
    Ok(id)
}

fn failure(error: EraseError) -> Failure {
    match error {
        EraseError::Refused(refusal) => {
            let exit = match refusal.remedy {
                Remedy::SayWhy | Remedy::AskAnew => Exit::Usage,
                Remedy::Replay | Remedy::NotRestored | Remedy::NewerMasq | Remedy::ActiveKey => Exit::Config,
                _ => Exit::Denied,
            };
            Failure::new(exit, &refusal).hint(refusal.remedy.advice())
        }
        EraseError::Database(error @ DbError::Denied(_)) => Failure::from(error)
            .hint("an erasure needs a login with the role masq_eraser, in both databases if there are two"),
        EraseError::Database(error @ DbError::Unavailable(_)) => {
            Failure::from(error).hint("the same command finishes what was begun")
        }
        EraseError::Database(error) => Failure::from(error)
            .hint("where the table refuses what a row without its person would be, --delete-rows deletes the rows"),
        EraseError::Journal(JournalError::File { path, source }) => {
            Failure::new(Exit::of_file(&source), format!("cannot use the file of erasures {}", path.display()))
                .because(&source)
        }
        EraseError::Journal(error @ JournalError::Busy(_)) => Failure::of(Exit::Unfinished, &error),
        EraseError::WrongKey => Failure::of(Exit::Config, &error)
            .hint("point --keys at the right directory: with another key nobody would be found"),
        EraseError::Foreign { .. } => Failure::of(Exit::Config, &error).hint("name the file of this database"),
        EraseError::Old { .. } => Failure::of(Exit::Config, &error).hint(
            "name the file itself. Where it is lost nobody can say who else was erased since the backup; the owner of the \
             schema may open the vault all the same: UPDATE masq.home SET identity = masq.identity()",
        ),
        error => Failure::of(Exit::Config, &error),
    }
}
