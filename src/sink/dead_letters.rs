//! The statements that keep dead letters and the epochs under whose keys they are sealed. No transaction of their own.

use std::{collections::HashSet, time::SystemTime};

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
    let started = ledger::time_of(header.started_at);
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

/// Writes the dead letters among these entries, whose keys the ledger has just claimed: in one statement, whether it is
/// one or a flood of them.
pub async fn write<'a>(
    client: &Client,
    queue: &str,
    epoch: Uuid,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<(), Error> {
    let letters = Letters::of(entries);
    if !letters.ids.is_empty() {
        letters.insert(client, queue, epoch).await?;
    }
    Ok(())
}

/// Writes dead letters that are older than the ledger, and answers the keys of those that were not there yet. One by
/// one: RETURNING would tell which those are, but takes a right to read that a writer need not have.
pub async fn write_late<'a>(
    client: &Client,
    queue: &str,
    epoch: Uuid,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<HashSet<Key>, Error> {
    let mut written = HashSet::new();
    for entry in entries {
        if Letters::of([entry].into_iter()).insert(client, queue, epoch).await? == 1 {
            written.insert(entry.message.key);
        }
    }
    Ok(written)
}

/// The columns of dead letters, each as one array.
#[derive(Default)]
struct Letters<'a> {
    sent: Vec<SystemTime>,
    ids: Vec<Uuid>,
    reasons: Vec<String>,
    attempts: Vec<i32>,
    lengths: Vec<i32>,
    bodies: Vec<&'a [u8]>,
    subjects: Vec<Option<&'a [u8]>>,
}

impl<'a> Letters<'a> {
    fn of(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut letters = Self::default();
        for entry in entries {
            let Verdict::Dead(DeadLetter { reason, sealed, subject }) = &entry.verdict else { continue };
            letters.sent.push(ledger::time_of(entry.message.key.sent_at));
            letters.ids.push(entry.message.key.id);
            letters.reasons.push(reason.to_string());
            letters.attempts.push(i32::try_from(entry.message.attempt).unwrap_or(i32::MAX));
            letters.lengths.push(i32::try_from(entry.message.body_len()).unwrap_or(i32::MAX));
            letters.bodies.push(&sealed.0);
            letters.subjects.push(subject.as_ref().map(|tag| tag.0.as_slice()));
        }
        letters
    }

    /// Answers how many were not there yet.
    async fn insert(&self, client: &Client, queue: &str, epoch: Uuid) -> Result<u64, Error> {
        const INSERT: &str = "INSERT INTO masq.dead_letters \
             (sent_at, message_id, reason, receive_count, body_bytes, sealed, subject_tag, queue, epoch) \
             SELECT letter.*, $8, $9 FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::int4[], $5::int4[], \
             $6::bytea[], $7::bytea[]) AS letter ON CONFLICT DO NOTHING";
        let parameters: [(&(dyn ToSql + Sync), Type); 9] = [
            (&self.sent, Type::TIMESTAMPTZ_ARRAY),
            (&self.ids, Type::UUID_ARRAY),
            (&self.reasons, Type::TEXT_ARRAY),
            (&self.attempts, Type::INT4_ARRAY),
            (&self.lengths, Type::INT4_ARRAY),
            (&self.bodies, Type::BYTEA_ARRAY),
            (&self.subjects, Type::BYTEA_ARRAY),
            (&queue, Type::TEXT),
            (&epoch, Type::UUID),
        ];
        client.execute_typed(INSERT, &parameters).await
    }
}
