//! What a message may contain and how it is summed: characters, message attributes, size, MD5.
//! AWS: "Amazon SQS message metadata", "Calculating the MD5 message digest for message attributes", SendMessage.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use md5::Digest;
use serde::{Deserialize, Serialize};

use super::fault::Fault;

/// The most attributes on one message.
const MOST_ATTRIBUTES: usize = 10;
/// The longest name of one, in characters.
const LONGEST_NAME: usize = 256;
/// The longest MessageGroupId or MessageDeduplicationId, in characters.
const LONGEST_FIFO_ID: usize = 128;

/// A message's attributes by name.
pub(super) type MessageAttributes = BTreeMap<String, MessageAttribute>;

/// One typed value beside the body.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MessageAttribute {
    /// String, Number or Binary, perhaps with a label of the sender's after a dot.
    #[serde(default)]
    data_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    string_value: Option<String>,
    /// Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_value: Option<String>,
}

/// An attribute's value as it is counted and summed.
enum Value<'a> {
    Text(&'a str),
    Binary(Vec<u8>),
}

impl Value<'_> {
    /// What the digest has before the value.
    fn transport(&self) -> u8 {
        match self {
            Self::Text(_) => 1,
            Self::Binary(_) => 2,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

impl MessageAttribute {
    fn value(&self) -> Result<Value<'_>, Fault> {
        let kind = self.data_type.split('.').next().unwrap_or_default();
        let text = self.string_value.as_deref().filter(|text| !text.is_empty());
        match (kind, text, &self.binary_value) {
            ("String", Some(text), None) if text.chars().all(is_allowed) => Ok(Value::Text(text)),
            ("String", Some(_), None) => Err(Fault::InvalidMessageContents),
            ("Number", Some(text), None) if text.parse::<f64>().is_ok_and(f64::is_finite) => Ok(Value::Text(text)),
            ("Number", Some(_), None) => refuse("a Number's value must be a number"),
            ("Binary", None, Some(encoded)) if !encoded.is_empty() => match BASE64_STANDARD.decode(encoded) {
                Ok(bytes) => Ok(Value::Binary(bytes)),
                Err(_not_base64) => refuse("a Binary's value must be base64"),
            },
            ("String" | "Number" | "Binary", ..) => refuse("an attribute has one value, of its type and not empty"),
            _ => refuse("an attribute's type begins with String, Number or Binary"),
        }
    }
}

fn refuse<T>(reason: &str) -> Result<T, Fault> {
    Err(Fault::InvalidParameterValue { parameter: "MessageAttributes", reason: reason.into() })
}

/// Checks what a message contains, not how large it is.
pub(super) fn check(body: &str, attributes: &MessageAttributes) -> Result<(), Fault> {
    if body.is_empty() {
        return Err(Fault::MissingParameter("MessageBody"));
    }
    if !body.chars().all(is_allowed) {
        return Err(Fault::InvalidMessageContents);
    }
    if attributes.len() > MOST_ATTRIBUTES {
        return refuse("at most 10");
    }
    if !attributes.keys().all(|name| is_name(name)) {
        return refuse("a name is 1 to 256 letters, digits, _, - and single dots inside; not AWS. or Amazon. first");
    }
    attributes.values().try_for_each(|attribute| attribute.value().map(drop))
}

/// Checks MessageGroupId or MessageDeduplicationId (AWS, SendMessage).
pub(super) fn check_fifo_id(parameter: &'static str, id: &str) -> Result<(), Fault> {
    let fits = (1..=LONGEST_FIFO_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let reason = || "1 to 128 letters, digits and punctuation marks".to_owned();
    if fits { Ok(()) } else { Err(Fault::InvalidParameterValue { parameter, reason: reason() }) }
}

/// A message's size in bytes: the body, and name, type and value of every attribute.
pub(super) fn size(body: &str, attributes: &MessageAttributes) -> usize {
    let value = |attribute: &MessageAttribute| attribute.value().map_or(0, |value| value.bytes().len());
    let sizes = attributes.iter().map(|(name, it)| name.len() + it.data_type.len() + value(it));
    body.len() + sizes.sum::<usize>()
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let lower = name.to_ascii_lowercase();
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(plain)
        && !name.split('.').any(str::is_empty)
        && !lower.starts_with("aws.")
        && !lower.starts_with("amazon.")
}

fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// A digest, shown in hexadecimal.
pub(super) struct Md5(pub(super) u128);

impl Md5 {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::taken(md5::Md5::new_with_prefix(bytes))
    }

    fn taken(digest: md5::Md5) -> Self {
        Self(u128::from_be_bytes(digest.finalize().into()))
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The digest of attributes, in the order of their names: name, type, one byte for the kind of value, value; each but
/// that byte after its length in four bytes, most significant first. None where there are none.
pub(super) fn md5_of_attributes(attributes: &MessageAttributes) -> Option<String> {
    let mut digest = md5::Md5::new();
    for (name, attribute) in attributes {
        let value = attribute.value().ok()?;
        add(&mut digest, name.as_bytes());
        add(&mut digest, attribute.data_type.as_bytes());
        digest.update([value.transport()]);
        add(&mut digest, value.bytes());
    }
    (!attributes.is_empty()).then(|| Md5::taken(digest).to_string())
}

fn add(digest: &mut md5::Md5, bytes: &[u8]) {
    digest.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    digest.update(bytes);
}

/// Keeps the attributes that a receiver names: by name, by prefix (`foo.*`), or all (`All`, `.*`).
pub(super) fn select(attributes: &mut MessageAttributes, wanted: &[String]) {
    let is_wanted = |name: &str| {
        wanted.iter().any(|pattern| match pattern.strip_suffix(".*") {
            Some(prefix) => name.starts_with(prefix),
            None => pattern == name || pattern == "All",
        })
    };
    attributes.retain(|name, _| is_wanted(name));
}
