//! The canary test: marked values go in, everything that can be forced to fail fails, and the marks are looked for
//! wherever masq leaves words: tables, logs at trace level, metrics, readiness, PostgreSQL's own log.

use std::{net::Ipv4Addr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use masq::{
    local::{
        postgres::{Options, PrivatePostgres},
        sqs::SqsServer,
    },
    queue::memory::{MemoryQueues, Settings},
};
use tempfile::TempDir;

use crate::support::{Keys, connector, free_address, http_get, service, until};

/// Values of masked fields, and of all fields of messages that become dead letters.
const CANARIES: [&str; 5] = ["203.0.113.77", "canary-device", "canary-user", "canary-type", "canary-body"];

/// In which of its forms a mark stands in a text.
fn found<'a>(text: &str, canaries: &[&'a str]) -> Vec<&'a str> {
    let lower = text.to_lowercase();
    let stands = |canary: &&&str| {
        let hex: String = canary.bytes().map(|byte| format!("{byte:02x}")).collect();
        // Without the ends, which depend on what stands beside it.
        let base64 = (0..3).map(|skip| STANDARD.encode(&canary.as_bytes()[skip..]));
        let base64: Vec<String> = base64.map(|text| text[..text.len() - 4].to_owned()).collect();
        lower.contains(**canary) || lower.contains(&hex) || base64.iter().any(|encoded| text.contains(encoded.as_str()))
    };
    canaries.iter().filter(stands).copied().collect()
}

#[test]
fn a_planted_mark_is_found() {
    for planted in
        ["x canary-device y", "63616e6172792d646576696365", "AAA Y2FuYXJ5LWRldmljZQ== B", "eGNhbmFyeS1kZXZpY2U="]
    {
        assert_eq!(found(planted, &CANARIES), ["canary-device"], "{planted}");
    }
    assert!(found("nothing here", &CANARIES).is_empty());
}

fn body(user: &str, device_type: &str, ip: &str, device: &str) -> String {
    format!(r#"{{"user_id": "{user}", "device_type": "{device_type}", "ip": "{ip}", "device_id": "{device}"}}"#)
}

/// Good and wrong in every way that leads to another branch.
fn bodies() -> Vec<String> {
    let mut bodies = vec![
        body("u1", "ios", "203.0.113.77", "canary-device"),
        body("canary-user", "canary-type", "203.0.113.77", "canary-device"),
        body("canary-user", "ios", "203.0.113.77.canary-body", "canary-device"),
        body("canary-user", &"canary-type".repeat(9), "203.0.113.77", "canary-device"),
        r#"{"user_id": "canary-user", "canary-body": 1, "canary-body": 2}"#.to_owned(),
        r#"{"canary-body": "canary-user"}"#.to_owned(),
        r#"{"user_id": "canary-user", "ip": 1, "device_id": {"canary-device": "canary-body"}"#.to_owned(),
        "canary-body".to_owned(),
        r#""canary-body\u0000""#.to_owned(),
    ];
    bodies.extend((0..50).map(|number| body(&format!("good-{number}"), "ios", "203.0.113.77", "canary-device")));
    bodies
}

/// Everything that stands in these tables, with bytes in hexadecimal digits.
async fn tables(url: &str) -> String {
    let session = connector(url).connect().await.unwrap();
    let mut all = String::new();
    for table in ["user_logins", "masq.ledger", "masq.dead_letters", "masq.epochs", "masq.epoch_wraps", "masq.audit"] {
        for row in session.texts("looking", &format!("SELECT row_to_json(t)::text FROM {table} t")).await.unwrap() {
            all.push_str(row[0].as_deref().unwrap_or_default());
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mark_is_left_anywhere() {
    let directory = TempDir::new_in("/tmp").unwrap();
    let options = Options {
        directory: directory.path().join("cluster"),
        path: std::env::var("PATH").ok(),
        settings: vec![("log_min_messages".into(), "debug1".into()), ("log_error_verbosity".into(), "verbose".into())],
        ..Options::default()
    };
    let postgres = PrivatePostgres::start(&options).await.unwrap();
    let session = connector(&postgres.conninfo()).connect().await.unwrap();
    session
        .batch_execute(
            "CREATE TABLE user_logins(user_id varchar(128), device_type varchar(32), masked_ip varchar(256), \
             masked_device_id varchar(256), locale varchar(32), app_version varchar(32), create_date date, \
             CHECK (device_type <> 'canary-type'))",
        )
        .await
        .unwrap();
    let queues = MemoryQueues::new();
    let settings = Settings { visibility: Duration::from_secs(30), ..Settings::default() };
    let queue = queues.create("login-queue", settings).unwrap();
    for body in bodies() {
        queue.send(body.into_bytes());
    }
    let server = SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), queues).await.unwrap();
    let (url, keys) = (server.queue_url("login-queue"), Keys::create());
    let keys_dir = keys.path().display().to_string();
    let (listen, database) = (free_address(), postgres.conninfo());
    let address = listen.to_string();
    let what = ["--queue-url", &url, "--database-url", &database, "--keys", &keys_dir];
    let how = ["run", "--log", "trace", "--connections", "1", "--listen", &address];
    let arguments: Vec<&str> = how.into_iter().chain(what).collect();
    let child = service(&arguments).spawn().unwrap();
    until("all is settled", async || queue.count().is_empty()).await;

    // Now the table is taken away: the line stops, and readiness has to say why.
    session.batch_execute("ALTER TABLE user_logins RENAME COLUMN device_type TO gone").await.unwrap();
    queue.send(body("canary-user", "canary-type", "203.0.113.77", "canary-device").into_bytes());
    until("it is not ready", async || http_get(listen, "/readyz").await.contains("42703")).await;
    let spoken = http_get(listen, "/readyz").await + &http_get(listen, "/metrics").await;
    assert!(spoken.contains("masq_messages_dead_lettered_total{reason=\"db_rejected\"} 1"), "{spoken}");
    let id = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());

    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("\"level\":\"DEBUG\"") || log.contains("\"level\":\"TRACE\""), "the log is at trace level");
    assert_eq!(found(&log, &CANARIES), [""; 0], "masq's log");
    assert_eq!(found(&spoken, &CANARIES), [""; 0], "readiness and metrics");
    // The first message's own row has no mark in clear: its address and device are masked.
    assert_eq!(found(&tables(&postgres.conninfo()).await, &CANARIES), [""; 0], "tables");
    let server_log = std::fs::read_to_string(postgres.log()).unwrap();
    assert!(server_log.contains("23514"), "PostgreSQL's log tells of the refused row");
    assert_eq!(found(&server_log, &["203.0.113.77", "canary-device", "canary-body"]), [""; 0], "PostgreSQL's log");
    postgres.stop().await;
}
