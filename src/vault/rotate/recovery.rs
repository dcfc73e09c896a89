//! Recovery recipients: epochs sealed to one more key, or to one less. No entry is touched, for entries are sealed under
//! keys of epochs.

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{RotateError, Rotation};
use crate::{
    db::{DbError, Session},
    vault::{
        backend::random,
        epochs,
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

/// Lets workers seal to this key. Answers whether they could not before.
///
/// # Errors
/// If the database fails.
pub async fn add(rotation: &mut Rotation<'_>, recipient: &RecoveryPublic) -> Result<bool, DbError> {
    let doing = "adding the recovery key";
    let fingerprint = recipient.fingerprint();
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

/// Epochs on their way to further recipients.
pub struct Rewrap<'a> {
    identity: &'a RecoveryKey,
    recipients: &'a [RecoveryPublic],
    after: Option<Uuid>,
    /// How many there were to be done at first.
    pub epochs: u64,
}

impl<'a> Rewrap<'a> {
    /// Counts the epochs that one of these recipients cannot open.
    ///
    /// # Errors
    /// If they cannot be counted.
    pub async fn new(
        session: &Session,
        identity: &'a RecoveryKey,
        recipients: &'a [RecoveryPublic],
    ) -> Result<Self, DbError> {
        let fingerprints: Vec<_> = recipients.iter().map(|recipient| recipient.fingerprint().to_vec()).collect();
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
        let mut wraps = Vec::new();
        for header in &headers {
            match unwrap(self.identity, header) {
                Ok(key) => {
                    let digest = header_digest(header.id, header.started_at);
                    for recipient in self.lacking(header) {
                        wraps.push((header.id, Wrap::new(recipient, &key, &digest, &*random()?)));
                    }
                    tally.sealed += 1;
                }
                Err(OpenError::WrongKey { .. } | OpenError::Kms) => tally.locked += 1,
                Err(OpenError::Tampered | OpenError::UnknownFormat(_)) => tally.tampered += 1,
            }
        }
        write(rotation, &wraps).await?;
        Ok(Some(tally))
    }

    fn lacking(&self, header: &EpochHeader) -> impl Iterator<Item = &'a RecoveryPublic> {
        let has = |recipient: &&RecoveryPublic| {
            let fingerprint = recipient.fingerprint();
            header.wraps.iter().any(|wrap| wrap.recipient == fingerprint)
        };
        self.recipients.iter().filter(move |recipient| !has(recipient))
    }

    async fn fetch(&self, rotation: &mut Rotation<'_>) -> Result<Vec<EpochHeader>, DbError> {
        const FETCH: &str = "SELECT epoch, started_at, held_by, wrapped FROM masq.fetch_unwrapped($1, $2, $3, $4)";
        let doing = "reading the epochs";
        let fingerprints: Vec<_> = self.recipients.iter().map(|recipient| recipient.fingerprint().to_vec()).collect();
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
