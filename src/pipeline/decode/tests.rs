//! Messages and what each column makes of them.

use uuid::Uuid;

use super::*;
use crate::{
    config::{Config, Sources},
    queue::{Key, Receipt},
    start,
};

/// 2023-05-06 07:08:09.123 UTC.
const SENT_AT: i64 = 1_683_356_889_123;

/// What becomes of a body under this one column: its raw value, NULL, or the reason.
fn read(column: &str, body: &str) -> String {
    read_with("", column, body)
}

fn read_with(top: &str, column: &str, body: &str) -> String {
    let file = format!("{top}\n[columns]\nc = {{ {column} }}\nother = {{ from = \"other\", type = \"text\" }}\n");
    match decoder(&file).read(&message(body)) {
        Ok(event) => {
            event.values[0].as_ref().map_or("NULL".to_owned(), |field| field.expose().raw.clone().into_owned())
        }
        Err(reject) => reject.reason.to_string(),
    }
}

fn decoder(file: &str) -> Decoder {
    let sources = Sources { file: Some(("masq.toml", file)), ..Sources::default() };
    let config = Config::check(&sources).unwrap_or_else(|complaints| panic!("{complaints}"));
    let stored: Vec<_> = config.columns.iter().map(|column| column.column_type).collect();
    start::decoder(&config, &stored)
}

fn message(body: &str) -> Message {
    let key = Key { sent_at: SENT_AT, id: Uuid::nil() };
    Message::new(key, 1, body.as_bytes().to_vec(), Receipt("".into()))
}

#[test]
fn paths_lead_to_values() {
    let nested = r#"{"device": {"network": {"ip": "10.0.0.1"}, "a.b": ["x", {"/~": "y"}]}, "other": null}"#;
    for (from, expected) in [
        ("device.network.ip", "10.0.0.1"),
        ("/device/network/ip", "10.0.0.1"),
        ("/device/a.b/0", "x"),
        ("/device/a.b/1/~1~0", "y"),
        ("/device/a.b/2", "NULL"),
        ("/device/a.b/00", "NULL"),
        ("/device/a.b/-1", "NULL"),
        ("device.a", "NULL"),
        ("device.gone.ip", "NULL"),
        ("other.ip", "NULL"),
        ("device.network.ip.more", "wrong_type:device.network.ip.more"),
        ("device.network", "wrong_type:device.network"),
    ] {
        assert_eq!(read(&format!("from = \"{from}\", type = \"text\""), nested), expected, "{from}");
    }
    assert_eq!(read("from = \"a.b\", type = \"text\"", r#"{"a": 1}"#), "wrong_type:a.b");
}

#[test]
fn what_stands_in_and_what_is_required() {
    let missing = r#"{"other": "x"}"#;
    for (column, body, expected) in [
        ("type = \"text\", default = \"none\"", missing, "none"),
        ("type = \"integer\", default = 7", missing, "7"),
        ("type = \"boolean\", default = false", r#"{"f": null}"#, "false"),
        ("type = \"date\", default = \"sent_date\"", r#"{"f": ""}"#, "2023-05-06"),
        ("type = \"text\", default = \"sent_date\"", missing, "2023-05-06"),
        ("type = \"timestamptz\", default = \"sent_at\"", missing, "2023-05-06T07:08:09.123Z"),
        ("type = \"text\", required = true", missing, "missing_field:f"),
        ("type = \"text\", required = true", r#"{"f": null}"#, "missing_field:f"),
        ("type = \"text\", required = true", r#"{"f": ""}"#, "empty_field:f"),
        ("type = \"date\", on_invalid = \"null\"", r#"{"f": "soon"}"#, "NULL"),
        ("type = \"date\", on_invalid = \"null\", required = true", r#"{"f": "soon"}"#, "bad_date:f"),
    ] {
        assert_eq!(read(&format!("from = \"f\", {column}"), body), expected, "{column} {body}");
    }
}

#[test]
fn values_mean_what_their_column_says_or_nothing() {
    for (column, value, expected) in [
        ("type = \"smallint\"", "32767", "32767"),
        ("type = \"smallint\"", "32768", "number_out_of_range"),
        ("type = \"integer\"", "-2147483648", "-2147483648"),
        ("type = \"bigint\"", "9223372036854775808", "number_out_of_range"),
        ("type = \"bigint\"", "1.0", "wrong_type:f"),
        ("type = \"bigint\"", "\"1\"", "wrong_type:f"),
        ("type = \"real\"", "1e39", "number_out_of_range"),
        ("type = \"double precision\"", "1e39", "1e39"),
        ("type = \"boolean\"", "\"true\"", "wrong_type:f"),
        ("type = \"date\"", "\"2024-02-29\"", "2024-02-29"),
        ("type = \"date\"", "\"2023-02-29\"", "bad_date:f"),
        ("type = \"date\"", "\"now\"", "bad_date:f"),
        ("type = \"timestamptz\"", "\"2023-05-06T07:08:09+02:00\"", "2023-05-06T07:08:09+02:00"),
        ("type = \"timestamptz\"", "\"2023-05-06\"", "bad_date:f"),
        ("type = \"uuid\"", "\"424CDD21-063a-43a7-b91b-7ca1a833afae\"", "424CDD21-063a-43a7-b91b-7ca1a833afae"),
        ("type = \"uuid\"", "\"{424cdd21-063a-43a7-b91b-7ca1a833afae}\"", "bad_uuid:f"),
        ("type = \"inet\"", "\"::1\"", "::1"),
        ("type = \"inet\"", "\"::1/64\"", "bad_ip:f"),
        ("type = \"jsonb\"", "{\"a\": [1, \"\\u00e9\"]}", "{\"a\": [1, \"\\u00e9\"]}"),
        ("type = \"varchar(5)\", as = \"json\"", "[1, 2, 3]", "field_too_long:f"),
        ("type = \"varchar(3)\", as = \"integer\"", "1234", "field_too_long:f"),
        ("type = \"varchar(3)\"", "\"äöü\"", "äöü"),
        ("type = \"varchar(3)\"", "\"ab  \"", "field_too_long:f"),
    ] {
        let body = format!("{{\"f\": {value}}}");
        assert_eq!(read(&format!("from = \"f\", {column}"), &body), expected, "{column} {value}");
    }
}

/// Whom a dead letter concerns under this configuration of the queue, when `user` is the subject.
fn subject(queue: &str, body: &str) -> Option<String> {
    let file = format!("[queue]\n{queue}\n[columns]\nc = {{ from = \"user\", type = \"text\", subject = true }}\n");
    let decoder = decoder(&file);
    let message = message(body);
    let reject = decoder.read(&message).err().and_then(|reject| reject.subject);
    let found = decoder.subject(&self::message(body)).map(|subject| subject.expose().clone());
    // A row that only the database refuses has the same.
    assert!(reject.is_none_or(|subject| Some(subject.expose()) == found.as_ref()));
    found
}

#[test]
fn whom_it_concerns_is_found_in_an_envelope_too() {
    let sns = r#"{"Type": "Notification", "user": "out", "Message": "{\"user\": \"in\", \"user\": \"in\"}"}"#;
    let event = r#"{"detail-type": "t", "source": "s", "user": "out", "detail": {"user": "in"}, "n": 1e400}"#;
    for (queue, body, expected) in [
        ("envelope = \"sns\"", sns, Some("in")),
        ("envelope = \"auto\"", sns, Some("in")),
        ("envelope = \"eventbridge\"", sns, Some("in")),
        ("envelope = \"none\"", sns, Some("out")),
        ("envelope = \"eventbridge\"", event, Some("in")),
        ("envelope = \"none\"", &event.replace("\"out\"", "null"), Some("in")),
        ("envelope = \"sns\"", r#"{"user": "out", "Type": "Notification", "Message": "no JSON"}"#, Some("out")),
        ("envelope = \"sns\"", r#"{"user": "out"}"#, Some("out")),
        ("envelope = \"sns\"", r#"{"Type": "Notification", "Message": "\"in\""}"#, None),
        ("envelope = \"sns\"", "[]", None),
    ] {
        assert_eq!(subject(queue, body).as_deref(), expected, "{queue} {body}");
    }
}

#[test]
fn a_path_is_followed_from_the_message_in_an_envelope() {
    let read = |envelope, body| {
        read_with(&format!("queue.envelope = \"{envelope}\""), "from = \"a.b\", type = \"text\"", body)
    };
    let event = r#"{"detail-type": "t", "source": "s", "detail": {"a": {"b": "x"}}, "a": {"b": "y"}}"#;
    assert_eq!(read("eventbridge", event), "x");
    assert_eq!(read("none", event), "y");
}

#[test]
fn the_field_of_an_event_id_is_known() {
    let top = "unknown_fields = \"reject\"\n[queue]\ndedupe = \"body:meta.id\"";
    let column = "from = \"f\", type = \"text\"";
    assert_eq!(read_with(top, column, r#"{"f": "x", "meta": {"id": 1}}"#), "x");
    assert_eq!(read_with(top, column, r#"{"f": "x", "id": 1}"#), "unknown_field");
}

#[test]
fn unknown_fields_are_dropped_or_refused() {
    let body = r#"{"f": "x", "g": 1, "h": {"other": 2}}"#;
    let column = "from = \"f\", type = \"text\"";
    assert_eq!(read(column, body), "x");
    assert_eq!(read_with("unknown_fields = \"reject\"", column, body), "unknown_field");
    assert_eq!(read_with("unknown_fields = \"reject\"", column, r#"{"f": "x", "other": null}"#), "x");
}
