//! The statements that keep dead letters and the epochs under whose keys they are sealed. No transaction of their own.

use std::collections::HashSet;

use tokio_postgres::{
    Client, Error,
    types::{ToSql, Type},
};
use uuid::Uuid;

use crate::{
    queue::Key,
    sink::{DeadLetter, Entry, Verdict, ledger},
    vault::seal::EpochHeader,
};

/// Writes an epoch's header, unless it is there.
pub async fn keep_epoch(client: &Client, header: &EpochHeader) -> Result<(), Error> {
    const INSERT: &str = "INSERT INTO masq.epochs (id, started_at, recipient, wrapped) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING";
    let started = ledger::time_of(Key { sent_at: header.started_at, id: header.id });
    let recipient = header.recipient.as_slice();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&header.id, Type::UUID),
        (&started, Type::TIMESTAMPTZ),
        (&recipient, Type::BYTEA),
        (&header.wrapped, Type::BYTEA),
    ];
    client.execute_typed(INSERT, &parameters).await?;
    Ok(())
}

/// Writes the dead letters among these entries and answers the keys of those that were not there yet.
pub async fn write<'a>(
    client: &Client,
    queue: &str,
    epoch: Uuid,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<HashSet<Key>, Error> {
    const INSERT: &str = "INSERT INTO masq.dead_letters \
         (sent_at, message_id, reason, queue, receive_count, body_bytes, epoch, sealed, subject_tag) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
    let mut written = HashSet::new();
    for entry in entries {
        let Verdict::Dead(DeadLetter { reason, sealed, subject }) = &entry.verdict else { continue };
        let key = entry.message.key;
        let (sent, reason) = (ledger::time_of(key), reason.to_string());
        let attempt = i32::try_from(entry.message.attempt).unwrap_or(i32::MAX);
        let length = i32::try_from(entry.message.body_len()).unwrap_or(i32::MAX);
        let subject = subject.as_ref().map(|tag| tag.0.as_slice());
        let parameters: [(&(dyn ToSql + Sync), Type); 9] = [
            (&sent, Type::TIMESTAMPTZ),
            (&key.id, Type::UUID),
            (&reason, Type::TEXT),
            (&queue, Type::TEXT),
            (&attempt, Type::INT4),
            (&length, Type::INT4),
            (&epoch, Type::UUID),
            (&sealed.0, Type::BYTEA),
            (&subject, Type::BYTEA),
        ];
        if client.execute_typed(INSERT, &parameters).await? == 1 {
            written.insert(key);
        }
    }
    Ok(written)
}
