//! The local queue's server, judged by clients that nobody here wrote: boto3 and the aws CLI. The boto3 script also
//! runs against moto's server, so that what it expects is not merely what ours does. And masq's own client, judged by
//! the server with a script of faults.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use masq::{
    local::sqs::{History, Script, SqsServer},
    queue::{
        Cause, Message, Queue, QueueError, Receipt,
        memory::{MemoryQueue, MemoryQueues, Settings},
        room::Room,
        sqs::{SqsQueue, SqsSettings},
    },
};
use serde_json::Value;
use tokio::process::Command;

use crate::support::{moto, python};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a command to its end; its talk is the message if it fails.
async fn run(command: &mut Command) {
    let output = command.kill_on_drop(true).output().await.expect("the command can be started");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
}

async fn server() -> SqsServer {
    SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), MemoryQueues::new()).await.expect("a free port")
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_finds_an_sqs() {
    let server = server().await;
    run(Command::new(python()).arg(script("boto3_queue.py")).arg(server.endpoint())).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_command_line_finds_an_sqs() {
    let server = server().await;
    let aws = python().with_file_name("aws");
    run(Command::new("bash").arg(script("aws_queue.sh")).arg(server.endpoint()).arg(aws)).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_expects_the_same_of_moto() {
    let endpoint = moto().await;
    run(Command::new(python()).arg(script("boto3_queue.py")).arg(endpoint).arg("--moto")).await;
}

/// A server that follows a script, masq's client of one of its queues, and that queue itself.
struct Place {
    server: SqsServer,
    client: SqsQueue,
    queue: MemoryQueue,
}

impl Place {
    async fn with(script: &str) -> Self {
        let queues = MemoryQueues::new();
        let queue = queues.create("q", Settings::default()).unwrap();
        let (script, listen) = (Script::parse(script, 1).unwrap(), (Ipv4Addr::LOCALHOST, 0).into());
        let server = SqsServer::start_with(listen, queues, script, History::default()).await.unwrap();
        let client = client(&server, "any").await;
        Self { server, client, queue }
    }

    async fn receive(&self) -> Result<Vec<Message>, QueueError> {
        self.client.receive(Duration::ZERO, Duration::from_secs(30), &Room::new(1 << 20)).await
    }

    /// Ten messages, received.
    async fn ten(&self) -> Vec<Receipt> {
        for _ in 0..10 {
            self.queue.send(*b"body");
        }
        let received = self.receive().await.unwrap();
        assert_eq!(received.len(), 10);
        received.into_iter().map(|message| message.receipt).collect()
    }
}

/// masq's client of the queue, with this access key id.
async fn client(server: &SqsServer, key: &str) -> SqsQueue {
    let settings = SqsSettings { queue: server.queue_url("q"), ..SqsSettings::default() };
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let environment = |name: &str| keys.contains(&name).then(|| key.to_owned());
    SqsQueue::connect(settings, &environment).await.unwrap()
}

fn rule(action: &str, fault: &str, more: &str) -> String {
    format!("{{\"action\":\"{action}\",\"fault\":\"{fault}\"{more}}}\n")
}

#[tokio::test]
async fn a_history_tells_who_did_it() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("history.jsonl");
    let queues = MemoryQueues::new();
    let queue = queues.create("q", Settings::default()).unwrap();
    let script = Script::parse(&rule("DeleteMessageBatch", "throttle", ",\"times\":1"), 1).unwrap();
    let history = History::to(File::create(&path).unwrap());
    let server = SqsServer::start_with((Ipv4Addr::LOCALHOST, 0).into(), queues, script, history).await.unwrap();
    let (one, other) = (client(&server, "one").await, client(&server, "other").await);

    queue.send(*b"body");
    let take = async |by: &SqsQueue| {
        let room = Room::new(1 << 20);
        by.receive(Duration::ZERO, Duration::from_secs(30), &room).await.unwrap().remove(0).receipt
    };
    let receipts = [take(&one).await];
    one.extend(&receipts, Duration::ZERO).await.unwrap();
    let receipts = [take(&other).await];
    assert!(other.delete(&receipts).await.is_err());
    assert!(one.delete(&receipts).await.unwrap().is_empty(), "who has a receipt may delete");
    server.stop().await;

    let history = fs::read_to_string(path).unwrap();
    let lines = history.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<_> = lines.map(|line| format!("{} {}", line["by"], line["event"]).replace('"', "")).collect();
    let done = ["one receive", "one extend", "other receive", "other fault", "one delete", "null end"];
    assert_eq!(told, done, "{history}");
}

#[tokio::test]
async fn a_refusal_is_named_by_what_helps() {
    for (fault, cause) in
        [("throttle", Cause::Throttled), ("over_limit", Cause::Crowded), ("unavailable", Cause::Fault)]
    {
        let place = Place::with(&rule("ReceiveMessage", fault, "")).await;
        match place.receive().await.err().unwrap() {
            QueueError::Unavailable { cause: found, .. } => assert_eq!(found, cause, "{fault}"),
            denied @ QueueError::Denied { .. } => panic!("{fault}: {denied}"),
        }
        assert_eq!(place.server.troubles()[fault], 1, "nothing is repeated without need");
    }
    let place = Place::with(&rule("DeleteMessageBatch", "denied", "")).await;
    let receipts = place.ten().await;
    let error = place.client.delete(&receipts).await.unwrap_err();
    assert!(matches!(error, QueueError::Denied { .. }) && error.to_string().contains("sqs:DeleteMessage "), "{error}");
}

#[tokio::test]
async fn expired_credentials_are_fetched_anew_and_the_call_repeated() {
    let once = Place::with(&rule("*", "expired_token", ",\"times\":1")).await;
    assert!(once.receive().await.is_ok());
    let always = Place::with(&rule("*", "expired_token", "")).await;
    assert!(matches!(always.receive().await, Err(QueueError::Denied { .. })));
    assert_eq!(always.server.troubles()["expired_token"], 2);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_deleting_twice_is_harmless() {
    let place = Place::with(&rule("DeleteMessageBatch", "lose_answer", ",\"times\":1")).await;
    let receipts = place.ten().await;
    assert!(place.client.delete(&receipts).await.unwrap().is_empty());
    assert!(place.queue.count().is_empty());
    assert_eq!(place.server.troubles()["lose_answer"], 1);
}

#[tokio::test]
async fn what_an_answer_calls_failed_is_not_done() {
    let place = Place::with(&rule("DeleteMessageBatch", "fail_entries", ",\"share\":0.5")).await;
    let receipts = place.ten().await;
    let undone = place.client.delete(&receipts).await.unwrap();
    let failed = place.server.troubles()["fail_entries"];
    assert!((1..10).contains(&failed), "{failed}");
    assert_eq!((undone.len() as u64, place.queue.count().in_flight), (failed, failed));
}

#[tokio::test]
async fn a_damaged_body_is_left_out_and_counted() {
    let place = Place::with(&rule("*", "corrupt", ",\"times\":3")).await;
    for _ in 0..10 {
        place.queue.send(*b"body");
    }
    assert_eq!(place.receive().await.unwrap().len(), 7);
    assert_eq!(place.client.corrupt(), 3);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let place = Place::with(&rule("ReceiveMessage", "hang", "")).await;
    place.queue.send(*b"body");
    let started = Instant::now();
    let error = place.receive().await.err().unwrap();
    assert!(error.to_string().contains("within 5 s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(place.queue.count().visible, 1, "what nobody waits for is not taken");
}
