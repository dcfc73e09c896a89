//! A queue's attributes as the protocol writes them (strings, seconds, JSON in JSON) and as the queue has them.
//! Ranges are those of AWS, SetQueueAttributes.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use serde::Deserialize;

use super::{fault::Fault, queue_arn};
use crate::queue::memory::{MemoryQueue, MemoryQueues, Redrive, Settings, is_fifo};

/// The longest visibility timeout, in seconds: twelve hours.
pub(super) const LONGEST_VISIBILITY: u64 = 43_200;
/// The longest delay, in seconds.
pub(super) const LONGEST_DELAY: u64 = 900;
/// The longest long poll, in seconds.
pub(super) const LONGEST_WAIT: u64 = 20;
/// The largest message and the largest batch, in bytes.
pub(super) const LARGEST_MESSAGE: usize = 1_048_576;

/// Attributes of the service that can be asked for and are not there, as if they had never been set.
const NEVER_SET: [&str; 7] = [
    "Policy",
    "KmsMasterKeyId",
    "KmsDataKeyReusePeriodSeconds",
    "DeduplicationScope",
    "FifoThroughputLimit",
    "RedriveAllowPolicy",
    "SqsManagedSseEnabled",
];

/// Attributes that a FIFO queue has and no other knows.
const FIFO: [&str; 2] = ["FifoQueue", "ContentBasedDeduplication"];

/// RedrivePolicy, as it comes. SDKs write the count as a number, some people as a string.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
    max_receive_count: Count,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u32),
    Text(String),
}

/// Puts attributes into the settings of the queue `name`; all of them, or none with the first that is wrong.
pub(super) fn apply(
    settings: &mut Settings,
    attributes: &BTreeMap<String, String>,
    name: &str,
    queues: &MemoryQueues,
) -> Result<(), Fault> {
    let mut changed = settings.clone();
    for (attribute, value) in attributes {
        match attribute.as_str() {
            "VisibilityTimeout" => changed.visibility = seconds("VisibilityTimeout", value, 0..=LONGEST_VISIBILITY)?,
            "DelaySeconds" => changed.delay = seconds("DelaySeconds", value, 0..=LONGEST_DELAY)?,
            "MessageRetentionPeriod" => {
                changed.retention = seconds("MessageRetentionPeriod", value, 60..=1_209_600)?;
            }
            "ReceiveMessageWaitTimeSeconds" => {
                changed.receive_wait = seconds("ReceiveMessageWaitTimeSeconds", value, 0..=LONGEST_WAIT)?;
            }
            "MaximumMessageSize" => {
                changed.maximum_message_size = number("MaximumMessageSize", value, 1024..=LARGEST_MESSAGE)?;
            }
            "RedrivePolicy" => changed.redrive = redrive(value, name, queues)?,
            "FifoQueue" if is_fifo(name) => check_is_true(value)?,
            "ContentBasedDeduplication" if is_fifo(name) => {
                changed.content_based_deduplication = truth("ContentBasedDeduplication", value)?;
            }
            known if NEVER_SET.contains(&known) => {
                return Err(Fault::UnsupportedOperation(format!("the attribute {known} is not supported here")));
            }
            unknown => return Err(Fault::InvalidAttributeName(unknown.to_owned())),
        }
    }
    *settings = changed;
    Ok(())
}

/// What a queue is to be is said twice, by its name and by the attribute `FifoQueue`, and must be the same.
pub(super) fn check_kind(name: &str, attributes: &BTreeMap<String, String>) -> Result<(), Fault> {
    let refuse = |reason: &str| Err(Fault::InvalidParameterValue { parameter: "QueueName", reason: reason.into() });
    match (is_fifo(name), attributes.contains_key("FifoQueue")) {
        (true, false) => refuse("only a FIFO queue's name ends in .fifo; set the attribute FifoQueue to true"),
        (false, true) => refuse("a FIFO queue's name ends in .fifo"),
        _ => Ok(()),
    }
}

/// FifoQueue says what cannot be otherwise.
fn check_is_true(value: &str) -> Result<(), Fault> {
    let reason = || "a queue whose name ends in .fifo is a FIFO queue".to_owned();
    let is_true = truth("FifoQueue", value)?;
    if is_true { Ok(()) } else { Err(Fault::InvalidAttributeValue { attribute: "FifoQueue", reason: reason() }) }
}

fn truth(attribute: &'static str, value: &str) -> Result<bool, Fault> {
    value.parse().map_err(|_neither| Fault::InvalidAttributeValue { attribute, reason: "true or false".to_owned() })
}

/// The attributes that were asked for; `All` for all.
pub(super) fn read(queue: &MemoryQueue, wanted: &[String]) -> Result<BTreeMap<&'static str, String>, Fault> {
    let mut attributes = all(queue);
    let unknown = |name: &&String| {
        *name != "All"
            && *name != "RedrivePolicy"
            && !FIFO.contains(&name.as_str())
            && !attributes.contains_key(name.as_str())
            && !NEVER_SET.contains(&name.as_str())
    };
    if let Some(unknown) = wanted.iter().find(unknown) {
        return Err(Fault::InvalidAttributeName(unknown.clone()));
    }
    if !wanted.iter().any(|name| name == "All") {
        attributes.retain(|name, _| wanted.iter().any(|wanted| wanted == name));
    }
    Ok(attributes)
}

fn all(queue: &MemoryQueue) -> BTreeMap<&'static str, String> {
    let settings = queue.settings();
    let depth = queue.count();
    let (created_at, modified_at) = queue.timestamps();
    let seconds = |duration: Duration| duration.as_secs().to_string();
    let mut attributes = BTreeMap::from([
        ("ApproximateNumberOfMessages", depth.visible.to_string()),
        ("ApproximateNumberOfMessagesDelayed", depth.delayed.to_string()),
        ("ApproximateNumberOfMessagesNotVisible", depth.in_flight.to_string()),
        ("CreatedTimestamp", (created_at / 1000).to_string()),
        ("DelaySeconds", seconds(settings.delay)),
        ("LastModifiedTimestamp", (modified_at / 1000).to_string()),
        ("MaximumMessageSize", settings.maximum_message_size.to_string()),
        ("MessageRetentionPeriod", seconds(settings.retention)),
        ("QueueArn", queue_arn(queue.name())),
        ("ReceiveMessageWaitTimeSeconds", seconds(settings.receive_wait)),
        ("VisibilityTimeout", seconds(settings.visibility)),
    ]);
    if let Some(Redrive { target, max_receive_count }) = settings.redrive {
        let arn = queue_arn(&target);
        let policy = serde_json::json!({ "deadLetterTargetArn": arn, "maxReceiveCount": max_receive_count });
        attributes.insert("RedrivePolicy", policy.to_string());
    }
    if queue.is_fifo() {
        attributes.insert("FifoQueue", true.to_string());
        attributes.insert("ContentBasedDeduplication", settings.content_based_deduplication.to_string());
    }
    attributes
}

/// An empty policy takes the redrive away.
fn redrive(value: &str, name: &str, queues: &MemoryQueues) -> Result<Option<Redrive>, Fault> {
    if value.is_empty() {
        return Ok(None);
    }
    let refuse = |reason: &str| Fault::InvalidParameterValue { parameter: "RedrivePolicy", reason: reason.into() };
    let policy: RedrivePolicy = serde_json::from_str(value)
        .map_err(|_quotes_the_value| refuse("not JSON with deadLetterTargetArn and maxReceiveCount"))?;
    let target = policy.dead_letter_target_arn.rsplit(':').next().unwrap_or_default().to_owned();
    if target == name {
        return Err(refuse("a queue cannot be its own dead-letter queue"));
    }
    if policy.dead_letter_target_arn != queue_arn(&target) || queues.get(&target).is_none() {
        return Err(refuse("the dead-letter queue does not exist"));
    }
    if is_fifo(&target) != is_fifo(name) {
        return Err(refuse(
            "a FIFO queue's dead-letter queue is a FIFO queue, and a standard queue's is a standard queue",
        ));
    }
    let count = match policy.max_receive_count {
        Count::Number(count) => Some(count),
        Count::Text(text) => text.parse().ok(),
    };
    let max_receive_count =
        count.filter(|count| (1..=1000).contains(count)).ok_or_else(|| refuse("maxReceiveCount is 1 to 1000"))?;
    Ok(Some(Redrive { target, max_receive_count }))
}

fn seconds(attribute: &'static str, value: &str, range: RangeInclusive<u64>) -> Result<Duration, Fault> {
    number(attribute, value, range).map(Duration::from_secs)
}

fn number<N>(attribute: &'static str, value: &str, range: RangeInclusive<N>) -> Result<N, Fault>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| Fault::InvalidAttributeValue {
        attribute,
        reason: format!("a whole number from {} to {}", range.start(), range.end()),
    })
}
