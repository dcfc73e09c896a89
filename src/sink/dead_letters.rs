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

/// Bytes of sealed bodies in one statement, about: it is copied once more on its way.
const STATEMENT: usize = 1024 * 1024;

/// Writes an epoch's header, unless it is there.
pub async fn keep_epoch(client: &Client, header: &EpochHeader) -> Result<(), Error> {
    const INSERT: &str = "WITH header AS (
             INSERT INTO masq.epochs (id, started_at) VALUES ($1, $2) ON CONFLICT DO NOTHING
         )
         INSERT INTO masq.epoch_wraps (epoch, recipient, wrapped)
         SELECT $1, wrap.* FROM unnest($3::bytea[], $4::bytea[]) AS wrap ON CONFLICT DO NOTHING";
    let started = ledger::time_of(header.started_at);
    let (recipients, wrapped): (Vec<&[u8]>, Vec<&[u8]>) =
        header.wraps.iter().map(|wrap| (wrap.recipient.as_slice(), wrap.wrapped.as_slice())).unzip();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&header.id, Type::UUID),
        (&started, Type::TIMESTAMPTZ),
        (&recipients, Type::BYTEA_ARRAY),
        (&wrapped, Type::BYTEA_ARRAY),
    ];
    client.execute_typed(INSERT, &parameters).await?;
    Ok(())
}

/// Writes the dead letters among these entries, whose keys the ledger has just claimed: many in one statement, since it
/// may be a flood of them. Answers how many they are.
pub async fn write<'a>(
    client: &Client,
    queue: &str,
    epoch: Uuid,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<u64, Error> {
    let (mut written, mut letters) = (0, Letters::default());
    for entry in entries {
        letters.add(entry);
        if letters.bytes >= STATEMENT {
            written += std::mem::take(&mut letters).insert(client, queue, epoch).await?;
        }
    }
    if !letters.ids.is_empty() {
        written += letters.insert(client, queue, epoch).await?;
    }
    Ok(written)
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
        let mut letter = Letters::default();
        letter.add(entry);
        if letter.insert(client, queue, epoch).await? == 1 {
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
    /// Of all bodies.
    bytes: usize,
    subjects: Vec<Option<&'a [u8]>>,
}

impl<'a> Letters<'a> {
    /// Adds an entry, if it is a dead letter.
    fn add(&mut self, entry: &'a Entry) {
        let Verdict::Dead(DeadLetter { reason, body_bytes, sealed, subject }) = &entry.verdict else { return };
        self.sent.push(ledger::time_of(entry.message.key.sent_at));
        self.ids.push(entry.message.key.id);
        self.reasons.push(reason.to_string());
        self.attempts.push(i32::try_from(entry.message.attempt).unwrap_or(i32::MAX));
        self.lengths.push(i32::try_from(*body_bytes).unwrap_or(i32::MAX));
        self.bodies.push(&sealed.0);
        self.bytes += sealed.0.len();
        self.subjects.push(subject.as_ref().map(|tag| tag.0.as_slice()));
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
