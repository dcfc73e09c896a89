//! Marked messages: good ones, and for every reason that a message itself can give one that is refused for it.
//!
//! What a good message says in columns without a mask stands in the table, so only what it says elsewhere is marked. In a
//! refused one everything is.

use std::{net::IpAddr, sync::Arc};

use super::marks::Mark;

pub(super) const ADDRESS: &str = "203.0.113.77";
pub(super) const ADDRESS_6: &str = "2001:db8:ca:fe::77";
pub(super) const DEVICE: &str = "canary-device";
/// What else a message holds that is only to become a token, a hash or NULL.
const SESSION: &str = "canary-session";
const NOTE: &str = "canary-note";
const EVENT: &str = "canary-event";
/// Of refused messages.
const USER: &str = "canary-user";
const TYPE: &str = "canary-type";
const BODY: &str = "canary-body";

/// The table of the logins, with a column for each kind of mask and of value.
pub(super) const CONFIG: &str = r#"
unknown_fields = "reject"

[queue]
envelope = "auto"
dedupe = "body:event_id"

[database]
connections = 1
lock_timeout = "25s"

[vault]
erasures = "erasures.jsonl"

[audit]
checkpoints = "checkpoints"

[columns]
user_id          = { from = "user_id",     type = "varchar(128)", required = true, subject = true }
device_type      = { from = "device_type", type = "varchar(32)" }
masked_ip        = { from = "ip",          type = "varchar(256)", as = "ip", mask = "hmac", vault = true }
masked_device_id = { from = "device_id",   type = "varchar(256)", mask = "hmac", vault = true }
session          = { from = "session",     type = "bytea",        mask = "hmac" }
network          = { from = "network",     type = "text",         as = "ip", mask = "prefix" }
note             = { from = "note",        type = "text",         mask = "redact" }
app_version      = { from = "app_version", type = "varchar(32)",  as = "version" }
score            = { from = "score",       type = "integer" }
request          = { from = "request",     type = "uuid" }
create_date      = { from = "create_date", type = "date", default = "sent_date" }
"#;

pub(super) fn marks() -> Vec<Mark> {
    let addresses = [ADDRESS, ADDRESS_6].map(|address| Mark::address(address.parse::<IpAddr>().unwrap()));
    let texts = [DEVICE, SESSION, NOTE, EVENT, USER, TYPE, BODY].map(Mark::text);
    addresses.into_iter().chain(texts).collect()
}

/// A login with something else in one of its fields, or one field more.
fn login(user: &str, ip: &str, field: &str, value: &str) -> String {
    let fields = [
        ("user_id", format!("{user:?}")),
        ("device_type", r#""ios""#.to_owned()),
        ("ip", format!("{ip:?}")),
        ("device_id", format!("{DEVICE:?}")),
        ("session", format!("{SESSION:?}")),
        ("network", format!("{ip:?}")),
        ("note", format!("{NOTE:?}")),
    ];
    let others = fields.iter().filter(|(name, _)| *name != field).map(|(name, value)| (*name, value.as_str()));
    let all: Vec<String> = others.chain([(field, value)]).map(|(name, value)| format!("{name:?}: {value}")).collect();
    format!("{{{}}}", all.join(", "))
}

/// A login that becomes a row.
pub(super) fn good(user: &str) -> String {
    login(user, ADDRESS, "device_id", &format!("{DEVICE:?}"))
}

/// Logins that become rows.
pub(super) fn good_ones() -> Vec<String> {
    let mut bodies: Vec<String> = (0..30).map(|number| good(&format!("good-{number}"))).collect();
    bodies.extend((0..5).map(|number| login(&format!("good-{number}"), ADDRESS_6, "app_version", r#""2.3.0""#)));
    bodies.extend((0..5).map(|number| login(&format!("mapped-{number}"), "::ffff:203.0.113.77", "score", "7")));
    let event = format!(r#""{EVENT}""#);
    // The second is a duplicate of the first by its producer's own id.
    bodies.extend(["event-1", "event-2"].map(|user| login(user, ADDRESS, "event_id", &event)));
    bodies
}

/// Refused by the table: by a constraint, a unique index and a trigger. PostgreSQL's own log quotes the columns without a
/// mask of such a row, so those are not marked.
pub(super) const TABLE: &str = "
    ALTER TABLE user_logins ADD CHECK (device_type <> 'refused-type');
    CREATE UNIQUE INDEX ON user_logins (score) WHERE score > 10;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN RAISE 'refused: %', row_to_json(NEW); END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW
      WHEN (NEW.device_type = 'trigger-type') EXECUTE PROCEDURE refuse()";

/// What SNS wraps around a message.
fn wrapped(message: &str) -> String {
    format!(
        r#"{{"Type": "Notification", "MessageId": "{BODY}", "TopicArn": "{BODY}", "Message": {message}, "Timestamp": "2024-05-06T07:08:09.000Z"}}"#
    )
}

/// Messages that become dead letters, and the kinds of reasons.
pub(super) fn bad_ones() -> Vec<(&'static str, Arc<[u8]>)> {
    let bad = |field, value: &str| login(USER, ADDRESS, field, value);
    let text = |value: &str| format!("{value:?}");
    let whole = bad("device_type", &text(TYPE));
    let mut bodies = vec![
        ("not_json", format!("{BODY} {whole}")),
        ("truncated_json", whole[..whole.len() - 1].to_owned()),
        ("trailing_data", format!("{whole} {BODY}")),
        ("too_deep", format!("{}{BODY:?}{}", "[".repeat(500), "]".repeat(500))),
        ("too_large", bad("note", &text(&BODY.repeat(100_000)))),
        ("not_object", format!("[{whole}]")),
        ("duplicate_key", format!(r#"{{"{BODY}": 1, "{BODY}": 2}}"#)),
        ("invalid_unicode", bad("device_id", &format!(r#""{DEVICE}\ud800""#))),
        ("nul_character", bad("user_id", &format!(r#""{USER}\u0000""#))),
        ("number_out_of_range", bad("score", "1e400")),
        ("unknown_message_type", format!(r#"{{"{BODY}": "{USER}"}}"#)),
        ("missing_field", whole.replace("user_id", BODY)),
        ("empty_field", bad("user_id", r#""""#)),
        ("wrong_type", bad("ip", &format!(r#"{{"{BODY}": "{ADDRESS}"}}"#))),
        ("field_too_long", bad("device_type", &text(&TYPE.repeat(9)))),
        ("bad_ip", bad("ip", &text(&format!("{ADDRESS}.{BODY}")))),
        ("bad_version", bad("app_version", &text(BODY))),
        ("bad_date", bad("create_date", &text(BODY))),
        ("bad_uuid", bad("request", &text(BODY))),
        ("unknown_field", bad(BODY, &text(BODY))),
        ("double_encoded", wrapped(&format!("{:?}", format!("{whole:?}")))),
        ("envelope_unsupported", wrapped(&format!("{BODY:?}")).replace("Notification", "SubscriptionConfirmation")),
        ("envelope_invalid", wrapped(&format!("{:?}", wrapped(&format!("{whole:?}"))))),
    ];
    let refused = |field, value: &str| ("db_rejected", login("refused", ADDRESS, field, value));
    bodies.extend([
        refused("device_type", r#""refused-type""#),
        refused("device_type", r#""trigger-type""#),
        ("row", login("unique", ADDRESS, "score", "11")),
        refused("score", "11"),
    ]);
    bodies.into_iter().map(|(reason, body)| (reason, body.into_bytes().into())).collect()
}
