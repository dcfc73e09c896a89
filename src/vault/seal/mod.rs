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

mod open;
#[cfg(test)]
mod tests;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

pub use self::open::{OpenEpoch, OpenError, Opened, open, unwrap};
use super::{
    mac::Mac,
    recovery::RecoveryPublic,
    token::{Kind, Token, hkdf, key_check},
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubjectTag(pub [u8; 16]);

/// The key of subject tags. It is never rotated: a tag must find what was sealed years ago.
pub struct SubjectKey {
    mac: Mac,
    check: [u8; 16],
}

impl SubjectKey {
    /// Takes 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { mac: Mac::new(key), check: key_check(key, b"subject") }
    }

    /// The tag of a person, by the name as the message has it.
    pub fn tag(&self, name: &str) -> SubjectTag {
        let tag = self.mac.tag(&[name.as_bytes()]);
        SubjectTag(std::array::from_fn(|i| tag[i]))
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
    values: ValueKeys,
    salts: Mac,
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
            values: ValueKeys::new(&secret.key),
            salts: Mac::new(&secret.salts),
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
        let salt = self.salts.tag(&[&subject.0]);
        Slot { subject, salt, key: self.values.key(subject, &salt) }
    }

    /// Seals a value for its person, and appends that to `out`. The field is the token's domain.
    pub fn seal_value(&mut self, (slot, field, token): (&Slot, &str, &Token), value: Original<'_>, out: &mut Vec<u8>) {
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

/// The keys of an epoch's persons.
struct ValueKeys(Mac);

impl ValueKeys {
    fn new(epoch_key: &[u8; 32]) -> Self {
        let (pseudorandom_key, _) = Hkdf::<Sha256>::extract(None, epoch_key);
        Self(Mac::new(&Zeroizing::new(pseudorandom_key.into())).with_head(ENTRY))
    }

    /// HKDF's first 32 bytes for `info`: HMAC-SHA-256(pseudorandom key, info | 0x01), RFC 5869, section 2.3.
    fn key(&self, subject: SubjectTag, salt: &[u8; 32]) -> LessSafeKey {
        let key = Zeroizing::new(self.0.tag(&[&subject.0, salt, &[1]]));
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key.as_slice()).expect("the key has 32 bytes"))
    }
}
