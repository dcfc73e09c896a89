//! The recovery key, and what only it opens: HPKE in base mode (RFC 9180) with the KEM X-Wing, HKDF-SHA256 and
//! ChaCha20-Poly1305. Pure. Files are [`super::identity`]'s and [`super::keyring`]'s business.
//!
//! X-Wing (draft-connolly-cfrg-xwing-kem) joins ML-KEM-768 to X25519: what is recorded today stays shut if either of
//! them falls. age's recipient type `mlkem768x25519` uses the same suite.

use std::convert::Infallible;

use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable,
    aead::ChaCha20Poly1305,
    kdf::HkdfSha256,
    kem::XWing,
    rand_core::{TryCryptoRng, TryRng},
    single_shot_open, single_shot_seal_with_rng,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const INFO: &[u8] = b"masq/epoch/v1";
/// Bytes of an X-Wing encapsulation: ML-KEM-768's 1088 and X25519's 32.
const ENCAPSULATION: usize = 1120;

/// The public half of the recovery key: seals.
#[derive(Clone)]
pub struct RecoveryPublic(<XWing as Kem>::PublicKey);

impl RecoveryPublic {
    /// Reads an X-Wing encapsulation key (1216 bytes); `None` if it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Deserializable::from_bytes(bytes).ok().map(Self)
    }

    /// Its 1216 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes().to_vec()
    }

    /// Seals a key so that only the recovery key opens it, bound to `aad`: encapsulation (1120 bytes), ciphertext and
    /// tag (48 bytes). The random bytes are used for this once.
    pub fn wrap(&self, key: &[u8; 32], aad: &[u8], random: &[u8; 64]) -> Vec<u8> {
        let (encapsulation, ciphertext) = single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeS::Base,
            &self.0,
            INFO,
            key,
            aad,
            &mut Given(random),
        )
        .expect("HPKE seals 32 bytes to any key that could be read");
        [encapsulation.to_bytes().as_slice(), &ciphertext].concat()
    }

    /// SHA-256 of its bytes: names the key, gives nothing away.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.0.to_bytes()).into()
    }
}

/// The recovery key: opens. The worker never has it.
pub struct RecoveryKey(<XWing as Kem>::PrivateKey);

impl RecoveryKey {
    /// Takes 32 random bytes, X-Wing's decapsulation key.
    pub fn new(seed: &[u8; 32]) -> Self {
        Self(Deserializable::from_bytes(seed).expect("any 32 bytes are a decapsulation key"))
    }

    /// What seals to it.
    pub fn public(&self) -> RecoveryPublic {
        RecoveryPublic(XWing::sk_to_pk(&self.0))
    }

    /// Opens what [`RecoveryPublic::wrap`] made; `None` if it was made for another key, with another `aad`, or changed.
    pub fn unwrap(&self, wrapped: &[u8], aad: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let (encapsulation, ciphertext) = wrapped.split_at_checked(ENCAPSULATION)?;
        let encapsulation = Deserializable::from_bytes(encapsulation).ok()?;
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeR::Base,
            &self.0,
            &encapsulation,
            INFO,
            ciphertext,
            aad,
        );
        let opened = Zeroizing::new(opened.ok()?);
        opened.as_slice().try_into().ok().map(Zeroizing::new)
    }
}

/// Hands out the random bytes that it was given. It panics when asked for more: X-Wing takes exactly 64.
pub(super) struct Given<'a>(pub(super) &'a [u8]);

impl TryRng for Given<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let (taken, rest) = self.0.split_at(out.len());
        out.copy_from_slice(taken);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Given<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_key_opens_with_its_key_and_its_aad_only() {
        let key = RecoveryKey::new(&[1; 32]);
        let wrapped = key.public().wrap(&[9; 32], b"aad", &[5; 64]);
        assert_eq!(wrapped.len(), ENCAPSULATION + 48);
        assert_eq!(key.unwrap(&wrapped, b"aad").as_deref(), Some(&[9; 32]));
        assert!(key.unwrap(&wrapped, b"other").is_none());
        assert!(key.unwrap(&wrapped[1..], b"aad").is_none());
        assert!(key.unwrap(&wrapped[..40], b"aad").is_none());
        assert!(RecoveryKey::new(&[2; 32]).unwrap(&wrapped, b"aad").is_none());
    }

    #[test]
    fn public_key_reads_back_and_none_of_another_length_does() {
        assert!(RecoveryPublic::from_bytes(&[1; 1215]).is_none());
        let public = RecoveryKey::new(&[1; 32]).public();
        assert_eq!(RecoveryPublic::from_bytes(&public.to_bytes()).unwrap().fingerprint(), public.fingerprint());
    }
}
