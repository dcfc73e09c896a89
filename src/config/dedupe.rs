//! Where a message says what its producer knows the event by: in a field of the body, or in a message attribute.

use super::Path;

/// The longest name of a message attribute, by SQS's quotas.
const LONGEST_NAME: usize = 256;

/// `dedupe`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dedupe {
    /// In this field of the body; of an envelope, of the message in it.
    Body(Path),
    /// In the message attribute of this name.
    Attribute(String),
}

impl Dedupe {
    /// Reads `body:PATH` or `attribute:NAME`. The error is the end of a sentence that begins with the setting's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("body", path)) => {
                Path::parse(path).map(Self::Body).map_err(|error| format!("names a field that {error}"))
            }
            Some(("attribute", name)) => attribute(name).map(|()| Self::Attribute(name.to_owned())),
            _ => Err("must be \"body:\" and a field, or \"attribute:\" and a message attribute's name".to_owned()),
        }
    }
}

/// What SQS allows as a name: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html>
fn attribute(name: &str) -> Result<(), String> {
    let reserved = ["aws.", "amazon."].iter().any(|prefix| name.to_ascii_lowercase().starts_with(prefix));
    let characters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if reserved || !characters || name.split('.').any(str::is_empty) || name.len() > LONGEST_NAME {
        return Err(format!(
            "names an attribute that no message has: SQS takes 1 to {LONGEST_NAME} letters, digits, \"_\", \"-\" and \
             single dots inside, not beginning with \"AWS.\" or \"Amazon.\""
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_or_an_attribute() {
        let body = |path: &str| Ok(Dedupe::Body(Path::parse(path).unwrap()));
        assert_eq!(Dedupe::parse("body:event_id"), body("event_id"));
        assert_eq!(Dedupe::parse("body:meta.id"), body("meta.id"));
        assert_eq!(Dedupe::parse("body:/a:b/0"), body("/a:b/0"));
        assert_eq!(Dedupe::parse("attribute:event-id.v2"), Ok(Dedupe::Attribute("event-id.v2".to_owned())));
    }

    #[test]
    fn neither() {
        let long = format!("attribute:{}", "a".repeat(257));
        for (text, error) in [
            ("event_id", "must be \"body:\""),
            ("header:id", "must be \"body:\""),
            ("body:", "names a field that must not be empty"),
            ("body:a..b", "names a field that must have a key on both sides"),
            ("attribute:", "names an attribute"),
            ("attribute:.a", "names an attribute"),
            ("attribute:a..b", "names an attribute"),
            ("attribute:a b", "names an attribute"),
            ("attribute:AWS.id", "names an attribute"),
            ("attribute:amazon.id", "names an attribute"),
            (&long, "names an attribute"),
        ] {
            assert!(Dedupe::parse(text).unwrap_err().starts_with(error), "{text}");
        }
    }
}
