//! The arm *load*: what the database allows. The bytes of all batches lie ready; each batch is one transaction that
//! copies the ledger's keys and the rows, and does nothing else that the pipeline does for safety.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    batches::{masked, messages},
    wait_to_begin,
};
use crate::{
    cli::{bench::world::QUEUE, connect, report::Failure},
    config::Config,
    db::{DbError, Session, catalog::quote_ident},
    sink::{Batch, copy, ledger},
    start::{self, Options},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A batch as two COPYs take it.
struct Copies {
    keys: Bytes,
    rows: Bytes,
}

impl From<Batch> for Copies {
    fn from(batch: Batch) -> Self {
        let keys = ledger::tuples(batch.entries.iter(), &HashSet::new()).into();
        Self { keys, rows: [copy::HEADER, &batch.rows, copy::TRAILER].concat().into() }
    }
}

/// Loads so many records. Answers how many rows PostgreSQL says that it took.
pub(super) async fn run(config: &Config, records: usize) -> Result<Value, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let keys = connect::keys(config).await?;
    let options = Options { deadline, allow_unsafe: false };
    let ready = Box::pin(start::database(connect::databases(config)?, config, &keys, QUEUE, options)).await?;
    let (decoder, mut masker, _sink) = ready.reader(config, &keys).await?;
    let copies: Vec<Copies> =
        messages(records).into_iter().map(|messages| masked(messages, &decoder, &mut masker).into()).collect();
    let session = start::connect(&connect::connector(config)?, deadline).await?;
    let columns: Vec<String> = config.columns.iter().map(|column| quote_ident(&column.name)).collect();
    let table = quote_ident(&config.table.name);
    let copy_rows = format!("COPY {table} ({}) FROM STDIN BINARY", columns.join(", "));
    wait_to_begin()?;
    let mut rows = 0;
    for Copies { keys, rows: tuples } in copies {
        execute(&session, "BEGIN").await?;
        copy_in(&session, ledger::COPY, keys).await?;
        rows += copy_in(&session, &copy_rows, tuples).await?;
        execute(&session, "COMMIT").await?;
    }
    Ok(json!({ "messages": rows }))
}

async fn execute(session: &Session, sql: &str) -> Result<(), DbError> {
    session.batch_execute(sql).await.map_err(|error| DbError::new("loading", &error))
}

async fn copy_in(session: &Session, sql: &str, tuples: Bytes) -> Result<u64, DbError> {
    let copied = async {
        let mut sink = std::pin::pin!(session.copy_in(sql).await?);
        sink.send(tuples).await?;
        sink.finish().await
    };
    copied.await.map_err(|error| DbError::new("loading", &error))
}
