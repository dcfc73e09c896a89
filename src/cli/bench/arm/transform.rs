//! The arm *transform*: decode, mask and encode, on one thread, with neither queue nor database.

use std::hint::black_box;

use serde_json::{Value, json};

use super::{
    batches::{masked, messages},
    wait_to_begin,
};
use crate::{
    cli::{
        connect,
        report::{Failure, Hex},
    },
    config::Config,
    pipeline::{mask::Masker, now_ms},
    sink::Verdict,
    start,
};

/// Transforms so many records. Answers how many became rows, and the bytes of the first batch's rows for whoever checks
/// the tokens in them.
pub(super) async fn run(config: &Config, records: usize) -> Result<Value, Failure> {
    let keys = connect::keys(config).await?;
    let stored: Vec<_> = config.columns.iter().map(|column| column.column_type).collect();
    let decoder = start::decoder(config, &stored);
    let epoch = keys.new_epoch(now_ms()).await?;
    let mut masker = Masker::new(&config.columns, &stored, keys, epoch).map_err(start::StartError::from)?;
    let batches = messages(records);
    wait_to_begin()?;
    let (mut rows, mut first) = (0, Vec::new());
    for messages in batches {
        let batch = black_box(masked(messages, &decoder, &mut masker));
        rows += batch.entries.iter().filter(|entry| matches!(entry.verdict, Verdict::Row(_))).count();
        if first.is_empty() {
            first = batch.rows;
        }
    }
    Ok(json!({ "messages": rows, "rows": Hex(&first).to_string() }))
}
