//! The headers of epochs as they stand in the database: what a recovery key needs to open what was sealed in them.

use std::collections::HashMap;

use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{
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

/// Opens what was sealed in many epochs, the key of each once.
pub struct Opener<'a> {
    key: &'a RecoveryKey,
    epochs: HashMap<Uuid, OpenEpoch>,
}

impl<'a> Opener<'a> {
    /// With this key.
    pub fn new(key: &'a RecoveryKey) -> Self {
        Self { key, epochs: HashMap::new() }
    }

    /// The epoch of this header, opened.
    ///
    /// # Errors
    /// The key is none that it is sealed to, or its bytes were changed.
    pub fn epoch(&mut self, header: &EpochHeader) -> Result<&OpenEpoch, OpenError> {
        if self.epochs.len() >= EPOCHS && !self.epochs.contains_key(&header.id) {
            self.epochs.clear();
        }
        match self.epochs.entry(header.id) {
            std::collections::hash_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::hash_map::Entry::Vacant(closed) => Ok(closed.insert(OpenEpoch::new(self.key, header)?)),
        }
    }
}
