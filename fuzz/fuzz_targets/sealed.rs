//! Bytes that nobody sealed, where sealed ones are expected: a value, a dead letter, an epoch's key, an age file, a key
//! file; and sealed ones of which some were changed. Nothing panics, and nothing opens.

#![no_main]

use std::{num::NonZeroU8, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use masq::{
    queue::Key,
    vault::{
        age, keyfile,
        recovery::{RecoveryKey, RecoveryPublic},
        seal::{
            EpochHeader, EpochKey, EpochSecret, OpenEpoch, Original, SealedBody, Slot, SubjectTag, Wrap, header_digest,
            unwrap,
        },
        token::{Kind, Token, TokenRoot},
    },
};
use uuid::Uuid;

/// What scrypt may cost here, as a power of two: a file that asks for more would take seconds, and honestly so.
const WORK: u32 = 10;

const ID: Uuid = Uuid::from_u128(7);
const MESSAGE: Key = Key { sent_at: 5, id: ID };
const TOKEN: Token = Token([4; 32]);
const BEGUN: i64 = 8;

/// An epoch and what was sealed in it.
struct Sealed {
    recovery: RecoveryKey,
    epoch: OpenEpoch,
    slot: Slot,
    wrapped: Vec<u8>,
    value: Vec<u8>,
    body: Vec<u8>,
}

static SEALED: LazyLock<Sealed> = LazyLock::new(|| {
    let secret = EpochSecret { id: ID, key: [1; 32].into(), salts: [2; 32].into() };
    let recovery = RecoveryKey::new(&[6; 32]);
    let wrap = Wrap::new(&recovery.public(), &secret.key, &header_digest(ID, BEGUN), &[3; 64]);
    let mut sealing = EpochKey::new(&secret, BEGUN, Vec::new());
    let (slot, mut value) = (sealing.slot(SubjectTag([2; 16])), Vec::new());
    let original = Original { kind: Kind::Text, raw: "a value of some length, in two buckets" };
    sealing.seal_value((&slot, "ip", &TOKEN), original, &mut value);
    let body = sealing.seal(MESSAGE, b"a body").0;
    Sealed { recovery, epoch: OpenEpoch::with_key(ID, &secret.key), slot, wrapped: wrap.wrapped, value, body }
});

impl Sealed {
    /// Whether these open as value, body and epoch's key.
    fn open(&self, [value, body, wrapped]: &[Vec<u8>; 3]) -> [bool; 3] {
        let wraps = vec![Wrap { recipient: self.recovery.public().fingerprint(), wrapped: wrapped.clone() }];
        [
            self.epoch.open_value(&self.slot, "ip", &TOKEN, value).is_ok(),
            self.epoch.open(MESSAGE, &SealedBody(body.clone())).is_ok(),
            unwrap(&self.recovery, &EpochHeader { id: ID, started_at: BEGUN, wraps }).is_ok(),
        ]
    }
}

/// These bytes with those that are not zero in `by` changed, from a place on that its first two bytes say.
fn changed(bytes: &[u8], by: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let Some((place, by)) = by.split_first_chunk::<2>() else { return changed };
    let place = usize::from(u16::from_be_bytes(*place)) % bytes.len();
    changed[place..].iter_mut().zip(by).for_each(|(byte, by)| *byte ^= by);
    changed
}

fuzz_target!(|bytes: &[u8]| {
    let sealed = &*SEALED;
    let all = [&sealed.value, &sealed.body, &sealed.wrapped];
    for given in [all.map(|_| bytes.to_vec()), all.map(|was| changed(was, bytes))] {
        // libFuzzer sees what is compared, and does come upon what was sealed.
        let is_it = std::array::from_fn(|at| given[at] == *all[at]);
        assert_eq!(sealed.open(&given), is_it);
    }

    if is_cheap(bytes) {
        assert!(age::decrypt(bytes, "passphrase").is_err());
    }
    for kind in [keyfile::Kind::Token, keyfile::Kind::Subject, keyfile::Kind::Recovery] {
        // A key is 32 bytes of anything: one may well be read, and is then written as it was.
        if let Ok((kid, key)) = keyfile::parse_secret(kind, Path::new("key"), bytes) {
            let text = keyfile::render(kind, kid, key.as_slice());
            let (again, same) = keyfile::parse_secret(kind, Path::new("key"), text.as_bytes()).expect("it reads back");
            assert!(again == kid && *same == *key);
        }
    }
    drop(RecoveryPublic::from_bytes(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let domain = TokenRoot::new(NonZeroU8::MIN, &[9; 32]).domain("ip").expect("a short domain");
        for kind in [Kind::Ip, Kind::Text] {
            assert!(domain.token(kind, text).is_none_or(|token| token.0[0] == 1));
        }
    }
});

/// Whether scrypt would cost at most so much, by the number at the end of the stanza's line.
fn is_cheap(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut stanzas = text.lines().filter_map(|line| line.strip_prefix("-> scrypt "));
    // In armour the line is base64.
    !age::is_encrypted(bytes)
        || (!text.contains("-----BEGIN")
            && stanzas.all(|line| {
                line.rsplit(' ').next().and_then(|work| work.parse().ok()).is_none_or(|work: u32| work <= WORK)
            }))
}
