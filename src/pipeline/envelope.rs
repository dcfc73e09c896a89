//! What other services of AWS wrap a message in on its way to the queue: recognised, and one level of it taken off. Pure.
//!
//! An envelope is known by its shape alone. Its signature is not checked, since the queue's own policy says who may send
//! to it; and nothing that it names is fetched, neither a URL nor an object. The formats:
//! SNS: <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>,
//! EventBridge: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html>,
//! S3: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>,
//! SQS extended client: <https://github.com/awslabs/amazon-sqs-java-extended-client-lib>.

use std::borrow::Cow;

use crate::{
    config::Envelope,
    event::Reason,
    json::{At, Document, Json},
    pii::Pii,
};

/// What the SQS extended client, today's and that before it, puts first in the array that stands for a body in S3.
const POINTERS: [&str; 2] =
    ["software.amazon.payloadoffloading.PayloadS3Pointer", "com.amazon.sqs.javamessaging.MessageS3Pointer"];

/// What a body looks like from outside.
enum Shape {
    /// Nothing that is known here.
    Bare,
    /// An SNS notification with this message.
    Sns(Pii<String>),
    /// An EventBridge event with this detail.
    EventBridge(Pii<String>),
    /// A service speaks of itself, or of an object in S3: there is no message in it.
    Notice,
}

/// The message in a body that comes as `envelope` says; `None`: the body is the message.
pub(super) fn open(document: &Document<'_>, envelope: Envelope) -> Result<Option<Pii<String>>, Reason> {
    if envelope == Envelope::None {
        return Ok(None);
    }
    let message = match (shape(document), envelope) {
        (Shape::Bare, Envelope::Auto) => return Ok(None),
        (Shape::Bare, _) if document.value(Document::ROOT) != Json::Object => return Err(Reason::NotObject),
        (Shape::Sns(message), Envelope::Sns | Envelope::Auto)
        | (Shape::EventBridge(message), Envelope::EventBridge | Envelope::Auto) => Ok(Some(message)),
        (Shape::Notice, _) => Err(Reason::EnvelopeUnsupported),
        _ => Err(Reason::EnvelopeInvalid),
    };
    // What is wrong with the body as a whole comes before what is wrong with it as an envelope.
    document.fault().map_or(message, |fault| Err(fault.into()))
}

/// The message in a body that is wrapped, whatever the configuration expects.
pub(super) fn peek(document: &Document<'_>) -> Option<Pii<String>> {
    match shape(document) {
        Shape::Sns(message) | Shape::EventBridge(message) => Some(message),
        Shape::Bare | Shape::Notice => None,
    }
}

/// Why what came out of an envelope is no message, if it is wrapped once more.
pub(super) fn still_wrapped(document: &Document<'_>) -> Option<Reason> {
    let reason = match (shape(document), document.value(Document::ROOT)) {
        (Shape::Sns(_) | Shape::EventBridge(_), _) => Reason::EnvelopeInvalid,
        (Shape::Notice, _) => Reason::EnvelopeUnsupported,
        (Shape::Bare, Json::String(text)) if Document::parse(&text).is_ok() => Reason::DoubleEncoded,
        _ => return None,
    };
    Some(document.fault().map_or(reason, Reason::from))
}

fn shape(document: &Document<'_>) -> Shape {
    let root = Document::ROOT;
    let kind = text(document, document.member(root, "Type"));
    match (kind.as_deref(), text(document, document.member(root, "Message"))) {
        (Some("Notification"), Some(message)) => return Shape::Sns(Pii::new(message.into_owned())),
        (Some("SubscriptionConfirmation" | "UnsubscribeConfirmation"), _) => return Shape::Notice,
        _ => {}
    }
    let is_text = |key| text(document, document.member(root, key)).is_some();
    match document.member(root, "detail") {
        Some(detail) if is_text("detail-type") && is_text("source") => {
            Shape::EventBridge(Pii::new(document.text(detail).to_owned()))
        }
        _ if speaks_of_s3(document) => Shape::Notice,
        _ => Shape::Bare,
    }
}

/// An S3 event notification, the test of one, or a pointer of the SQS extended client.
fn speaks_of_s3(document: &Document<'_>) -> bool {
    let root = Document::ROOT;
    let record = document.member(root, "Records").and_then(|records| document.element(records, 0));
    let s3 = record.and_then(|record| document.member(record, "s3"));
    s3.is_some_and(|s3| document.value(s3) == Json::Object)
        || text(document, document.member(root, "Event")).is_some_and(|event| event == "s3:TestEvent")
        || text(document, document.element(root, 0)).is_some_and(|class| POINTERS.contains(&class.as_ref()))
}

fn text<'a>(document: &Document<'a>, at: Option<At>) -> Option<Cow<'a, str>> {
    match document.value(at?) {
        Json::String(text) => Some(text),
        _ => None,
    }
}
