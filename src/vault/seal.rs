//! value -> sealed -> value. Pure. (types first)

use uuid::Uuid;

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

/// A sealed dead-letter body.
#[derive(Clone, Debug)]
pub struct SealedBody(pub Vec<u8>);

/// Names a person to whoever holds the subject key: HMAC-SHA-256(subject key, name)[..16].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectTag(pub [u8; 16]);
