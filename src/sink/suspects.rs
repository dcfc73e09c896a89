//! The record of messages that are being read alone, since reading them may be what ends the process. Each statement is
//! a transaction of its own: the record has to be there when the process is not. It need not be there when the server is
//! not, so no commit waits for the disk.

use tokio_postgres::{Client, Error, types::Type};

use crate::{queue::Key, sink::ledger::time_of};

/// Puts a reader of a message on record. Answers how many there are before it.
pub(super) async fn record(client: &Client, key: Key) -> Result<u32, Error> {
    const INSERT: &str = "INSERT INTO masq.suspects (sent_at, message_id) \
         SELECT $1, $2 FROM set_config('synchronous_commit', 'off', true) \
         ON CONFLICT (sent_at, message_id) DO UPDATE SET readers = suspects.readers + 1 RETURNING readers - 1";
    let sent = time_of(key.sent_at);
    let rows = client.query_typed(INSERT, &[(&sent, Type::TIMESTAMPTZ), (&key.id, Type::UUID)]).await?;
    rows.first().map_or(Ok(0), |row| row.try_get::<_, i32>(0)).map(i32::unsigned_abs)
}

/// Takes it off the record.
pub(super) async fn clear(client: &Client, key: Key) -> Result<(), Error> {
    const DELETE: &str = "DELETE FROM masq.suspects USING set_config('synchronous_commit', 'off', true) \
         WHERE sent_at = $1 AND message_id = $2";
    let sent = time_of(key.sent_at);
    client.execute_typed(DELETE, &[(&sent, Type::TIMESTAMPTZ), (&key.id, Type::UUID)]).await?;
    Ok(())
}
