//! The record of messages that are being read alone, since reading them may be what ends the process. Each statement is
//! a transaction of its own: the record has to be there when the process is not. It need not be there when the server is
//! not, so no commit waits for the disk.

use tokio_postgres::{
    Client, Error,
    types::{ToSql, Type},
};

use crate::{queue::Key, sink::ledger::time_of};

/// Puts a message on record. `true`: it was there already.
pub(super) async fn record(client: &Client, key: Key) -> Result<bool, Error> {
    const INSERT: &str = "INSERT INTO masq.suspects (sent_at, message_id) \
         SELECT $1, $2 FROM set_config('synchronous_commit', 'off', true) ON CONFLICT DO NOTHING";
    Ok(execute(client, INSERT, key).await? == 0)
}

/// Takes it off the record.
pub(super) async fn clear(client: &Client, key: Key) -> Result<(), Error> {
    const DELETE: &str = "DELETE FROM masq.suspects USING set_config('synchronous_commit', 'off', true) \
         WHERE sent_at = $1 AND message_id = $2";
    execute(client, DELETE, key).await?;
    Ok(())
}

async fn execute(client: &Client, sql: &str, key: Key) -> Result<u64, Error> {
    let sent = time_of(key.sent_at);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&sent, Type::TIMESTAMPTZ), (&key.id, Type::UUID)];
    client.execute_typed(sql, &parameters).await
}
