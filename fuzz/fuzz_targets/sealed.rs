//! Bytes that nobody sealed, where sealed ones are expected: a value, a dead letter, an epoch's key, an age file, a key
//! file. Nothing panics, and nothing opens.

#![no_main]

use std::{num::NonZeroU8, path::Path};

use libfuzzer_sys::fuzz_target;
use masq::{
    queue::Key,
    vault::{
        age, keyfile,
        recovery::{RecoveryKey, RecoveryPublic},
        seal::{EpochHeader, OpenEpoch, SealedBody, SubjectTag, Wrap, unwrap},
        token::{Token, TokenRoot},
    },
};
use uuid::Uuid;

/// What scrypt may cost here, as a power of two: a file that asks for more would take seconds, and honestly so.
const WORK: u32 = 10;

fuzz_target!(|bytes: &[u8]| {
    let id = Uuid::from_u128(7);
    let epoch = OpenEpoch::with_key(id, &[1; 32]);
    let slot = epoch.slot(SubjectTag([2; 16]), &[3; 32]);
    assert!(epoch.open_value(&slot, "ip", &Token([4; 32]), bytes).is_err());
    assert!(epoch.open(Key { sent_at: 5, id }, &SealedBody(bytes.to_vec())).is_err());

    let key = RecoveryKey::new(&[6; 32]);
    let wraps = vec![Wrap { recipient: key.public().fingerprint(), wrapped: bytes.to_vec() }];
    assert!(unwrap(&key, &EpochHeader { id, started_at: 8, wraps }).is_err());

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
        for kind in [masq::vault::token::Kind::Ip, masq::vault::token::Kind::Text] {
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
