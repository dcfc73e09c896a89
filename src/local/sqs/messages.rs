//! The operations on messages: send, receive, delete, change visibility; one by one and in batches.

use std::{borrow::Cow, collections::BTreeMap, fmt::Display, ops::RangeInclusive, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, Serializer, de::IgnoredAny};
use uuid::Uuid;

use super::{
    ACCOUNT,
    attributes::{LARGEST_MESSAGE, LONGEST_DELAY, LONGEST_VISIBILITY, LONGEST_WAIT},
    batch::{self, Entry, Outcome, Succeeded},
    call::{Call, CalledQueue},
    content::{self, Md5, MessageAttributes},
    fault::Fault,
    queue_arn,
    queues::Done,
    script::Trouble,
};
use crate::queue::memory::{Accepted, Delivery, Outgoing};

/// The attributes that a receiver may ask for by name; those of them that this server does not have never come.
const SYSTEM_ATTRIBUTES: [&str; 10] = [
    "All",
    "SenderId",
    "SentTimestamp",
    "ApproximateReceiveCount",
    "ApproximateFirstReceiveTimestamp",
    "SequenceNumber",
    "MessageDeduplicationId",
    "MessageGroupId",
    "AWSTraceHeader",
    "DeadLetterQueueSourceArn",
];

/// One message to send: a SendMessage, or an entry of a SendMessageBatch.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Send<'a> {
    #[serde(borrow, default)]
    queue_url: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    message_body: Cow<'a, str>,
    delay_seconds: Option<i64>,
    #[serde(default)]
    message_attributes: MessageAttributes,
    #[serde(default)]
    message_system_attributes: BTreeMap<String, IgnoredAny>,
    #[serde(borrow)]
    message_deduplication_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message_group_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", bound(deserialize = "E: Deserialize<'de>"))]
pub(super) struct Batch<'a, E> {
    #[serde(borrow, default)]
    queue_url: Cow<'a, str>,
    #[serde(default = "Vec::new")]
    entries: Vec<E>,
}

#[derive(Serialize)]
pub(super) struct Sent {
    #[serde(rename = "Id", skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "MessageId")]
    message_id: String,
    #[serde(rename = "MD5OfMessageBody")]
    md5_of_message_body: String,
    #[serde(rename = "MD5OfMessageAttributes", skip_serializing_if = "Option::is_none")]
    md5_of_message_attributes: Option<String>,
    #[serde(rename = "SequenceNumber", skip_serializing_if = "Option::is_none")]
    sequence_number: Option<String>,
}

/// One delivery to delete or to hide: a request of its own, or an entry of a batch.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Handle<'a> {
    #[serde(borrow, default)]
    queue_url: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    receipt_handle: Cow<'a, str>,
    visibility_timeout: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Receive<'a> {
    #[serde(borrow, default)]
    queue_url: Cow<'a, str>,
    #[serde(default)]
    attribute_names: Vec<String>,
    #[serde(default)]
    message_system_attribute_names: Vec<String>,
    #[serde(default)]
    message_attribute_names: Vec<String>,
    max_number_of_messages: Option<i64>,
    visibility_timeout: Option<i64>,
    wait_time_seconds: Option<i64>,
    receive_request_attempt_id: Option<IgnoredAny>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Received {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<Message>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    message_id: AsText<Uuid>,
    receipt_handle: String,
    #[serde(rename = "MD5OfBody")]
    md5_of_body: AsText<Md5>,
    body: Body,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<SystemAttributes>,
    #[serde(rename = "MD5OfMessageAttributes", skip_serializing_if = "Option::is_none")]
    md5_of_message_attributes: Option<String>,
    #[serde(skip_serializing_if = "MessageAttributes::is_empty")]
    message_attributes: MessageAttributes,
}

/// Strings all, as the protocol has it; times in milliseconds since 1970-01-01 UTC.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SystemAttributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_id: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_timestamp: Option<AsText<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approximate_receive_count: Option<AsText<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approximate_first_receive_timestamp: Option<AsText<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_group_id: Option<AsText<Arc<str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_deduplication_id: Option<AsText<Arc<str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence_number: Option<AsText<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_queue_source_arn: Option<String>,
}

/// What is a string in the protocol and not here: written as one where the answer is, instead of on the way there.
struct AsText<T>(T);

impl<T: Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A body. A sender inside this process may have sent what is no UTF-8, which JSON cannot carry.
struct Body(Arc<[u8]>);

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Entry for Send<'_> {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Entry for Handle<'_> {
    fn id(&self) -> &str {
        &self.id
    }
}

pub(super) fn send(call: &Call<'_>, request: &Send) -> Result<Sent, Fault> {
    send_one(&call.queue(&request.queue_url)?, request)
}

pub(super) fn send_batch(call: &Call<'_>, request: &Batch<Send>) -> Result<Outcome<Sent>, Fault> {
    let queue = call.queue(&request.queue_url)?;
    batch::check(&request.entries)?;
    let size = request.entries.iter().map(|entry| content::size(&entry.message_body, &entry.message_attributes)).sum();
    if size > LARGEST_MESSAGE {
        return Err(Fault::BatchRequestTooLong { limit: LARGEST_MESSAGE, size });
    }
    Ok(batch::each(&request.entries, |entry| {
        call.begin_entry()?;
        send_one(&queue, entry).map(|sent| Sent { id: Some(entry.id.to_string()), ..sent })
    }))
}

fn send_one(queue: &CalledQueue<'_>, message: &Send) -> Result<Sent, Fault> {
    let Send { message_body: body, message_attributes: attributes, .. } = message;
    if !message.message_system_attributes.is_empty() {
        return Err(Fault::UnsupportedOperation("message system attributes are not supported here".into()));
    }
    content::check(body, attributes)?;
    let limit = queue.settings().maximum_message_size;
    if content::size(body, attributes) > limit {
        let reason = format!("the message and its attributes have more than {limit} bytes");
        return Err(Fault::InvalidParameterValue { parameter: "MessageBody", reason });
    }
    let delay = seconds("DelaySeconds", message.delay_seconds, LONGEST_DELAY)?;
    check_group(queue, message)?;
    let stored = if attributes.is_empty() { None } else { Some(Arc::from(serde_json::to_vec(attributes)?)) };
    let md5 = Md5::of(body.as_bytes());
    let Accepted { key, sequence } = queue.send(Outgoing {
        body: Arc::from(body.as_bytes()),
        md5: Some(md5.0),
        attributes: stored,
        delay,
        group: message.message_group_id.as_deref().map(Into::into),
        deduplication_id: message.message_deduplication_id.as_deref().map(Into::into),
    });
    Ok(Sent {
        id: None,
        message_id: key.id.to_string(),
        md5_of_message_body: md5.to_string(),
        md5_of_message_attributes: content::md5_of_attributes(attributes),
        sequence_number: sequence.map(|sequence| sequence.to_string()),
    })
}

/// MessageGroupId and MessageDeduplicationId are what a FIFO queue wants and any other forbids.
fn check_group(queue: &CalledQueue<'_>, message: &Send) -> Result<(), Fault> {
    let Send { message_group_id: group, message_deduplication_id: deduplication_id, .. } = message;
    if !queue.is_fifo() {
        return match (group, deduplication_id) {
            (None, None) => Ok(()),
            _ => Err(Fault::UnsupportedOperation("message groups and deduplication ids are for FIFO queues".into())),
        };
    }
    let group = group.as_deref().ok_or(Fault::MissingParameter("MessageGroupId"))?;
    content::check_fifo_id("MessageGroupId", group)?;
    if message.delay_seconds.is_some_and(|seconds| seconds != 0) {
        let reason = "a FIFO queue delays all its messages alike".into();
        return Err(Fault::InvalidParameterValue { parameter: "DelaySeconds", reason });
    }
    match deduplication_id.as_deref() {
        Some(id) => content::check_fifo_id("MessageDeduplicationId", id),
        None if queue.settings().content_based_deduplication => Ok(()),
        None => {
            let reason = "needed, since the queue has no ContentBasedDeduplication".into();
            Err(Fault::InvalidParameterValue { parameter: "MessageDeduplicationId", reason })
        }
    }
}

/// Answers empty when the server stops or the queue is deleted in the meantime.
pub(super) async fn receive(call: &Call<'_>, request: Receive<'_>) -> Result<Received, Fault> {
    let queue = call.queue(&request.queue_url)?;
    let settings = queue.settings();
    let max = in_range("MaxNumberOfMessages", request.max_number_of_messages, 1..=10)?.unwrap_or(1);
    let wait = seconds("WaitTimeSeconds", request.wait_time_seconds, LONGEST_WAIT)?.unwrap_or(settings.receive_wait);
    let visibility = seconds("VisibilityTimeout", request.visibility_timeout, LONGEST_VISIBILITY)?;
    if request.receive_request_attempt_id.is_some() {
        return Err(Fault::UnsupportedOperation("a receive is not repeated by its attempt id here".into()));
    }
    let mut wanted = request.attribute_names;
    wanted.extend(request.message_system_attribute_names);
    if let Some(unknown) = wanted.iter().find(|name| !SYSTEM_ATTRIBUTES.contains(&name.as_str())) {
        return Err(Fault::InvalidAttributeName(unknown.clone()));
    }
    let max = usize::try_from(max).unwrap_or(1);
    // If the client hangs up, this future is dropped here. Nothing waits below, so what is taken is on its way.
    let deliveries = tokio::select! {
        biased;
        deliveries = queue.take(max, wait, visibility.unwrap_or(settings.visibility)) => deliveries,
        () = call.service.stopping.cancelled() => Vec::new(),
    };
    if deliveries.is_empty() && wait.is_zero() && queue.is_full() {
        return Err(Fault::OverLimit); // a long poll is answered with silence instead
    }
    let messages = deliveries.into_iter().map(|it| {
        let mut message = message(it, &wanted, &request.message_attribute_names);
        if call.has(Trouble::Corrupt) {
            let mut cut = String::from_utf8_lossy(&message.body.0).into_owned();
            cut.pop();
            message.body = Body(cut.into_bytes().into());
        }
        message
    });
    Ok(Received { messages: messages.collect() })
}

fn message(delivery: Delivery, wanted: &[String], wanted_attributes: &[String]) -> Message {
    let stored = delivery.attributes.as_deref().filter(|_| !wanted_attributes.is_empty());
    let mut message_attributes: MessageAttributes =
        stored.and_then(|stored| serde_json::from_slice(stored).ok()).unwrap_or_default();
    content::select(&mut message_attributes, wanted_attributes);
    Message {
        message_id: AsText(delivery.id),
        md5_of_body: AsText(delivery.md5.map_or_else(|| Md5::of(&delivery.body), Md5)),
        attributes: system_attributes(&delivery, wanted),
        md5_of_message_attributes: content::md5_of_attributes(&message_attributes),
        message_attributes,
        receipt_handle: delivery.receipt,
        body: Body(delivery.body),
    }
}

fn system_attributes(delivery: &Delivery, wanted: &[String]) -> Option<SystemAttributes> {
    let is_wanted = |name: &str| wanted.iter().any(|wanted| wanted == name || wanted == "All");
    let (order, source) = (delivery.order.as_ref(), delivery.source.as_deref());
    (!wanted.is_empty()).then(|| SystemAttributes {
        sender_id: is_wanted("SenderId").then_some(ACCOUNT),
        sent_timestamp: is_wanted("SentTimestamp").then_some(AsText(delivery.sent_at)),
        approximate_receive_count: is_wanted("ApproximateReceiveCount").then_some(AsText(delivery.count)),
        approximate_first_receive_timestamp: is_wanted("ApproximateFirstReceiveTimestamp")
            .then_some(AsText(delivery.first_received_at)),
        message_group_id: order.filter(|_| is_wanted("MessageGroupId")).map(|it| AsText(Arc::clone(&it.group))),
        message_deduplication_id: order
            .filter(|_| is_wanted("MessageDeduplicationId"))
            .map(|it| AsText(Arc::clone(&it.deduplication_id))),
        sequence_number: order.filter(|_| is_wanted("SequenceNumber")).map(|it| AsText(it.sequence)),
        dead_letter_queue_source_arn: source.filter(|_| is_wanted("DeadLetterQueueSourceArn")).map(queue_arn),
    })
}

pub(super) fn delete(call: &Call<'_>, request: &Handle) -> Result<Done, Fault> {
    delete_one(&call.queue(&request.queue_url)?, request)?;
    Ok(Done {})
}

pub(super) fn delete_batch<'a>(
    call: &Call<'_>,
    request: &'a Batch<'a, Handle<'a>>,
) -> Result<Outcome<Succeeded<'a>>, Fault> {
    let queue = call.queue(&request.queue_url)?;
    batch::check(&request.entries)?;
    Ok(batch::each_done(&request.entries, |entry| {
        call.begin_entry()?;
        delete_one(&queue, entry)
    }))
}

fn delete_one(queue: &CalledQueue<'_>, handle: &Handle) -> Result<(), Fault> {
    Ok(queue.remove(receipt(handle)?)?)
}

pub(super) fn change_visibility(call: &Call<'_>, request: &Handle) -> Result<Done, Fault> {
    hide_one(&call.queue(&request.queue_url)?, request)?;
    Ok(Done {})
}

pub(super) fn change_visibility_batch<'a>(
    call: &Call<'_>,
    request: &'a Batch<'a, Handle<'a>>,
) -> Result<Outcome<Succeeded<'a>>, Fault> {
    let queue = call.queue(&request.queue_url)?;
    batch::check(&request.entries)?;
    Ok(batch::each_done(&request.entries, |entry| {
        call.begin_entry()?;
        hide_one(&queue, entry)
    }))
}

fn hide_one(queue: &CalledQueue<'_>, handle: &Handle) -> Result<(), Fault> {
    let visibility = seconds("VisibilityTimeout", handle.visibility_timeout, LONGEST_VISIBILITY)?
        .ok_or(Fault::MissingParameter("VisibilityTimeout"))?;
    Ok(queue.hide(receipt(handle)?, visibility)?)
}

fn receipt<'a>(handle: &'a Handle) -> Result<&'a str, Fault> {
    match handle.receipt_handle.as_ref() {
        "" => Err(Fault::MissingParameter("ReceiptHandle")),
        receipt => Ok(receipt),
    }
}

fn seconds(parameter: &'static str, value: Option<i64>, most: u64) -> Result<Option<Duration>, Fault> {
    Ok(in_range(parameter, value, 0..=most)?.map(Duration::from_secs))
}

fn in_range(parameter: &'static str, value: Option<i64>, range: RangeInclusive<u64>) -> Result<Option<u64>, Fault> {
    let Some(value) = value else { return Ok(None) };
    let number = u64::try_from(value).ok().filter(|number| range.contains(number));
    let reason = || format!("{} to {}", range.start(), range.end());
    number.map(Some).ok_or_else(|| Fault::InvalidParameterValue { parameter, reason: reason() })
}
