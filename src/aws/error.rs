//! Why a call failed, by what helps.
//!
//! A service names its errors twice: `__type` in the body and, where it has an older protocol, `x-amzn-query-error`.
//! Both are looked at, since stand-ins send one or the other; so is the XML in which that older protocol names them. What
//! a service says of a receipt handle is not passed on.

use std::{error::Error as StdError, time::Duration, time::SystemTime};

use aws_smithy_types::date_time::{DateTime, Format};
use hyper::{HeaderMap, StatusCode, header::DATE};
use serde::Deserialize;
use thiserror::Error;

use super::xml::Element;

/// Why a call failed, by what helps. Texts are one line, and name cause and remedy.
#[derive(Clone, Debug, Error)]
pub enum AwsError {
    /// Wait: no connection, or it broke.
    #[error("cannot reach {place}: {reason}{}", network_remedy(.reason))]
    Network {
        /// Scheme, host and port.
        place: String,
        /// Whether the server closed a connection that had been made before it answered.
        closed: bool,
        /// What the network said.
        reason: String,
    },
    /// Wait: no whole answer in time.
    #[error("no answer from {place} within {} s", .after.as_secs())]
    Timeout {
        /// Scheme, host and port.
        place: String,
        /// How long was waited.
        after: Duration,
    },
    /// Wait, and ask less often.
    #[error("the service asks for fewer requests ({code})")]
    Throttled {
        /// The service's word for it.
        code: String,
    },
    /// Wait: a fault of the service.
    #[error("the service failed with status {status}{}", in_brackets(.code))]
    Server {
        /// HTTP status.
        status: u16,
        /// The service's word for it; may be empty.
        code: String,
    },
    /// Nothing to sign with.
    #[error("no usable AWS credentials: {reason}")]
    Credentials {
        /// What the chain said, and the remedy.
        reason: String,
        /// Whether it may pass by itself: what gives them did not answer.
        passing: bool,
    },
    /// Somebody must allow it.
    #[error("{code}{}: {}", after_colon(.message), denied_remedy(.permission, .code))]
    Denied {
        /// The action of IAM that allows the call, as `sqs:DeleteMessage`.
        permission: String,
        /// The service's word for it.
        code: String,
        /// What the service said about it; may be empty.
        message: String,
        /// Whether newer credentials may help.
        stale_credentials: bool,
    },
    /// Somebody must set the clock.
    #[error("clock skew of {seconds} s: the service refuses signatures from this machine's clock; set it by NTP")]
    ClockSkew {
        /// How far the service's clock is ahead of ours.
        seconds: i64,
    },
    /// What the call is about does not exist, or not yet.
    #[error("there is none of that name ({code}): check name, account and region")]
    NotFound {
        /// The service's word for it.
        code: String,
    },
    /// The request itself is wrong for this service.
    #[error("{code}{}", after_colon(.message))]
    Rejected {
        /// The service's word for it.
        code: String,
        /// What the service said about it; may be empty.
        message: String,
    },
    /// Wait: a success whose content is not what the service's older protocol says.
    #[error("the answer is not what {service}'s query protocol says ({reason})")]
    Unreadable {
        /// The service's name.
        service: &'static str,
        /// Where it is wrong, without what stands there.
        reason: String,
    },
    /// An address, a region or a CA bundle that cannot be used.
    #[error("{0}")]
    Configuration(String),
}

/// An answer that is no success, read.
#[cfg(any(test, fuzzing))]
pub(crate) fn from_answer(
    permission: String,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    signed_at: SystemTime,
) -> AwsError {
    of_told(permission, status, headers, told(headers, body), signed_at)
}

/// An answer that is no success, and what was told in it.
pub(super) fn of_told(
    permission: String,
    status: StatusCode,
    headers: &HeaderMap,
    told: Told,
    signed_at: SystemTime,
) -> AwsError {
    let code = told.code.unwrap_or_else(|| format!("HTTP status {}", status.as_u16()));
    let message = told.message;
    let has = |codes: &[&str]| codes.contains(&code.as_str());
    let client = status.is_client_error();
    if let Some(seconds) = skew(headers, signed_at).filter(|_| client && (has(SKEW) || has(SIGNATURE))) {
        return AwsError::ClockSkew { seconds };
    }
    if has(THROTTLED) || code.contains("Throttl") || status == StatusCode::TOO_MANY_REQUESTS {
        AwsError::Throttled { code }
    } else if has(NOT_FOUND) {
        AwsError::NotFound { code }
    } else if has(STALE) || has(SIGNATURE) || has(SKEW) || has(DENIED) || code.contains("AccessDenied") {
        AwsError::Denied { permission, stale_credentials: has(STALE), code, message }
    } else if status.is_server_error() || has(PASSING) || status == StatusCode::REQUEST_TIMEOUT {
        AwsError::Server { status: status.as_u16(), code }
    } else if matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) {
        AwsError::Denied { permission, stale_credentials: false, code, message }
    } else {
        AwsError::Rejected { code, message }
    }
}

// The codes of <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html>, of the
// operations' own pages, and those that AWS's SDKs know besides.
const THROTTLED: &[&str] = &[
    "RequestThrottled",
    "SlowDown",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "LimitExceededException",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    // More than 120,000 messages in flight: it passes when some are deleted.
    "OverLimit",
];
const NOT_FOUND: &[&str] = &["QueueDoesNotExist", "NonExistentQueue", "NotFoundException"];
const PASSING: &[&str] =
    &["InternalError", "InternalFailure", "ServiceUnavailable", "QueueDeletedRecently", "RequestTimeout"];
const STALE: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidToken",
    "InvalidSecurityToken",
    // A key that was rotated away.
    "InvalidClientTokenId",
    "UnrecognizedClientException",
];
const SIGNATURE: &[&str] = &["SignatureDoesNotMatch", "InvalidSignatureException", "InvalidSignature", "AuthFailure"];
const SKEW: &[&str] = &["RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"];
const DENIED: &[&str] = &[
    "AuthorizationError",
    "InvalidSecurity",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "UnauthorizedOperation",
];

/// Signatures hold for five minutes; a smaller difference is not why one was refused.
const SKEW_SECONDS: u64 = 240;

/// Seconds that the answer's date is ahead of the time of signing, where that is enough to be refused for.
fn skew(headers: &HeaderMap, signed_at: SystemTime) -> Option<i64> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let theirs = DateTime::from_str(date, Format::HttpDate).ok()?.secs();
    let seconds = theirs - DateTime::from(signed_at).secs();
    (seconds.unsigned_abs() > SKEW_SECONDS).then_some(seconds)
}

/// What a service says of a failure.
pub(super) struct Told {
    /// Its short word for what is wrong, where it has one.
    pub(super) code: Option<String>,
    /// What it says about it, fit to be shown; may be empty.
    pub(super) message: String,
    /// Whether it says so in XML.
    pub(super) xml: bool,
}

pub(super) fn told(headers: &HeaderMap, body: &[u8]) -> Told {
    #[derive(Default, Deserialize)]
    struct Body {
        #[serde(rename = "__type", alias = "code", default)]
        code: Option<String>,
        #[serde(alias = "Message", default)]
        message: Option<String>,
    }
    let xml = in_xml(body);
    let is_xml = xml.is_some();
    let body = xml.map_or_else(
        || serde_json::from_slice(body).unwrap_or_default(),
        |(code, message)| Body { code: Some(code), message: Some(message) },
    );
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    let code = body.code.or_else(|| header("x-amzn-errortype")).or_else(|| header("x-amzn-query-error"));
    Told {
        code: code.map(|code| short(&code)),
        message: body.message.map(|message| presentable(&message)).unwrap_or_default(),
        xml: is_xml,
    }
}

/// Code and message of `<ErrorResponse><Error><Code>…</Code><Message>…</Message></Error></ErrorResponse>`.
fn in_xml(body: &[u8]) -> Option<(String, String)> {
    let root = body.trim_ascii_start().starts_with(b"<").then(|| Element::parse(body).ok())??;
    let error = root.child("Error")?;
    let text = |name| error.child(name).map(|child| child.text.clone());
    Some((text("Code")?, text("Message").unwrap_or_default()))
}

/// `com.amazonaws.sqs#QueueDoesNotExist:http://…` and `AWS.SimpleQueueService.NonExistentQueue;Sender`, shortened to
/// the word itself.
fn short(code: &str) -> String {
    let code = code.split([';', ':']).next().unwrap_or_default();
    let code = code.rsplit(['#', '.']).next().unwrap_or_default();
    code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(80).collect()
}

/// What may be shown of a service's message: one line, of bounded length, without receipt handles. A handle is a long
/// word that is neither an ARN nor a URL.
fn presentable(message: &str) -> String {
    let lower = message.to_ascii_lowercase();
    if lower.contains("receipthandle") || lower.contains("receipt handle") {
        return "a receipt handle is not valid, has expired or belongs to another queue".to_owned();
    }
    let word = |word: &str| -> String {
        let known = ["arn:", "http"].iter().any(|start| word.trim_start_matches(['"', '\'', '(']).starts_with(start));
        if word.len() > 60 && !known { "…".to_owned() } else { word.to_owned() }
    };
    let line: Vec<String> = message.split_whitespace().map(word).collect();
    let line = line.join(" ");
    line.trim_end_matches('.').chars().filter(|c| !c.is_control()).take(400).collect()
}

fn denied_remedy(permission: &str, code: &str) -> String {
    match code {
        _ if STALE.contains(&code) || SIGNATURE.contains(&code) => {
            "check the access key, its secret and, for temporary ones, the session token".to_owned()
        }
        _ if code.contains("Kms") || code.contains("KMS") => {
            "allow kms:Decrypt (and kms:GenerateDataKey to send) on the key that encrypts it".to_owned()
        }
        _ => format!("allow {permission} in the role's policy or the resource's"),
    }
}

fn network_remedy(reason: &str) -> &'static str {
    if reason.contains("UnknownIssuer") {
        "; if an authority of your own signs it, name its PEM file in AWS_CA_BUNDLE"
    } else if reason.contains("CaUsedAsEndEntity") {
        "; the server shows an authority's own certificate: give it one that is not for signing (CA:FALSE)"
    } else if reason.contains("dns error") || reason.contains("lookup address") {
        "; check the address and the region"
    } else {
        ""
    }
}

fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

/// An error and what caused it, in one line, each said once.
pub(super) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        next = error.source();
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
