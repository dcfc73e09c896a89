//! body -> sealed body -> body: the worker can seal and cannot open. Pure: random bytes are passed in.
//!
//! An epoch has a random key. It is sealed once to the recovery public key with HPKE (RFC 9180) and stands, sealed, in
//! the [`EpochHeader`]; what the worker keeps of it until the epoch ends is the key derived for dead letters.
//!
//! ```text
//! wrapped     0x01 | the epoch key, sealed as `super::recovery` does it; aad = SHA-256(id | started_at, 8 bytes | 0x01)
//! key         HKDF-SHA-256 of the epoch key, no salt, info = masq/dead-letter/v1
//! sealed body 0x01 | nonce, 12 bytes | AES-256-GCM-SIV (RFC 8452) ciphertext and tag
//!             aad = masq/dead-letter/v1 | epoch id | sent_at, 8 bytes | message id
//!             plaintext = body | 0x80 | zeros up to a multiple of 32 bytes
//! ```
//! Numbers are big-endian. The first byte is the format's version.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    recovery::{RecoveryKey, RecoveryPublic},
    token::{hkdf, key_check, keyed},
};
use crate::queue::Key;

/// The only version there is, of the wrapped key and of the sealed body.
const FORMAT: u8 = 0x01;
const DEAD_LETTER: &[u8; 19] = b"masq/dead-letter/v1";
const NONCE: usize = 12;
const TAG: usize = 16;
/// What stands before a body's ciphertext: the version and the nonce.
const PREFIX: usize = 1 + NONCE;
/// Hides a body's exact length: smaller tells more, larger costs more; half a bucket is lost on average.
const BUCKET: usize = 32;

/// What stands in `masq.epochs`: an epoch's key, sealed to the recovery key.
#[derive(Clone, Debug)]
pub struct EpochHeader {
    /// Random (version 4).
    pub id: Uuid,
    /// Milliseconds since 1970-01-01 UTC.
    pub started_at: i64,
    /// SHA-256 of the recovery public key that it is sealed to.
    pub recipient: [u8; 32],
    /// HPKE encapsulation and ciphertext of the epoch key.
    pub wrapped: Vec<u8>,
}

impl EpochHeader {
    /// What the wrapped key is bound to, so that it cannot be moved under another header.
    fn digest(&self) -> [u8; 32] {
        let bytes = Sha256::new().chain_update(self.id).chain_update(self.started_at.to_be_bytes());
        bytes.chain_update([FORMAT]).finalize().into()
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

/// The random bytes of an epoch: its id, its key, and what the encapsulation uses. Never used twice.
pub type EpochRandom = Zeroizing<[u8; 16 + 32 + 64]>;

/// An epoch in hand: seals dead letters until it is dropped, which wipes the key.
pub struct EpochKey {
    header: EpochHeader,
    key: LessSafeKey,
    sealed: u64,
}

impl EpochKey {
    /// Begins an epoch at `started_at` (milliseconds since 1970-01-01 UTC), sealed to `recipient`.
    pub fn new(recipient: &RecoveryPublic, started_at: i64, random: &EpochRandom) -> Self {
        let id = uuid::Builder::from_random_bytes(std::array::from_fn(|i| random[i])).into_uuid();
        let epoch_key = Zeroizing::new(std::array::from_fn(|i| random[16 + i]));
        let mut header = EpochHeader { id, started_at, recipient: recipient.fingerprint(), wrapped: vec![FORMAT] };
        let encapsulation = Zeroizing::new(std::array::from_fn(|i| random[48 + i]));
        header.wrapped.extend(recipient.wrap(&epoch_key, &header.digest(), &encapsulation));
        Self { header, key: dead_letter_key(&epoch_key), sealed: 0 }
    }

    /// What the database must hold before anything sealed in this epoch.
    pub fn header(&self) -> &EpochHeader {
        &self.header
    }

    /// Bodies sealed so far.
    pub fn sealed(&self) -> u64 {
        self.sealed
    }

    /// Seals the body of one message. Nonces count up from zero, for every epoch has a key of its own.
    pub fn seal(&mut self, message: Key, body: &[u8]) -> SealedBody {
        let mut nonce = [0; NONCE];
        nonce[4..].copy_from_slice(&self.sealed.to_be_bytes());
        self.sealed += 1;
        let end = PREFIX + (body.len() / BUCKET + 1) * BUCKET;
        let mut out = Vec::with_capacity(end + TAG); // encrypted in place, so that no plain copy stays behind
        out.push(FORMAT);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(body);
        out.push(0x80);
        out.resize(end, 0);
        let aad = Aad::from(associated(self.header.id, message));
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut out[PREFIX..])
            .expect("a body is far shorter than the cipher's limit of 64 GiB");
        out.extend_from_slice(tag.as_ref());
        SealedBody(out)
    }
}

/// Why a sealed body stays shut, by what helps.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    /// Take another key.
    #[error("sealed to another recovery key: use the one whose fingerprint begins {}", hex(&recipient[..8]))]
    WrongKey {
        /// The fingerprint of the key that opens it.
        recipient: [u8; 32],
    },
    /// Nothing helps but an older copy: the bytes are not those that were sealed for this message in this epoch.
    #[error("the sealed bytes were changed or belong to another message: look for them in a backup of the database")]
    Tampered,
    /// A newer masq opens it.
    #[error("sealed in format {0}, which this version does not know: use the version that wrote it, or a newer one")]
    UnknownFormat(u8),
}

/// An epoch's key, opened: it opens the bodies that were sealed in that epoch. Making one costs as much as opening
/// hundreds of bodies.
pub struct OpenEpoch {
    id: Uuid,
    key: LessSafeKey,
}

impl OpenEpoch {
    /// Opens an epoch's key with the recovery key.
    pub fn new(key: &RecoveryKey, header: &EpochHeader) -> Result<Self, OpenError> {
        if key.public().fingerprint() != header.recipient {
            return Err(OpenError::WrongKey { recipient: header.recipient });
        }
        let epoch_key = key.unwrap(versioned(&header.wrapped)?, &header.digest()).ok_or(OpenError::Tampered)?;
        Ok(Self { id: header.id, key: dead_letter_key(&epoch_key) })
    }

    /// Opens a body that was sealed for this message in this epoch.
    pub fn open(&self, message: Key, sealed: &SealedBody) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        open_body(&self.key, self.id, message, sealed)
    }
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
    let (nonce, ciphertext) = versioned(&sealed.0)?.split_first_chunk::<NONCE>().ok_or(OpenError::Tampered)?;
    let mut body = Zeroizing::new(ciphertext.to_vec());
    let aad = Aad::from(associated(epoch, message));
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let padded = key.open_in_place(nonce, aad, &mut body).map_err(|_| OpenError::Tampered)?;
    let len = padded.iter().rposition(|byte| *byte != 0).filter(|end| padded[*end] == 0x80);
    body.truncate(len.ok_or(OpenError::Tampered)?);
    Ok(body)
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: Key = Key { sent_at: 1_700_000_000_000, id: Uuid::from_u128(0x42) };

    fn recovery(seed: u8) -> RecoveryKey {
        RecoveryKey::new(&[seed; 32])
    }

    fn epoch(recipient: &RecoveryKey, random: u8) -> EpochKey {
        EpochKey::new(&recipient.public(), 1_700_000_000_123, &Zeroizing::new([random; 112]))
    }

    #[test]
    fn body_opens_with_the_recovery_key_and_with_no_other() {
        let (ours, other) = (recovery(1), recovery(2));
        let mut epoch = epoch(&ours, 9);
        let sealed = epoch.seal(MESSAGE, b"{\"ip\": 1}");
        assert_eq!(open(&ours, epoch.header(), MESSAGE, &sealed).unwrap().as_slice(), b"{\"ip\": 1}");
        let refused = open(&other, epoch.header(), MESSAGE, &sealed).unwrap_err();
        assert_eq!(refused, OpenError::WrongKey { recipient: ours.public().fingerprint() });
    }

    #[test]
    fn epoch_is_what_its_random_bytes_make_it() {
        let ours = recovery(1);
        let (mut a, mut b, mut c) = (epoch(&ours, 9), epoch(&ours, 9), epoch(&ours, 8));
        assert_eq!(a.header().wrapped, b.header().wrapped);
        assert_eq!(a.header().wrapped.len(), 1 + 1120 + 48);
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
        assert_eq!(opened(&|header| header.wrapped[500] ^= 1), OpenError::Tampered);
        assert_eq!(opened(&|header| header.wrapped.truncate(40)), OpenError::Tampered);
        assert_eq!(opened(&|header| header.wrapped.clear()), OpenError::Tampered);
        assert_eq!(opened(&|header| header.wrapped[0] = 2), OpenError::UnknownFormat(2));
    }

    #[test]
    fn length_is_told_by_the_bucket_only() {
        let mut epoch = epoch(&recovery(1), 9);
        let mut size = |len| epoch.seal(MESSAGE, &vec![0; len]).0.len() - PREFIX - TAG;
        assert_eq!([size(0), size(31), size(32), size(63), size(64)], [32, 32, 64, 64, 96]);
    }

    /// Seals without HPKE, which takes milliseconds a time in a build without optimisation.
    fn sealer(sealed: u64) -> EpochKey {
        let header = EpochHeader { id: Uuid::from_u128(5), started_at: 0, recipient: [0; 32], wrapped: vec![] };
        EpochKey { header, key: dead_letter_key(&[3; 32]), sealed }
    }

    proptest! {
        #[test]
        fn any_body_comes_back(body: Vec<u8>, zeros in 0_usize..70, sent_at: i64, id: u128, nth in 0..u64::MAX) {
            let message = Key { sent_at, id: Uuid::from_u128(id) };
            let body = [body, vec![0; zeros]].concat();
            let mut epoch = sealer(nth);
            let sealed = epoch.seal(message, &body);
            let opened = open_body(&epoch.key, epoch.header.id, message, &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), body);
        }

        #[test]
        fn no_bit_can_be_flipped(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut epoch = sealer(0);
            let sealed = epoch.seal(MESSAGE, &body);
            for bit in 0..sealed.0.len() * 8 {
                let mut flipped = sealed.clone();
                flipped.0[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(open_body(&epoch.key, epoch.header.id, MESSAGE, &flipped).is_err(), "bit {}", bit);
            }
            for bit in 0..128 {
                let flip = |id: Uuid| Uuid::from_u128(id.as_u128() ^ (1 << bit));
                let other = Key { id: flip(MESSAGE.id), ..MESSAGE };
                prop_assert!(open_body(&epoch.key, epoch.header.id, other, &sealed).is_err());
                prop_assert!(open_body(&epoch.key, flip(epoch.header.id), MESSAGE, &sealed).is_err());
                let other = Key { sent_at: MESSAGE.sent_at ^ (1 << (bit % 64)), ..MESSAGE };
                prop_assert!(open_body(&epoch.key, epoch.header.id, other, &sealed).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_open_nothing_and_break_nothing(mut bytes: Vec<u8>) {
            let open = |bytes| open_body(&sealer(0).key, Uuid::nil(), MESSAGE, &SealedBody(bytes)).is_err();
            prop_assert!(open(bytes.clone()));
            bytes.insert(0, FORMAT);
            prop_assert!(open(bytes));
        }
    }
}
