//! `masq keys new`: the keys of a new database.

use std::path::{Path, PathBuf};

use super::status::table;
use crate::{
    cli::{
        context::Context,
        environment::lookup,
        exit::Exit,
        passphrase::NewPassphrase,
        report::{self, Failure},
    },
    vault::{
        keyring::{self, Kind},
        kms::KmsKey,
    },
};

/// Make new keys: token.key, subject.key and recovery.pub for the workers, recovery.key, which opens what they seal, and
/// audit.key and audit.pub, which sign and check the audit log
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq keys new keys
  masq keys new keys \\
    --kms-token-key arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab
  masq keys new /etc/masq/keys --passphrase-file /run/secrets/passphrase")]
pub(super) struct Args {
    /// Write them to this directory; what is there is never overwritten
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Let AWS KMS wrap the token root with this key, named by its ARN: token.key is of no use to whoever may not use it
    #[arg(long, value_name = "ARN")]
    kms_token_key: Option<String>,
    #[command(flatten)]
    passphrase: NewPassphrase,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
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
pub(in crate::cli) async fn create(
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
