//! Batches as bytes that lie ready, and the leanest transaction that makes rows of them: what the database allows.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::SinkExt;

use crate::{
    config::Config,
    db::{DbError, Session, catalog::quote_ident},
    sink::{Batch, copy, ledger},
};

/// A batch as two COPYs take it.
pub(super) struct Copies {
    keys: Bytes,
    rows: Bytes,
}

impl From<Batch> for Copies {
    fn from(batch: Batch) -> Self {
        let keys = ledger::tuples(batch.entries.iter(), &HashSet::new()).into();
        Self { keys, rows: [copy::HEADER, &batch.rows, copy::TRAILER].concat().into() }
    }
}

/// The statement that copies rows into the table of a configuration.
pub(super) fn copy_rows(config: &Config) -> String {
    let columns: Vec<String> = config.columns.iter().map(|column| quote_ident(&column.name)).collect();
    format!("COPY {} ({}) FROM STDIN BINARY", quote_ident(&config.table.name), columns.join(", "))
}

impl Copies {
    /// Writes keys and rows in one transaction. Answers how many rows PostgreSQL says that it took.
    ///
    /// # Errors
    /// PostgreSQL refuses them.
    pub(super) async fn write(self, session: &Session, copy_rows: &str) -> Result<u64, DbError> {
        let copied = async {
            session.batch_execute("BEGIN").await?;
            let mut keys = std::pin::pin!(session.copy_in(ledger::COPY).await?);
            keys.send(self.keys).await?;
            keys.finish().await?;
            let mut rows = std::pin::pin!(session.copy_in(copy_rows).await?);
            rows.send(self.rows).await?;
            let taken = rows.finish().await?;
            session.batch_execute("COMMIT").await?;
            Ok(taken)
        };
        copied.await.map_err(|error| DbError::new("loading", &error))
    }
}
