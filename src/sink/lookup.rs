//! Under which key a message is known, if it may have got another one: moving to a dead-letter queue sets the sent time
//! of a FIFO queue's message anew, and the key with it.
//!
//! The ledger has no index by message id alone, so a look for ids is a scan of it: worth it for many at a time. Those
//! that are known by the very key that they have are found without one.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::Mutex;
use tokio_postgres::{Error, types::Type};
use uuid::Uuid;

use crate::{
    db::{DbError, Session},
    queue::Key,
    sink::{
        ledger::{KeyColumns, millis},
        postgres::Target,
    },
};

/// Looks keys up, in a session that is kept.
pub struct Lookup {
    target: Arc<Target>,
    session: Mutex<Option<Session>>,
}

impl Lookup {
    /// In this target's database; there is no session yet.
    pub fn new(target: Arc<Target>) -> Self {
        Self { target, session: Mutex::new(None) }
    }

    /// Of those messages that have an outcome or a dead letter under another key, but none under this one: that key, by
    /// the message's id.
    ///
    /// # Errors
    /// If the database cannot say.
    pub async fn other_keys(&self, keys: &[Key]) -> Result<HashMap<Uuid, Key>, DbError> {
        let mut kept = self.session.lock().await;
        let session = match kept.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => self.target.connector.connect().await?,
        };
        let found =
            find(&session, keys).await.map_err(|error| DbError::new("looking for messages in the ledger", &error))?;
        *kept = Some(session);
        Ok(found)
    }
}

async fn find(session: &Session, keys: &[Key]) -> Result<HashMap<Uuid, Key>, Error> {
    const AS_THEY_ARE: &str = "WITH k AS (SELECT * FROM unnest($1::timestamptz[], $2::uuid[]) AS k (sent_at, message_id)) \
         SELECT sent_at, message_id FROM masq.ledger JOIN k USING (sent_at, message_id) \
         UNION ALL SELECT sent_at, message_id FROM masq.dead_letters JOIN k USING (sent_at, message_id)";
    const BY_ID: &str = "SELECT sent_at, message_id FROM (SELECT sent_at, message_id FROM masq.ledger \
         UNION ALL SELECT sent_at, message_id FROM masq.dead_letters) AS known \
         JOIN unnest($1::uuid[]) AS k (message_id) USING (message_id)";
    let known = KeyColumns::of(keys.iter().copied()).select(session, AS_THEY_ARE).await?;
    let known: HashSet<Uuid> = known.into_iter().map(|key| key.id).collect();
    let others: Vec<Uuid> = keys.iter().map(|key| key.id).filter(|id| !known.contains(id)).collect();
    if others.is_empty() {
        return Ok(HashMap::new());
    }
    // A large ledger takes longer to read than a batch may take to write.
    session.batch_execute("BEGIN; SET LOCAL statement_timeout = 0").await?;
    let rows = session.query_typed(BY_ID, &[(&others, Type::UUID_ARRAY)]).await?;
    session.batch_execute("COMMIT").await?;
    let key = |row: &tokio_postgres::Row| Ok(Key { sent_at: millis(row.try_get(0)?), id: row.try_get(1)? });
    rows.iter().map(|row| key(row).map(|key| (key.id, key))).collect()
}
