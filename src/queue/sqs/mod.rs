//! Amazon SQS, and whatever speaks its JSON protocol or the one before it ([`query`]): six operations on the lean client
//! of [`crate::aws`].
//!
//! It sends batches of ten, several at once, and says for every entry whether it was done. It does not wait, back off or
//! repeat: whoever holds the queue does.

mod call;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod query;
mod send;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use md5::{Digest, Md5};
use serde::Serialize;
use tokio::time::Instant;

pub use self::send::{Group, Outgoing, Sent};
use self::{
    call::{call, find, read, refusal, unreadable, written},
    wire::{BATCH, ReceivedMessage},
};
use super::{Cause, Depth, Key, Message, Place, Queue, QueueError, Receipt, pace::Pace, room::Room};
pub use crate::aws::Protocol;
use crate::{
    aws::{AwsClient, AwsSettings, Operation, Service},
    pii::Pii,
};

const SQS: Service = Service {
    name: "sqs",
    target: "AmazonSQS",
    content_type: "application/x-amz-json-1.0",
    endpoint_variable: "AWS_ENDPOINT_URL_SQS",
    query: Some(query::QUERY),
};

/// How long a call may take that does not wait for messages. SQS answers in some 10 ms; a longer wait holds back a
/// worker, a shorter one gives up on a service that is only slow.
const ANSWER: Duration = Duration::from_secs(10);

/// What a long poll may take beyond its wait.
const POLL_MARGIN: Duration = Duration::from_secs(5);

/// The longest wait of a long poll and the longest visibility, by SQS's quotas.
const LONGEST_POLL: Duration = Duration::from_secs(20);
const LONGEST_VISIBILITY: Duration = Duration::from_secs(12 * 60 * 60);

/// Which queue, and how to get there.
#[derive(Clone, Debug, Default)]
pub struct SqsSettings {
    /// The queue's URL, or its bare name in the account and region of the credentials.
    pub queue: String,
    /// Where the service answers, if not where AWS's rules say.
    pub endpoint: Option<String>,
    /// A PEM file of trusted authorities, in place of the system's and of `AWS_CA_BUNDLE`'s.
    pub ca_bundle: Option<PathBuf>,
    /// JSON, the older query protocol, or whichever the endpoint understands.
    pub protocol: Protocol,
}

/// A queue of Amazon SQS.
#[derive(Clone)]
pub struct SqsQueue {
    inner: Arc<Inner>,
    redriven_from: Option<Arc<str>>,
}

struct Inner {
    client: AwsClient,
    url: String,
    name: String,
    /// The attribute in which producers put their own id of an event.
    event_attribute: Option<String>,
    corrupt: Arc<AtomicU64>,
    /// How many batch requests are worth having under way at once, by how long they take.
    pace: Pace,
}

/// What a queue is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueAttributes {
    /// `QueueArn`.
    pub arn: String,
    /// `MessageRetentionPeriod`: how long a message lives at most.
    pub retention: Option<Duration>,
    /// `VisibilityTimeout`: how long a received message is hidden where the receiver does not say.
    pub visibility: Option<Duration>,
    /// `RedrivePolicy`: where messages go that were received too often.
    pub redrive: Option<Redrive>,
    /// `FifoQueue`.
    pub fifo: bool,
    /// How much it holds.
    pub depth: Depth,
}

/// A queue's dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// `deadLetterTargetArn`.
    pub dead_letter_arn: String,
    /// `maxReceiveCount`: the delivery after this many goes there.
    pub max_receive_count: u32,
}

impl SqsQueue {
    /// Finds the queue and what is needed to talk to it; `lookup` reads the environment. A queue given by URL is not
    /// asked whether it exists; one given by name is looked up.
    ///
    /// # Errors
    /// [`QueueError::Denied`] for an address, a region or a CA bundle that cannot be used; for a name, whatever
    /// GetQueueUrl answers.
    pub fn connect(
        settings: SqsSettings,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> impl Future<Output = Result<Self, QueueError>> + Send + use<> {
        let SqsSettings { queue, endpoint, ca_bundle, protocol } = settings;
        let by_url = queue.contains("://");
        let resource = by_url.then(|| queue.clone());
        let settings = AwsSettings { endpoint, resource, region: None, ca_bundle, protocol };
        let client = AwsClient::connect(SQS, settings, lookup);
        async move {
            let client = client.await.map_err(|error| refusal("connect", &error))?;
            let url = if by_url { queue } else { find(&client, &queue).await? };
            let name = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
            let inner =
                Inner { client, url, name, event_attribute: None, corrupt: Arc::default(), pace: Pace::default() };
            Ok(Self { inner: Arc::new(inner), redriven_from: None })
        }
    }

    /// The same queue, whose messages come with the producer's own id of the event: the text of this message attribute.
    pub fn with_event_attribute(&self, name: &str) -> Self {
        let Inner { client, url, name: queue, corrupt, pace, .. } = &*self.inner;
        Self {
            inner: Arc::new(Inner {
                client: client.clone(),
                url: url.clone(),
                name: queue.clone(),
                event_attribute: Some(name.to_owned()),
                corrupt: Arc::clone(corrupt),
                pace: pace.clone(),
            }),
            redriven_from: self.redriven_from.clone(),
        }
    }

    /// The same as a dead-letter queue, whose messages are known by the ids that they had before they were moved here:
    /// on the queue that each names as its source, or else on the queue with this name.
    pub fn redriven_from(self, source: &str) -> Self {
        Self { redriven_from: Some(source.into()), ..self }
    }

    /// The queue's URL.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The queue's name: the last segment of its URL.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether it is a FIFO queue: only their names end so.
    pub fn is_fifo(&self) -> bool {
        self.name().ends_with(".fifo")
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        self.inner.client.region()
    }

    /// How many deliveries were left out because their body was not the one that its MD5 speaks of. Each comes again
    /// when its visibility ends.
    pub fn corrupt(&self) -> u64 {
        self.inner.corrupt.load(Ordering::Relaxed)
    }

    /// What the queue is set to.
    ///
    /// # Errors
    /// As [`Queue::depth`].
    pub async fn attributes(&self) -> Result<QueueAttributes, QueueError> {
        let found = self.get_attributes(&["All"]).await?;
        let policy: wire::RedrivePolicy = serde_json::from_str(&found.redrive_policy).unwrap_or_default();
        Ok(QueueAttributes {
            depth: depth(&found),
            arn: found.queue_arn,
            retention: found.message_retention_period.map(Duration::from_secs),
            visibility: found.visibility_timeout.map(Duration::from_secs),
            redrive: policy
                .max_receive_count
                .map(|max_receive_count| Redrive { dead_letter_arn: policy.dead_letter_target_arn, max_receive_count }),
            fifo: found.fifo_queue.unwrap_or(false),
        })
    }

    /// Looks at up to `max` (at most ten) messages without hiding them from others. Each of them counts as received once
    /// more. Waits up to `wait` for the first one.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    pub async fn peek(&self, max: usize, wait: Duration) -> Result<Vec<Message>, QueueError> {
        let request = self.request(wait, Duration::ZERO).at_most(max.min(BATCH));
        self.poll(poll(wait), request, &Room::new(u64::MAX)).await
    }

    /// What a poll asks for.
    fn request(&self, wait: Duration, visibility: Duration) -> wire::Receive<'_> {
        let mut request = wire::Receive::new(self.url(), wait.as_secs(), seconds(visibility));
        if self.redriven_from.is_some() {
            request = request.redriven();
        } else if self.is_fifo() {
            request = request.with_places();
        }
        match &self.inner.event_attribute {
            Some(name) => request.with_attribute(name),
            None => request,
        }
    }

    async fn poll(
        &self,
        operation: Operation,
        request: wire::Receive<'_>,
        room: &Room,
    ) -> Result<Vec<Message>, QueueError> {
        let body = written(operation.action, &request)?;
        let answer = self.inner.client.call_within(operation, body, Some(room)).await;
        let (answer, mut share) = answer.map_err(|error| refusal(operation.action, &error))?;
        let received = wire::messages(&answer).map_err(|error| unreadable(operation.action, "answer", &error))?;
        let mut messages: Vec<Message> = received.into_iter().filter_map(|found| self.message(found)).collect();
        for message in &mut messages {
            message.share = share.as_mut().map(|share| share.split(message.body_len()));
        }
        Ok(messages)
    }

    async fn get_attributes(&self, names: &[&str]) -> Result<wire::QueueAttributes, QueueError> {
        let operation = Operation { action: "GetQueueAttributes", timeout: ANSWER, repeatable: true };
        let request = wire::GetAttributes { queue_url: self.url(), attribute_names: names };
        let answer: wire::AttributesAnswer = read(operation.action, &self.call(operation, &request).await?)?;
        Ok(answer.attributes)
    }

    async fn call(&self, operation: Operation, request: &impl Serialize) -> Result<Bytes, QueueError> {
        call(&self.inner.client, operation, request).await
    }

    /// One batch request for each ten receipts; answers the positions that were not done. A request that fails while
    /// others succeed leaves its ten undone. One that is denied ends the call, for all would be; one that is throttled
    /// is the last that is begun.
    async fn in_tens(
        &self,
        operation: Operation,
        receipts: &[Receipt],
        visibility: Option<u64>,
    ) -> Result<Vec<usize>, QueueError> {
        let (mut undone, mut failure, mut throttled) = (vec![true; receipts.len()], None, false);
        let (mut tens, mut answers) = (receipts.chunks(BATCH).enumerate(), FuturesUnordered::new());
        loop {
            while answers.len() < self.inner.pace.at_once()
                && !throttled
                && let Some((index, ten)) = tens.next()
            {
                answers.push(async move { (index * BATCH, self.ten(operation, ten, visibility).await) });
            }
            let Some((start, answer)) = answers.next().await else { break };
            match answer {
                Ok(done) => undone[start..].iter_mut().zip(done).for_each(|(undone, done)| *undone &= !done),
                Err(denied @ QueueError::Denied { .. }) => return Err(denied),
                Err(error) => {
                    throttled |= matches!(error, QueueError::Unavailable { cause: Cause::Throttled, .. });
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if undone.iter().all(|undone| *undone) => Err(error),
            _ => Ok((0..receipts.len()).filter(|position| undone[*position]).collect()),
        }
    }

    /// Answers by position what was done.
    async fn ten(
        &self,
        operation: Operation,
        receipts: &[Receipt],
        visibility: Option<u64>,
    ) -> Result<[bool; BATCH], QueueError> {
        let request = wire::batch_of(self.url(), receipts.iter().map(|receipt| &*receipt.0), visibility);
        let begun = Instant::now();
        let answer = self.inner.client.call(operation, request.into()).await;
        let answer = answer.map_err(|error| refusal(operation.action, &error))?;
        self.inner.pace.learn(begun.elapsed());
        let answer: wire::BatchAnswer = read(operation.action, &answer)?;
        if let Some(first) = answer.failed.first() {
            let entries = answer.failed.len();
            tracing::debug!(action = operation.action, entries, code = &*first.code, "entries of a batch failed");
        }
        Ok(answer.done())
    }

    /// A delivery, or nothing where there is nothing to know it by or its body is damaged.
    fn message(&self, from: ReceivedMessage) -> Option<Message> {
        let event_id = self.inner.event_attribute.as_ref().and_then(|name| from.text_attribute(name));
        let ReceivedMessage { message_id, receipt_handle, body, md5_of_body, attributes, .. } = from;
        let intact = md5_of_body.is_none_or(|md5| is_md5_of(&md5, &body));
        if message_id.is_empty() || receipt_handle.is_empty() {
            tracing::warn!(queue = self.name(), "a received message has no id or no receipt handle and is left out");
            return None;
        }
        if !intact {
            self.inner.corrupt.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                message_id = &*message_id,
                "a received body does not fit its MD5 and is left out; it will come again"
            );
            return None;
        }
        let source = attributes.dead_letter_queue_source_arn.as_deref().and_then(|arn| arn.rsplit(':').next());
        let home = match &self.redriven_from {
            Some(named) => source.unwrap_or(named),
            None => self.name(),
        };
        let key = Key::new(home, &message_id, attributes.sent_timestamp.unwrap_or(0));
        let attempt = attributes.approximate_receive_count.unwrap_or(1);
        let place = attributes.message_group_id.zip(attributes.sequence_number);
        Some(Message {
            place: place.map(|(group, sequence)| Place::new(&group, sequence)),
            event_id: event_id.map(Pii::new),
            ..Message::new(key, attempt, body, Receipt((&*receipt_handle).into()))
        })
    }
}

impl Queue for SqsQueue {
    async fn receive(&self, wait: Duration, visibility: Duration, room: &Room) -> Result<Vec<Message>, QueueError> {
        let wait = wait.min(LONGEST_POLL);
        self.poll(poll(wait), self.request(wait, visibility), room).await
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Result<Vec<usize>, QueueError> {
        let operation = Operation { action: "ChangeMessageVisibilityBatch", timeout: ANSWER, repeatable: true };
        self.in_tens(operation, receipts, Some(seconds(visibility))).await
    }

    async fn delete(&self, receipts: &[Receipt]) -> Result<Vec<usize>, QueueError> {
        let operation = Operation { action: "DeleteMessageBatch", timeout: ANSWER, repeatable: true };
        self.in_tens(operation, receipts, None).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ];
        Ok(depth(&self.get_attributes(&names).await?))
    }
}

fn poll(wait: Duration) -> Operation {
    Operation { action: "ReceiveMessage", timeout: wait + POLL_MARGIN, repeatable: true }
}

fn depth(found: &wire::QueueAttributes) -> Depth {
    Depth {
        visible: found.approximate_number_of_messages.unwrap_or(0),
        in_flight: found.approximate_number_of_messages_not_visible.unwrap_or(0),
        delayed: found.approximate_number_of_messages_delayed.unwrap_or(0),
    }
}

/// Whole seconds, rounded up: a visibility that was meant to hide must not become the zero that gives back.
fn seconds(visibility: Duration) -> u64 {
    let visibility = visibility.min(LONGEST_VISIBILITY);
    visibility.as_secs() + u64::from(visibility.subsec_nanos() > 0)
}

/// Whether a body has this MD5, in hexadecimal. Of a body that is no UTF-8 no MD5 is defined, so a difference says nothing:
/// the message would be left out for ever.
fn is_md5_of(md5: &str, body: &[u8]) -> bool {
    let expected = u128::from_str_radix(md5, 16).ok().filter(|_| md5.len() == 32);
    expected == Some(u128::from_be_bytes(Md5::digest(body).into())) || std::str::from_utf8(body).is_err()
}
