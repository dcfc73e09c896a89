//! `masq keys rotate`: another recovery key, or another key that makes tokens, while workers run. Each call does the next
//! safe step and says what a person has to do before the one after.

mod recovery;
mod token;
mod work;

use std::path::{Path, PathBuf};

use clap::ArgGroup;
use tokio::time::{Duration, Instant};

use crate::{
    cli::{
        connect,
        context::Context,
        environment::lookup,
        exit::Exit,
        passphrase::Passphrase,
        report::Failure,
        sources::{DatabaseSource, KeysSource, Sources},
    },
    config::Config,
    db::{Session, account, migrations},
    start,
    vault::{audit::checkpoint_after, rotate::Why},
};

/// How long a database is waited for. Somebody sits in front of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Put other keys in the place of those that there are, while workers run; who and why is put on the record
///
/// The token key, one call a step: it makes the next key, which you copy to every worker; lets it make the tokens; and, with
/// the recovery key, gives every entry of the vault and every row its new token. Meanwhile the view <TABLE>_bridged has the
/// new tokens throughout. The recovery key: --add or --new another one, which you copy to every worker, or --add-kms one of
/// AWS KMS; seal all epochs to it with --identity; then --retire the old one.
///
/// Whatever is interrupted, the same command goes on with the rest. Within a day of its end a rotation of the token key is
/// followed by the next one only if --another says so.
#[derive(clap::Args)]
#[command(group = ArgGroup::new("which").required(true).args(["token", "recovery"]),
          group = ArgGroup::new("how").args(["add", "add_kms", "new", "retire", "identity", "kms"]), after_help = "Examples:
  masq keys rotate --token --reason \"yearly rotation, ticket 4711\"
  masq keys rotate --token --reason \"yearly rotation, ticket 4711\" \\
    --identity /media/usb/recovery.key
  masq keys rotate --token --emergency --reason \"laptop with token.key stolen\" \\
    --identity /media/usb/recovery.key
  masq keys rotate --recovery --new /media/usb/2027 \\
    --reason \"new custodian, ticket 4712\"
  masq keys rotate --recovery --identity /media/usb/recovery.key \\
    --reason \"new custodian, ticket 4712\"
  masq keys rotate --recovery --retire 0f3a5c77 \\
    --reason \"new custodian, ticket 4712\"")]
pub(super) struct Args {
    /// Rotate the key that makes tokens
    #[arg(long)]
    token: bool,
    /// Rotate the recovery key
    #[arg(long)]
    recovery: bool,
    /// Seal to the recovery keys in this recovery.pub, too
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    add: Option<PathBuf>,
    /// Have this key of AWS KMS open what is sealed, too: named by its ARN, its id or an alias
    #[arg(long, value_name = "KEY", conflicts_with = "token")]
    add_kms: Option<String>,
    /// Make a new recovery key in this directory and seal to it, too
    #[arg(long, value_name = "DIR", conflicts_with = "token")]
    new: Option<PathBuf>,
    /// Leave the new recovery key unprotected, so that whoever has the file can use it
    #[arg(long, requires = "new", conflicts_with = "passphrase_file")]
    no_passphrase: bool,
    /// Take the recovery key whose fingerprint begins so out of use
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "token")]
    retire: Option<String>,
    /// Open what has to be opened with the recovery key in this file
    #[arg(long, value_name = "FILE", required_if_eq("emergency", "true"))]
    identity: Option<PathBuf>,
    /// Have AWS KMS open what has to be opened: the key named here, or else by kms_epoch_key in [keys]
    #[arg(long, value_name = "KEY", num_args = 0..=1, require_equals = true, conflicts_with = "token")]
    kms: Option<Option<String>>,
    #[command(flatten)]
    passphrase: Passphrase,
    /// Do all steps at once, for the token key has leaked: workers wait until they have the new one, what cannot be given a
    /// new token becomes a tombstone, and the old key's file is destroyed
    #[arg(long, conflicts_with = "recovery")]
    emergency: bool,
    /// Retire the old token key although there are tokens of it that nothing leads away from
    #[arg(long, conflicts_with = "recovery")]
    force: bool,
    /// Begin the next rotation of the token key although the last one ended less than a day ago
    #[arg(long, conflicts_with = "recovery")]
    another: bool,
    /// Say why, in ten characters or more; that is kept in the database
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Say under which number that was decided
    #[arg(long, value_name = "TEXT")]
    ticket: Option<String>,
    #[command(flatten)]
    database: DatabaseSource,
    #[command(flatten)]
    keys: KeysSource,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let sources = Sources { database: args.database.clone(), keys: args.keys.clone(), ..Sources::default() };
    let config = sources.config(context)?;
    let Some(dir) = config.keys.dir.clone() else {
        return Err(Failure::new(Exit::Config, "no directory of keys is named")
            .hint("name it with --keys, MASQ_KEYS or dir in [keys]"));
    };
    let me = account::me(&lookup);
    let claimed = me.as_deref().unwrap_or("unknown");
    let scene =
        Scene { why: Why { claimed, reason: &args.reason, ticket: args.ticket.as_deref() }, dir: &dir, context };
    let exit = match args.recovery {
        true => recovery::run(args, &config, &scene).await?,
        false => token::run(args, &config, &scene).await?,
    };
    // The work is done: where this fails, the next checkpoint covers it too.
    if config.audit.checkpoints.is_some()
        && let Ok(session) = session(&config).await
    {
        checkpoint_after(&session, &config).await;
        session.close().await;
    }
    Ok(exit)
}

/// What every step has at hand.
struct Scene<'a> {
    why: Why<'a>,
    dir: &'a Path,
    context: &'a Context,
}

/// A session with a database that knows of rotations.
async fn session(config: &Config) -> Result<Session, Failure> {
    let session = start::connect(&connect::connector(config)?, Instant::now() + PATIENCE).await?;
    if migrations::are_missing(&session, &[&migrations::MASQ]).await? {
        return Err(Failure::new(Exit::Config, "this database has no schema masq, or an older one")
            .hint("name the one that `masq run` writes to, or upgrade it: masq migrate"));
    }
    Ok(session)
}
