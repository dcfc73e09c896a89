//! Sending: what `masq send` and the demo put on a queue. The pipeline sends nothing.

use super::{
    ANSWER, SqsQueue, read,
    wire::{self, IDS},
};
use crate::{
    aws::Operation,
    queue::{Queue, QueueError},
};

/// A message to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The body.
    pub body: &'a str,
    /// Where it belongs, on a FIFO queue.
    pub group: Option<Group<'a>>,
}

/// The group of a message on a FIFO queue.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// MessageGroupId.
    pub id: &'a str,
    /// MessageDeduplicationId: what is sent a second time under the same within five minutes is there once.
    pub deduplication_id: &'a str,
}

/// What became of one message that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The queue has it, under this MessageId.
    Accepted(String),
    /// The queue refused it, with this code.
    Refused(String),
}

impl SqsQueue {
    /// Sends at most ten messages in one request, of at most 1 MiB together; answers what became of each, in order.
    /// An error leaves open whether they were sent: this call is never repeated by itself.
    ///
    /// # Errors
    /// Any [`QueueError`].
    pub async fn send(&self, messages: &[Outgoing<'_>]) -> Result<Vec<Sent>, QueueError> {
        let entries = messages.iter().zip(IDS).map(|(message, id)| wire::BodyEntry {
            id,
            message_body: message.body,
            message_group_id: message.group.map(|group| group.id),
            message_deduplication_id: message.group.map(|group| group.deduplication_id),
        });
        let request = wire::Batch { queue_url: self.url(), entries: entries.collect() };
        let operation = Operation { action: "SendMessageBatch", timeout: ANSWER, repeatable: false };
        let known = self.inner.client.speaks_query();
        let mut answer = self.call(operation, &request).await;
        if answer.is_err() && !known && self.now_speaks_query().await {
            // What was sent in JSON was not understood, so nothing is sent twice.
            answer = self.call(operation, &request).await;
        }
        let answer = answer?;
        let answer: wire::BatchAnswer = read(operation.action, &answer)?;
        let one = |id: &str| {
            if let Some(done) = answer.successful.iter().find(|done| *done.id == *id) {
                return Sent::Accepted(done.message_id.to_string());
            }
            let refused = answer.failed.iter().find(|failed| *failed.id == *id);
            Sent::Refused(
                refused.map_or_else(|| "not mentioned in the answer".to_owned(), |failed| failed.code.to_string()),
            )
        };
        Ok(IDS.iter().take(messages.len()).map(|id| one(id)).collect())
    }

    /// Finds out, where that is open, by a call that may be repeated.
    async fn now_speaks_query(&self) -> bool {
        let client = &self.inner.client;
        if client.speaks_query() || !client.finds_out() {
            return client.speaks_query();
        }
        drop(self.depth().await);
        client.speaks_query()
    }
}

impl<'a> From<&'a str> for Outgoing<'a> {
    fn from(body: &'a str) -> Self {
        Self { body, group: None }
    }
}
