//! The arm *load*: what the database allows. The bytes of all batches lie ready; each batch is one transaction that
//! copies the ledger's keys and the rows, and does nothing else that the pipeline does for safety.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    batches::{masked, messages},
    wait_to_begin,
};
use crate::{
    cli::{
        bench::{
            copies::{Copies, copy_rows},
            world::QUEUE,
        },
        connect,
        report::Failure,
    },
    config::Config,
    start::{self, Options},
};

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

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
    let copy_rows = copy_rows(config);
    wait_to_begin()?;
    let mut rows = 0;
    for batch in copies {
        rows += batch.write(&session, &copy_rows).await?;
    }
    Ok(json!({ "messages": rows }))
}
