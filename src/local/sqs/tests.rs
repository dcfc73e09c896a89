//! The server on the wire, spoken to byte by byte: what boto3 and the aws CLI would hide (tests/clients has those).

use std::{net::Ipv4Addr, time::Duration};

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
