//! How many requests have come, by operation: what SQS charges for.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// The operations that are counted: those of which a client makes many.
const ACTIONS: [&str; 8] = [
    "ReceiveMessage",
    "DeleteMessageBatch",
    "DeleteMessage",
    "ChangeMessageVisibilityBatch",
    "ChangeMessageVisibility",
    "SendMessageBatch",
    "SendMessage",
    "GetQueueAttributes",
];

/// A count for each of them.
#[derive(Default)]
pub(super) struct Requests([AtomicU64; ACTIONS.len()]);

impl Requests {
    /// One more has come.
    pub(super) fn count(&self, action: &str) {
        if let Some(at) = ACTIONS.iter().position(|known| *known == action) {
            self.0[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those of which any has come.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let counts = ACTIONS.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}
