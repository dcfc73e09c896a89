//! Which of a service's two protocols is spoken with an endpoint, and how that is found out.
//!
//! SQS speaks JSON since November 2023; LocalStack before 3.0 and ElasticMQ before 1.5 know only the query protocol, in
//! which a request is a form and an answer XML. What they answer to JSON is their own: LocalStack up to 0.14 a bare 500,
//! later an XML error that misses an Action. So an endpoint that is not AWS's is taken at its word: whatever it has
//! answered well, or refused by a name of SQS's, in one protocol, that protocol is spoken from then on.
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-xml.html>

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use hyper::{StatusCode, Uri};

use super::{AwsError, error::Told, xml::Malformed};

/// Which protocol to speak with a service that has two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// JSON, and the query protocol with an endpoint that turns out to know only that.
    #[default]
    Auto,
    /// JSON only.
    Json,
    /// The older query protocol only.
    Query,
}

/// The query protocol of a service: its requests and answers are translated at the edge, so that whoever calls knows
/// JSON alone.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The request as a form, of an action and its JSON.
    pub form: fn(action: &str, request: &[u8]) -> Option<Form>,
    /// The answer as JSON, of XML.
    pub answer: fn(answer: &[u8]) -> Result<Vec<u8>, Malformed>,
}

impl Query {
    /// Where a request goes, and its form.
    pub(super) fn request(self, action: &str, request: &[u8], endpoint: &Uri) -> Result<(Uri, Bytes), AwsError> {
        let odd = || AwsError::Configuration(format!("{action} cannot be written for the query protocol"));
        let Form { path, body } = (self.form)(action, request).ok_or_else(odd)?;
        let mut parts = endpoint.clone().into_parts();
        parts.path_and_query = Some(path.parse().map_err(|_| odd())?);
        Ok((Uri::from_parts(parts).map_err(|_| odd())?, body.into()))
    }

    /// An answer, as JSON.
    pub(super) fn read(self, service: &'static str, answer: &[u8]) -> Result<Bytes, AwsError> {
        let unreadable = |error: Malformed| AwsError::Unreadable { service, reason: error.to_string() };
        (self.answer)(answer).map(Bytes::from).map_err(unreadable)
    }
}

/// A request of the query protocol.
pub struct Form {
    /// Where it goes: the path of the resource's URL.
    pub path: String,
    /// Names and values, percent-encoded.
    pub body: String,
}

impl Form {
    /// One more name and value.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        if !self.body.is_empty() {
            self.body.push('&');
        }
        encode(name, &mut self.body);
        self.body.push('=');
        encode(value, &mut self.body);
    }
}

/// Percent-encoded as Signature Version 4 wants it: all but what RFC 3986 calls unreserved.
pub(super) fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push('%');
            for nibble in [byte >> 4, byte & 15] {
                into.push(char::from_digit(nibble.into(), 16).unwrap_or_default().to_ascii_uppercase());
            }
        }
    }
}

/// One of the two, as a request is written and an answer read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Json,
    Query,
}

/// What is known of an endpoint.
pub(super) struct Spoken(AtomicU8);

const OPEN: u8 = 0;
const JSON: u8 = 1;
const QUERY: u8 = 2;

impl Spoken {
    /// `certain` is an endpoint that needs no finding out: AWS itself.
    pub(super) fn new(protocol: Protocol, query: Option<Query>, certain: bool) -> Self {
        Self(AtomicU8::new(match (query, protocol) {
            (Some(_), Protocol::Query) => QUERY,
            (Some(_), Protocol::Auto) if !certain => OPEN,
            _ => JSON,
        }))
    }

    /// What to speak; while it is open, JSON comes first.
    pub(super) fn wire(&self) -> Wire {
        if self.0.load(Ordering::Relaxed) == QUERY { Wire::Query } else { Wire::Json }
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == OPEN
    }

    /// The endpoint was understood in this one. The first that was holds for good, whatever fails later.
    pub(super) fn settle(&self, wire: Wire) {
        if !self.is_open() {
            return;
        }
        let known = if wire == Wire::Json { JSON } else { QUERY };
        let first = self.0.compare_exchange(OPEN, known, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if first && wire == Wire::Query {
            tracing::info!(
                "this endpoint does not know the JSON protocol: speaking the older query protocol with it from now on \
                 (protocol = \"query\" in [queue] does so from the start)"
            );
        }
    }
}

/// What a failure says of the endpoint, while that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// It speaks this protocol: it has refused by name.
    Speaks(Wire),
    /// It has not seen which action was meant, so nothing was done.
    NotUnderstood,
    /// It has failed without a name for it: it may not have understood, or may be broken.
    Unclear,
    /// Nothing: the network, or something in between that says to come again.
    Nothing,
}

impl Hint {
    /// What an answer that is no success says.
    pub(super) fn of(wire: Wire, status: StatusCode, told: &Told) -> Self {
        const NO_ACTION: [&str; 3] = ["MissingAction", "InvalidAction", "UnknownOperationException"];
        let misses_action =
            |code: &str| NO_ACTION.contains(&code) || told.message.contains("Missing Action in request");
        match (wire, &told.code) {
            (_, Some(code)) if told.xml && misses_action(code) => Self::NotUnderstood,
            (Wire::Query, Some(_)) if told.xml => Self::Speaks(Wire::Query),
            (Wire::Json, Some(_)) if !told.xml => Self::Speaks(Wire::Json),
            _ => match status.as_u16() {
                408 | 429 | 502..=504 => Self::Nothing,
                _ => Self::Unclear,
            },
        }
    }

    /// Whether the query protocol may be tried after it.
    pub(super) fn allows_query(self, repeatable: bool) -> bool {
        match self {
            Self::NotUnderstood => true,
            Self::Unclear => repeatable,
            Self::Speaks(_) | Self::Nothing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_unreserved_stays() {
        let mut encoded = String::new();
        encode("aZ09-._~ /+&=é\n", &mut encoded);
        assert_eq!(encoded, "aZ09-._~%20%2F%2B%26%3D%C3%A9%0A");
    }

    #[test]
    fn what_was_understood_first_holds() {
        let query = Query { form: |_, _| None, answer: |_| Ok(Vec::new()) };
        let open = || Spoken::new(Protocol::Auto, Some(query), false);
        let spoken = open();
        assert!(spoken.is_open() && spoken.wire() == Wire::Json);
        spoken.settle(Wire::Query);
        spoken.settle(Wire::Json);
        assert!(!spoken.is_open() && spoken.wire() == Wire::Query);
        let spoken = open();
        spoken.settle(Wire::Json);
        spoken.settle(Wire::Query);
        assert_eq!(spoken.wire(), Wire::Json);
        for (protocol, query, certain, wire) in [
            (Protocol::Query, Some(query), true, Wire::Query),
            (Protocol::Auto, Some(query), true, Wire::Json),
            (Protocol::Json, Some(query), false, Wire::Json),
            (Protocol::Auto, None, false, Wire::Json),
        ] {
            let spoken = Spoken::new(protocol, query, certain);
            assert!(!spoken.is_open() && spoken.wire() == wire, "{protocol:?}");
        }
    }
}
