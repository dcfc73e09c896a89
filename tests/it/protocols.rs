//! The older query protocol of SQS: what masq makes of it is what it makes of JSON, on moto's server, which speaks both;
//! and endpoints that know it alone are found out, by what old LocalStacks and ElasticMQ answer to JSON.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use masq::queue::{
    Cause, Message, Queue, QueueError, Receipt,
    room::Room,
    sqs::{Outgoing, Protocol, Sent, SqsQueue, SqsSettings},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use crate::support::{Database, Keys, config, environment, finish, login, moto, python_prints, service};

/// A queue on moto with these bodies on it; its URL.
async fn moto_queue(name: &str, bodies: &[&str]) -> String {
    let lines: String = bodies.iter().map(|body| format!("{}\n", json!(body))).collect();
    python_prints("clients/send_bodies.py", &[moto().await, "eu-west-1", name, "30"], lines).await.trim().to_owned()
}

async fn connect(queue: &str, endpoint: &str, protocol: Protocol) -> SqsQueue {
    let (queue, endpoint) = (queue.to_owned(), Some(endpoint.to_owned()));
    SqsQueue::connect(SqsSettings { queue, endpoint, ca_bundle: None, protocol }, &environment).await.unwrap()
}

async fn receive(queue: &SqsQueue) -> Vec<Message> {
    queue.receive(Duration::from_secs(1), Duration::from_secs(30), &Room::new(1 << 30)).await.unwrap()
}

/// What SQS carries, in XML's and in a form's special characters.
const ODD: &str = "{\"a\": \"<b>&amp;</b> ]]> ' \u{e9}\u{1f600} + % \\\"\"}\t\r\n ";

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_the_same_in_both_protocols() {
    for (name, protocol) in [("both-json", Protocol::Json), ("both-query", Protocol::Query)] {
        let url = moto_queue(name, &[ODD, "plain"]).await;
        // By its name, which is looked up.
        let queue = connect(name, moto().await, protocol).await;
        assert_eq!(queue.url(), url);
        let attributes = queue.attributes().await.unwrap();
        assert_eq!(attributes.arn, format!("arn:aws:sqs:eu-west-1:123456789012:{name}"));
        assert_eq!((attributes.visibility, attributes.depth.visible), (Some(Duration::from_secs(30)), 2));

        let peeked = queue.peek(10, Duration::ZERO).await.unwrap();
        let received = receive(&queue).await;
        let bodies = |messages: &[Message]| -> Vec<Vec<u8>> {
            let mut bodies: Vec<_> = messages.iter().map(|message| message.body.expose().clone()).collect();
            bodies.sort();
            bodies
        };
        let expected = [b"plain".to_vec(), ODD.as_bytes().to_vec()];
        assert_eq!((bodies(&peeked), bodies(&received)), (expected.to_vec(), expected.to_vec()), "{protocol:?}");
        assert!(received.iter().all(|message| message.attempt == 2 && message.key.sent_at > 1_700_000_000_000));
        assert_eq!(queue.corrupt(), 0);
        assert!(receive(&queue).await.is_empty(), "they are hidden");

        let mut receipts: Vec<Receipt> = received.into_iter().map(|message| message.receipt).collect();
        receipts.insert(1, Receipt("none".into()));
        assert_eq!(queue.extend(&receipts, Duration::from_secs(60)).await.unwrap(), [1], "{protocol:?}");
        assert_eq!(queue.delete(&receipts).await.unwrap(), [1], "{protocol:?}");
        let sent = queue.send(&[ODD.into(), Outgoing::from("second")]).await.unwrap();
        assert!(sent.iter().all(|sent| matches!(sent, Sent::Accepted(_))), "{sent:?}");
        let depth = queue.depth().await.unwrap();
        assert_eq!((depth.visible, depth.in_flight), (2, 0));
        assert_eq!(bodies(&receive(&queue).await)[1], ODD.as_bytes());

        let missing = connect(&url.replace(name, "missing"), moto().await, protocol).await;
        let error = missing.depth().await.unwrap_err();
        assert!(matches!(error, QueueError::Unavailable { cause: Cause::Missing, .. }), "{protocol:?} {error}");
    }
}

/// What is answered to a request in JSON.
#[derive(Clone, Copy, Debug)]
enum Old {
    /// LocalStack up to 0.14: whatever goes wrong inside.
    Bare,
    /// LocalStack from 1.0 to 2.3.
    NoAction,
    /// ElasticMQ before 1.5.
    ElasticMq,
    /// None: it is broken, for one request, and comes to itself again.
    Broken,
}

impl Old {
    fn answer(self) -> Response {
        let xml = |code: &str, message: &str| {
            format!(
                "<?xml version='1.0' encoding='utf-8'?>\n<ErrorResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\">\
                 <Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message><Detail/></Error>\
                 <RequestId>0</RequestId></ErrorResponse>"
            )
        };
        let message = "exception while calling sqs with unknown operation: Operation detection failed. Missing Action in \
            request for query-protocol service ServiceModel(sqs).";
        match self {
            Self::Bare => (StatusCode::INTERNAL_SERVER_ERROR, "{}".to_owned()),
            Self::NoAction => (StatusCode::INTERNAL_SERVER_ERROR, xml("InternalError", message)),
            Self::ElasticMq => (StatusCode::BAD_REQUEST, xml("MissingAction", "MissingAction; see the SQS docs.")),
            Self::Broken => (StatusCode::SERVICE_UNAVAILABLE, "<html>come again</html>".to_owned()),
        }
        .into_response()
    }
}

/// moto's server, behind one that knows no JSON: the requests that it saw, by protocol and action.
#[derive(Clone)]
struct Ancient {
    old: Old,
    seen: Arc<Mutex<Vec<String>>>,
    client: Client<HttpConnector, http_body_util::Full<Bytes>>,
}

impl Ancient {
    async fn start(old: Old) -> (Self, String, JoinSet<()>) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let ancient = Self { old, seen: Arc::default(), client };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(Self::forward).with_state(ancient.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        (ancient, endpoint, server)
    }

    async fn forward(State(ancient): State<Self>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
        let json = headers.get("x-amz-target").map(|target| target.to_str().unwrap().replace("AmazonSQS.", "json "));
        let form = || String::from_utf8_lossy(&body).split('&').next().unwrap().replace("Action=", "query ");
        let first = {
            let mut seen = ancient.seen.lock().unwrap();
            seen.push(json.clone().unwrap_or_else(form));
            seen.len() == 1
        };
        if json.is_some() && (first || !matches!(ancient.old, Old::Broken)) {
            return ancient.old.answer();
        }
        let mut request = hyper::Request::post(format!("{}{}", moto().await, uri.path()));
        *request.headers_mut().unwrap() = headers;
        let answer = ancient.client.request(request.body(body.into()).unwrap()).await.unwrap();
        answer.map(axum::body::Body::new)
    }

    /// What it has seen since this was last asked.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_knows_no_json_is_found_out_once() {
    for (number, old) in [Old::Bare, Old::NoAction, Old::ElasticMq].into_iter().enumerate() {
        let url = moto_queue(&format!("old-{number}"), &["one"]).await;
        let (ancient, endpoint, _server) = Ancient::start(old).await;
        let queue = connect(&url, &endpoint, Protocol::Auto).await;
        assert_eq!(receive(&queue).await.len(), 1, "{old:?}");
        assert_eq!(ancient.seen(), ["json ReceiveMessage", "query ReceiveMessage"], "{old:?}");
        queue.depth().await.unwrap();
        assert_eq!(ancient.seen(), ["query GetQueueAttributes"], "it is known from now on");

        // Whoever is told needs not find out, and whoever is told otherwise does not.
        let told = connect(&url, &endpoint, Protocol::Query).await;
        told.depth().await.unwrap();
        assert_eq!(ancient.seen(), ["query GetQueueAttributes"]);
        let never = connect(&url, &endpoint, Protocol::Json).await;
        never.depth().await.unwrap_err();
        assert_eq!(ancient.seen(), ["json GetQueueAttributes"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_not_there_yet_tells_the_protocol_too() {
    let (ancient, endpoint, _server) = Ancient::start(Old::Bare).await;
    let queue = connect(&format!("{endpoint}/000000000000/later"), &endpoint, Protocol::Auto).await;
    let error = queue.depth().await.unwrap_err();
    assert!(matches!(error, QueueError::Unavailable { cause: Cause::Missing, .. }), "{error}");
    moto_queue("later", &["x"]).await;
    ancient.seen();
    assert_eq!(queue.depth().await.unwrap().visible, 1);
    assert_eq!(ancient.seen(), ["query GetQueueAttributes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_understood_is_sent_once() {
    for (number, old) in [Old::Bare, Old::NoAction].into_iter().enumerate() {
        let url = moto_queue(&format!("send-{number}"), &[]).await;
        let (ancient, endpoint, _server) = Ancient::start(old).await;
        let queue = connect(&url, &endpoint, Protocol::Auto).await;
        let sent = queue.send(&["once".into()]).await.unwrap();
        assert!(matches!(sent[..], [Sent::Accepted(_)]), "{old:?} {sent:?}");
        let sends = ancient.seen().into_iter().filter(|call| call == "query SendMessageBatch").count();
        assert_eq!((sends, queue.depth().await.unwrap().visible), (1, 1), "{old:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_failure_changes_nothing() {
    let url = moto_queue("broken", &["one"]).await;
    let (ancient, endpoint, _server) = Ancient::start(Old::Broken).await;
    let queue = connect(&url, &endpoint, Protocol::Auto).await;
    queue.depth().await.unwrap_err();
    assert_eq!(receive(&queue).await.len(), 1);
    assert_eq!(ancient.seen(), ["json GetQueueAttributes", "json ReceiveMessage"], "no form was ever sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn masq_run_reads_an_old_localstack_and_says_so() {
    let (keys, database) = (Keys::create(), Database::loadable(&config()).await);
    let bodies: Vec<String> = (0..25).map(|user| login(&format!("user-{user}"), "10.1.2.3")).collect();
    moto_queue("old-run", &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (ancient, endpoint, _server) = Ancient::start(Old::Bare).await;
    let url = format!("{endpoint}/000000000000/old-run");
    let (keys, worker) = (keys.path().display().to_string(), database.login("worker"));
    let run = ["run", "--drain", "--queue-url", &url, "--database-url", &worker, "--keys", &keys];
    let (exit, _, stderr) = finish(service(&run)).await;
    assert_eq!(exit, 0, "{stderr}");
    assert_eq!(database.query("SELECT count(*) FROM user_logins").await, ["25"]);
    assert_eq!(stderr.matches("speaking the older query protocol").count(), 1, "{stderr}");
    let seen = ancient.seen();
    assert!(seen.iter().any(|call| call == "query DeleteMessageBatch"), "{seen:?}");
    assert!(!seen.iter().any(|call| call == "json DeleteMessageBatch"), "{seen:?}");
}
