//! What a directory of keys lets in, makes and says of itself.

use std::os::unix::fs::PermissionsExt;

use futures_util::FutureExt;
use uuid::Uuid;

use super::*;
use crate::{queue::Key, vault::seal::open};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn loaded(dir: &Path) -> KeyRing {
    KeyRing::load(dir).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_new_keys_seal_the_new_recovery_key_opens() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/keys");
    let created = create(&dir, Some("correct horse")).unwrap();
    let ring = loaded(&dir);
    assert_eq!(ring.fingerprints(), [created.fingerprint]);
    assert_eq!(ring.token.kid(), created.kid);

    let mut epoch = ring.new_epoch(5).now_or_never().unwrap().unwrap_or_else(|error| panic!("{error}"));
    let message = Key { sent_at: 7, id: Uuid::from_u128(8) };
    let sealed = epoch.seal(message, b"body");
    let key = identity::load(&created.files[3], Some("correct horse")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(open(&key, epoch.header(), message, &sealed).unwrap().as_slice(), b"body");
}

#[test]
fn files_are_closed_and_all_different() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = one.path().join("keys");
    let (one, two) = (create(&dir, None).unwrap(), create(two.path(), None).unwrap());
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(one.files.each_ref().map(|path| mode(path) & !0o044), [0o400; 6]);
    assert_eq!(mode(&one.files[3]), 0o400);
    for (a, b) in one.files.iter().zip(&two.files) {
        assert_ne!(fs::read(a).unwrap(), fs::read(b).unwrap());
    }
}

#[test]
fn worker_loads_without_the_recovery_key_and_never_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let created = create(dir.path(), None).unwrap();
    fs::remove_file(&created.files[3]).unwrap();
    fs::create_dir(&created.files[3]).unwrap(); // opening this as a key would fail
    assert_eq!(loaded(dir.path()).fingerprints(), [created.fingerprint]);
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let existing = dir.path().join("recovery.key");
    fs::write(&existing, "precious").unwrap();
    let refused = create(dir.path(), None).unwrap_err();
    assert!(matches!(&refused, KeyError::Exists { path } if *path == existing), "{refused}");
    assert_eq!(fs::read(&existing).unwrap(), b"precious");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn each_missing_or_open_file_is_named_with_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let created = create(dir.path(), None).unwrap();
    fs::set_permissions(&created.files[1], fs::Permissions::from_mode(0o644)).unwrap();
    let said = KeyRing::load(dir.path()).err().unwrap().to_string();
    assert!(said.contains("subject.key has mode 0644") && said.contains("chmod 0400"), "{said}");
    fs::remove_file(&created.files[0]).unwrap();
    let said = KeyRing::load(dir.path()).err().unwrap().to_string();
    assert!(said.contains("token.key, though") && said.contains("restore it"), "{said}");
    let said = KeyRing::load(&dir.path().join("elsewhere")).err().unwrap().to_string();
    assert!(said.contains("token.key") && said.contains("masq keys new"), "{said}");
}

#[test]
fn status_says_what_is_there_and_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let created = create(dir.path(), None).unwrap();
    fs::set_permissions(&created.files[3], fs::Permissions::from_mode(0o604)).unwrap();
    fs::remove_file(&created.files[1]).unwrap();
    let [token, subject, public, recovery, audit, verifier] = <[FileStatus; 6]>::try_from(status(dir.path())).unwrap();
    assert_eq!((token.mode, token.kid, token.problem.is_some()), (Some(0o400), NonZeroU8::new(1), false));
    assert!(matches!((subject.mode, subject.problem), (None, Some(KeyError::Lost { .. }))));
    assert_eq!(public.fingerprints, [created.fingerprint]);
    assert!(matches!((recovery.mode, recovery.problem), (Some(0o604), Some(KeyError::Exposed { .. }))));
    assert!(audit.problem.is_none());
    assert_eq!(verifier.verifier.as_ref(), Some(audit_key(dir.path()).ok().unwrap().public()));
    (3..6).for_each(|at| fs::remove_file(&created.files[at]).unwrap());
    assert!(status(dir.path())[3..].iter().all(|file| file.problem.is_none()));
}
