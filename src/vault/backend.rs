//! Who makes the keys of epochs: key files or AWS KMS, side by side behind one trait. A worker holds one of them and can
//! seal with it; who opens is another, with other keys or other permissions: [`super::epochs::Opener`].
//!
//! Here are the trait and key files; KMS is in [`super::kms::epochs`].

use futures_util::{FutureExt, future::BoxFuture};
use zeroize::Zeroizing;

use super::{
    keyfile::KeyError,
    recovery::RecoveryPublic,
    seal::{EpochKey, EpochSecret, Wrap, header_digest},
};

/// Makes epochs whose keys somebody else can open.
pub trait EpochSource: Send + Sync {
    /// To whom every epoch is sealed.
    fn recipients(&self) -> Vec<Recipient>;

    /// Begins an epoch at `now_ms` (milliseconds since 1970-01-01 UTC). With key files it is ready at once; KMS is asked
    /// over the network, and may take as long as it patiently tries.
    fn new_epoch(&self, now_ms: i64) -> BoxFuture<'static, Result<EpochKey, KeyError>>;
}

/// Somebody to whom epochs are sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The file, or the ARN of the key in KMS.
    pub name: String,
    /// What epoch headers carry: SHA-256 of the recovery public key, or of the ARN as [`super::kms::epochs`] says.
    pub fingerprint: [u8; 32],
}

/// Key files: each epoch is sealed to these recovery public keys.
#[derive(Clone, Default)]
pub struct Recipients(pub Vec<RecoveryPublic>);

impl Recipients {
    /// Seals an epoch's key to each of them.
    pub(super) fn wrap(&self, secret: &EpochSecret, now_ms: i64) -> Result<Vec<Wrap>, KeyError> {
        let digest = header_digest(secret.id, now_ms);
        self.0.iter().map(|recipient| Ok(Wrap::new(recipient, &secret.key, &digest, &*random()?))).collect()
    }

    fn begin(&self, now_ms: i64) -> Result<EpochKey, KeyError> {
        let secret = EpochSecret::new(&random()?);
        Ok(EpochKey::new(&secret, now_ms, self.wrap(&secret, now_ms)?))
    }
}

impl EpochSource for Recipients {
    fn recipients(&self) -> Vec<Recipient> {
        let recipient = |public: &RecoveryPublic| Recipient {
            name: super::keyfile::Kind::RecoveryPublic.file().to_owned(),
            fingerprint: public.fingerprint(),
        };
        self.0.iter().map(recipient).collect()
    }

    fn new_epoch(&self, now_ms: i64) -> BoxFuture<'static, Result<EpochKey, KeyError>> {
        std::future::ready(self.begin(now_ms)).boxed()
    }
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, KeyError> {
    let mut bytes = Zeroizing::new([0; N]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| KeyError::NoRandomness)?;
    Ok(bytes)
}
