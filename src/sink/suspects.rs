//! The record of messages that are being read although reading them may be what ends the process. Each statement is a
//! transaction of its own: the record has to be there when the process is not. It need not be there when the server is
//! not, so no commit waits for the disk.

use std::time::SystemTime;

use tokio_postgres::{
    Client, Error,
    types::{ToSql, Type},
};
use uuid::Uuid;

use crate::{
    queue::Key,
    sink::ledger::{millis, time_of},
};

/// Puts messages on record that are not there yet. Answers the others, each with the number of its readers: the second
/// part of the statement sees the table as it was before the first.
pub(super) async fn record(client: &Client, keys: &[Key]) -> Result<Vec<(Key, u32)>, Error> {
    const RECORD: &str = "WITH message AS (SELECT * FROM unnest($1::timestamptz[], $2::uuid[]) AS key (sent_at, message_id)), \
         new AS (INSERT INTO masq.suspects (sent_at, message_id) \
         SELECT message.* FROM message, set_config('synchronous_commit', 'off', true) ON CONFLICT DO NOTHING) \
         SELECT sent_at, message_id, readers FROM masq.suspects JOIN message USING (sent_at, message_id)";
    let (sent, ids) = columns(keys);
    let rows = client.query_typed(RECORD, &[(&sent, Type::TIMESTAMPTZ_ARRAY), (&ids, Type::UUID_ARRAY)]).await?;
    let known = rows.iter().map(|row| {
        let key = Key { sent_at: millis(row.try_get(0)?), id: row.try_get(1)? };
        Ok((key, row.try_get::<_, i32>(2)?.unsigned_abs()))
    });
    known.collect()
}

/// Notes that it is read for so many times now. Noted twice, it is the same.
pub(super) async fn record_again(client: &Client, key: Key, readers: u32) -> Result<(), Error> {
    const AGAIN: &str = "INSERT INTO masq.suspects (sent_at, message_id, readers) \
         SELECT $1, $2, $3 FROM set_config('synchronous_commit', 'off', true) \
         ON CONFLICT (sent_at, message_id) DO UPDATE SET readers = greatest(suspects.readers, excluded.readers)";
    let (sent, readers) = (time_of(key.sent_at), i32::try_from(readers).unwrap_or(i32::MAX));
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&sent, Type::TIMESTAMPTZ), (&key.id, Type::UUID), (&readers, Type::INT4)];
    client.execute_typed(AGAIN, &parameters).await?;
    Ok(())
}

/// Takes messages off the record.
pub(super) async fn clear(client: &Client, keys: &[Key]) -> Result<(), Error> {
    const CLEAR: &str = "DELETE FROM masq.suspects USING set_config('synchronous_commit', 'off', true), \
         unnest($1::timestamptz[], $2::uuid[]) AS message (sent_at, message_id) \
         WHERE suspects.sent_at = message.sent_at AND suspects.message_id = message.message_id";
    let (sent, ids) = columns(keys);
    client.execute_typed(CLEAR, &[(&sent, Type::TIMESTAMPTZ_ARRAY), (&ids, Type::UUID_ARRAY)]).await?;
    Ok(())
}

fn columns(keys: &[Key]) -> (Vec<SystemTime>, Vec<Uuid>) {
    keys.iter().map(|key| (time_of(key.sent_at), key.id)).unzip()
}
