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

/// The message in a body that comes as `envelope` says; `None`: the body is the message.
pub(super) fn open(document: &Document<'_>, envelope: Envelope) -> Result<Option<Pii<String>>, Reason> {
    let message = match envelope {
        Envelope::None => return Ok(None),
        Envelope::Sns => sns_message(document),
        Envelope::EventBridge => event_detail(document),
        Envelope::Auto => peek(document),
    };
    let verdict = match message {
        Some(message) => Ok(Some(message)),
        None if is_notice(document) => Err(Reason::EnvelopeUnsupported),
        None if envelope == Envelope::Auto => return Ok(None),
        None if document.value(Document::ROOT) != Json::Object => return Err(Reason::NotObject),
        None => Err(Reason::EnvelopeInvalid),
    };
    // What is wrong with the body as a whole comes before what is wrong with it as an envelope.
    document.fault().map_or(verdict, |fault| Err(fault.into()))
}

/// The message in a body that is wrapped, whatever the configuration expects.
pub(super) fn peek(document: &Document<'_>) -> Option<Pii<String>> {
    sns_message(document).or_else(|| event_detail(document))
}

/// Why what came out of an envelope is no message, if it is wrapped once more.
pub(super) fn still_wrapped(document: &Document<'_>) -> Option<Reason> {
    let reason = match document.value(Document::ROOT) {
        Json::String(text) if Document::parse(&text).is_ok() => Reason::DoubleEncoded,
        _ if peek(document).is_some() => Reason::EnvelopeInvalid,
        _ if is_notice(document) => Reason::EnvelopeUnsupported,
        _ => return None,
    };
    Some(document.fault().map_or(reason, Reason::from))
}

fn sns_message(document: &Document<'_>) -> Option<Pii<String>> {
    let is_notification = member_text(document, "Type")? == "Notification";
    let message = document.member(Document::ROOT, "Message").filter(|_| is_notification);
    text(document, message).map(|message| Pii::new(message.into_owned()))
}

fn event_detail(document: &Document<'_>) -> Option<Pii<String>> {
    let detail = document.member(Document::ROOT, "detail")?;
    let is_event = member_text(document, "detail-type").is_some() && member_text(document, "source").is_some();
    is_event.then(|| Pii::new(document.text(detail).to_owned()))
}

/// Whether a service speaks of itself, or of an object in S3: a confirmation of SNS, an event notification of S3 or the
/// test of one, a pointer of the SQS extended client. There is no message in it.
fn is_notice(document: &Document<'_>) -> bool {
    let root = Document::ROOT;
    let is = |key, words: &[&str]| member_text(document, key).is_some_and(|text| words.contains(&text.as_ref()));
    let record = document.member(root, "Records").and_then(|records| document.element(records, 0));
    let s3 = record.and_then(|record| document.member(record, "s3"));
    is("Type", &["SubscriptionConfirmation", "UnsubscribeConfirmation"])
        || is("Event", &["s3:TestEvent"])
        || s3.is_some_and(|s3| document.value(s3) == Json::Object)
        || text(document, document.element(root, 0)).is_some_and(|class| POINTERS.contains(&class.as_ref()))
}

fn member_text<'a>(document: &Document<'a>, key: &str) -> Option<Cow<'a, str>> {
    text(document, document.member(Document::ROOT, key))
}

fn text<'a>(document: &Document<'a>, at: Option<At>) -> Option<Cow<'a, str>> {
    match document.value(at?) {
        Json::String(text) => Some(text),
        _ => None,
    }
}
