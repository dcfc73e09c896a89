//! What is sealed opens for whom it was meant, and in no other place.

use proptest::prelude::*;

use super::{open::open_body, *};
use crate::vault::recovery::RecoveryKey;

const MESSAGE: Key = Key { sent_at: 1_700_000_000_000, id: Uuid::from_u128(0x42) };

fn recovery(seed: u8) -> RecoveryKey {
    RecoveryKey::new(&[seed; 32])
}

const STARTED_AT: i64 = 1_700_000_000_123;

fn epoch(recipient: &RecoveryKey, random: u8) -> EpochKey {
    let secret = EpochSecret::new(&Zeroizing::new([random; 80]));
    let digest = header_digest(secret.id, STARTED_AT);
    let wrap = Wrap::new(&recipient.public(), &secret.key, &digest, &[random; 64]);
    EpochKey::new(&secret, STARTED_AT, vec![wrap])
}

#[test]
fn body_opens_with_the_recovery_key_and_with_no_other() {
    let (ours, other) = (recovery(1), recovery(2));
    let mut epoch = epoch(&ours, 9);
    let sealed = epoch.seal(MESSAGE, b"{\"ip\": 1}");
    assert_eq!(open(&ours, epoch.header(), MESSAGE, &sealed).unwrap().as_slice(), b"{\"ip\": 1}");
    let refused = open(&other, epoch.header(), MESSAGE, &sealed).unwrap_err();
    assert_eq!(refused, OpenError::WrongKey { recipients: vec![ours.public().fingerprint()] });
}

#[test]
fn epoch_is_what_its_random_bytes_make_it() {
    let ours = recovery(1);
    let (mut a, mut b, mut c) = (epoch(&ours, 9), epoch(&ours, 9), epoch(&ours, 8));
    assert_eq!(a.header().wraps[0].wrapped, b.header().wraps[0].wrapped);
    assert_eq!(a.header().wraps[0].wrapped.len(), 1 + 1120 + 48);
    assert_eq!(a.header().id.get_version_num(), 4);
    assert_eq!(a.seal(MESSAGE, b"x").0, b.seal(MESSAGE, b"x").0);
    assert_ne!(a.seal(MESSAGE, b"x").0, c.seal(MESSAGE, b"x").0);
    assert_eq!(a.sealed(), 2);
}

#[test]
fn header_that_was_changed_opens_nothing() {
    let ours = recovery(1);
    let mut epoch = epoch(&ours, 9);
    let sealed = epoch.seal(MESSAGE, b"body");
    let opened = |change: &dyn Fn(&mut EpochHeader)| {
        let mut header = epoch.header().clone();
        change(&mut header);
        open(&ours, &header, MESSAGE, &sealed).unwrap_err()
    };
    assert_eq!(opened(&|header| header.started_at += 1), OpenError::Tampered);
    assert_eq!(opened(&|header| header.id = Uuid::from_u128(7)), OpenError::Tampered);
    assert_eq!(opened(&|header| header.wraps[0].wrapped[500] ^= 1), OpenError::Tampered);
    assert_eq!(opened(&|header| header.wraps[0].wrapped.truncate(40)), OpenError::Tampered);
    assert_eq!(opened(&|header| header.wraps[0].wrapped.clear()), OpenError::Tampered);
    assert_eq!(opened(&|header| header.wraps[0].wrapped[0] = 2), OpenError::UnknownFormat(2));
}

#[test]
fn length_is_told_by_the_bucket_only() {
    let mut epoch = epoch(&recovery(1), 9);
    let mut size = |len| epoch.seal(MESSAGE, &vec![0; len]).0.len() - PREFIX - TAG;
    assert_eq!([size(0), size(31), size(32), size(63), size(64)], [32, 32, 64, 64, 96]);
}

/// Seals without HPKE, which takes milliseconds a time in a build without optimisation.
fn sealer(sealed: u64) -> EpochKey {
    let secret = EpochSecret::new(&Zeroizing::new([3; 80]));
    EpochKey { sealed, ..EpochKey::new(&secret, 0, Vec::new()) }
}

proptest! {
    #[test]
    fn any_body_comes_back(body: Vec<u8>, zeros in 0_usize..70, sent_at: i64, id: u128, nth in 0..u64::MAX) {
        let message = Key { sent_at, id: Uuid::from_u128(id) };
        let body = [body, vec![0; zeros]].concat();
        let mut epoch = sealer(nth);
        let sealed = epoch.seal(message, &body);
        let opened = open_body(&epoch.letters, epoch.header.id, message, &sealed).unwrap();
        prop_assert_eq!(opened.as_slice(), body);
    }

    #[test]
    fn no_bit_can_be_flipped(body in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut epoch = sealer(0);
        let sealed = epoch.seal(MESSAGE, &body);
        for bit in 0..sealed.0.len() * 8 {
            let mut flipped = sealed.clone();
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open_body(&epoch.letters, epoch.header.id, MESSAGE, &flipped).is_err(), "bit {}", bit);
        }
        for bit in 0..128 {
            let flip = |id: Uuid| Uuid::from_u128(id.as_u128() ^ (1 << bit));
            let other = Key { id: flip(MESSAGE.id), ..MESSAGE };
            prop_assert!(open_body(&epoch.letters, epoch.header.id, other, &sealed).is_err());
            prop_assert!(open_body(&epoch.letters, flip(epoch.header.id), MESSAGE, &sealed).is_err());
            let other = Key { sent_at: MESSAGE.sent_at ^ (1 << (bit % 64)), ..MESSAGE };
            prop_assert!(open_body(&epoch.letters, epoch.header.id, other, &sealed).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_open_nothing_and_break_nothing(mut bytes: Vec<u8>) {
        let open = |bytes| open_body(&sealer(0).letters, Uuid::nil(), MESSAGE, &SealedBody(bytes)).is_err();
        prop_assert!(open(bytes.clone()));
        bytes.insert(0, FORMAT);
        prop_assert!(open(bytes));
    }
}
