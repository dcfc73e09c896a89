//! The recovery key's file. It is for people who open things; nothing that a worker does comes here.
//!
//! The file holds the key as [`super::keyfile`] writes it, or the same text protected by a passphrase, which makes it
//! an age file ([`super::age`]): `age -d recovery.key` shows that text.

use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    age::{self, AgeError},
    keyfile::{self, KeyError, Kind},
    recovery::RecoveryKey,
};

/// Why the recovery key cannot be had, by what helps.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Ask for the passphrase, then call again with it.
    #[error("the recovery key is protected by a passphrase: enter it when asked, on a terminal")]
    PassphraseNeeded,
    /// The passphrase or the age file is wrong.
    #[error("cannot open the recovery key")]
    Locked(#[from] AgeError),
    /// Name the file.
    #[error("{} is no file: --identity wants the recovery key itself, recovery.key", path.display())]
    NoFile {
        /// Nothing, or a directory.
        path: PathBuf,
    },
    /// Name the file.
    #[error("{} is not the recovery key but {}: --identity wants recovery.key", path.display(), kind.what())]
    AnotherKey {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: Kind,
    },
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] KeyError),
}

/// Reads the recovery key. The passphrase is ignored if the file has none.
///
/// With [`super::age::WORK`] a protected file takes about a second.
pub fn load(path: &Path, passphrase: Option<&str>) -> Result<RecoveryKey, IdentityError> {
    // Before its permissions, which are right for what it is.
    if let Some(kind) = keyfile::kind_of(path).filter(|kind| *kind != Kind::Recovery) {
        return Err(IdentityError::AnotherKey { path: path.to_owned(), kind });
    }
    let file = keyfile::read(Kind::Recovery, path).map_err(|error| match error {
        // Not a word of new keys: they would open nothing.
        KeyError::Missing { path } | KeyError::Malformed { path, .. } => IdentityError::NoFile { path },
        error => error.into(),
    })?;
    let text = match passphrase {
        _ if !age::is_encrypted(&file) => file,
        Some(passphrase) => age::decrypt(&file, passphrase)?,
        None => return Err(IdentityError::PassphraseNeeded),
    };
    let (_, seed) = keyfile::parse_secret(Kind::Recovery, path, &text)?;
    Ok(RecoveryKey::new(&seed))
}

/// What stands in the file: the text of the key, or an age file of it.
pub(super) fn protect(
    text: Zeroizing<String>,
    passphrase: Option<&str>,
    random: &age::FileRandom,
) -> Zeroizing<String> {
    match passphrase {
        Some(passphrase) => Zeroizing::new(age::encrypt(&text, passphrase, age::WORK, random)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;

    fn file(dir: &Path, text: &str) -> std::path::PathBuf {
        let path = dir.join("recovery.key");
        keyfile::write_new(Kind::Recovery, &path, text).unwrap();
        path
    }

    #[test]
    fn unprotected_key_needs_no_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), &keyfile::render(Kind::Recovery, NonZeroU8::MIN, &[4; 32]));
        let expected = RecoveryKey::new(&[4; 32]).public().fingerprint();
        for passphrase in [None, Some("ignored")] {
            let key = load(&path, passphrase).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(key.public().fingerprint(), expected);
        }
    }

    #[test]
    fn protected_key_asks_for_the_right_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let text = keyfile::render(Kind::Recovery, NonZeroU8::MIN, &[4; 32]);
        let path = file(dir.path(), &age::encrypt(&text, "correct horse", 10, &Zeroizing::new([1; 48])));
        assert!(load(&path, Some("correct horse")).is_ok());
        assert!(matches!(load(&path, None), Err(IdentityError::PassphraseNeeded)));
        let wrong = load(&path, Some("battery staple"));
        assert!(matches!(wrong, Err(IdentityError::Locked(AgeError::WrongPassphrase))));
    }

    #[test]
    fn a_place_without_the_file_is_told_which_file_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("nokey"), dir.path().to_owned()] {
            let said = load(&path, None).err().unwrap().to_string();
            assert!(said.contains("is no file") && said.contains("recovery.key"), "{said}");
        }
    }

    #[test]
    fn another_key_in_its_place_is_no_recovery_key() {
        let dir = tempfile::tempdir().unwrap();
        for (kind, what) in [
            (Kind::Token, "the token key"),
            (Kind::Subject, "the subject key"),
            (Kind::RecoveryPublic, "its public half"),
        ] {
            let path = dir.path().join(kind.file());
            // With the permissions that it should have: a public key may be read by everybody.
            keyfile::write_new(kind, &path, &keyfile::render(kind, NonZeroU8::MIN, &[4; 32])).unwrap();
            let said = load(&path, None).err().unwrap().to_string();
            assert!(said.contains(what) && said.contains("--identity wants recovery.key"), "{said}");
        }
        let open = file(dir.path(), &keyfile::render(Kind::Recovery, NonZeroU8::MIN, &[4; 32]));
        std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(load(&open, None), Err(IdentityError::File(KeyError::Exposed { .. }))));
    }
}
