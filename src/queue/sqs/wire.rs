//! What goes over the wire to SQS and comes back, as JSON. Pure.
//!
//! An answer is read leniently: a message is what has an id and a handle, whatever else is odd about it, so that one
//! odd message cannot hide its neighbours. The operations and their fields:
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_Operations.html>.

use std::{borrow::Cow, collections::HashMap, fmt, ops::Deref, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::Visitor};
use serde_json::value::RawValue;

/// Entries of a batch at most, and messages of a receive.
pub(super) const BATCH: usize = 10;

/// The ids of a batch's entries: their positions.
pub(super) const IDS: [&str; BATCH] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// The system attributes that a message needs to be known by, and those that say its place on a FIFO queue. Only what is
/// needed is asked for: each would come with every message.
const KEY_ATTRIBUTES: &[&str] = &["SentTimestamp", "ApproximateReceiveCount"];
const PLACE_ATTRIBUTES: &[&str] = &["SentTimestamp", "ApproximateReceiveCount", "MessageGroupId", "SequenceNumber"];

/// All of those, of a message on a dead-letter queue. Asked for there only: a stand-in may not know the last one.
const REDRIVEN_ATTRIBUTES: &[&str] =
    &["SentTimestamp", "ApproximateReceiveCount", "MessageGroupId", "SequenceNumber", "DeadLetterQueueSourceArn"];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Receive<'a> {
    queue_url: &'a str,
    max_number_of_messages: usize,
    wait_time_seconds: u64,
    visibility_timeout: u64,
    message_system_attribute_names: &'static [&'static str],
    /// The older name for the same; servers know the one or the other, AWS both.
    attribute_names: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    message_attribute_names: Option<[&'a str; 1]>,
}

impl<'a> Receive<'a> {
    pub(super) fn new(queue_url: &'a str, wait_time_seconds: u64, visibility_timeout: u64) -> Self {
        Self {
            queue_url,
            max_number_of_messages: BATCH,
            wait_time_seconds,
            visibility_timeout,
            message_system_attribute_names: KEY_ATTRIBUTES,
            attribute_names: KEY_ATTRIBUTES,
            message_attribute_names: None,
        }
    }

    /// The same with each message's place in its group.
    pub(super) fn with_places(self) -> Self {
        Self { message_system_attribute_names: PLACE_ATTRIBUTES, attribute_names: PLACE_ATTRIBUTES, ..self }
    }

    /// The same with this one of the producer's own attributes.
    pub(super) fn with_attribute(self, name: &'a str) -> Self {
        Self { message_attribute_names: Some([name]), ..self }
    }

    /// The same from a dead-letter queue.
    pub(super) fn redriven(self) -> Self {
        let names = REDRIVEN_ATTRIBUTES;
        Self { message_system_attribute_names: names, attribute_names: names, ..self }
    }

    /// The same for fewer messages than the most that SQS gives at a time.
    pub(super) fn at_most(self, max_number_of_messages: usize) -> Self {
        Self { max_number_of_messages, ..self }
    }
}

/// A SendMessageBatch: entries whose ids are their positions.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Batch<'a> {
    pub(super) queue_url: &'a str,
    pub(super) entries: Vec<BodyEntry<'a>>,
}

/// Bytes of an entry that holds a handle: Amazon's handles are some 350 bytes.
const USUAL_ENTRY: usize = 512;

/// A DeleteMessageBatch, or with a visibility in seconds a ChangeMessageVisibilityBatch, of up to ten handles; the ids
/// of its entries are their positions. Handles are nearly all that the client sends, so they are copied, not looked at
/// byte by byte as a serialiser does: that takes a twentieth of its CPU.
pub(super) fn batch_of<'a>(
    queue_url: &str,
    handles: impl ExactSizeIterator<Item = &'a str>,
    visibility: Option<u64>,
) -> Vec<u8> {
    debug_assert!(handles.len() <= BATCH, "what is beyond ten is not sent");
    let mut out = Vec::with_capacity(128 + queue_url.len() + handles.len() * USUAL_ENTRY);
    out.extend_from_slice(br#"{"QueueUrl":"#);
    push_string(&mut out, queue_url);
    out.extend_from_slice(br#","Entries":["#);
    for (position, (handle, id)) in handles.zip(IDS).enumerate() {
        out.extend_from_slice(if position == 0 { br#"{"Id":""# } else { br#",{"Id":""# });
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(br#"","ReceiptHandle":"#);
        push_string(&mut out, handle);
        if let Some(seconds) = visibility {
            out.extend_from_slice(format!(r#","VisibilityTimeout":{seconds}"#).as_bytes());
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

/// Writes a JSON string.
fn push_string(out: &mut Vec<u8>, text: &str) {
    // Looks at all bytes at once, which a search that ends at the first hit would not.
    let plain = text.bytes().fold(true, |plain, byte| plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\'));
    if plain {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct BodyEntry<'a> {
    pub(super) id: &'static str,
    pub(super) message_body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_group_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_deduplication_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetAttributes<'a> {
    pub(super) queue_url: &'a str,
    pub(super) attribute_names: &'a [&'a str],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetUrl<'a> {
    pub(super) queue_name: &'a str,
}

/// The messages of an answer to ReceiveMessage. Where one of them cannot be read (a body that is a number, a field that
/// is there twice), the answer is read a second time, message by message, and that one comes out empty.
pub(super) fn messages(answer: &[u8]) -> Result<Vec<ReceivedMessage<'_>>, serde_json::Error> {
    if let Ok(found) = serde_json::from_slice::<Received<ReceivedMessage>>(answer) {
        return Ok(found.messages.unwrap_or_default());
    }
    let found = serde_json::from_slice::<Received<&RawValue>>(answer)?.messages.unwrap_or_default();
    Ok(found.iter().map(|one| serde_json::from_str(one.get()).unwrap_or_default()).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Received<M> {
    /// Absent where there are none.
    messages: Option<Vec<M>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ReceivedMessage<'a> {
    #[serde(borrow)]
    pub(super) message_id: Text<'a>,
    #[serde(borrow)]
    pub(super) receipt_handle: Text<'a>,
    #[serde(deserialize_with = "bytes")]
    pub(super) body: Vec<u8>,
    #[serde(rename = "MD5OfBody", borrow)]
    pub(super) md5_of_body: Option<Text<'a>>,
    #[serde(deserialize_with = "or_default", borrow)]
    pub(super) attributes: Attributes<'a>,
    /// As it came: only one attribute of it is looked at, and no oddity in it may hide the message.
    #[serde(borrow)]
    pub(super) message_attributes: Option<&'a RawValue>,
}

impl ReceivedMessage<'_> {
    /// The text of one of the producer's own attributes; nothing for what is binary, empty, or no text.
    pub(super) fn text_attribute(&self, name: &str) -> Option<String> {
        let all: HashMap<Cow<'_, str>, TextAttribute> = serde_json::from_str(self.message_attributes?.get()).ok()?;
        let TextAttribute { data_type, string_value } = all.into_iter().find(|(key, _)| *key == name)?.1;
        let kind = data_type.split('.').next().unwrap_or_default();
        string_value.filter(|value| matches!(kind, "String" | "Number") && !value.is_empty())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TextAttribute {
    #[serde(default)]
    data_type: String,
    string_value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Attributes<'a> {
    #[serde(deserialize_with = "number")]
    pub(super) sent_timestamp: Option<i64>,
    #[serde(deserialize_with = "number")]
    pub(super) approximate_receive_count: Option<u32>,
    #[serde(borrow)]
    pub(super) message_group_id: Option<Text<'a>>,
    #[serde(deserialize_with = "number")]
    pub(super) sequence_number: Option<u128>,
    #[serde(borrow)]
    pub(super) dead_letter_queue_source_arn: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct BatchAnswer<'a> {
    #[serde(deserialize_with = "or_default", borrow)]
    pub(super) successful: Vec<Done<'a>>,
    #[serde(deserialize_with = "or_default", borrow)]
    pub(super) failed: Vec<Failed<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Done<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(borrow)]
    pub(super) message_id: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Failed<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(borrow)]
    pub(super) code: Text<'a>,
}

impl BatchAnswer<'_> {
    /// By position, whether the answer calls an entry done. An entry that it does not mention may not be.
    pub(super) fn done(&self) -> [bool; BATCH] {
        IDS.map(|id| self.successful.iter().any(|done| *done.id == *id))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct AttributesAnswer {
    pub(super) attributes: QueueAttributes,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct QueueAttributes {
    #[serde(deserialize_with = "number")]
    pub(super) approximate_number_of_messages: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub(super) approximate_number_of_messages_not_visible: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub(super) approximate_number_of_messages_delayed: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub(super) message_retention_period: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub(super) visibility_timeout: Option<u64>,
    pub(super) queue_arn: String,
    /// JSON in a string.
    pub(super) redrive_policy: String,
    #[serde(deserialize_with = "number")]
    pub(super) fifo_queue: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RedrivePolicy {
    pub(super) dead_letter_target_arn: String,
    #[serde(deserialize_with = "number")]
    pub(super) max_receive_count: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UrlAnswer {
    pub(super) queue_url: String,
}

/// A string, borrowed from the answer unless something in it is escaped. Null, as some stand-ins write what they have
/// not, is the empty one.
#[derive(Default)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }
        from.deserialize_any(Strings)
    }
}

/// Null, as some stand-ins write what they have not, is what is absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// A body: the string's bytes. Taken as bytes, since JSON can write lone surrogates, which no `String` can hold; they
/// come as WTF-8, the way `serde_json` reads bytes.
fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    struct Bytes;
    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a message's body")
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
        fn visit_str<E>(self, text: &str) -> Result<Vec<u8>, E> {
            Ok(text.as_bytes().to_vec())
        }
    }
    from.deserialize_bytes(Bytes)
}

/// A number or a boolean, which SQS writes as strings and some stand-ins as themselves. Nonsense counts as absent.
fn number<'de, D: Deserializer<'de>, T: FromStr>(from: D) -> Result<Option<T>, D::Error> {
    struct Number<T>(std::marker::PhantomData<T>);
    impl<'de, T: FromStr> Visitor<'de> for Number<T> {
        type Value = Option<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number")
        }
        fn visit_str<E>(self, text: &str) -> Result<Option<T>, E> {
            Ok(text.trim().parse().ok())
        }
        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Option<T>, E> {
            self.visit_str(&number.to_string())
        }
        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Option<T>, E> {
            self.visit_str(&number.to_string())
        }
        fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<Option<T>, E> {
            self.visit_str(if truth { "true" } else { "false" })
        }
        fn visit_unit<E>(self) -> Result<Option<T>, E> {
            Ok(None)
        }
    }
    from.deserialize_any(Number(std::marker::PhantomData))
}
