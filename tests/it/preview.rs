//! `masq preview`: it says what a run does, and does nothing.

use std::{fs, net::Ipv4Addr, path::Path};

use masq::{
    config::{Config, Sources},
    local::sqs::SqsServer,
    queue::memory::{MemoryQueues, Settings},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    scene::Scene,
    support::{Keys, config, login, masq, shared},
};

/// What one call came to.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    /// Its output, one object a line.
    fn json(&self) -> Vec<Value> {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn preview(directory: &TempDir, args: &[&str]) -> Said {
    let credentials = [("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any"), ("AWS_REGION", "us-east-1")];
    let output = masq(directory.path(), &[&["preview"], args].concat()).envs(credentials).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A directory with this file of messages.
fn messages(bytes: &[u8]) -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("messages"), bytes).unwrap();
    directory
}

/// The labelled message that all others are made from.
fn base() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/messages/shape-base.json")).unwrap()
}

/// What the pipeline makes of a message: its row, each value as text, by the names of `columns`.
async fn row(body: &[u8], config: Config, keys: &Keys, columns: &str) -> Value {
    let scene = Scene { shared: shared(keys), ..Scene::with(config).await };
    scene.queue.inner.send(body.to_vec());
    scene.settle().await;
    let table = &scene.config.table.name;
    let sql = format!("SET timezone = 'UTC'; SELECT to_json(row) FROM (SELECT {columns} FROM {table}) row");
    serde_json::from_str(&scene.database.query(&sql).await.remove(0)).unwrap()
}

#[tokio::test]
async fn it_shows_the_row_that_the_table_gets() {
    let (keys, here) = (Keys::create(), messages(&base()));
    let row = row(&base(), config(), &keys, "*").await;
    let shown = preview(&here, &["messages", "--json", "--keys", keys.path().to_str().unwrap()]);
    assert_eq!(shown.json(), [json!({"line": 1, "verdict": "row", "columns": row})]);
    assert_eq!(shown.err, "1 row and 0 dead letters\n");
    let order: Vec<_> = config().columns.iter().map(|column| shown.out.find(&format!("\"{}\"", column.name))).collect();
    assert!(order.is_sorted(), "the columns are in the table's order");
}

#[tokio::test]
async fn every_type_is_shown_as_postgresql_shows_it() {
    let file = r#"
        [table]
        name = "everything"
        [columns]
        t  = { from = "t",  type = "text" }
        s  = { from = "i",  type = "smallint" }
        i  = { from = "i",  type = "integer" }
        b  = { from = "i",  type = "bigint" }
        r  = { from = "n",  type = "real" }
        d  = { from = "n",  type = "double precision" }
        n  = { from = "n",  type = "numeric" }
        e  = { from = "e",  type = "numeric" }
        o  = { from = "o",  type = "boolean" }
        da = { from = "da", type = "date" }
        ts = { from = "ts", type = "timestamp" }
        tz = { from = "ts", type = "timestamptz" }
        u  = { from = "u",  type = "uuid" }
        a  = { from = "a",  type = "inet" }
        p  = { from = "a",  type = "inet", mask = "prefix" }
        q  = { from = "a",  type = "text", as = "ip", mask = "prefix" }
        j  = { from = "j",  type = "json" }
        k  = { from = "j",  type = "jsonb" }
        x  = { from = "t",  type = "bytea", mask = "hmac" }
        y  = { from = "t",  type = "varchar(64)", mask = "redact" }
    "#;
    let body = r#"{"t": "a \"b\" é", "i": -12, "n": -10000.25, "e": 1.50E-7, "o": true, "da": "2023-05-06",
        "ts": "2023-05-06T07:08:09.12+02:00", "u": "7D1F0B3E-52C4-4A86-9E0D-B1A94C6F2E58", "a": "2001:db8:1:2::3",
        "j": [1, {"a": null}]}"#
        .replace('\n', "");
    let columns = "t, s::text, i::text, b::text, r::text, d::text, n::text, e::text, o::text, da::text, ts::text, \
        tz::text, u::text, abbrev(a) AS a, p::text, q, j::text, k::text, x::text, y";
    let (keys, here) = (Keys::create(), messages(body.as_bytes()));
    let sources = Sources { file: Some(("masq.toml", file)), ..Sources::default() };
    let config = Config::check(&sources).unwrap_or_else(|complaints| panic!("{complaints}"));
    let row = row(body.as_bytes(), config, &keys, columns).await;
    fs::write(here.path().join("masq.toml"), file).unwrap();
    let shown = preview(&here, &["messages", "--json", "--keys", keys.path().to_str().unwrap()]).json();
    assert_eq!(shown, [json!({"line": 1, "verdict": "row", "columns": row})]);
}

#[test]
fn it_needs_no_keys_and_never_shows_what_is_masked() {
    let mut file = base();
    file.extend_from_slice(b"\n\n  \nno json 203.0.113.77\n");
    file.extend_from_slice(login("u1", "203.0.113.77").as_bytes());
    file.extend_from_slice(b"\n{\"user_id\": \"u2\", \"ip\": \"203.0.113.777\"}\r\n\xff\n");
    file.extend_from_slice(&vec![b' '; 1_048_576]);
    file.extend_from_slice(&base());
    let here = messages(&file);
    let shown = preview(&here, &["messages"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    let verdicts: Vec<_> = shown.out.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(
        verdicts,
        [
            "line 1: row",
            "line 4: dead letter: not_json",
            "line 5: row",
            "line 6: dead letter: bad_ip:ip",
            "line 7: dead letter: invalid_unicode",
            "line 8: dead letter: too_large",
        ]
    );
    let tokens: Vec<_> = shown.out.lines().filter(|line| line.starts_with("  masked_ip ")).collect();
    assert!(tokens.len() == 2 && tokens[0] == tokens[1], "{tokens:?}");
    assert!(shown.out.contains("  locale           = RU\n") && shown.out.contains("  locale           = NULL\n"));
    assert!(shown.err.contains("thrown away") && shown.err.contains("--keys"), "{}", shown.err);
    let summary = "2 rows and 4 dead letters: 1 bad_ip:ip, 1 invalid_unicode, 1 not_json, 1 too_large\n";
    assert!(shown.err.ends_with(summary), "{}", shown.err);
    for plain in ["203.0.113", "481-20-7735", "593-47-5928"] {
        assert!(!shown.out.contains(plain) && !shown.err.contains(plain), "{plain} is shown");
    }
    assert_ne!(preview(&here, &["messages"]).out, shown.out, "a key that is thrown away is used once");
}

#[test]
fn it_unwraps_envelopes_and_says_whose_event_was_there_before() {
    let message = |id: &str| json!({"user_id": "u", "event_id": id}).to_string();
    let file = [
        json!({"Type": "Notification", "Message": message("e-1")}).to_string(),
        message("e-2"),
        json!({"detail-type": "t", "source": "s", "detail": {"user_id": "u", "event_id": "e-1"}}).to_string(),
        json!({"Type": "UnsubscribeConfirmation"}).to_string(),
    ];
    let here = messages(file.join("\n").as_bytes());
    fs::write(here.path().join("masq.toml"), "[queue]\nenvelope = \"auto\"\ndedupe = \"body:event_id\"\n").unwrap();
    let shown = preview(&here, &["messages", "--json"]);
    let verdicts: Vec<_> = shown.json().iter().map(|shown| shown["verdict"].as_str().unwrap().to_owned()).collect();
    assert_eq!(verdicts, ["row", "row", "repeated", "dead_letter"]);
    let summary = "2 rows and 1 dead letter: 1 envelope_unsupported; 1 message repeated\n";
    assert!(shown.err.ends_with(summary), "{}", shown.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peek_leaves_the_messages_on_the_queue() {
    let queues = MemoryQueues::new();
    let queue = queues.create("login-queue", Settings::default()).unwrap();
    let server = SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), queues).await.unwrap();
    for user in ["u1", "u2", "u3"] {
        queue.send(login(user, "199.172.111.135").into_bytes());
    }
    let here = TempDir::new().unwrap();
    let url = server.queue_url("login-queue");
    let peek = |max: &str| preview(&here, &["--peek", max, "--queue-url", &url, "--json"]);
    let shown = tokio::task::block_in_place(|| peek("2"));
    assert_eq!(shown.json().len(), 2);
    assert!(shown.json().iter().all(|shown| shown["verdict"] == "row" && shown["message_id"].is_string()));
    assert!(shown.err.contains("Looked at 2 messages of login-queue: each counts as received once more"));
    assert!(!shown.out.contains("199.172") && !shown.err.contains("199.172"));
    assert_eq!((queue.count().visible, queue.count().in_flight), (3, 0));
    assert_eq!(tokio::task::block_in_place(|| peek("10")).json().len(), 3);
    assert_eq!((queue.count().visible, queue.count().in_flight), (3, 0));
    server.stop().await;
}

#[test]
fn it_says_what_it_lacks() {
    let here = messages(b"{}");
    let peek = preview(&here, &["--peek", "3"]);
    assert_eq!(peek.code, 78);
    assert!(peek.err.contains("no queue is named") && peek.err.contains("MASQ_QUEUE_URL"), "{}", peek.err);
    for args in [&[][..], &["messages", "--peek", "3"], &["--peek", "11"], &["--peek", "0"]] {
        assert_eq!(preview(&here, args).code, 2, "{args:?}");
    }
    let missing = preview(&here, &["no-such-file"]);
    assert!(missing.code == 78 && missing.err.contains("cannot read no-such-file"), "{}", missing.err);
    assert_eq!(preview(&here, &["messages", "--keys", "no-keys"]).code, 78);
}
