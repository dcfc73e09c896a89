//! A client over plain TCP, so that every byte of an answer can be looked at.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::HttpServer;
use crate::{
    metrics::Metrics,
    pipeline::{Status, Trouble},
    queue::Depth,
};

struct Running {
    server: HttpServer,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
}

async fn start() -> Running {
    let (status, metrics) = (Arc::new(Status::default()), Arc::new(Metrics::new().unwrap()));
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = HttpServer::start(any_port, Arc::clone(&status), Arc::clone(&metrics)).await.unwrap();
    Running { server, status, metrics }
}

/// Head and body of the answer, the head in lower case.
async fn ask(server: &HttpServer, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: masq\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn alive_whatever_is_wrong() {
    let running = start().await;
    running.status.set(Trouble::Database, &"gone");
    for path in ["/livez", "/healthz"] {
        let (head, body) = ask(&running.server, "GET", path).await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert_eq!(body, "alive\n");
    }
    running.server.stop().await;
}

#[tokio::test]
async fn ready_until_something_is_wrong_and_again_when_it_works() {
    let running = start().await;
    let (head, body) = ask(&running.server, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(body, "ready\n");

    running.status.set(Trouble::Database, &"connection refused: is \"it\" up?");
    running.status.set(Trouble::Queue, &"no such queue");
    let (head, body) = ask(&running.server, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    let troubles = json!([
        { "part": "queue", "what": "no such queue" },
        { "part": "database", "what": "connection refused: is \"it\" up?" },
    ]);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({ "ready": false, "troubles": troubles }));

    running.status.clear(Trouble::Database);
    running.status.clear(Trouble::Queue);
    let (head, _) = ask(&running.server, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    running.server.stop().await;
}

#[tokio::test]
async fn metrics_in_the_text_format() {
    let running = start().await;
    running.metrics.received.inc_by(3);
    let (head, before) = ask(&running.server, "GET", "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(before.contains("\nmasq_messages_received_total 3\n"), "{before}");
    assert!(before.contains(&format!("masq_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))), "{before}");
    assert!(!before.contains("masq_queue_messages{"), "a depth that nobody has asked for is not 0: {before}");

    running.metrics.depth(Depth { visible: 7, in_flight: 2, delayed: 0 });
    let (_, after) = ask(&running.server, "GET", "/metrics").await;
    for (state, messages) in [("visible", 7), ("in_flight", 2), ("delayed", 0)] {
        assert!(after.contains(&format!("masq_queue_messages{{state=\"{state}\"}} {messages}\n")), "{after}");
    }
    running.server.stop().await;
}

#[tokio::test]
async fn anything_else_is_refused_and_no_answer_says_what_serves_it() {
    let running = start().await;
    let cases =
        [("GET", "/", "404"), ("GET", "/metrics/", "404"), ("POST", "/metrics", "405"), ("PUT", "/livez", "405")];
    for (method, path, code) in cases.into_iter().chain([("GET", "/livez", "200"), ("HEAD", "/readyz", "200")]) {
        let (head, _) = ask(&running.server, method, path).await;
        assert!(head.starts_with(&format!("http/1.1 {code} ")), "{method} {path}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{method} {path}: {head}");
        assert!(!head.contains("\r\nserver:"), "{method} {path}: {head}");
    }
    running.server.stop().await;
}

#[tokio::test]
async fn stops_although_clients_keep_connections_open() {
    let running = start().await;
    let addr = running.server.addr();
    let mut idle = TcpStream::connect(addr).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: masq\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let mut halfway = TcpStream::connect(addr).await.unwrap();
    halfway.write_all(b"GET /livez HT").await.unwrap();

    let before = Instant::now();
    running.server.stop().await;
    assert!(before.elapsed() < Duration::from_secs(5));
    assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let running = start().await;
    let (status, metrics) = (Arc::clone(&running.status), Arc::clone(&running.metrics));
    let error = HttpServer::start(running.server.addr(), status, metrics).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    running.server.stop().await;
}
