//! Batches as the pipeline makes them, of messages that were on no queue.

use uuid::Builder;

use crate::{
    local::crowd::Crowd,
    pipeline::{decode::Decoder, mask, now_ms},
    queue::{Key, Message, Receipt},
    sink::Batch,
};

/// As many as the pipeline takes at most.
const BATCH: usize = 2_000;

/// Messages sent in one millisecond. SQS's timestamps are no finer, so under load many are equal.
const PER_MS: usize = 60;

/// The messages of so many records, batch by batch.
pub(super) fn messages(records: usize) -> Vec<Vec<Message>> {
    let (crowd, now) = (Crowd::of(records), now_ms());
    let message = |n: usize| {
        let id = Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid();
        let key = Key { sent_at: now + i64::try_from(n / PER_MS).unwrap_or(0), id };
        // A receipt is as long as those of the queue: it is moved about with its message.
        Message::new(key, 1, crowd.record(n).body().into_bytes(), Receipt("A".repeat(348).into()))
    };
    (0..records).step_by(BATCH).map(|start| (start..records.min(start + BATCH)).map(message).collect()).collect()
}

/// Steps 2 and 3 of the pipeline.
pub(super) fn masked(messages: Vec<Message>, decoder: &Decoder, masker: &mut mask::Masker) -> Batch {
    mask::mask(messages, |message| decoder.read(message), masker)
}
