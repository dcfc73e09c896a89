//! Workers that are stopped (SIGSTOP) while they hold the keys of messages: the kernel keeps their connections alive, and
//! whoever gets their messages next goes on all the same.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use masq::{
    db::Timeouts,
    local::sqs::SqsServer,
    queue::{
        Key,
        memory::{MemoryQueue, MemoryQueues, Settings},
    },
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::Child,
};

use crate::{
    scene::Scene,
    support::{TIMEOUTS, login, plain, service, until},
};

/// What sessions are in the middle of while they wait for their clients.
const STANDS: &str = "SELECT state, split_part(query, ' ', 1) FROM pg_stat_activity \
     WHERE datname = current_database() AND wait_event = 'ClientRead' AND state <> 'idle'";

const WRONG: &[u8] = br#"{"foo": "oops_wrong_msg_type", "bar": "123"}"#;

/// A worker of the program itself, on a queue of its own.
struct Worker {
    scene: Scene,
    child: Child,
    queue: MemoryQueue,
    keys: Vec<Key>,
    _server: SqsServer,
}

impl Worker {
    /// It has loaded one message.
    async fn start(scene: Scene) -> Self {
        let queues = MemoryQueues::new();
        let queue = queues.create("login-queue", Settings::default()).unwrap();
        let server = SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), queues).await.unwrap();
        let (url, keys) = (server.queue_url("login-queue"), scene.keys.path().display().to_string());
        // It must still be waiting when it is stopped.
        let config = scene.keys.directory.path().join("masq.toml");
        std::fs::write(&config, "[database]\nconnections = 1\nlock_timeout = \"25s\"\n").unwrap();
        scene.prepare().await;
        let worker = scene.database.login("worker");
        let arguments = ["run", "--queue-url", &url, "--database-url", &worker, "--keys", &keys, "--config"];
        let child = service(&arguments).arg(config).spawn().unwrap();
        let keys = vec![queue.send(login("first", "10.0.0.1").into_bytes())];
        let worker = Self { scene, child, queue, keys, _server: server };
        worker.until_settled().await;
        worker
    }

    async fn until_settled(&self) {
        until("it is settled", async || self.queue.count().is_empty()).await;
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).unwrap())).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Stops it on its way with this message, when it waits for a lock on this table in this statement, and takes the lock
    /// away.
    async fn stop_at(&mut self, table: &str, statement: &str, body: &[u8]) {
        let other = self.scene.database.session().await;
        let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        other.batch_execute(&lock).await.unwrap();
        self.keys.push(self.queue.send(body.to_vec()));
        let waiting = "SELECT split_part(query, ' ', 1) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND \
                       datname = current_database()";
        until("it waits for the lock", async || !self.scene.database.query(waiting).await.is_empty()).await;
        assert_eq!(self.scene.database.query(waiting).await, [statement]);
        self.signal(Signal::STOP);
        other.batch_execute("COMMIT").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_in_the_middle_of_copy_gives_way() {
    let timeouts = Timeouts { statement: Duration::from_secs(3), lock: Duration::from_millis(200), ..TIMEOUTS };
    let mut worker = Worker::start(Scene { timeouts, ..Scene::new().await }).await;
    // Others whose sessions stand as long: what is not masq's is left alone.
    worker.scene.database.execute("CREATE TABLE others (n int)").await;
    let other = plain(&worker.scene.database.url).await;
    let other_copy = other.copy_in::<_, bytes::Bytes>("COPY others FROM STDIN").await.unwrap();

    let body = login("second", "10.0.0.1");
    worker.stop_at("user_logins", "COPY", body.as_bytes()).await;
    until("both stand", async || worker.scene.database.query(STANDS).await == ["active\tCOPY"; 2]).await;

    let Worker { scene, keys, .. } = &worker;
    scene.queue.deliver(keys[1], body.as_bytes());
    let running = scene.run().await;
    scene.until_empty().await;
    running.stop().await;
    scene.assert_rows(keys).await;
    assert_eq!(scene.counted(), (1, 0, 0, 0));
    assert!(!other.is_closed());
    drop(other_copy);

    // When it goes on it finds its connection gone and the message settled.
    worker.signal(Signal::CONT);
    worker.until_settled().await;
    worker.scene.assert_rows(&worker.keys).await;
    worker.child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_between_two_statements_is_ended_by_the_server() {
    /// Five seconds of standing still, a wait for the lock, a wait before it is tried again; and a busy machine.
    const LIMIT: Duration = Duration::from_secs(20);
    let mut worker = Worker::start(Scene::new().await).await;
    worker.stop_at("masq.dead_letters", "INSERT", WRONG).await;
    let stands = Instant::now();
    until("it stands", async || worker.scene.database.query(STANDS).await == ["idle in transaction\tINSERT"]).await;

    let Worker { scene, keys, .. } = &worker;
    scene.queue.deliver(keys[1], WRONG);
    let running = scene.run().await;
    scene.until_empty().await;
    let waited = stands.elapsed();
    running.stop().await;
    assert_eq!(scene.counted(), (0, 1, 0, 0));
    assert!(waited < LIMIT, "it took {waited:?}");

    worker.signal(Signal::CONT);
    worker.until_settled().await;
    assert_eq!(worker.scene.reasons().await, ["unknown_message_type"]);
    worker.child.kill().await.unwrap();
}

/// A message of the protocol of PostgreSQL's clients (PostgreSQL 15, "53.7. Message Formats").
fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}

#[tokio::test]
async fn a_worker_that_is_stopped_while_it_sends_a_statements_parameters_gives_way() {
    const CLAIM: &str = "INSERT INTO masq.ledger (sent_at, message_id, outcome) VALUES (now(), $1, 1)\0";
    let timeouts = Timeouts { statement: Duration::from_secs(2), lock: Duration::from_millis(200), ..TIMEOUTS };
    let scene = Scene { timeouts, ..Scene::new().await };
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    let key = scene.send("user");
    let (server, name) = scene.database.url.rsplit_once('/').unwrap();
    let (directory, port) = server.split_once('@').unwrap().1.rsplit_once(':').unwrap();
    let mut stopped = UnixStream::connect(format!("{}/.s.PGSQL.{port}", directory.replace("%2F", "/"))).await.unwrap();
    let start = format!("user\0worker\0database\0{name}\0\0");
    // Protocol 3.0; of all messages the first alone has no kind.
    stopped.write_all(&frame(0, &[&196_608_u32.to_be_bytes()[..], start.as_bytes()].concat())[1..]).await.unwrap();
    let Key { sent_at, id } = key;
    let begin = format!(
        "BEGIN; SET LOCAL statement_timeout = 1000; SET LOCAL idle_in_transaction_session_timeout = 1000; \
         INSERT INTO masq.ledger VALUES (to_timestamp({sent_at} / 1000.0), '{id}', 1)\0"
    );
    stopped.write_all(&frame(b'Q', begin.as_bytes())).await.unwrap();
    stopped.write_all(&frame(b'P', format!("\0{CLAIM}\0\0").as_bytes())).await.unwrap();
    stopped.write_all(&frame(b'B', &[0; 1000])[..500]).await.unwrap();
    until("it stands", async || scene.database.query(STANDS).await == ["active\tINSERT"]).await;

    let running = scene.run().await;
    scene.until_empty().await;
    running.stop().await;
    scene.assert_rows(&[key]).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), stopped.read_to_end(&mut Vec::new())).await;
    ended.expect("its connection is still open").unwrap();
}
