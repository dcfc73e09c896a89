//! body -> sealed body -> body, and value -> sealed value -> value: the worker can seal and cannot open. Pure: random
//! bytes are passed in.
//!
//! An epoch has a random key. It is sealed to each recovery public key with HPKE (RFC 9180) and stands, sealed, in the
//! [`EpochHeader`]; what the worker keeps of it until the epoch ends are the keys derived from it. A value has a key of
//! its person and epoch, made with a salt that is kept apart, in a slot: without the slot nobody opens it again.
//!
//! ```text
//! wrapped      0x01 | the epoch key, sealed as `super::recovery` does it; aad = SHA-256(id | started_at, 8 bytes | 0x01)
//! letter key   HKDF-SHA-256 of the epoch key, no salt, info = masq/dead-letter/v1
//! sealed body  0x01 | nonce, 12 bytes | AES-256-GCM-SIV (RFC 8452) ciphertext and tag
//!              aad = masq/dead-letter/v1 | epoch id | sent_at, 8 bytes | message id
//!              plaintext = body | 0x80 | zeros up to a multiple of 32 bytes
//! value key    HKDF-SHA-256 of the epoch key, no salt, info = masq/entry/v1 | subject tag | slot's salt, 32 bytes
//! sealed value 0x01 | nonce, 12 bytes | AES-256-GCM-SIV ciphertext and tag
//!              aad = masq/entry/v1 | epoch id | subject tag | token | field
//!              plaintext = 0x69 for an address, 0x73 for a text | the value as it came | 0x80 | zeros as above
//! ```
//! Numbers are big-endian. The first byte is the format's version. A wrapped key that begins with 0x02 is AWS KMS's: see
//! [`super::kms::epochs`].

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    recovery::{RecoveryKey, RecoveryPublic},
    token::{Kind, Token, hkdf, key_check, keyed},
};
use crate::queue::Key;

/// The version of a key wrapped for a recovery key, of the sealed body and of the sealed value.
const FORMAT: u8 = 0x01;
/// Of a wrapped key that AWS KMS opens, and no recovery key.
pub(super) const KMS_FORMAT: u8 = 0x02;
const DEAD_LETTER: &[u8; 19] = b"masq/dead-letter/v1";
const ENTRY: &[u8; 13] = b"masq/entry/v1";
const NONCE: usize = 12;
const TAG: usize = 16;
/// What stands before a ciphertext: the version and the nonce.
const PREFIX: usize = 1 + NONCE;
/// Hides an exact length: smaller tells more, larger costs more; half a bucket is lost on average.
const BUCKET: usize = 32;

/// What stands in `masq.epochs`: an epoch's key, sealed to the recovery keys.
#[derive(Clone, Debug)]
pub struct EpochHeader {
    /// Random (version 4).
    pub id: Uuid,
    /// Milliseconds since 1970-01-01 UTC.
    pub started_at: i64,
    /// The key, sealed once to each recipient.
    pub wraps: Vec<Wrap>,
}

/// An epoch's key, sealed to one recipient.
#[derive(Clone, Debug)]
pub struct Wrap {
    /// SHA-256 of the recovery public key that it is sealed to.
    pub recipient: [u8; 32],
    /// The version, HPKE encapsulation and ciphertext of the epoch key.
    pub wrapped: Vec<u8>,
}

impl Wrap {
    /// Seals an epoch's key. `digest`: [`header_digest`]; the random bytes are used for this once.
    pub fn new(recipient: &RecoveryPublic, epoch_key: &[u8; 32], digest: &[u8; 32], random: &[u8; 64]) -> Self {
        let mut wrapped = vec![FORMAT];
        wrapped.extend(recipient.wrap(epoch_key, digest, random));
        Self { recipient: recipient.fingerprint(), wrapped }
    }
}

/// What a wrapped key is bound to, so that it cannot be moved under another header. `started_at` in milliseconds since
/// 1970-01-01 UTC.
pub fn header_digest(id: Uuid, started_at: i64) -> [u8; 32] {
    let bytes = Sha256::new().chain_update(id).chain_update(started_at.to_be_bytes());
    bytes.chain_update([FORMAT]).finalize().into()
}

impl EpochHeader {
    fn digest(&self) -> [u8; 32] {
        header_digest(self.id, self.started_at)
    }
}

/// A sealed dead-letter body.
#[derive(Clone, Debug)]
pub struct SealedBody(pub Vec<u8>);

/// Names a person to whoever holds the subject key: HMAC-SHA-256(subject key, name)[..16].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectTag(pub [u8; 16]);

/// The key of subject tags. It is never rotated: a tag must find what was sealed years ago.
pub struct SubjectKey {
    mac: Hmac<Sha256>,
    check: [u8; 16],
}

impl SubjectKey {
    /// Takes 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { mac: keyed(key), check: key_check(key, b"subject") }
    }

    /// The tag of a person, by the name as the message has it.
    pub fn tag(&self, name: &str) -> SubjectTag {
        let mac = self.mac.clone().chain_update(name).finalize().into_bytes();
        SubjectTag(std::array::from_fn(|i| mac[i]))
    }

    /// Tells a wrong key from the right one and does not give it away, so a database may keep it:
    /// HMAC-SHA-256(HKDF(key, info = `masq/key-check/v1`), `subject`)[..16].
    pub fn check_value(&self) -> [u8; 16] {
        self.check
    }
}

/// What is chosen for an epoch before it begins: its id, its key, and the secret that its slots' salts come from.
pub struct EpochSecret {
    /// Random (version 4).
    pub id: Uuid,
    /// The epoch key.
    pub key: Zeroizing<[u8; 32]>,
    /// Wiped with the epoch, so that nobody makes a salt again that was deleted.
    pub salts: Zeroizing<[u8; 32]>,
}

impl EpochSecret {
    /// Out of random bytes that are used for nothing else.
    pub fn new(random: &Zeroizing<[u8; 16 + 32 + 32]>) -> Self {
        Self {
            id: uuid::Builder::from_random_bytes(std::array::from_fn(|i| random[i])).into_uuid(),
            key: Zeroizing::new(std::array::from_fn(|i| random[16 + i])),
            salts: Zeroizing::new(std::array::from_fn(|i| random[48 + i])),
        }
    }
}

/// An epoch in hand: seals dead letters and values until it is dropped, which wipes its keys.
pub struct EpochKey {
    header: EpochHeader,
    letters: LessSafeKey,
    values: Hkdf<Sha256>,
    salts: Hmac<Sha256>,
    sealed: u64,
}

/// A person in an epoch: under whose key values are sealed, and the salt without which they stay shut.
pub struct Slot {
    /// Whose it is.
    pub subject: SubjectTag,
    /// What `masq_slots.slots` keeps.
    pub salt: [u8; 32],
    key: LessSafeKey,
}

/// A value as it came, for sealing.
#[derive(Clone, Copy)]
pub struct Original<'a> {
    /// What its token was made of.
    pub kind: Kind,
    /// As it came.
    pub raw: &'a str,
}

impl EpochKey {
    /// Begins an epoch at `started_at` (milliseconds since 1970-01-01 UTC), its key sealed as `wraps` say.
    pub fn new(secret: &EpochSecret, started_at: i64, wraps: Vec<Wrap>) -> Self {
        Self {
            header: EpochHeader { id: secret.id, started_at, wraps },
            letters: dead_letter_key(&secret.key),
            values: Hkdf::new(None, secret.key.as_slice()),
            salts: keyed(&secret.salts),
            sealed: 0,
        }
    }

    /// What the database must hold before anything sealed in this epoch.
    pub fn header(&self) -> &EpochHeader {
        &self.header
    }

    /// Bodies and values sealed so far.
    pub fn sealed(&self) -> u64 {
        self.sealed
    }

    /// Nonces count up from zero, for every epoch has keys of its own.
    fn nonce(&mut self) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        nonce[4..].copy_from_slice(&self.sealed.to_be_bytes());
        self.sealed += 1;
        nonce
    }

    /// The slot of a person: the same one whenever it is asked for in this epoch.
    pub fn slot(&self, subject: SubjectTag) -> Slot {
        let salt = self.salts.clone().chain_update(subject.0).finalize().into_bytes().into();
        Slot { subject, salt, key: value_key(&self.values, subject, &salt) }
    }

    /// Seals a value for its person, and appends that to `out`. `field`: the token's domain.
    pub fn seal_value(&mut self, slot: &Slot, field: &str, token: &Token, value: Original<'_>, out: &mut Vec<u8>) {
        let nonce = self.nonce();
        let associated = Associated { epoch: self.header.id, subject: slot.subject, token, field };
        seal_value(&slot.key, nonce, &associated, value, out);
    }

    /// Seals the body of one message.
    pub fn seal(&mut self, message: Key, body: &[u8]) -> SealedBody {
        let nonce = self.nonce();
        let end = PREFIX + (body.len() / BUCKET + 1) * BUCKET;
        let mut out = Vec::with_capacity(end + TAG); // encrypted in place, so that no plain copy stays behind
        out.push(FORMAT);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(body);
        out.push(0x80);
        out.resize(end, 0);
        let aad = Aad::from(associated(self.header.id, message));
        let tag = self
            .letters
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut out[PREFIX..])
            .expect("a body is far shorter than the cipher's limit of 64 GiB");
        out.extend_from_slice(tag.as_ref());
        SealedBody(out)
    }
}

/// Why a sealed body stays shut, by what helps.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    /// Take another key.
    #[error("sealed to other recovery keys: use one whose fingerprint begins {}", beginnings(recipients))]
    WrongKey {
        /// The fingerprints of the keys that open it.
        recipients: Vec<[u8; 32]>,
    },
    /// Ask AWS KMS.
    #[error("sealed to a key of AWS KMS: open it with --kms and the name of that key")]
    Kms,
    /// Nothing helps but an older copy: the bytes are not those that were sealed for this message, or this token and
    /// person, in this epoch.
    #[error("the sealed bytes were changed or moved from elsewhere: look for them in a backup of the database")]
    Tampered,
    /// A newer masq opens it.
    #[error("sealed in format {0}, which this version does not know: use the version that wrote it, or a newer one")]
    UnknownFormat(u8),
}

/// An epoch's key, opened: it opens what was sealed in that epoch. Making one costs as much as opening hundreds of
/// bodies.
pub struct OpenEpoch {
    id: Uuid,
    letters: LessSafeKey,
    values: Hkdf<Sha256>,
}

/// A value as it came, opened. What it is worth its token tells: see [`super::token::DomainKey::token`].
pub struct Opened {
    /// What its token was made of.
    pub kind: Kind,
    /// As it came.
    pub raw: Zeroizing<String>,
}

impl OpenEpoch {
    /// Opens an epoch's key with the recovery key.
    pub fn new(key: &RecoveryKey, header: &EpochHeader) -> Result<Self, OpenError> {
        Ok(Self::with_key(header.id, &*unwrap(key, header)?))
    }

    /// The epoch of that id whose key this is.
    pub fn with_key(id: Uuid, epoch_key: &[u8; 32]) -> Self {
        Self { id, letters: dead_letter_key(epoch_key), values: Hkdf::new(None, epoch_key) }
    }

    /// Opens a body that was sealed for this message in this epoch.
    pub fn open(&self, message: Key, sealed: &SealedBody) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        open_body(&self.letters, self.id, message, sealed)
    }

    /// The slot of a person in this epoch, by its salt.
    pub fn slot(&self, subject: SubjectTag, salt: &[u8; 32]) -> Slot {
        Slot { subject, salt: *salt, key: value_key(&self.values, subject, salt) }
    }

    /// Opens a value that was sealed for this person, field and token in this epoch.
    pub fn open_value(&self, slot: &Slot, field: &str, token: &Token, sealed: &[u8]) -> Result<Opened, OpenError> {
        let associated = Associated { epoch: self.id, subject: slot.subject, token, field };
        open_value(&slot.key, &associated, sealed)
    }

    /// Seals a value again, for another token of it. The worker that began the epoch counts nonces, so this one is
    /// random.
    pub fn seal_value(
        &self,
        (slot, field, token): (&Slot, &str, &Token),
        value: Original<'_>,
        nonce: [u8; 12],
        out: &mut Vec<u8>,
    ) {
        let associated = Associated { epoch: self.id, subject: slot.subject, token, field };
        seal_value(&slot.key, nonce, &associated, value, out);
    }
}

/// Opens an epoch's key with the recovery key, to seal it to another.
pub fn unwrap(key: &RecoveryKey, header: &EpochHeader) -> Result<Zeroizing<[u8; 32]>, OpenError> {
    let fingerprint = key.public().fingerprint();
    let ours = header.wraps.iter().find(|wrap| wrap.recipient == fingerprint);
    let wrong = || {
        let files = header.wraps.iter().filter(|wrap| wrap.wrapped.first() != Some(&KMS_FORMAT));
        let recipients: Vec<_> = files.map(|wrap| wrap.recipient).collect();
        let is_kms = recipients.is_empty() && !header.wraps.is_empty();
        if is_kms { OpenError::Kms } else { OpenError::WrongKey { recipients } }
    };
    key.unwrap(versioned(&ours.ok_or_else(wrong)?.wrapped)?, &header.digest()).ok_or(OpenError::Tampered)
}

/// Opens a sealed body with the recovery key. `header` and `message` must be those that it was sealed under.
pub fn open(
    key: &RecoveryKey,
    header: &EpochHeader,
    message: Key,
    sealed: &SealedBody,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    OpenEpoch::new(key, header)?.open(message, sealed)
}

fn open_body(
    key: &LessSafeKey,
    epoch: Uuid,
    message: Key,
    sealed: &SealedBody,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    open_padded(key, Aad::from(associated(epoch, message)), &sealed.0)
}

/// What a sealed value is bound to: it opens for no other person or token, in no other field or epoch.
struct Associated<'a> {
    epoch: Uuid,
    subject: SubjectTag,
    token: &'a Token,
    field: &'a str,
}

impl Associated<'_> {
    /// All parts but the last have a fixed length, so no two of them are the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let parts: [&[u8]; 5] = [ENTRY, self.epoch.as_bytes(), &self.subject.0, &self.token.0, self.field.as_bytes()];
        parts.concat()
    }
}

fn seal_value(
    key: &LessSafeKey,
    nonce: [u8; NONCE],
    associated: &Associated<'_>,
    value: Original<'_>,
    out: &mut Vec<u8>,
) {
    let start = out.len() + PREFIX;
    out.reserve(PREFIX + value.raw.len() + BUCKET + 2 + TAG); // a plain value must not stay behind in memory given back
    out.push(FORMAT);
    out.extend_from_slice(&nonce);
    out.push(value.kind as u8);
    out.extend_from_slice(value.raw.as_bytes());
    out.push(0x80);
    let padded = (out.len() - start).next_multiple_of(BUCKET);
    out.resize(start + padded, 0);
    let aad = Aad::from(associated.bytes());
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut out[start..])
        .expect("a value is far shorter than the cipher's limit of 64 GiB");
    out.extend_from_slice(tag.as_ref());
}

fn open_value(key: &LessSafeKey, associated: &Associated<'_>, sealed: &[u8]) -> Result<Opened, OpenError> {
    let plain = open_padded(key, Aad::from(associated.bytes()), sealed)?;
    let (kind, raw) = plain.split_first().ok_or(OpenError::Tampered)?;
    let kind = Kind::of(*kind).ok_or(OpenError::Tampered)?;
    let raw = std::str::from_utf8(raw).map_err(|_| OpenError::Tampered)?;
    Ok(Opened { kind, raw: Zeroizing::new(raw.to_owned()) })
}

/// Opens what was padded and sealed, whatever it is.
fn open_padded(key: &LessSafeKey, aad: Aad<impl AsRef<[u8]>>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (nonce, ciphertext) = versioned(sealed)?.split_first_chunk::<NONCE>().ok_or(OpenError::Tampered)?;
    let mut plain = Zeroizing::new(ciphertext.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let padded = key.open_in_place(nonce, aad, &mut plain).map_err(|_| OpenError::Tampered)?;
    let len = padded.iter().rposition(|byte| *byte != 0).filter(|end| padded[*end] == 0x80);
    plain.truncate(len.ok_or(OpenError::Tampered)?);
    Ok(plain)
}

/// What follows the version.
fn versioned(bytes: &[u8]) -> Result<&[u8], OpenError> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => Ok(rest),
        Some((other, _)) => Err(OpenError::UnknownFormat(*other)),
        None => Err(OpenError::Tampered),
    }
}

/// What a sealed body is bound to: it opens under no other message and in no other epoch.
fn associated(epoch: Uuid, message: Key) -> [u8; 59] {
    let mut out = [0; 59];
    out[..19].copy_from_slice(DEAD_LETTER);
    out[19..35].copy_from_slice(epoch.as_bytes());
    out[35..43].copy_from_slice(&message.sent_at.to_be_bytes());
    out[43..].copy_from_slice(message.id.as_bytes());
    out
}

fn dead_letter_key(epoch_key: &[u8; 32]) -> LessSafeKey {
    let key = hkdf(epoch_key, &[], DEAD_LETTER);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key.as_slice()).expect("the key has 32 bytes"))
}

fn value_key(epoch: &Hkdf<Sha256>, subject: SubjectTag, salt: &[u8; 32]) -> LessSafeKey {
    let mut key = Zeroizing::new([0; 32]);
    epoch
        .expand_multi_info(&[ENTRY, &subject.0, salt], key.as_mut())
        .expect("32 bytes are within HKDF's limit of 8160");
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key.as_slice()).expect("the key has 32 bytes"))
}

fn beginnings(fingerprints: &[[u8; 32]]) -> String {
    let beginning = |print: &[u8; 32]| print[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    fingerprints.iter().map(beginning).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
}
