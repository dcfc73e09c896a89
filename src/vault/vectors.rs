//! Known answers: those of the RFCs, to pin the crates, and masq's own, to pin its formats for good.
//!
//! The files are `tests/data/vectors/*.json`; `tests/vectors.py` computes them again from the formulas. A change here
//! means that old tokens no longer match or that old bodies no longer open.

use std::num::NonZeroU8;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, de::DeserializeOwned};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    recovery::RecoveryKey,
    seal::{EpochKey, EpochSecret, OpenEpoch, Original, SealedBody, SubjectKey, Wrap, header_digest, open},
    token::{Kind, TokenRoot, canonical_ip, prefix, sha256},
};
use crate::queue::Key;

pub(super) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn fixed<const N: usize>(text: &str) -> [u8; N] {
    unhex(text).try_into().unwrap()
}

pub(super) fn load<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

#[derive(Deserialize)]
struct TokenCase {
    root: String,
    kid: NonZeroU8,
    domain: String,
    r#type: String,
    value: String,
    token: String,
}

#[test]
fn tokens() {
    for case in load::<Vec<TokenCase>>(include_str!("../../tests/data/vectors/token.json")) {
        let domain = TokenRoot::new(case.kid, &fixed(&case.root)).domain(&case.domain).unwrap();
        let token = match case.r#type.as_str() {
            "ip" => domain.ip(canonical_ip(&case.value).unwrap()),
            _ => domain.text(&case.value).unwrap(),
        };
        assert_eq!(token.to_string(), case.token, "{} {:?}", case.domain, case.value);
    }
}

#[derive(Deserialize)]
struct Masks {
    sha256: Vec<Masked>,
    prefix: Vec<Masked>,
}

#[derive(Deserialize)]
struct Masked {
    value: String,
    masked: String,
}

#[test]
fn plain_masks() {
    let masks: Masks = load(include_str!("../../tests/data/vectors/mask.json"));
    for case in masks.sha256 {
        assert_eq!(sha256(&case.value).to_string(), case.masked, "{:?}", case.value);
    }
    for case in masks.prefix {
        let (network, bits) = prefix(canonical_ip(&case.value).unwrap());
        assert_eq!(format!("{network}/{bits}"), case.masked, "{:?}", case.value);
    }
}

#[derive(Deserialize)]
struct Keys {
    token: Vec<TokenCheck>,
    subject: Vec<SubjectCheck>,
}

#[derive(Deserialize)]
struct TokenCheck {
    root: String,
    kid: NonZeroU8,
    check: String,
}

#[derive(Deserialize)]
struct SubjectCheck {
    key: String,
    check: String,
    tags: std::collections::BTreeMap<String, String>,
}

#[test]
fn key_checks_and_subject_tags() {
    let keys: Keys = load(include_str!("../../tests/data/vectors/keys.json"));
    for case in keys.token {
        assert_eq!(TokenRoot::new(case.kid, &fixed(&case.root)).check_value(), fixed(&case.check));
    }
    for case in keys.subject {
        let key = SubjectKey::new(&fixed(&case.key));
        assert_eq!(key.check_value(), fixed(&case.check));
        for (name, tag) in case.tags {
            assert_eq!(key.tag(&name).0, fixed(&tag), "{name:?}");
        }
    }
}

#[derive(Deserialize)]
struct Epoch {
    recovery_key: String,
    fingerprint: String,
    random: String,
    started_at: i64,
    id: String,
    wrapped: String,
    bodies: Vec<Body>,
}

#[derive(Deserialize)]
struct Body {
    sent_at: i64,
    message_id: String,
    body: String,
    sealed: String,
}

#[test]
fn sealed_bodies() {
    let case: Epoch = load(include_str!("../../tests/data/vectors/sealed.json"));
    let recovery = RecoveryKey::new(&fixed(&case.recovery_key));
    assert_eq!(recovery.public().fingerprint(), fixed(&case.fingerprint));
    let random = Zeroizing::new(fixed::<112>(&case.random));
    let secret = EpochSecret::new(&Zeroizing::new(std::array::from_fn(|i| if i < 48 { random[i] } else { 0 })));
    let digest = header_digest(secret.id, case.started_at);
    let wrap = Wrap::new(&recovery.public(), &secret.key, &digest, &std::array::from_fn(|i| random[48 + i]));
    let mut epoch = EpochKey::new(&secret, case.started_at, vec![wrap]);
    assert_eq!(epoch.header().id.to_string(), case.id);
    assert_eq!(epoch.header().wraps[0].wrapped, unhex(&case.wrapped));
    for body in case.bodies {
        let message = Key { sent_at: body.sent_at, id: body.message_id.parse::<Uuid>().unwrap() };
        let sealed = SealedBody(unhex(&body.sealed));
        assert_eq!(epoch.seal(message, &unhex(&body.body)).0, sealed.0);
        assert_eq!(*open(&recovery, epoch.header(), message, &sealed).unwrap(), unhex(&body.body));
    }
}

#[derive(Deserialize)]
struct Vault {
    recovery_key: String,
    subject_key: String,
    token_root: String,
    kid: NonZeroU8,
    id: String,
    epoch_key: String,
    salts: String,
    wrap_random: String,
    started_at: i64,
    wrapped: String,
    entries: Vec<VaultEntry>,
}

#[derive(Deserialize)]
struct VaultEntry {
    subject: String,
    subject_tag: String,
    salt: String,
    field: String,
    r#type: String,
    value: String,
    token: String,
    sealed: String,
}

#[test]
fn sealed_values() {
    let case: Vault = load(include_str!("../../tests/data/vectors/entry.json"));
    let recovery = RecoveryKey::new(&fixed(&case.recovery_key));
    let (key, salts) = (Zeroizing::new(fixed(&case.epoch_key)), Zeroizing::new(fixed(&case.salts)));
    let secret = EpochSecret { id: case.id.parse().unwrap(), key, salts };
    let digest = header_digest(secret.id, case.started_at);
    let wrap = Wrap::new(&recovery.public(), &secret.key, &digest, &fixed(&case.wrap_random));
    let mut epoch = EpochKey::new(&secret, case.started_at, vec![wrap]);
    assert_eq!(epoch.header().wraps[0].wrapped, unhex(&case.wrapped));
    let opened_epoch = OpenEpoch::new(&recovery, epoch.header()).unwrap();
    let root = TokenRoot::new(case.kid, &fixed(&case.token_root));
    assert!(case.entries.len() >= 10);
    for entry in case.entries {
        let subject = SubjectKey::new(&fixed(&case.subject_key)).tag(&entry.subject);
        assert_eq!(subject.0, fixed(&entry.subject_tag), "{:?}", entry.subject);
        let kind = if entry.r#type == "ip" { Kind::Ip } else { Kind::Text };
        let token = root.domain(&entry.field).unwrap().token(kind, &entry.value).unwrap();
        assert_eq!(token.to_string(), entry.token, "{:?}", entry.value);
        let slot = epoch.slot(subject);
        assert_eq!(slot.salt, fixed(&entry.salt));
        let mut sealed = Vec::new();
        epoch.seal_value((&slot, &entry.field, &token), Original { kind, raw: &entry.value }, &mut sealed);
        assert_eq!(sealed, unhex(&entry.sealed), "{:?}", entry.value);
        let slot = opened_epoch.slot(subject, &fixed(&entry.salt));
        let opened = opened_epoch.open_value(&slot, &entry.field, &token, &sealed).unwrap();
        assert_eq!((opened.kind, opened.raw.as_str()), (kind, entry.value.as_str()));
    }
}

#[test]
fn aes_256_gcm_siv_of_rfc_8452() {
    let (mut key, mut nonce) = ([0; 32], [0; 12]);
    (key[0], nonce[0]) = (1, 3);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &key).unwrap());
    for (plain, aad, result) in [
        ("", "", "07f5f4169bbf55a8400cd47ea6fd400f"),
        ("0100000000000000", "", "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28"),
        ("0200000000000000", "01", "1de22967237a813291213f267e3b452f02d01ae33e4ec854"),
    ] {
        let mut bytes = unhex(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(unhex(aad)), &mut bytes).unwrap();
        assert_eq!(bytes, unhex(result));
    }
}

#[test]
fn scrypt_of_rfc_7914() {
    let mut key = [0; 64];
    scrypt::scrypt(b"password", b"NaCl", &scrypt::Params::new(10, 8, 16).unwrap(), &mut key).unwrap();
    let expected = "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162\
                    2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640";
    assert_eq!(key, fixed(expected));
}
