//! `masq run` as a user starts it: the real program against real PostgreSQL and over the real SQS protocol, on moto's
//! server where what counts is that nobody here wrote it, on the local queue where messages are many.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, response::IntoResponse};
use masq::{
    local::{
        logins::{Logins, Share},
        sqs::SqsServer,
    },
    queue::memory::{MemoryQueue, MemoryQueues, Settings},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
};

use crate::support::{Database, Keys, config, finish, free_address, http_get, moto, python_prints, service, until};

const OFFICIAL_TABLE: &str = "CREATE TABLE user_logins(user_id varchar(128), device_type varchar(32), \
    masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)";

const REGION: &str = "eu-west-1";

/// A queue on moto with these bodies on it; its URL.
async fn moto_queue(name: &str, visibility: u32, bodies: &[String]) -> String {
    let lines: String = bodies.iter().map(|body| format!("{}\n", json!(body))).collect();
    let arguments = [moto().await, REGION, name, &visibility.to_string()];
    python_prints("clients/send_bodies.py", &arguments, lines).await.trim().to_owned()
}

/// A hundred messages in the shape of the real ones: 99 logins, and the wrong message among them.
fn hundred() -> Vec<String> {
    let mut bodies: Vec<String> = Logins::new(7, Share::NONE).take(99).map(|login| login.body).collect();
    bodies.insert(12, r#"{"foo": "oops_wrong_msg_type", "bar": "123"}"#.to_owned());
    bodies
}

/// What the table should hold, by a program that shares no code with masq.
async fn reference(keys: &Keys, bodies: &[String], version_as: &str) -> (Vec<Value>, Vec<Value>) {
    let now = masq::pipeline::now_ms();
    let lines: String = bodies.iter().map(|body| format!("{}\n", json!({"body": body, "sent_at": now}))).collect();
    let arguments = ["rows", "--kid", "1", "--root", &keys.token_root(), "--version-as", version_as];
    let printed = python_prints("reference.py", &arguments, lines).await;
    let rows = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (dead, mut rows): (Vec<Value>, Vec<Value>) = rows.partition(|row| row.get("dead").is_some());
    rows.sort_by_key(Value::to_string);
    (rows, dead)
}

async fn rows(database: &Database) -> Vec<Value> {
    let rows = database.query("SELECT row_to_json(u) FROM user_logins u").await;
    let mut rows: Vec<Value> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    rows.sort_by_key(Value::to_string);
    rows
}

/// `masq run` with these keys, from this queue, into this database.
fn run(keys: &Keys, queue_url: &str, database: &Database, more: &[&str]) -> Command {
    let keys = keys.path().display().to_string();
    let worker = database.login("worker");
    let mut arguments = vec!["run", "--queue-url", queue_url, "--database-url", &worker, "--keys", &keys];
    arguments.extend(more);
    service(&arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_logins_from_moto_into_both_forms_of_the_table_as_an_independent_program_says() {
    let bodies = hundred();
    for (form, create) in [("text", None), ("integer", Some(OFFICIAL_TABLE))] {
        let (keys, database) = (Keys::create(), Database::ready().await);
        if let Some(create) = create {
            database.execute(create).await;
        }
        database.prepare(&config()).await;
        let url = moto_queue(&format!("hundred-{form}"), 30, &bodies).await;
        let (exit, stdout, stderr) = finish(run(&keys, &url, &database, &["--drain"])).await;
        assert_eq!((exit, stdout.as_str()), (0, ""), "{stderr}");

        let (expected, dead) = reference(&keys, &bodies, form).await;
        assert_eq!(rows(&database).await, expected);
        assert_eq!(dead, [json!({"dead": "unknown_message_type"})]);
        assert_eq!(database.query("SELECT reason FROM masq.dead_letters").await, ["unknown_message_type"]);
    }
}

/// Stands between masq and moto and can refuse every delete, so that what is settled comes again.
#[derive(Clone)]
struct Proxy {
    deletes: Arc<AtomicBool>,
    refused: Arc<AtomicBool>,
    client: hyper_util::client::legacy::Client<
        hyper_util::client::legacy::connect::HttpConnector,
        http_body_util::Full<Bytes>,
    >,
}

impl Proxy {
    async fn start() -> (Self, String) {
        let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
        let proxy = Self { deletes: Arc::new(AtomicBool::new(true)), refused: Arc::default(), client };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(Self::forward).with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (proxy, format!("http://{address}"))
    }

    async fn forward(State(proxy): State<Self>, headers: HeaderMap, body: Bytes) -> axum::response::Response {
        let target = headers["x-amz-target"].to_str().unwrap();
        if target.ends_with("DeleteMessageBatch") && !proxy.deletes.load(Ordering::SeqCst) {
            proxy.refused.store(true, Ordering::SeqCst);
            return (axum::http::StatusCode::SERVICE_UNAVAILABLE, "{}").into_response();
        }
        let mut request = hyper::Request::post(format!("{}/", moto().await));
        *request.headers_mut().unwrap() = headers;
        let answer = proxy.client.request(request.body(body.into()).unwrap()).await.unwrap();
        answer.map(axum::body::Body::new)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_come_again_change_nothing() {
    let (keys, database) = (Keys::create(), Database::loadable(&config()).await);
    let url = moto_queue("again", 2, &hundred()).await;
    let (proxy, endpoint) = Proxy::start().await;
    proxy.deletes.store(false, Ordering::SeqCst);
    let arguments = ["--endpoint-url", &endpoint];
    let mut first = run(&keys, &url, &database, &arguments).spawn().unwrap();
    until("all is loaded and a delete is refused", async || {
        count(&database).await == 99 && proxy.refused.load(Ordering::SeqCst)
    })
    .await;
    first.kill().await.unwrap();

    let before = rows(&database).await;
    proxy.deletes.store(true, Ordering::SeqCst);
    let (exit, _, stderr) = finish(run(&keys, &url, &database, &["--endpoint-url", &endpoint, "--drain"])).await;
    assert_eq!(exit, 0, "{stderr}");
    assert!(stderr.contains(r#""rows":0,"dead_letters":0,"duplicates":1"#), "{stderr}");
    assert_eq!((before.len(), rows(&database).await), (99, before));
}

/// A local queue with so many sample logins on it, each of another user.
async fn local_queue(messages: usize, visibility: Duration) -> (SqsServer, MemoryQueue, String) {
    let queues = MemoryQueues::new();
    let queue = queues.create("login-queue", Settings { visibility, ..Settings::default() }).unwrap();
    for number in 0..messages {
        let body = crate::support::login(&format!("user-{number}"), "199.172.111.135");
        queue.send(body.into_bytes());
    }
    let server = SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), queues).await.unwrap();
    let url = server.queue_url("login-queue");
    (server, queue, url)
}

/// Every message is one row, and nothing else is there.
async fn assert_exact(database: &Database, queue: &MemoryQueue, messages: usize) {
    let counts = "SELECT count(*), count(DISTINCT user_id), (SELECT count(*) FROM masq.ledger), \
                  (SELECT count(*) FROM masq.dead_letters) FROM user_logins";
    assert_eq!(database.query(counts).await, [format!("{messages}\t{messages}\t{messages}\t0")]);
    assert!(queue.count().is_empty());
}

async fn count(database: &Database) -> u64 {
    let there = database.query("SELECT to_regclass('user_logins') IS NOT NULL").await;
    match there[0].as_str() {
        "t" => database.query("SELECT count(*) FROM user_logins").await[0].parse().unwrap(),
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_the_middle_costs_nothing_but_redelivery() {
    const MESSAGES: usize = 20_000;
    const KILLS: usize = 5;
    let (keys, database) = (Keys::create(), Database::loadable(&config()).await);
    let (_server, queue, url) = local_queue(MESSAGES, Duration::from_secs(2)).await;
    let mut killed_in_the_middle = 0;
    for _ in 0..KILLS {
        let before = count(&database).await;
        let mut child: Child = run(&keys, &url, &database, &[]).spawn().unwrap();
        until("some more rows", async || count(&database).await > before || queue.count().is_empty()).await;
        // SIGKILL: no destructor, no goodbye.
        child.kill().await.unwrap();
        killed_in_the_middle += usize::from(count(&database).await < MESSAGES as u64);
    }
    assert!(killed_in_the_middle > 0, "all was loaded before the first kill");
    let (exit, _, stderr) = finish(run(&keys, &url, &database, &["--drain"])).await;
    assert_eq!(exit, 0, "{stderr}");
    assert_exact(&database, &queue, MESSAGES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_on_one_queue_whose_messages_come_again_after_two_seconds() {
    const MESSAGES: usize = 4_000;
    let (keys, database) = (Keys::create(), Database::loadable(&config()).await);
    let (_server, queue, url) = local_queue(MESSAGES, Duration::from_secs(2)).await;
    // A batch takes longer than its messages stay hidden.
    database
        .execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$; \
             CREATE TRIGGER slow BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE PROCEDURE slow()",
        )
        .await;
    let arguments = ["--drain", "--connections", "2"];
    let (one, two) =
        tokio::join!(finish(run(&keys, &url, &database, &arguments)), finish(run(&keys, &url, &database, &arguments)),);
    assert_eq!((one.0, two.0), (0, 0), "{}{}", one.2, two.2);
    assert_exact(&database, &queue, MESSAGES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_the_batch_in_hand() {
    let (keys, database) = (Keys::create(), Database::loadable(&config()).await);
    let (_server, queue, url) = local_queue(5_000, Duration::from_secs(30)).await;
    let child = run(&keys, &url, &database, &[]).spawn().unwrap();
    until("some rows", async || count(&database).await > 0).await;
    let id = i32::try_from(child.id().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What is loaded is deleted, and what is not is on the queue and in nobody's hands for long.
    let loaded = count(&database).await;
    let left = queue.count();
    assert_eq!(loaded + left.visible + left.in_flight + left.delayed, 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_readiness_and_counters() {
    let (keys, database) = (Keys::create(), Database::loadable(&config()).await);
    let (_server, _queue, url) = local_queue(10, Duration::from_secs(30)).await;
    let address = free_address();
    let _child = run(&keys, &url, &database, &["--listen", &address.to_string()]).spawn().unwrap();
    until("it is ready", async || http_get(address, "/readyz").await.starts_with("HTTP/1.1 200")).await;
    until("all is counted", async || http_get(address, "/metrics").await.contains("masq_messages_loaded_total 10"))
        .await;
    let metrics = http_get(address, "/metrics").await;
    for line in ["masq_messages_received_total 10", "masq_messages_dead_lettered_total{reason=\"bad_ip\"} 0"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    until("all is deleted", async || http_get(address, "/metrics").await.contains("masq_messages_deleted_total 10"))
        .await;
}
