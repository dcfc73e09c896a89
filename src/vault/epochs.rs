//! The headers of epochs as they stand in the database, and the two ways to open what was sealed in them: with the
//! recovery key, or by asking AWS KMS.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{
    kms::{
        KmsError,
        epochs::{EpochShut, KmsOpener},
    },
    recovery::RecoveryKey,
    seal::{EpochHeader, OpenEpoch, OpenError, Wrap},
};
use crate::{
    db::{DbError, Session},
    sink::ledger::millis,
};

/// Reads these headers. One that is no longer there is left out.
///
/// # Errors
/// If they cannot be read.
pub async fn headers(session: &Session, ids: &[Uuid]) -> Result<Vec<EpochHeader>, DbError> {
    const READ: &str = "SELECT epoch, started_at, recipients, wrapped FROM masq.fetch_epochs($1)";
    let failed = |error| DbError::new("reading the epochs", &error);
    let rows = session.query_typed(READ, &[(&ids, Type::UUID_ARRAY)]).await.map_err(failed)?;
    rows.iter().map(|row| header(row).map_err(failed)).collect()
}

/// The header in a row of id, beginning, recipients and wraps.
pub(super) fn header(row: &Row) -> Result<EpochHeader, tokio_postgres::Error> {
    let (recipients, wrapped): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (row.try_get(2)?, row.try_get(3)?);
    // A fingerprint of another length is nobody's, and its wrap opens with no key.
    let wraps = recipients.into_iter().zip(wrapped);
    let wraps = wraps.filter_map(|(recipient, wrapped)| Some(Wrap { recipient: recipient.try_into().ok()?, wrapped }));
    Ok(EpochHeader { id: row.try_get(0)?, started_at: row.try_get(1).map(millis)?, wraps: wraps.collect() })
}

/// Epochs whose keys are kept open. More would open fewer of them twice, of letters that lie far apart.
const EPOCHS: usize = 1_000;

/// Calls of KMS at the same time. More opens many epochs sooner; fewer stay below the limit that an account has for all
/// its programs together (5,500 a second in the smaller regions).
pub(super) const AT_ONCE: usize = 16;

/// Opens what was sealed in many epochs, the key of each once.
///
/// The recovery key opens an epoch when it is asked for. KMS has to be asked beforehand: [`Opener::fetch`] does that for
/// the epochs that are needed next.
pub struct Opener<'a> {
    key: Option<&'a RecoveryKey>,
    kms: Option<&'a KmsOpener>,
    epochs: HashMap<Uuid, OpenEpoch>,
    fetched: HashMap<Uuid, Result<OpenEpoch, OpenError>>,
}

impl<'a> Opener<'a> {
    /// With this recovery key.
    pub fn new(key: &'a RecoveryKey) -> Self {
        Self::either(Some(key), None)
    }

    /// With this key of KMS.
    pub fn of_kms(kms: &'a KmsOpener) -> Self {
        Self::either(None, Some(kms))
    }

    /// With what there is: the recovery key where it opens an epoch, or else KMS.
    pub fn either(key: Option<&'a RecoveryKey>, kms: Option<&'a KmsOpener>) -> Self {
        Self { key, kms, epochs: HashMap::new(), fetched: HashMap::new() }
    }

    /// Has KMS open those of these epochs that the recovery key does not, side by side; without KMS it does nothing.
    /// What was fetched before and is not among them is forgotten, so their number bounds the memory.
    ///
    /// # Errors
    /// KMS does not open any. What is wrong with one epoch alone [`Opener::epoch`] says.
    pub async fn fetch(&mut self, headers: impl IntoIterator<Item = &EpochHeader>) -> Result<(), KmsError> {
        let Some(kms) = self.kms else { return Ok(()) };
        let ours = self.key.map(|key| key.public().fingerprint());
        let is_ours = |header: &EpochHeader| header.wraps.iter().any(|wrap| Some(wrap.recipient) == ours);
        let wanted: HashMap<Uuid, &EpochHeader> =
            headers.into_iter().filter(|header| !is_ours(header)).map(|header| (header.id, header)).collect();
        self.fetched.retain(|id, _| wanted.contains_key(id));
        let missing: Vec<&EpochHeader> = wanted.into_values().filter(|h| !self.fetched.contains_key(&h.id)).collect();
        let opening = missing.into_iter().map(async |header| (header.id, kms.open(header).await));
        let mut opened = stream::iter(opening).buffer_unordered(AT_ONCE);
        while let Some((id, epoch)) = opened.next().await {
            let epoch = match epoch {
                Ok(epoch) => Ok(epoch),
                Err(EpochShut::Epoch(error)) => Err(error),
                Err(EpochShut::Kms(error)) => return Err(error),
            };
            self.fetched.insert(id, epoch);
        }
        Ok(())
    }

    /// The epoch of this header, opened.
    ///
    /// # Errors
    /// The key is none that it is sealed to, or its bytes were changed; or KMS is the one to open it, and was not asked.
    pub fn epoch(&mut self, header: &EpochHeader) -> Result<&OpenEpoch, OpenError> {
        if let Some(fetched) = self.fetched.get(&header.id) {
            return fetched.as_ref().map_err(Clone::clone);
        }
        let Some(key) = self.key else { return Err(OpenError::Kms) };
        if self.epochs.len() >= EPOCHS && !self.epochs.contains_key(&header.id) {
            self.epochs.clear();
        }
        match self.epochs.entry(header.id) {
            std::collections::hash_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::hash_map::Entry::Vacant(closed) => Ok(closed.insert(OpenEpoch::new(key, header)?)),
        }
    }
}
