//! `masq keys new`: the keys of a new database.

use std::path::{Path, PathBuf};

use super::status::table;
use crate::{
    cli::{
        context::Context,
        exit::Exit,
        passphrase::NewPassphrase,
        report::{self, Failure},
    },
    vault::keyring::{self, Kind},
};

/// Make new keys: token.key, subject.key and recovery.pub for the workers, and recovery.key, which opens what they seal
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq keys new keys
  masq keys new /etc/masq/keys --passphrase-file /run/secrets/passphrase")]
pub(super) struct Args {
    /// Write them to this directory; what is there is never overwritten
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    passphrase: NewPassphrase,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    create(&args.dir, &args.passphrase, context).await?;
    report::print(table(&keyring::status(&args.dir)))?;
    Ok(Exit::Done)
}

/// Makes the keys and says what is to be done with the recovery key.
///
/// # Errors
/// There are some, the passphrase cannot be had, or they cannot be written; then none is.
pub(in crate::cli) async fn create(dir: &Path, passphrase: &NewPassphrase, context: &Context) -> Result<(), Failure> {
    // Asked before the question for a passphrase, which would be in vain.
    if let Some(path) = keyring::status(dir).into_iter().find(|file| file.mode.is_some()).map(|file| file.path) {
        return Err(keyring::KeyError::Exists { path }.into());
    }
    let passphrase = passphrase.get().await?;
    keyring::create(dir, passphrase.as_ref().map(|passphrase| passphrase.as_str()))?;
    context.say(format_args!(
        "{} opens everything that masq will seal.\n\
         Move it away from the worker now, and keep two copies: without it, what is sealed stays sealed.",
        dir.join(Kind::Recovery.file()).display(),
    ));
    Ok(())
}
