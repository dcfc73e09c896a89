//! Recovery recipients: epochs sealed to one more key, of a file or of AWS KMS, or to one less. No entry is touched, for entries are sealed under
//! keys of epochs.

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{RotateError, Rotation};
use crate::{
    db::{DbError, Session},
    vault::{
        backend::random,
        epochs::{self, AT_ONCE},
        keyfile::KeyError,
        kms::epochs::{EpochShut, KmsOpener, KmsRecipient},
        recovery::{RecoveryKey, RecoveryPublic},
        seal::{EpochHeader, OpenError, Wrap, header_digest, unwrap},
    },
};

/// Epochs of one transaction: each costs a tenth of a millisecond to open and as much for each recipient, and 1.2 kB to
/// write. More would repeat more after an interruption.
const PAGE: i32 = 200;

/// A recovery key as the database knows it.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// SHA-256 of its public half.
    pub fingerprint: Vec<u8>,
    /// Whether epochs are sealed to it.
    pub is_active: bool,
}

/// The recovery keys that a database knows.
///
/// # Errors
/// If it cannot say.
pub async fn recipients(session: &Session) -> Result<Vec<Recipient>, DbError> {
    const READ: &str = "SELECT fingerprint, state = 'active' FROM masq.recipients ORDER BY since, fingerprint";
    let failed = |error| DbError::new("reading the recovery keys", &error);
    let recipient = |row: &Row| Ok(Recipient { fingerprint: row.try_get(0)?, is_active: row.try_get(1)? });
    let rows = session.query_typed(READ, &[]).await.map_err(failed)?;
    rows.iter().map(recipient).collect::<Result<_, _>>().map_err(failed)
}

/// Lets workers seal to the key with this fingerprint. Answers whether they could not before.
///
/// # Errors
/// If the database fails.
pub async fn add(rotation: &mut Rotation<'_>, fingerprint: &[u8; 32]) -> Result<bool, DbError> {
    let doing = "adding the recovery key";
    let fingerprint = fingerprint.as_slice();
    let rest: [(&(dyn ToSql + Sync), Type); 1] = [(&fingerprint, Type::BYTEA)];
    let row = rotation.call_one(doing, "SELECT masq.add_recipient($1, $2)", &rest).await?;
    row.try_get(0).map_err(|error| DbError::new(doing, &error))
}

/// Takes a recovery key out of use, and away from every epoch. Answers from how many.
///
/// # Errors
/// If an epoch has no other active recipient, or a worker seals to it still.
pub async fn retire(rotation: &mut Rotation<'_>, fingerprint: &[u8]) -> Result<u64, DbError> {
    let doing = "retiring the recovery key";
    let rest: [(&(dyn ToSql + Sync), Type); 1] = [(&fingerprint, Type::BYTEA)];
    let row = rotation.call_one(doing, "SELECT masq.retire_recipient($1, $2)", &rest).await?;
    row.try_get(0).map(i64::unsigned_abs).map_err(|error| DbError::new(doing, &error))
}

/// What became of epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sealed to every recipient now.
    pub sealed: u64,
    /// Not sealed to the key that was to open them.
    pub locked: u64,
    /// Their wrap for that key was changed, or came from elsewhere.
    pub tampered: u64,
}

/// To whom epochs are to be sealed.
pub struct Recipients {
    /// Recovery keys.
    pub files: Vec<RecoveryPublic>,
    /// A key of AWS KMS.
    pub kms: Option<KmsRecipient>,
}

impl Recipients {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.files.len() + usize::from(self.kms.is_some())
    }

    fn fingerprints(&self) -> Vec<Vec<u8>> {
        let files = self.files.iter().map(RecoveryPublic::fingerprint);
        files.chain(self.kms.as_ref().map(KmsRecipient::fingerprint)).map(|print| print.to_vec()).collect()
    }

    /// Seals an epoch's key to those that it is not sealed to yet.
    async fn wrap(&self, header: &EpochHeader, key: &[u8; 32]) -> Result<Vec<(Uuid, Wrap)>, KeyError> {
        let lacks = |fingerprint: [u8; 32]| header.wraps.iter().all(|wrap| wrap.recipient != fingerprint);
        let digest = header_digest(header.id, header.started_at);
        let mut wraps = Vec::new();
        for public in self.files.iter().filter(|public| lacks(public.fingerprint())) {
            wraps.push((header.id, Wrap::new(public, key, &digest, &*random()?)));
        }
        if let Some(kms) = self.kms.as_ref().filter(|kms| lacks(kms.fingerprint())) {
            wraps.push((header.id, kms.wrap(header, key).await?));
        }
        Ok(wraps)
    }
}

/// Who opens epochs, for them to be sealed to others.
pub enum Identity {
    /// A recovery key.
    File(Box<RecoveryKey>),
    /// A key of AWS KMS.
    Kms(KmsOpener),
}

impl Identity {
    async fn unwrap(&self, header: &EpochHeader) -> Result<Zeroizing<[u8; 32]>, EpochShut> {
        match self {
            Self::File(key) => Ok(unwrap(key, header)?),
            Self::Kms(kms) => kms.unwrap(header).await,
        }
    }
}

/// Epochs on their way to further recipients.
pub struct Rewrap<'a> {
    identity: &'a Identity,
    recipients: &'a Recipients,
    after: Option<Uuid>,
    /// How many there were to be done at first.
    pub epochs: u64,
}

impl<'a> Rewrap<'a> {
    /// Counts the epochs that one of these recipients cannot open.
    ///
    /// # Errors
    /// If they cannot be counted.
    pub async fn new(session: &Session, identity: &'a Identity, recipients: &'a Recipients) -> Result<Self, DbError> {
        let fingerprints = recipients.fingerprints();
        let count = "SELECT masq.count_unwrapped($1)";
        let count = session.query_typed_one(count, &[(&fingerprints, Type::BYTEA_ARRAY)]).await;
        let epochs = count.and_then(|row| row.try_get::<_, i64>(0));
        let epochs = epochs.map_err(|error| DbError::new("counting the epochs", &error))?.unsigned_abs();
        Ok(Self { identity, recipients, after: None, epochs })
    }

    /// Seals the next epochs to whom they are not sealed yet; `None` when there are no more.
    ///
    /// # Errors
    /// If the database fails. What was sealed stays sealed.
    pub async fn next(&mut self, rotation: &mut Rotation<'_>) -> Result<Option<Tally>, RotateError> {
        let headers = self.fetch(rotation).await?;
        self.after = headers.last().map(|header| header.id);
        if headers.is_empty() {
            return Ok(None);
        }
        let mut tally = Tally::default();
        let mut opened = Vec::new();
        // KMS takes its time for each, and takes many side by side.
        let opening = headers.iter().map(async |header| (header, self.identity.unwrap(header).await));
        let mut opening = stream::iter(opening).buffered(AT_ONCE);
        while let Some((header, key)) = opening.next().await {
            match key {
                Ok(key) => opened.push((header, key)),
                Err(EpochShut::Epoch(OpenError::WrongKey { .. } | OpenError::Kms)) => tally.locked += 1,
                Err(EpochShut::Epoch(OpenError::Tampered | OpenError::UnknownFormat(_))) => tally.tampered += 1,
                Err(EpochShut::Kms(error)) => return Err(KeyError::from(error).into()),
            }
        }
        tally.sealed = opened.len() as u64;
        let wrapping = opened.iter().map(|(header, key)| self.recipients.wrap(header, key));
        let wraps: Vec<_> = stream::iter(wrapping).buffered(AT_ONCE).try_collect().await?;
        write(rotation, &wraps.concat()).await?;
        Ok(Some(tally))
    }

    async fn fetch(&self, rotation: &mut Rotation<'_>) -> Result<Vec<EpochHeader>, DbError> {
        const FETCH: &str = "SELECT epoch, started_at, held_by, wrapped FROM masq.fetch_unwrapped($1, $2, $3, $4)";
        let doing = "reading the epochs";
        let fingerprints = self.recipients.fingerprints();
        let rest: [(&(dyn ToSql + Sync), Type); 3] =
            [(&fingerprints, Type::BYTEA_ARRAY), (&self.after, Type::UUID), (&PAGE, Type::INT4)];
        let rows = rotation.call(doing, FETCH, &rest).await?;
        let headers = rows.iter().map(epochs::header).collect::<Result<_, _>>();
        headers.map_err(|error| DbError::new(doing, &error))
    }
}

async fn write(rotation: &mut Rotation<'_>, wraps: &[(Uuid, Wrap)]) -> Result<(), DbError> {
    if wraps.is_empty() {
        return Ok(());
    }
    let epochs: Vec<Uuid> = wraps.iter().map(|(epoch, _)| *epoch).collect();
    let recipients: Vec<&[u8]> = wraps.iter().map(|(_, wrap)| wrap.recipient.as_slice()).collect();
    let wrapped: Vec<&[u8]> = wraps.iter().map(|(_, wrap)| wrap.wrapped.as_slice()).collect();
    let rest: [(&(dyn ToSql + Sync), Type); 3] =
        [(&epochs, Type::UUID_ARRAY), (&recipients, Type::BYTEA_ARRAY), (&wrapped, Type::BYTEA_ARRAY)];
    rotation.call("sealing the epochs", "SELECT masq.add_wraps($1, $2, $3, $4)", &rest).await.map(drop)
}
