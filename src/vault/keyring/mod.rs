//! The directory of keys: made once, then loaded by every worker, which needs three of its six files. AWS KMS may stand
//! in for two of them: it opens the token root, and makes the keys of epochs.
//!
//! It never opens `recovery.key`: that is [`super::identity`]'s, on another machine.

use std::{
    fs::{self, DirBuilder, File},
    num::NonZeroU8,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

pub use super::keyfile::{KeyError, Kind};
use super::{
    audit::checkpoint::{Signer, VerifierKey},
    backend::{EpochSource, Recipient, Recipients, random},
    identity, keyfile,
    kms::{KmsKey, epochs::KmsEpochs, token::WrappedRoot},
    recovery::{RecoveryKey, RecoveryPublic},
    seal::{EpochKey, SubjectKey},
    token::TokenRoot,
    token_files::{self, Held},
};

/// The six files of a directory.
const KINDS: [Kind; 6] =
    [Kind::Token, Kind::Subject, Kind::RecoveryPublic, Kind::Recovery, Kind::Audit, Kind::AuditPublic];

/// What a worker needs: tokens, subject tags, and sealing. Nothing here opens what was sealed before.
pub struct KeyRing {
    /// Of `token.key`, or of the file of another key id.
    pub token: TokenRoot,
    /// Of `subject.key`.
    pub subject: SubjectKey,
    /// Makes epochs, sealed to those in `recovery.pub`, to a key of AWS KMS, or to both.
    pub epochs: Arc<dyn EpochSource>,
    /// Where they were loaded, if anywhere.
    pub origin: Option<Origin>,
}

/// Reads a variable of the environment, for those that say where KMS is.
pub type Lookup = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Where keys were loaded, for them to be loaded again when another key makes the tokens.
#[derive(Clone)]
pub struct Origin {
    dir: PathBuf,
    epoch_key: Option<String>,
    lookup: Lookup,
}

impl KeyRing {
    /// Loads the first token key that there is (`token.key` as long as it is), `subject.key` and `recovery.pub`. Files that
    /// others than the owner can change, or secrets that others than owner and group can read, are refused; so is a token
    /// key that only KMS opens.
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        let token = token_files::read(&first_token(dir)?)?;
        Self::around(token, dir)
    }

    /// The same with the token key of this id, which is the one that makes tokens in a database.
    pub fn load_kid(dir: &Path, kid: NonZeroU8) -> Result<Self, KeyError> {
        let token = token_files::load(dir, kid)?;
        Self::around(token, dir)
    }

    fn around(token: TokenRoot, dir: &Path) -> Result<Self, KeyError> {
        let origin = Origin { dir: dir.to_owned(), epoch_key: None, lookup: Arc::new(|_| None) };
        let epochs = Arc::new(Recipients(recipients(dir)?));
        Ok(Self { token, subject: subject(dir)?, epochs, origin: Some(origin) })
    }

    /// The same keys, but for the token key, which is the one with this id; and whatever else has changed since. Keys that
    /// stand in no file have no other.
    pub fn with_kid(&self, kid: NonZeroU8) -> BoxFuture<'static, Result<Self, KeyError>> {
        let Some(Origin { dir, epoch_key, lookup }) = self.origin.clone() else {
            let path = token_files::path(Path::new(""), kid);
            return Box::pin(async { Err(KeyError::Lost { path }) });
        };
        Box::pin(Self::load_with_kms(&dir, Some(kid), epoch_key.as_deref(), &lookup))
    }

    /// Loads the same with the help of KMS where it is needed: for a token key that only KMS opens, and for epochs
    /// where `epoch_key` names the key that makes them; then `recovery.pub` may be absent. `kid`: which token key, or the
    /// first. `lookup` reads the environment, as AWS's tools do.
    ///
    /// # Errors
    /// Those of [`KeyRing::load`], and what KMS says.
    pub fn load_with_kms(
        dir: &Path,
        kid: Option<NonZeroU8>,
        epoch_key: Option<&str>,
        lookup: &Lookup,
    ) -> impl Future<Output = Result<Self, KeyError>> + Send + use<> {
        let origin =
            Origin { dir: dir.to_owned(), epoch_key: epoch_key.map(str::to_owned), lookup: Arc::clone(lookup) };
        let lookup = &**lookup;
        let root = match kid {
            Some(kid) => token_files::find(dir, kid),
            None => first_token(dir).and_then(|path| token_files::held(&path)),
        };
        let files = root.and_then(|root| Ok((root, subject(dir)?, optional(recipients(dir), epoch_key.is_some())?)));
        let files = files.map(|(root, subject, recipients)| {
            let token = match root {
                Held::Plain(token) => Ok(token),
                Held::Wrapped(wrapped) => Err(wrapped.open(lookup)),
            };
            (token, subject, recipients)
        });
        let epoch_key = epoch_key.map(|name| KmsKey::connect(name, lookup));
        async move {
            let (token, subject, recipients) = files?;
            let token = match token {
                Ok(token) => token,
                Err(opening) => opening.await?,
            };
            let epochs: Arc<dyn EpochSource> = match epoch_key {
                Some(key) => Arc::new(KmsEpochs::new(key.await?, recipients).await?),
                None => Arc::new(recipients),
            };
            Ok(Self { token, subject, epochs, origin: Some(origin) })
        }
    }

    /// Keys of random bytes that stand in no file. Their tokens are nobody else's, and what they seal stays sealed.
    pub fn throw_away() -> Result<Self, KeyError> {
        Ok(Self {
            token: TokenRoot::new(NonZeroU8::MIN, &*random()?),
            subject: SubjectKey::new(&*random()?),
            epochs: Arc::new(Recipients(vec![RecoveryKey::new(&*random()?).public()])),
            origin: None,
        })
    }

    /// To whom epochs are sealed.
    pub fn recipients(&self) -> Vec<Recipient> {
        self.epochs.recipients()
    }

    /// The fingerprint of each of them, as `masq keys status` shows it and epoch headers carry it.
    pub fn fingerprints(&self) -> Vec<[u8; 32]> {
        self.recipients().iter().map(|recipient| recipient.fingerprint).collect()
    }

    /// Begins an epoch: see [`EpochSource::new_epoch`].
    pub fn new_epoch(&self, now_ms: i64) -> BoxFuture<'static, Result<EpochKey, KeyError>> {
        self.epochs.new_epoch(now_ms)
    }
}

/// What [`create`] made.
#[derive(Debug)]
pub struct Created {
    /// In the order of [`Kind`].
    pub files: [PathBuf; 6],
    /// The key id of the tokens.
    pub kid: NonZeroU8,
    /// SHA-256 of the recovery public key.
    pub fingerprint: [u8; 32],
}

/// Makes all six files, in a directory that it makes if need be (mode 0700). An existing file is never overwritten.
///
/// All or nothing: after an error none of the files is there that were not there before. With a passphrase
/// `recovery.key` is an age file, which takes about a second.
pub fn create(dir: &Path, passphrase: Option<&str>) -> Result<Created, KeyError> {
    let kid = NonZeroU8::MIN;
    create_around(dir, passphrase, kid, keyfile::render(Kind::Token, kid, random::<32>()?.as_slice()))
}

/// The same with a token root that only this key of KMS opens. It is asked for first: if it refuses, nothing is made.
pub async fn create_with_kms(dir: &Path, passphrase: Option<&str>, key: &KmsKey) -> Result<Created, KeyError> {
    let kid = NonZeroU8::MIN;
    let wrapped = WrappedRoot::wrap(key, kid, &*random()?).await?;
    create_around(dir, passphrase, kid, wrapped.render())
}

fn create_around(
    dir: &Path,
    passphrase: Option<&str>,
    kid: NonZeroU8,
    token: Zeroizing<String>,
) -> Result<Created, KeyError> {
    let recovery = random::<32>()?;
    let public = RecoveryKey::new(&recovery).public();
    let identity = keyfile::render(Kind::Recovery, kid, recovery.as_slice());
    let audit = random::<32>()?;
    let texts = [
        (Kind::Token, token),
        (Kind::Subject, keyfile::render(Kind::Subject, kid, random::<32>()?.as_slice())),
        (Kind::RecoveryPublic, keyfile::render(Kind::RecoveryPublic, kid, &public.to_bytes())),
        (Kind::Recovery, identity::protect(identity, passphrase, &random()?)),
        (Kind::Audit, keyfile::render(Kind::Audit, kid, audit.as_slice())),
        (Kind::AuditPublic, keyfile::render_verifier(Signer::new(&audit).public())),
    ];
    write_all(dir, &texts)?;
    Ok(Created { files: texts.map(|(kind, _)| dir.join(kind.file())), kid, fingerprint: public.fingerprint() })
}

/// Makes another recovery key and its public half, in a directory that it makes if need be. All or nothing, as [`create`].
pub fn create_recovery(dir: &Path, passphrase: Option<&str>) -> Result<RecoveryPublic, KeyError> {
    let recovery = random::<32>()?;
    let public = RecoveryKey::new(&recovery).public();
    let identity = keyfile::render(Kind::Recovery, NonZeroU8::MIN, recovery.as_slice());
    let texts = [
        (Kind::RecoveryPublic, keyfile::render(Kind::RecoveryPublic, NonZeroU8::MIN, &public.to_bytes())),
        (Kind::Recovery, identity::protect(identity, passphrase, &random()?)),
    ];
    write_all(dir, &texts)?;
    Ok(public)
}

/// What can be said of one key file without showing it.
#[derive(Debug)]
pub struct FileStatus {
    /// Which.
    pub kind: Kind,
    /// Where it is looked for.
    pub path: PathBuf,
    /// Its permission bits; `None` if it is not there.
    pub mode: Option<u32>,
    /// Of a readable token key.
    pub kid: Option<NonZeroU8>,
    /// The ARN of the key of KMS that opens it, if it takes one.
    pub kms: Option<String>,
    /// SHA-256 of each key in a readable `recovery.pub`.
    pub fingerprints: Vec<[u8; 32]>,
    /// Of a readable `audit.pub`.
    pub verifier: Option<VerifierKey>,
    /// Why it cannot be used. An absent `recovery.key` is no problem: a worker should not have it. It needs no audit keys
    /// either.
    pub problem: Option<KeyError>,
}

/// Looks at all files, in the order of [`Kind`], token keys by key id. `recovery.key` is looked at from outside only.
pub fn status(dir: &Path) -> Vec<FileStatus> {
    let mut tokens = token_files::paths(dir);
    if tokens.is_empty() {
        tokens.push(dir.join(Kind::Token.file())); // the name under which it is missed
    }
    let tokens = tokens.into_iter().map(|path| (Kind::Token, path));
    let others = KINDS[1..].iter().map(|kind| (*kind, dir.join(kind.file())));
    tokens.chain(others).map(|(kind, path)| file_status(dir, kind, path)).collect()
}

fn file_status(dir: &Path, kind: Kind, path: PathBuf) -> FileStatus {
    let mode = keyfile::mode(&path).ok();
    let mut status =
        FileStatus { kind, path, mode, kid: None, kms: None, fingerprints: Vec::new(), verifier: None, problem: None };
    status.problem = examine(dir, &mut status).err();
    status
}

fn examine(dir: &Path, status: &mut FileStatus) -> Result<(), KeyError> {
    match (status.kind, status.mode) {
        (Kind::Token, None) => return Err(missing(dir, Kind::Token)),
        (Kind::Token, Some(_)) => match token_files::held(&status.path)? {
            Held::Plain(root) => status.kid = Some(root.kid()),
            Held::Wrapped(wrapped) => (status.kid, status.kms) = (Some(wrapped.kid), Some(wrapped.arn)),
        },
        (Kind::Subject, _) => drop(secret(dir, Kind::Subject)?),
        (Kind::RecoveryPublic, _) => {
            status.fingerprints = recipients(dir)?.iter().map(RecoveryPublic::fingerprint).collect();
        }
        (Kind::Recovery, Some(mode)) => keyfile::check_mode(Kind::Recovery, &status.path, mode)?,
        (Kind::Audit, Some(_)) => drop(audit_key(dir)?),
        (Kind::AuditPublic, Some(_)) => status.verifier = Some(audit_public(&status.path)?),
        (Kind::Recovery | Kind::Audit | Kind::AuditPublic, None) => {}
    }
    Ok(())
}

/// Loads `audit.key`.
pub fn audit_key(dir: &Path) -> Result<Signer, KeyError> {
    secret(dir, Kind::Audit).map(|(_, seed)| Signer::new(&seed))
}

/// Reads a verifier key: `audit.pub`, or a file like it.
pub fn audit_public(path: &Path) -> Result<VerifierKey, KeyError> {
    keyfile::parse_verifier(path, &keyfile::read(Kind::AuditPublic, path)?)
}

fn secret(dir: &Path, kind: Kind) -> Result<(NonZeroU8, Zeroizing<[u8; 32]>), KeyError> {
    let (path, text) = read(dir, kind)?;
    keyfile::parse_secret(kind, &path, &text)
}

fn first_token(dir: &Path) -> Result<PathBuf, KeyError> {
    token_files::paths(dir).into_iter().next().ok_or_else(|| missing(dir, Kind::Token))
}

/// Loads `subject.key` alone: whoever erases needs no other.
pub fn subject(dir: &Path) -> Result<SubjectKey, KeyError> {
    Ok(SubjectKey::new(&secret(dir, Kind::Subject)?.1))
}

/// No recipients where there is no file of them and none is needed.
pub fn optional(recipients: Result<Vec<RecoveryPublic>, KeyError>, is_optional: bool) -> Result<Recipients, KeyError> {
    match recipients {
        Err(KeyError::Missing { .. } | KeyError::Lost { .. }) if is_optional => Ok(Recipients::default()),
        recipients => recipients.map(Recipients),
    }
}

/// The recovery keys to which epochs are sealed: those in `recovery.pub`.
///
/// # Errors
/// If it cannot be used.
pub fn recipients(dir: &Path) -> Result<Vec<RecoveryPublic>, KeyError> {
    let (path, text) = read(dir, Kind::RecoveryPublic)?;
    parse_recipients(&path, &text)
}

/// The keys in another such file.
///
/// # Errors
/// As [`recipients`].
pub fn recipients_of(path: &Path) -> Result<Vec<RecoveryPublic>, KeyError> {
    parse_recipients(path, &keyfile::read(Kind::RecoveryPublic, path)?)
}

fn parse_recipients(path: &Path, text: &[u8]) -> Result<Vec<RecoveryPublic>, KeyError> {
    let malformed = || KeyError::Malformed { path: path.to_owned(), problem: "a key in it is no X-Wing public key" };
    let keys = keyfile::parse_recipients(path, text)?;
    keys.iter().map(|key| RecoveryPublic::from_bytes(key).ok_or_else(malformed)).collect()
}

/// A key file's path and text.
fn read(dir: &Path, kind: Kind) -> Result<(PathBuf, Zeroizing<Vec<u8>>), KeyError> {
    let path = dir.join(kind.file());
    match keyfile::read(kind, &path) {
        Ok(text) => Ok((path, text)),
        Err(KeyError::Missing { .. }) => Err(missing(dir, kind)),
        Err(error) => Err(error),
    }
}

/// One that is missing among others is lost: a database written with the rest refuses new keys.
fn missing(dir: &Path, kind: Kind) -> KeyError {
    let path = dir.join(kind.file());
    let others = KINDS.iter().any(|kind| dir.join(kind.file()).exists()) || !token_files::paths(dir).is_empty();
    if others { KeyError::Lost { path } } else { KeyError::Missing { path } }
}

/// Puts these keys into `recovery.pub` in the place of those that are there; if there are none, there is no such file any
/// more. A reader finds the old file or the new one.
///
/// # Errors
/// If it cannot be written; then it is as it was.
pub fn set_recipients(dir: &Path, keys: &[RecoveryPublic]) -> Result<(), KeyError> {
    let path = dir.join(Kind::RecoveryPublic.file());
    let unwritable = |source| KeyError::Unwritable { path: path.clone(), source };
    if keys.is_empty() {
        return fs::remove_file(&path).map_err(unwritable);
    }
    let keys: Vec<Vec<u8>> = keys.iter().map(RecoveryPublic::to_bytes).collect();
    let beside = dir.join(".recovery.pub.new");
    drop(fs::remove_file(&beside)); // of an attempt that was cut off
    keyfile::write_new(Kind::RecoveryPublic, &beside, &keyfile::render_recipients(&keys))?;
    fs::rename(&beside, &path).map_err(unwritable)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(unwritable)
}

/// Writes the files and syncs their directory, or leaves everything as it was.
fn write_all(dir: &Path, texts: &[(Kind, Zeroizing<String>)]) -> Result<(), KeyError> {
    let unwritable = |source| KeyError::Unwritable { path: dir.to_owned(), source };
    let existed = dir.is_dir();
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unwritable)?;
    let mut written = Vec::new();
    let all = texts.iter().try_for_each(|(kind, text)| {
        let path = dir.join(kind.file());
        keyfile::write_new(*kind, &path, text)?;
        written.push(path);
        Ok(())
    });
    let all = all.and_then(|()| File::open(dir).and_then(|dir| dir.sync_all()).map_err(unwritable));
    if all.is_err() {
        // The first failure is the one to report; what cannot be removed is named by `masq keys status`.
        written.iter().for_each(|path| drop(fs::remove_file(path)));
        if !existed {
            drop(fs::remove_dir(dir));
        }
    }
    all
}

#[cfg(test)]
mod tests;
