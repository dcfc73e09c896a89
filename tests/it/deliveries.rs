//! Messages that are odd on the outside (ids, attributes, envelopes, events sent twice) through `masq run` and into
//! PostgreSQL. What comes over the wire is written by a queue of this file's own, so that it can be as odd as need be.

use std::{
    fs,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{Router, http::HeaderMap};
use masq::{
    local::sqs::SqsServer,
    pipeline::now_ms,
    queue::{
        Key,
        memory::{MemoryQueues, Settings},
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::{Database, Keys, config, finish, login, service};

const ARN: &str = "arn:aws:sqs:eu-west-1:123456789012:login-queue";

/// A queue that delivers just these messages, as they are, and takes every delete.
struct Queue {
    url: String,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Default)]
struct Inside {
    messages: Vec<Value>,
    deleted: Vec<String>,
}

impl Queue {
    async fn start(messages: Vec<Value>) -> Self {
        let inside = Arc::new(Mutex::new(Inside { messages, deleted: Vec::new() }));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/123456789012/login-queue", listener.local_addr().unwrap());
        let shared = Arc::clone(&inside);
        let router = Router::new().fallback(move |headers: HeaderMap, body: String| {
            let answer = shared.lock().unwrap().answer(&headers, &body);
            async move { answer }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, inside }
    }
}

impl Inside {
    fn answer(&mut self, headers: &HeaderMap, body: &str) -> String {
        let request: Value = serde_json::from_str(body).unwrap();
        let entries = request["Entries"].as_array().cloned().unwrap_or_default();
        let done: Vec<Value> = entries.iter().map(|entry| json!({"Id": entry["Id"]})).collect();
        let answer = match headers["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap() {
            "ReceiveMessage" => {
                let ten = self.messages.len().min(10);
                json!({"Messages": self.messages.drain(..ten).collect::<Vec<_>>()})
            }
            "GetQueueAttributes" => {
                let left = self.messages.len().to_string();
                json!({"Attributes": {"QueueArn": ARN, "ApproximateNumberOfMessages": left}})
            }
            "DeleteMessageBatch" => {
                self.deleted.extend(entries.iter().map(|entry| entry["ReceiptHandle"].as_str().unwrap().to_owned()));
                json!({"Successful": done})
            }
            _ => json!({"Successful": done}),
        };
        answer.to_string()
    }
}

/// `masq run --drain` with this file as its configuration.
async fn drain(keys: &Keys, queue: &str, database: &Database, file: &str) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("masq.toml");
    fs::write(&path, file).unwrap();
    let (path, keys, worker) =
        (path.display().to_string(), keys.path().display().to_string(), database.login("worker"));
    let arguments = ["--config", &path, "run", "--drain", "--connections", "1", "--queue-url", queue];
    let arguments = [&arguments[..], &["--database-url", &worker, "--keys", &keys]].concat();
    let (exit, _, stderr) = finish(service(&arguments)).await;
    assert_eq!(exit, 0, "{stderr}");
}

/// A delivery whose receipt is `name`, of a login by the user `name`.
fn delivery(id: &str, name: &str, attributes: Value) -> Value {
    json!({"MessageId": id, "ReceiptHandle": name, "Body": login(name, "199.172.111.135"), "Attributes": attributes})
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_ids_times_and_attributes_are_taken_for_what_they_are() {
    const ID: &str = "5f0a3c1e-7d2b-4e8f-9a6c-0123456789";
    let now = now_ms();
    let sent = |at: i64| json!({"SentTimestamp": at.to_string(), "ApproximateReceiveCount": "1"});
    let mut messages = vec![
        delivery("message-1", "no-uuid", sent(now)),
        delivery("message-1", "no-uuid-again", sent(now)),
        delivery(&format!("{ID}00"), "no-time", json!({"ApproximateReceiveCount": "1"})),
        delivery(&format!("{ID}01"), "no-attributes", Value::Null),
        delivery(&format!("{ID}02"), "time-0", sent(0)),
        delivery(&format!("{ID}03"), "time-negative", sent(-5)),
        delivery(&format!("{ID}04"), "time-a-word", json!({"SentTimestamp": "soon"})),
        delivery(&format!("{ID}05"), "20-days-old", sent(now - 20 * 86_400_000)),
        delivery(&format!("{ID}06"), "last-day", sent(253_402_300_799_999)),
        delivery(&format!("{ID}07"), "beyond", sent(253_402_300_800_000)),
        delivery(&format!("{ID}08"), "numbers", json!({"SentTimestamp": now, "ApproximateReceiveCount": 2})),
        delivery(
            &format!("{ID}09"),
            "received-often",
            json!({"SentTimestamp": now.to_string(),
            "ApproximateReceiveCount": "1000", "AWSTraceHeader": "Root=1-5759e988-bd862e3fe1be46a994272793"}),
        ),
        delivery(&format!("{ID}10"), "body-1", sent(now)),
        delivery(&format!("{ID}10"), "body-2", sent(now)),
        delivery(&format!("{ID}11"), "ten-attributes", sent(now)),
    ];
    let attribute = |n: i32| (format!("a{n}"), json!({"DataType": "Binary", "BinaryValue": "AP8="}));
    messages.last_mut().unwrap()["MessageAttributes"] = Value::Object((0..10).map(attribute).collect());
    let count = messages.len();
    let queue = Queue::start(messages).await;
    let (keys, database) = (Keys::create(), Database::loadable(&config()).await);
    drain(&keys, &queue.url, &database, "").await;

    let users = database.query("SELECT user_id FROM user_logins ORDER BY 1").await;
    // Of two deliveries under one id one counts, whatever their bodies are.
    let of_twins = |user: &&String| user.starts_with("no-uuid") || user.starts_with("body-");
    assert_eq!(users.iter().filter(of_twins).count(), 2, "{users:?}");
    let others: Vec<&str> = users.iter().filter(|user| !of_twins(user)).map(String::as_str).collect();
    assert_eq!(others, ["last-day", "numbers", "received-often", "ten-attributes"]);
    assert_eq!(database.query("SELECT reason FROM masq.dead_letters").await, ["older_than_ledger"; 7]);
    let hashed = Key::new("login-queue", "message-1", now).id;
    let ledger = format!("SELECT outcome FROM masq.ledger WHERE message_id = '{hashed}'");
    assert_eq!(database.query(&ledger).await, ["1"]);
    let last_day = "SELECT create_date FROM user_logins WHERE user_id = 'last-day'";
    assert_eq!(database.query(last_day).await, ["9999-12-31"]);
    // The older receipt of twins in one batch is left to redelivery.
    let inside = queue.inside.lock().unwrap();
    assert!(inside.messages.is_empty() && inside.deleted.len() >= count - 2, "{:?}", inside.deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_event_sent_twice_one_becomes_a_row_whatever_it_is_wrapped_in() {
    let queues = MemoryQueues::new();
    let queue = queues.create("login-queue", Settings::default()).unwrap();
    let server = SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), queues).await.unwrap();
    let url = server.queue_url("login-queue");
    let event = |user: &str, id: Value| json!({"user_id": user, "ip": "199.172.111.135", "event_id": id});
    let sns = |message: &Value| json!({"Type": "Notification", "Message": message.to_string()});
    let first = [
        event("plain", json!("e-1")),
        sns(&event("in-sns", json!("e-2"))),
        json!({"detail-type": "t", "source": "s", "detail": event("in-eventbridge", json!(3))}),
        // A dead letter claims nothing, so that the event mended can come.
        json!({"user_id": "bad", "ip": "no address", "event_id": "e-4"}),
        event("without", Value::Null),
        event("without", Value::Null),
    ];
    let second = [
        sns(&event("again", json!("e-1"))),
        event("again", json!("e-2")),
        event("again", json!("3")),
        event("mended", json!("e-4")),
        json!({"Type": "SubscriptionConfirmation", "SubscribeURL": "http://127.0.0.1:9/never-fetched"}),
        sns(&sns(&event("too-deep", json!("e-5")))),
    ];
    let (keys, database) = (Keys::create(), Database::loadable(&config()).await);
    for batch in [&first, &second] {
        for body in batch {
            queue.send(body.to_string().into_bytes());
        }
        drain(&keys, &url, &database, "[queue]\nenvelope = \"auto\"\ndedupe = \"body:event_id\"\n").await;
    }
    server.stop().await;

    let users = database.query("SELECT user_id FROM user_logins ORDER BY 1").await;
    assert_eq!(users, ["in-eventbridge", "in-sns", "mended", "plain", "without", "without"]);
    let outcomes = "SELECT outcome, count(*) FROM masq.ledger GROUP BY 1 ORDER BY 1";
    assert_eq!(database.query(outcomes).await, ["1\t6", "2\t3", "4\t3"]);
    let reasons = database.query("SELECT reason FROM masq.dead_letters ORDER BY 1").await;
    assert_eq!(reasons, ["bad_ip:ip", "envelope_invalid", "envelope_unsupported"]);
    assert_eq!(database.query("SELECT count(*) FROM masq.dedupe").await, ["4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_id_may_stand_in_a_message_attribute() {
    let now = now_ms();
    let with = |number: u32, attribute: Value| {
        let sent = json!({"SentTimestamp": (now + i64::from(number)).to_string()});
        let mut delivery = delivery(&format!("5f0a3c1e-7d2b-4e8f-9a6c-01234567890{number}"), "u", sent);
        delivery["MessageAttributes"] =
            json!({"event-id": attribute, "other": {"DataType": "Number", "StringValue": "7"}});
        delivery
    };
    let messages = vec![
        with(0, json!({"DataType": "String", "StringValue": "7"})),
        with(1, json!({"DataType": "Number.long", "StringValue": "7"})),
        with(2, json!({"DataType": "String", "StringValue": "8"})),
        // Nothing that can be read as an id: each is a row.
        with(3, json!({"DataType": "Binary", "BinaryValue": "Nw=="})),
        with(4, json!({"DataType": "Binary", "BinaryValue": "Nw=="})),
        with(5, Value::Null),
    ];
    let queue = Queue::start(messages).await;
    let (keys, database) = (Keys::create(), Database::loadable(&config()).await);
    drain(&keys, &queue.url, &database, "[queue]\ndedupe = \"attribute:event-id\"\n").await;
    let outcomes = "SELECT outcome, count(*) FROM masq.ledger GROUP BY 1 ORDER BY 1";
    assert_eq!(database.query(outcomes).await, ["1\t5", "4\t1"]);
    assert_eq!(database.query("SELECT count(*) FROM user_logins").await, ["5"]);
}
