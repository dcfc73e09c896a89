//! The labelled messages of tests/data/messages, each against its expected verdict, with the built-in columns.
//!
//! What a body becomes is written here as the labels write it, for other tests too.

use std::{
    fs,
    path::{Path, PathBuf},
};

use masq::{
    config::{self, ColumnType, Config, Envelope, Sources, UnknownFields},
    event::{Event, Field, Value},
    pii::Pii,
    pipeline::{decode::Decoder, value::Limits},
    queue::{Key, Message, Receipt},
    sink::copy,
};
use serde_json::{Value as Json, json};
use uuid::Uuid;

/// 2023-05-06 07:08:09 UTC.
const SENT_AT: i64 = 1_683_356_889_000;

/// Each by its word in the configuration and in the names of labels.
pub(crate) const ENVELOPES: [(&str, Envelope); 4] = [
    ("none", Envelope::None),
    ("sns", Envelope::Sns),
    ("eventbridge", Envelope::EventBridge),
    ("auto", Envelope::Auto),
];

/// What the built-in pipeline makes of bodies that come in this envelope and have their event's id in `event_id`.
pub(crate) struct Judge {
    text: Decoder,
    integer: Decoder,
}

impl Judge {
    pub(crate) fn new(envelope: Envelope) -> Self {
        let decoder = |app_version| {
            let path = config::Path::parse("event_id").unwrap();
            decoder(app_version).unwrapping(envelope).with_event_id(path)
        };
        Self { text: decoder(ColumnType::Varchar(Some(32))), integer: decoder(ColumnType::Integer) }
    }

    /// `row` or the reason; and of a row the plain values, or null.
    pub(crate) fn verdict(&self, body: &[u8]) -> (String, Json) {
        let event = match read(&self.text, body) {
            Ok(event) => event,
            Err(reason) => return (reason, Json::Null),
        };
        let mut plain = values(&event);
        plain["app_version_integer"] = match read(&self.integer, body) {
            Ok(event) => integer_version(event.values[5].as_ref().map(Pii::expose)),
            Err(reason) => json!(reason),
        };
        ("row".to_owned(), plain)
    }
}

/// The built-in columns, over a table whose app_version is of this type.
fn decoder(app_version: ColumnType) -> Decoder {
    let config = Config::check(&Sources::default()).expect("the built-in configuration is good");
    let limits = config
        .columns
        .iter()
        .map(|column| {
            let stored = if column.name == "app_version" { app_version } else { column.column_type };
            Limits::of(stored, column.mask.as_ref())
        })
        .collect();
    Decoder::new(config.columns, limits, UnknownFields::Drop)
}

fn read(decoder: &Decoder, body: &[u8]) -> Result<Event<'static>, String> {
    let key = Key { sent_at: SENT_AT, id: Uuid::nil() };
    let message = Message::new(key, 1, body.to_vec(), Receipt("".into()));
    decoder.read(&message).map(Event::into_owned).map_err(|reject| reject.reason.to_string())
}

/// The plain values of an event as the labels write them: without the date if the day of sending stands in.
fn values(event: &Event) -> Json {
    let text = |at: usize| event.values[at].as_ref().map(|value| value.expose().raw.clone());
    let ip = event.values[2].as_ref().map(|field| match field.expose().value {
        Value::Ip(address) => canonical(address),
        _ => panic!("masked_ip means an address"),
    });
    let mut values = json!({
        "user_id": text(0), "device_type": text(1), "ip": ip, "device_id": text(3), "locale": text(4),
        "app_version": text(5),
    });
    if text(6).is_some_and(|date| date != "2023-05-06") {
        values["create_date"] = json!(text(6));
    }
    if let Some(id) = &event.event_id {
        values["event_id"] = json!(id.expose());
    }
    values
}

/// RFC 5952 without its dotted form for the lowest 32 bits.
fn canonical(address: std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V6(v6) if v6.segments()[..6] == [0; 6] && v6.segments()[6] != 0 => {
            format!("::{:x}:{:x}", v6.segments()[6], v6.segments()[7])
        }
        address => address.to_string(),
    }
}

fn integer_version(field: Option<&Field>) -> Json {
    match field.map(|field| field.value) {
        Some(Value::Version(version)) => json!(copy::version_number(version)),
        _ => Json::Null,
    }
}

/// Every case without its extension, sorted.
pub(crate) fn cases() -> Vec<PathBuf> {
    let directory = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/messages")).unwrap();
    let paths = directory.map(|entry| entry.unwrap().path());
    let is_body = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json" || extension == "gen");
    let mut cases: Vec<_> = paths.filter(is_body).map(|path| path.with_extension("")).collect();
    cases.sort();
    assert!(cases.len() >= 600, "only {} cases were found", cases.len());
    cases
}

/// The body of a case: a file as it is, or the parts that a .gen file spells out.
pub(crate) fn body(case: &Path) -> Vec<u8> {
    if let Ok(body) = fs::read(case.with_extension("json")) {
        return body;
    }
    let parts: Vec<Json> = serde_json::from_slice(&fs::read(case.with_extension("gen")).unwrap()).unwrap();
    let mut body = String::new();
    for part in parts {
        match part {
            Json::String(text) => body.push_str(&text),
            Json::Array(part) => {
                let text = |at: usize| part[at].as_str().unwrap();
                for number in 0..part[0].as_u64().unwrap() {
                    body.push_str(text(1));
                    if part.len() == 3 {
                        body.push_str(&number.to_string());
                        body.push_str(text(2));
                    }
                }
            }
            _ => panic!("{}: a part is a string or an array", case.display()),
        }
    }
    body.into_bytes()
}

/// What a case is expected to be in this envelope, if it is labelled for it.
fn label(case: &Path, envelope: &str) -> Option<(String, Json)> {
    let extension = if envelope == "none" { "expected".to_owned() } else { format!("{envelope}.expected") };
    let label = fs::read_to_string(case.with_extension(extension)).ok()?;
    let (verdict, plain) = label.split_once('\n').unwrap();
    Some((verdict.to_owned(), serde_json::from_str(plain).unwrap_or(Json::Null)))
}

#[test]
fn every_labelled_message_has_its_verdict() {
    let mut wrong = Vec::new();
    for (word, envelope) in ENVELOPES {
        let judge = Judge::new(envelope);
        let mut labels = 0;
        for case in cases() {
            let Some(expected) = label(&case, word) else { continue };
            labels += 1;
            let got = judge.verdict(&body(&case));
            if got != expected {
                wrong.push(format!("{} in {word}: expected {expected:?}, got {got:?}", case.display()));
            }
        }
        assert!(labels >= if word == "none" { cases().len() } else { 100 }, "only {labels} labels for {word}");
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is right or wrong with a message is so inside an envelope, too. Only what is no login at all may be something
/// else there, which the labels of the cases named envelope-… say.
#[test]
fn a_message_means_the_same_in_an_sns_envelope() {
    let (sns, auto) = (Judge::new(Envelope::Sns), Judge::new(Envelope::Auto));
    let mut compared = 0;
    for case in cases() {
        let expected = label(&case, "none").unwrap();
        let Ok(message) = String::from_utf8(body(&case)) else { continue };
        let wrapped = json!({"Type": "Notification", "Message": message}).to_string();
        // A raw NUL must be written as an escape there, so it is found before the message is looked at.
        let is_comparable = !message.contains('\0') && wrapped.len() <= 1_048_576;
        if is_comparable && !["not_object", "unknown_message_type"].contains(&expected.0.as_str()) {
            compared += 1;
            assert_eq!(sns.verdict(wrapped.as_bytes()), expected, "{}", case.display());
            assert_eq!(auto.verdict(wrapped.as_bytes()), expected, "{}", case.display());
        }
    }
    assert!(compared > 400, "{compared}");
}

/// What does not look like an envelope is with "auto" what it is with "none".
#[test]
fn what_is_in_no_envelope_is_taken_as_it_is() {
    let auto = Judge::new(Envelope::Auto);
    for case in cases().into_iter().filter(|case| label(case, "auto").is_none()) {
        assert_eq!(auto.verdict(&body(&case)), label(&case, "none").unwrap(), "{}", case.display());
    }
}
