//! The server on the wire, spoken to byte by byte: what boto3 and the aws CLI would hide (tests/clients has those).

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::*;
use crate::queue::memory::{MemoryQueue, Settings};

const SOON: Duration = Duration::from_secs(10);

async fn server_with_queue() -> (SqsServer, MemoryQueue) {
    let queues = MemoryQueues::new();
    let queue = queues.create("orders", Settings::default()).unwrap();
    (SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), queues).await.unwrap(), queue)
}

/// Sends a request and leaves the answer to the caller.
async fn begin(server: &SqsServer, operation: &str, body: &str) -> TcpStream {
    let mut connection = TcpStream::connect(server.addr()).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nX-Amz-Target: AmazonSQS.{operation}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        server.addr(),
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

/// Head and body of the answer.
async fn call(server: &SqsServer, operation: &str, body: &str) -> (String, Value) {
    let mut answer = String::new();
    begin(server, operation, body).await.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), serde_json::from_str(body).unwrap())
}

fn poll(server: &SqsServer, wait_seconds: u64) -> String {
    json!({ "QueueUrl": server.queue_url("orders"), "WaitTimeSeconds": wait_seconds, "MaxNumberOfMessages": 10 })
        .to_string()
}

/// Returns once the server holds the queue for just so many requests.
async fn until_polls(queue: &MemoryQueue, polls: usize) {
    let idle = 2; // the account's and the test's own
    let settled = async {
        while queue.handles() != idle + polls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, settled).await.unwrap();
}

#[tokio::test]
async fn an_empty_receive_has_no_messages_and_a_request_id() {
    let (server, _queue) = server_with_queue().await;
    let (head, body) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("content-type: application/x-amz-json-1.0"), "{head}");
    assert!(head.contains("x-amzn-requestid: "), "{head}");
    assert_eq!(body, json!({}));
}

#[tokio::test]
async fn an_error_has_a_shape_and_the_code_of_the_older_protocol() {
    let (server, _queue) = server_with_queue().await;
    let (head, body) = call(&server, "GetQueueUrl", r#"{"QueueName":"nobody"}"#).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(head.contains("x-amzn-query-error: AWS.SimpleQueueService.NonExistentQueue;Sender"), "{head}");
    assert_eq!(body["__type"], "com.amazonaws.sqs#QueueDoesNotExist");
}

#[tokio::test]
async fn what_is_no_json_is_refused_without_being_quoted() {
    let (server, _queue) = server_with_queue().await;
    for body in ["", "{", r#"{"QueueUrl":"secret","DelaySeconds":"secret"}"#] {
        let (head, answer) = call(&server, "SendMessage", body).await;
        assert!(head.contains("SerializationException"), "{head}");
        assert!(!answer.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn another_operation_or_protocol_is_unsupported() {
    let (server, _queue) = server_with_queue().await;
    let (head, _) = call(&server, "StartMessageMoveTask", "{}").await;
    assert!(head.contains("UnsupportedOperation"), "{head}");
    let mut connection = TcpStream::connect(server.addr()).await.unwrap();
    connection.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("X-Amz-Target"), "{answer}");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let (server, _queue) = server_with_queue().await;
    let (head, _) = call(&server, "SendMessage", &" ".repeat(8 * 1024 * 1024 + 1)).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

#[tokio::test]
async fn a_long_poll_on_the_wire_wakes_on_a_send() {
    let (server, queue) = server_with_queue().await;
    let started = Instant::now();
    let request = poll(&server, 20);
    let (answered, ()) = tokio::join!(call(&server, "ReceiveMessage", &request), async {
        until_polls(&queue, 1).await;
        queue.send(*b"a");
    });
    assert_eq!(answered.1["Messages"][0]["Body"], "a");
    assert!(started.elapsed() < SOON);
}

#[tokio::test]
async fn a_client_that_hangs_up_in_a_long_poll_strands_nothing() {
    let (server, queue) = server_with_queue().await;
    let request = poll(&server, 20);
    let connections = (0..5).map(|_| begin(&server, "ReceiveMessage", &request));
    let connections = futures_util::future::join_all(connections).await;
    until_polls(&queue, 5).await;
    drop(connections);
    // Over the wire too, so that it comes after the five have gone.
    let message = json!({ "QueueUrl": server.queue_url("orders"), "MessageBody": "a" }).to_string();
    call(&server, "SendMessage", &message).await;
    until_polls(&queue, 0).await;
    let deliveries = queue.take(10, Duration::ZERO, Duration::from_secs(30)).await;
    assert_eq!(deliveries.iter().map(|it| it.count).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_stop_ends_long_polls_with_an_empty_answer() {
    let (server, queue) = server_with_queue().await;
    let mut connection = begin(&server, "ReceiveMessage", &poll(&server, 20)).await;
    until_polls(&queue, 1).await;
    let addr = server.addr();
    timeout(SOON, server.stop()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, connection.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn what_is_not_utf_8_reaches_the_receiver_with_marks_in_its_place() {
    let (server, queue) = server_with_queue().await;
    queue.send(*b"a\xffb");
    let (_, body) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
    assert_eq!(body["Messages"][0]["Body"], "a\u{fffd}b");
}

/// What a history writes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The events so far, without their times, as `event field field`.
    fn events(&self) -> Vec<String> {
        let fields = ["event", "queue", "action", "fault", "count", "outcome", "seconds", "to", "faults"];
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let line = |line: Value| fields.iter().filter_map(|field| line.get(*field).map(text)).collect::<Vec<_>>();
        self.lines().into_iter().map(|it| line(it).join(" ")).collect()
    }
}

/// A server with a script, its queue, and what it writes down.
async fn scripted(rules: &str) -> (SqsServer, MemoryQueue, Written) {
    let queues = MemoryQueues::new();
    let queue = queues.create("orders", Settings::default()).unwrap();
    let (script, written) = (Script::parse(rules, 1).unwrap(), Written::default());
    let history = History::to(written.clone());
    let server = SqsServer::start_with((Ipv4Addr::LOCALHOST, 0).into(), queues, script, history).await.unwrap();
    (server, queue, written)
}

/// A batch of handles, as a delete or a change of visibility takes them.
fn handles(server: &SqsServer, messages: &Value) -> String {
    let entry = |(at, message): (usize, &Value)| json!({ "Id": at.to_string(), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 60 });
    let entries: Vec<Value> = messages.as_array().unwrap().iter().enumerate().map(entry).collect();
    json!({ "QueueUrl": server.queue_url("orders"), "Entries": entries }).to_string()
}

fn send(server: &SqsServer) -> String {
    json!({ "QueueUrl": server.queue_url("orders"), "MessageBody": "secret" }).to_string()
}

#[tokio::test]
async fn a_script_refuses_requests_as_the_service_does() {
    let cases = [
        ("throttle", "400", "RequestThrottled;Sender"),
        ("unavailable", "503", "ServiceUnavailable;Receiver"),
        ("denied", "403", "AccessDenied;Sender"),
        ("expired_token", "403", "ExpiredToken;Sender"),
        ("over_limit", "400", "OverLimit;Sender"),
    ];
    for (fault, status, code) in cases {
        let rule = format!(r#"{{"action":"ReceiveMessage","fault":"{fault}","times":1}}"#);
        let (server, _queue, written) = scripted(&rule).await;
        let (head, _) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains(code), "{head}");
        let (head, _) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "once and no more: {head}");
        assert_eq!(server.stop().await[fault], 1);
        assert_eq!(written.events(), [format!("fault ReceiveMessage {fault}"), format!("end {{\"{fault}\":1}}")]);
    }
}

#[tokio::test]
async fn a_request_that_hangs_is_done_late_or_not_at_all() {
    let (server, queue, _written) =
        scripted(r#"{"action":"SendMessage","fault":"hang","seconds":0.2,"times":1}"#).await;
    let started = Instant::now();
    call(&server, "SendMessage", &send(&server)).await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(queue.count().visible, 1);

    let (server, queue, written) = scripted(r#"{"action":"ReceiveMessage","fault":"hang","times":1}"#).await;
    queue.send(*b"a");
    let given_up = begin(&server, "ReceiveMessage", &poll(&server, 0)).await;
    timeout(SOON, async {
        while written.events().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    drop(given_up);
    timeout(SOON, server.stop()).await.unwrap();
    assert_eq!((queue.count().visible, queue.count().in_flight), (1, 0), "nobody took it");
}

#[tokio::test]
async fn a_lost_answer_is_done_and_nothing_is_heard_of_it() {
    let (server, queue, _written) = scripted(r#"{"action":"SendMessage","fault":"lose_answer"}"#).await;
    let mut answer = Vec::new();
    begin(&server, "SendMessage", &send(&server)).await.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"");
    assert_eq!(queue.count().visible, 1);
}

#[tokio::test]
async fn entries_fail_alone_by_the_service_and_not_by_the_sender() {
    let (server, queue, written) = scripted(r#"{"action":"*","fault":"fail_entries","share":0.5}"#).await;
    for _ in 0..10 {
        queue.send(*b"a");
    }
    let (_, received) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
    let (head, answer) = call(&server, "DeleteMessageBatch", &handles(&server, &received["Messages"])).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let [done, failed] = ["Successful", "Failed"].map(|list| answer[list].as_array().map_or(0, Vec::len));
    assert!(done > 0 && failed > 0 && done + failed == 10, "{answer}");
    assert_eq!(answer["Failed"][0]["Code"], "InternalError");
    assert_eq!(answer["Failed"][0]["SenderFault"], false);
    assert_eq!(queue.count().in_flight, failed as u64);
    let deletes = written.events().iter().filter(|it| *it == "delete orders 1 deleted").count();
    assert_eq!((deletes, server.troubles()["fail_entries"]), (done, failed as u64));
}

#[tokio::test]
async fn a_delete_may_do_nothing_or_not_last() {
    for (rule, left, events) in [
        (
            r#"{"action":"*","fault":"stale","times":1}"#,
            (0, 1),
            ["fault DeleteMessageBatch stale", "delete orders 1 stale"].as_slice(),
        ),
        (
            r#"{"action":"*","fault":"ghost","times":1,"seconds":0}"#,
            (1, 0),
            &["fault DeleteMessageBatch ghost", "delete orders 1 deleted", "ghost orders"],
        ),
    ] {
        let (server, queue, written) = scripted(rule).await;
        queue.send(*b"a");
        let (_, received) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
        let (_, answer) = call(&server, "DeleteMessageBatch", &handles(&server, &received["Messages"])).await;
        assert_eq!(answer["Successful"][0]["Id"], "0");
        assert_eq!((queue.count().visible, queue.count().in_flight), left);
        assert_eq!(written.events()[1..], *events);
    }
}

#[tokio::test]
async fn what_is_delivered_may_come_twice_or_be_visible_at_once() {
    let (server, queue, written) = scripted(r#"{"action":"*","fault":"double","times":1}"#).await;
    queue.send(*b"a");
    let (_, body) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
    let [first, second] = [0, 1].map(|at| body["Messages"][at].clone());
    assert_eq!(first["MessageId"], second["MessageId"]);
    assert_ne!(first["ReceiptHandle"], second["ReceiptHandle"]);
    assert_eq!(written.events(), ["receive orders 1", "fault ReceiveMessage double", "receive orders 2"]);
    assert_eq!(queue.count().in_flight, 1);

    let (server, queue, _written) = scripted(r#"{"action":"*","fault":"early"}"#).await;
    queue.send(*b"a");
    for _ in 0..2 {
        let (_, body) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
        assert_eq!(body["Messages"].as_array().map(Vec::len), Some(1));
        assert_eq!(queue.count().visible, 1);
    }
}

#[tokio::test]
async fn a_body_may_be_damaged_and_an_answer_empty() {
    let rules =
        "{\"action\":\"*\",\"fault\":\"empty\",\"times\":1,\"seconds\":30}\n{\"action\":\"*\",\"fault\":\"corrupt\"}";
    let (server, queue, _written) = scripted(rules).await;
    let (_, body) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
    assert_eq!((body, server.troubles()["empty"]), (json!({}), 0), "there was nothing to withhold");
    queue.send(*b"hello");
    assert_eq!(call(&server, "ReceiveMessage", &poll(&server, 0)).await.1, json!({}));
    let (_, body) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
    let message = &body["Messages"][0];
    assert_eq!(
        (message["Body"].as_str(), message["MD5OfBody"].as_str()),
        (Some("hell"), Some(&*content::Md5::of(b"hello").to_string()))
    );
    assert_eq!(server.troubles(), BTreeMap::from([("corrupt".to_owned(), 1), ("empty".to_owned(), 1)]));
}

#[tokio::test]
async fn a_history_tells_of_ids_and_times_and_never_of_bodies() {
    let (server, _queue, written) = scripted("").await;
    let before = History::default().now();
    let (_, sent) = call(&server, "SendMessage", &send(&server)).await;
    let (_, received) = call(&server, "ReceiveMessage", &poll(&server, 0)).await;
    let handles = handles(&server, &received["Messages"]);
    call(&server, "ChangeMessageVisibilityBatch", &handles).await;
    for _ in 0..2 {
        call(&server, "DeleteMessageBatch", &handles).await;
    }
    server.stop().await;
    let told = [
        "send orders",
        "receive orders 1",
        "extend orders 60.0",
        "delete orders 1 deleted",
        "delete orders 1 gone",
        "end {}",
    ];
    assert_eq!(written.events(), told);
    let lines = written.lines();
    let ids: Vec<&Value> = lines[..5].iter().map(|line| &line["id"]).collect();
    assert_eq!(ids, vec![&sent["MessageId"]; 5]);
    let receipt = lines[1]["receipt"].as_str().unwrap();
    assert_eq!(receipt.len(), 16);
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("secret") && !text.contains(received["Messages"][0]["ReceiptHandle"].as_str().unwrap()));
    let times: Vec<f64> = lines.iter().map(|line| line["at"].as_f64().unwrap()).collect();
    assert!(times.is_sorted() && times[0] >= before.millis() && times[5] <= History::default().now().millis());
}

#[tokio::test]
async fn a_history_that_cannot_be_written_says_so() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let history = History::to(Full);
    assert!(history.check().is_ok());
    history.end(BTreeMap::new());
    assert_eq!(history.check().unwrap_err().kind(), io::ErrorKind::StorageFull);
}
