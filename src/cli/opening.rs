//! With what sealed things are opened: the recovery key in a file, or a key of AWS KMS. For every command that opens any.

use std::path::PathBuf;

use clap::Args;

use super::{
    environment::lookup,
    exit::Exit,
    passphrase::Passphrase,
    report::{Failure, Hex},
};
use crate::{
    config::Config,
    db::Session,
    vault::{
        epochs::Opener,
        kms::{KmsKey, epochs::KmsOpener},
        recovery::RecoveryKey,
        rotate::recovery::recipients,
    },
};

/// Which of them; both may be named. Whether one must be is the command's to say.
#[derive(Args)]
pub(super) struct OpeningSource {
    /// Open with the recovery key in this file
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Option<PathBuf>,
    /// Have AWS KMS open what its key has made: the one named here, or else by kms_epoch_key in [keys]
    #[arg(long, value_name = "KEY", num_args = 0..=1, require_equals = true)]
    pub(super) kms: Option<Option<String>>,
    #[command(flatten)]
    passphrase: Passphrase,
}

/// What opens.
pub(super) struct Opening {
    /// The recovery key, if it was named.
    pub(super) key: Option<RecoveryKey>,
    /// KMS, if it was named.
    pub(super) kms: Option<KmsOpener>,
}

impl OpeningSource {
    /// Reads the recovery key, and finds the way to KMS, which is not asked yet.
    ///
    /// # Errors
    /// Neither is named, the file or its passphrase is wrong, or what was named is no key of KMS.
    pub(super) async fn get(&self, config: &Config) -> Result<Opening, Failure> {
        let key = match &self.identity {
            Some(path) => Some(self.passphrase.unlock(path).await?),
            None => None,
        };
        let configured = config.keys.kms_epoch_key.as_deref();
        let name = match &self.kms {
            Some(Some(name)) => Some(name.as_str()),
            Some(None) => Some(configured.ok_or_else(unnamed)?),
            None if key.is_none() => Some(configured.ok_or_else(nothing)?),
            None => None,
        };
        let kms = match name {
            Some(name) => Some(KmsOpener::new(Box::pin(KmsKey::connect(name, &lookup)).await?)),
            None => None,
        };
        Ok(Opening { key, kms })
    }
}

/// Neither on the command line nor in the configuration.
pub(super) fn unnamed() -> Failure {
    Failure::new(Exit::Config, "no key of KMS is named")
        .hint("name it with --kms=KEY, by its ARN or alias, or as kms_epoch_key in [keys]")
}

/// Refuses a recovery key that nothing in this database is sealed to, before anything is asked for on the record with it.
///
/// # Errors
/// It is none of the database's, or retired; or the database cannot say.
pub(super) async fn check(session: &Session, key: &RecoveryKey) -> Result<(), Failure> {
    let (known, fingerprint) = (recipients(session).await?, key.public().fingerprint());
    let what = match known.iter().find(|recipient| recipient.fingerprint == fingerprint) {
        Some(recipient) if recipient.is_active => return Ok(()),
        Some(_) => "was retired and opens nothing in this database any more",
        None => "opens nothing in this database",
    };
    let active: Vec<_> =
        known.iter().filter(|known| known.is_active).map(|known| Hex(&known.fingerprint).to_string()).collect();
    Err(Failure::new(Exit::Config, format!("the recovery key with the fingerprint {} {what}", Hex(&fingerprint))).hint(
        format!(
            "name that of {} with --identity; `masq keys status` shows the fingerprint of a recovery.pub",
            active.join(" or ")
        ),
    ))
}

fn nothing() -> Failure {
    Failure::new(Exit::Usage, "there is nothing to open it with").hint(
        "name the recovery key with --identity FILE, or a key of AWS KMS with --kms=KEY or kms_epoch_key in [keys]",
    )
}

impl Opening {
    /// Opens epochs with it.
    pub(super) fn opener(&self) -> Opener<'_> {
        Opener::either(self.key.as_ref(), self.kms.as_ref())
    }
}
