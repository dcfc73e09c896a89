//! Epoch keys that KMS makes and opens: the worker may have them made (GenerateDataKey) and may not have them opened
//! again (Decrypt), which who reveals may. What sets the two apart is their permissions, not their keys.
//!
//! ```text
//! recipient  SHA-256 of `masq/kms-key/v1` | 0x00 | the key's ARN
//! wrapped    0x02 | the blob of GenerateDataKey, or of Encrypt for an epoch that began without KMS
//! context    {"masq:use": "epoch", "masq:epoch": the epoch's id, "masq:started_at": its milliseconds since 1970}
//! ```

use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Context, KmsError, KmsKey, Wrapped};
use crate::vault::{
    backend::{EpochSource, Recipient, Recipients, random},
    keyfile::KeyError,
    seal::{EpochHeader, EpochKey, EpochSecret, KMS_FORMAT, OpenEpoch, OpenError, Wrap},
};

/// What a key of KMS is known by where recovery keys have their fingerprints.
pub fn recipient(arn: &str) -> [u8; 32] {
    Sha256::new().chain_update(b"masq/kms-key/v1\0").chain_update(arn).finalize().into()
}

fn context(id: Uuid, started_at: i64) -> Context {
    let (id, started_at) = (id.to_string(), started_at.to_string());
    Context::from([("masq:use", "epoch".to_owned()), ("masq:epoch", id), ("masq:started_at", started_at)])
}

/// Has KMS make the keys of epochs, and seals each to recovery keys besides, if there are any.
pub struct KmsEpochs {
    /// By its ARN: an alias that is moved meanwhile changes nothing until the next start.
    key: KmsKey,
    recipients: Recipients,
}

impl KmsEpochs {
    /// With the key of this name, which is asked for a key at once: so its ARN becomes known, and a missing permission.
    ///
    /// # Errors
    /// Any [`KmsError`].
    pub async fn new(key: KmsKey, recipients: Recipients) -> Result<Self, KmsError> {
        let (_unused, Wrapped { arn, .. }) = key.make(&context(Uuid::nil(), 0)).await?;
        Ok(Self { key: key.named(&arn), recipients })
    }
}

impl EpochSource for KmsEpochs {
    fn recipients(&self) -> Vec<Recipient> {
        let ours = Recipient { name: self.key.name().to_owned(), fingerprint: recipient(self.key.name()) };
        [vec![ours], self.recipients.recipients()].concat()
    }

    fn new_epoch(&self, now_ms: i64) -> BoxFuture<'static, Result<EpochKey, KeyError>> {
        let (key, recipients) = (self.key.clone(), self.recipients.clone());
        Box::pin(async move {
            let mut secret = EpochSecret::new(&random()?);
            let (made, Wrapped { blob, arn }) = key.make(&context(secret.id, now_ms)).await?;
            secret.key = made;
            let mut wraps = recipients.wrap(&secret, now_ms)?;
            wraps.push(wrap(&arn, &blob));
            Ok(EpochKey::new(&secret, now_ms, wraps))
        })
    }
}

/// A key of KMS to which epochs are sealed that began before it was known: Encrypt, where a worker has GenerateDataKey.
pub struct KmsRecipient(KmsKey);

impl KmsRecipient {
    /// With the key of this name, which is asked to wrap something at once: so its ARN becomes known, and a missing
    /// permission.
    ///
    /// # Errors
    /// Any [`KmsError`].
    pub async fn new(key: KmsKey) -> Result<Self, KmsError> {
        let Wrapped { arn, .. } = key.wrap(&[0; 32], &context(Uuid::nil(), 0)).await?;
        Ok(Self(key.named(&arn)))
    }

    /// The same without a call, where the name is the ARN of a key itself: whoever has nothing to wrap needs no permission.
    pub fn of_arn(key: &KmsKey) -> Option<Self> {
        let is_arn = key.name().starts_with("arn:") && key.name().contains(":key/");
        is_arn.then(|| Self(key.clone()))
    }

    /// Its ARN.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// See [`recipient`].
    pub fn fingerprint(&self) -> [u8; 32] {
        recipient(self.0.name())
    }

    /// Seals the key of the epoch of this header.
    ///
    /// # Errors
    /// Any [`KmsError`].
    pub async fn wrap(&self, header: &EpochHeader, epoch_key: &[u8; 32]) -> Result<Wrap, KmsError> {
        let Wrapped { blob, arn } = self.0.wrap(epoch_key, &context(header.id, header.started_at)).await?;
        Ok(wrap(&arn, &blob))
    }
}

fn wrap(arn: &str, blob: &[u8]) -> Wrap {
    Wrap { recipient: recipient(arn), wrapped: [&[KMS_FORMAT][..], blob].concat() }
}

/// Has KMS open the keys of epochs.
pub struct KmsOpener(KmsKey);

/// Why an epoch stays shut.
#[derive(Debug, Error)]
pub enum EpochShut {
    /// Of this epoch alone.
    #[error(transparent)]
    Epoch(#[from] OpenError),
    /// Of any that this key is to open.
    #[error(transparent)]
    Kms(#[from] KmsError),
}

impl KmsOpener {
    /// With this key.
    pub fn new(key: KmsKey) -> Self {
        Self(key)
    }

    /// Opens the epoch of this header.
    ///
    /// # Errors
    /// It is not sealed to this key, or was changed, or KMS does not do it.
    pub async fn open(&self, header: &EpochHeader) -> Result<OpenEpoch, EpochShut> {
        Ok(OpenEpoch::with_key(header.id, &*self.unwrap(header).await?))
    }

    /// Opens the key of the epoch of this header, to seal it to another.
    ///
    /// # Errors
    /// As [`KmsOpener::open`].
    pub async fn unwrap(&self, header: &EpochHeader) -> Result<Zeroizing<[u8; 32]>, EpochShut> {
        let context = context(header.id, header.started_at);
        for wrap in &header.wraps {
            let Some((&KMS_FORMAT, blob)) = wrap.wrapped.split_first() else { continue };
            match self.0.open(blob, &context).await {
                // KMS says with which key it opened; that is the one that the header names, unless somebody changed it.
                Ok((key, arn)) if recipient(&arn) == wrap.recipient => return Ok(key),
                Ok(_) | Err(KmsError::Tampered { .. }) => return Err(OpenError::Tampered.into()),
                Err(KmsError::OtherKey { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let is_kms = header.wraps.iter().any(|wrap| wrap.wrapped.first() == Some(&KMS_FORMAT));
        let recipients = || header.wraps.iter().map(|wrap| wrap.recipient).collect();
        Err(if is_kms { OpenError::Kms } else { OpenError::WrongKey { recipients: recipients() } }.into())
    }
}
