//! The way back: a sealed epoch key -> the epoch, opened -> bodies and values. No worker has the key for it.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Associated, EpochHeader, FORMAT, KMS_FORMAT, NONCE, Original, SealedBody, Slot, SubjectTag, ValueKeys, associated,
    dead_letter_key, seal_value,
};
use crate::{
    queue::Key,
    vault::{
        recovery::RecoveryKey,
        token::{Kind, Token},
    },
};

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
    values: ValueKeys,
}

/// A value as it came, opened. What it is worth its token tells: see [`crate::vault::token::DomainKey::token`].
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
        Self { id, letters: dead_letter_key(epoch_key), values: ValueKeys::new(epoch_key) }
    }

    /// Opens a body that was sealed for this message in this epoch.
    pub fn open(&self, message: Key, sealed: &SealedBody) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        open_body(&self.letters, self.id, message, sealed)
    }

    /// The slot of a person in this epoch, by its salt.
    pub fn slot(&self, subject: SubjectTag, salt: &[u8; 32]) -> Slot {
        Slot { subject, salt: *salt, key: self.values.key(subject, salt) }
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

pub(super) fn open_body(
    key: &LessSafeKey,
    epoch: Uuid,
    message: Key,
    sealed: &SealedBody,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    open_padded(key, Aad::from(associated(epoch, message)), &sealed.0)
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

fn beginnings(fingerprints: &[[u8; 32]]) -> String {
    let beginning = |print: &[u8; 32]| print[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    fingerprints.iter().map(beginning).collect::<Vec<_>>().join(" or ")
}
