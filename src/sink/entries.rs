//! The statements that keep sealed values and their slots. No transaction of their own, and nothing here can be read back.
//!
//! Both tables are written without a conflict target and without RETURNING, so a login that may only INSERT can do it.
//! A slot is written again by every batch that uses it: whoever rolls back takes only their own copy back.

use std::{collections::BTreeMap, time::SystemTime};

use tokio_postgres::{
    Client, Error,
    types::{ToSql, Type},
};

use crate::{
    sink::ledger::time_of,
    vault::{
        seal::{EpochHeader, SubjectTag},
        sealer::{SealedValue, Seals},
    },
};

/// Bytes of sealed values in one statement, about: they are copied once more on their way.
const STATEMENT: usize = 1024 * 1024;

/// The month of an epoch, from `$1`, when it began.
const MONTH: &str = "date_trunc('month', $1::timestamptz AT TIME ZONE 'UTC')::date";

/// Makes the partitions of these months, where they lie in this database.
pub async fn keep_months(client: &Client, schema: &str) -> Result<(), Error> {
    client.query_typed(&format!("SELECT {schema}.keep_months()"), &[]).await.map(drop)
}

/// Writes the slots in which these values are sealed, in the order of their persons. Answers how many were not there yet.
pub async fn write_slots(
    client: &Client,
    epoch: &EpochHeader,
    seals: &Seals,
    values: &[&SealedValue],
) -> Result<u64, Error> {
    if values.is_empty() {
        return Ok(0);
    }
    let slots: BTreeMap<[u8; 16], &[u8; 32]> =
        values.iter().map(|value| seals.slot(value)).map(|slot| (slot.subject.0, &slot.salt)).collect();
    let (subjects, salts): (Vec<&[u8]>, Vec<&[u8]>) =
        slots.iter().map(|(subject, salt)| (subject.as_slice(), salt.as_slice())).unzip();
    let insert = format!(
        "INSERT INTO masq_slots.slots (month, subject_tag, epoch, salt) \
         SELECT {MONTH}, slot.subject_tag, $2, slot.salt \
         FROM unnest($3::bytea[], $4::bytea[]) AS slot (subject_tag, salt) ON CONFLICT DO NOTHING"
    );
    let began = time_of(epoch.started_at);
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&began, Type::TIMESTAMPTZ),
        (&epoch.id, Type::UUID),
        (&subjects, Type::BYTEA_ARRAY),
        (&salts, Type::BYTEA_ARRAY),
    ];
    client.execute_typed(&insert, &parameters).await
}

/// Writes sealed values, in the order in which they are given. Answers how many were not there yet.
pub async fn write(client: &Client, epoch: &EpochHeader, seals: &Seals, values: &[&SealedValue]) -> Result<u64, Error> {
    let (mut written, mut entries) = (0, Entries::new(epoch));
    for value in values {
        entries.add(seals, value);
        if entries.bytes >= STATEMENT {
            written += std::mem::replace(&mut entries, Entries::new(epoch)).insert(client).await?;
        }
    }
    if !entries.tokens.is_empty() {
        written += entries.insert(client).await?;
    }
    Ok(written)
}

/// The columns of entries, each as one array.
struct Entries<'a> {
    epoch: &'a EpochHeader,
    began: SystemTime,
    tokens: Vec<&'a [u8]>,
    subjects: Vec<&'a [u8]>,
    fields: Vec<&'a str>,
    sealed: Vec<&'a [u8]>,
    bytes: usize,
}

impl<'a> Entries<'a> {
    fn new(epoch: &'a EpochHeader) -> Self {
        let began = time_of(epoch.started_at);
        Self { epoch, began, tokens: vec![], subjects: vec![], fields: vec![], sealed: vec![], bytes: 0 }
    }

    fn add(&mut self, seals: &'a Seals, value: &'a SealedValue) {
        let SubjectTag(subject) = &seals.slot(value).subject;
        let sealed = seals.sealed(value);
        self.tokens.push(&value.token.0);
        self.subjects.push(subject);
        self.fields.push(&value.field);
        self.sealed.push(sealed);
        self.bytes += sealed.len();
    }

    async fn insert(&self, client: &Client) -> Result<u64, Error> {
        let insert = format!(
            "INSERT INTO masq.entries (month, token, subject_tag, field, epoch, sealed) \
             SELECT {MONTH}, entry.token, entry.subject_tag, entry.field, $2, entry.sealed \
             FROM unnest($3::bytea[], $4::bytea[], $5::text[], $6::bytea[]) \
             AS entry (token, subject_tag, field, sealed) ON CONFLICT DO NOTHING"
        );
        let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
            (&self.began, Type::TIMESTAMPTZ),
            (&self.epoch.id, Type::UUID),
            (&self.tokens, Type::BYTEA_ARRAY),
            (&self.subjects, Type::BYTEA_ARRAY),
            (&self.fields, Type::TEXT_ARRAY),
            (&self.sealed, Type::BYTEA_ARRAY),
        ];
        client.execute_typed(&insert, &parameters).await
    }
}
