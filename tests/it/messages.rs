//! The labelled messages of tests/data/messages, each against its expected verdict, with the built-in columns.

use std::{fs, path::Path};

use masq::{
    config::{ColumnType, Config, Sources, UnknownFields},
    event::{Event, Field, Value},
    pii::Pii,
    pipeline::{
        decode::{Decoder, decode},
        value::Limits,
    },
    queue::{Key, Message, Receipt},
    sink::copy,
};
use serde_json::{Value as Json, json};
use uuid::Uuid;

/// 2023-05-06 07:08:09 UTC.
const SENT_AT: i64 = 1_683_356_889_000;

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

fn message(body: Vec<u8>) -> Message {
    let key = Key { sent_at: SENT_AT, id: Uuid::nil() };
    Message::new(key, 1, body, Receipt(String::new()))
}

fn read(decoder: &Decoder, body: &[u8]) -> Result<Event, String> {
    let decoded = decode(vec![message(body.to_vec())], decoder).pop().expect("one goes in, one comes out");
    decoded.meaning.map_err(|reject| reject.reason.to_string())
}

/// The body of a case: a file as it is, or the parts that a .gen file spells out.
fn body(stem: &Path) -> Vec<u8> {
    if let Ok(body) = fs::read(stem.with_extension("json")) {
        return body;
    }
    let parts: Vec<Json> = serde_json::from_slice(&fs::read(stem.with_extension("gen")).unwrap()).unwrap();
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
            _ => panic!("{}: a part is a string or an array", stem.display()),
        }
    }
    body.into_bytes()
}

/// The plain values of an event as the labels write them.
fn values(event: &Event, with_date: bool) -> Json {
    let text = |at: usize| event.values[at].as_ref().map(|value| value.expose().raw.clone());
    let field = |at: usize| event.values[at].as_ref().map(Pii::expose);
    let ip = field(2).map(|field| match field.value {
        Value::Ip(address) => canonical(address),
        _ => panic!("masked_ip means an address"),
    });
    let mut values = json!({
        "user_id": text(0), "device_type": text(1), "ip": ip, "device_id": text(3), "locale": text(4),
        "app_version": text(5),
    });
    if with_date {
        values["create_date"] = json!(text(6));
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

#[test]
fn every_labelled_message_has_its_verdict() {
    let (text, integer) = (decoder(ColumnType::Varchar(Some(32))), decoder(ColumnType::Integer));
    let mut wrong = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/messages")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "expected") {
            continue;
        }
        cases += 1;
        let label = fs::read_to_string(&path).unwrap();
        let (verdict, plain) = label.split_once('\n').unwrap();
        let body = body(&path);
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (got, got_plain) = match read(&text, &body) {
            Err(reason) => (reason, Json::Null),
            Ok(event) => {
                let mut plain = values(&event, label.contains("\"create_date\""));
                plain["app_version_integer"] = match read(&integer, &body) {
                    Ok(event) => integer_version(event.values[5].as_ref().map(Pii::expose)),
                    Err(reason) => json!(reason),
                };
                ("row".to_owned(), plain)
            }
        };
        let expected_plain = serde_json::from_str(plain).unwrap_or(Json::Null);
        if got != verdict || got_plain != expected_plain {
            wrong.push(format!("{name}: expected {verdict} {expected_plain}, got {got} {got_plain}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= 120, "only {cases} cases were found");
}

#[test]
fn every_truncation_and_every_flipped_bit_ends_as_a_verdict() {
    let decoder = decoder(ColumnType::Varchar(Some(32)));
    let base = br#"{"user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae", "app_version": "2.3.0", "device_type": "android", "ip": "199.172.111.135", "locale": "RU", "device_id": "593-47-5928"}"#;
    assert!(read(&decoder, base).is_ok());
    for end in 0..base.len() {
        assert!(read(&decoder, &base[..end]).is_err(), "cut off after {end} bytes it passes");
    }
    for bit in 0..base.len() * 8 {
        let mut body = base.to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        // Row or reason: either is fine, a panic is not.
        drop(read(&decoder, &body));
    }
}
