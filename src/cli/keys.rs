//! `masq keys new` and `masq keys status`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::{
    context::Context,
    environment::lookup,
    exit::Exit,
    passphrase::NewPassphrase,
    report::{self, Failure, Hex},
    sources::{KeysSource, Sources},
};
use crate::vault::{
    keyring::{self, FileStatus, Kind},
    kms::KmsKey,
};

/// Make the keys, or look at them
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(NewArgs),
    Status(StatusArgs),
}

/// Make new keys: token.key, subject.key and recovery.pub for the workers, recovery.key, which opens what they seal, and
/// audit.key and audit.pub, which sign and check the audit log
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq keys new keys
  masq keys new keys --kms-token-key arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab
  masq keys new /etc/masq/keys --passphrase-file /run/secrets/passphrase")]
struct NewArgs {
    /// Write them to this directory; what is there is never overwritten
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Let AWS KMS wrap the token root with this key, named by its ARN: token.key is of no use to whoever may not use it
    #[arg(long, value_name = "ARN")]
    kms_token_key: Option<String>,
    #[command(flatten)]
    passphrase: NewPassphrase,
}

/// Show which keys there are and whether they can be used; never a key itself
#[derive(clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    keys: KeysSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    match &args.command {
        Command::New(args) => new(args, context).await,
        Command::Status(args) => status(args, context),
    }
}

async fn new(args: &NewArgs, context: &Context) -> Result<Exit, Failure> {
    let token_key = match &args.kms_token_key {
        Some(name) => Some(Box::pin(KmsKey::connect(name, &lookup)).await?),
        None => None,
    };
    create(&args.dir, &args.passphrase, token_key.as_ref(), context).await?;
    report::print(table(&keyring::status(&args.dir)))?;
    Ok(Exit::Done)
}

/// Makes the keys and says what is to be done with the recovery key.
///
/// # Errors
/// There are some, the passphrase cannot be had, KMS does not wrap the token root, or they cannot be written; then none
/// is.
pub(super) async fn create(
    dir: &Path,
    passphrase: &NewPassphrase,
    token_key: Option<&KmsKey>,
    context: &Context,
) -> Result<(), Failure> {
    // Asked before the question for a passphrase, which would be in vain.
    if let Some(path) = keyring::status(dir).into_iter().find(|file| file.mode.is_some()).map(|file| file.path) {
        return Err(keyring::KeyError::Exists { path }.into());
    }
    let passphrase = passphrase.get().await?;
    let passphrase = passphrase.as_ref().map(|passphrase| passphrase.as_str());
    match token_key {
        Some(key) => keyring::create_with_kms(dir, passphrase, key).await?,
        None => keyring::create(dir, passphrase)?,
    };
    context.say(format_args!(
        "{} opens everything that masq will seal.\n\
         Move it away from the worker now, and keep two copies: without it, what is sealed stays sealed.",
        dir.join(Kind::Recovery.file()).display(),
    ));
    Ok(())
}

fn status(args: &StatusArgs, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { keys: args.keys.clone(), ..Sources::default() }.config(context)?;
    let Some(dir) = config.keys.dir else {
        return Err(Failure::new(Exit::Config, "no directory of keys is named")
            .hint("name it with --keys, MASQ_KEYS or dir in [keys]; or make keys: masq keys new keys"));
    };
    let mut files = keyring::status(&dir);
    if config.keys.kms_epoch_key.is_some() {
        forgive_missing_recipients(&mut files);
    }
    if args.json {
        report::print_json(&files.iter().map(to_json).collect())?;
    } else {
        report::print(table(&files))?;
    }
    let away = |file: &&FileStatus| file.kind == Kind::Recovery && file.mode.is_some() && !args.json;
    if let Some(recovery) = files.iter().find(away) {
        context.say(format_args!("{} lies beside the worker's keys: move it away.", recovery.path.display()));
    }
    // What is wrong has been said already, for all files at once.
    let problem = files.into_iter().find_map(|file| file.problem);
    Ok(problem.map_or(Exit::Done, |problem| Failure::from(problem).exit))
}

/// Where KMS makes the keys of epochs, nobody else needs to be able to open them.
pub(super) fn forgive_missing_recipients(files: &mut [FileStatus]) {
    for file in files.iter_mut().filter(|file| file.kind == Kind::RecoveryPublic && file.mode.is_none()) {
        file.problem = None;
    }
}

/// A line a file: name, permissions, and what identifies it or is wrong with it.
fn table(files: &[FileStatus]) -> String {
    files.iter().map(|file| format!("{:<13} {}\n", file.kind.file(), description(file))).collect()
}

fn description(file: &FileStatus) -> String {
    let mode = file.mode.map_or_else(|| "-   ".to_owned(), |mode| format!("{mode:04o}"));
    let about = match (&file.problem, file.kid, file.fingerprints.as_slice()) {
        (Some(problem), ..) => format!("  {problem}"),
        (None, Some(kid), _) => match &file.kms {
            Some(arn) => format!("  key id {kid}, opened by {arn}"),
            None => format!("  key id {kid}"),
        },
        (None, None, []) if file.mode.is_none() => match file.kind {
            Kind::RecoveryPublic => "  KMS alone opens".to_owned(),
            Kind::AuditPublic => "  not here".to_owned(),
            _ => "  not here, as it should be".to_owned(),
        },
        (None, None, []) => file.verifier.as_ref().map(|key| format!("  {key}")).unwrap_or_default(),
        (None, None, fingerprints) => format!("  fingerprint {}", listed(fingerprints).join(", ")),
    };
    mode + &about
}

fn listed(fingerprints: &[[u8; 32]]) -> Vec<String> {
    fingerprints.iter().map(|fingerprint| Hex(fingerprint).to_string()).collect()
}

fn to_json(file: &FileStatus) -> serde_json::Value {
    json!({
        "file": file.kind.file(),
        "path": file.path,
        "mode": file.mode.map(|mode| format!("{mode:04o}")),
        "key_id": file.kid,
        "kms_key": file.kms,
        "fingerprints": listed(&file.fingerprints),
        "verifier": file.verifier.as_ref().map(ToString::to_string),
        "problem": file.problem.as_ref().map(ToString::to_string),
    })
}
