//! The pipeline against real PostgreSQL, with a queue in memory: what stands in the tables afterwards.

use std::time::Duration;

use masq::{
    config::Config,
    pipeline,
    queue::memory::{MemoryQueue, MemoryQueues, Settings},
    shutdown::Shutdown,
    start::{self, Options, Shared},
};
use tokio::time::Instant;

use crate::support::{Database, Keys, config, connector, login, shared};

fn queue() -> MemoryQueue {
    MemoryQueues::new().create("login-queue", Settings::default()).unwrap()
}

/// Runs a pipeline until the queue is empty.
pub(crate) async fn drain(queue: &MemoryQueue, database: &Database, config: &Config, shared: &Shared) {
    let options = Options { deadline: Instant::now() + Duration::from_secs(10), allow_unsafe: false, drain: true };
    let ready = start::database(connector(&database.url), config, &shared.keys, "login-queue", options).await.unwrap();
    let visibility = Some(Duration::from_secs(30));
    let workers = start::workers(queue, &ready, config, shared, (visibility, options)).unwrap();
    pipeline::run(workers, &Shutdown::new()).await.unwrap();
}

#[tokio::test]
async fn a_login_becomes_a_masked_row_and_a_wrong_message_a_dead_letter() {
    let (queue, database, keys) = (queue(), Database::create().await, Keys::create());
    let shared = shared(&keys);
    queue.send(login("u1", " 199.172.111.135").into_bytes());
    queue.send(login("u2", "::ffff:199.172.111.135").into_bytes());
    queue.send(br#"{"foo": "oops_wrong_msg_type", "bar": "123"}"#.to_vec());
    drain(&queue, &database, &config(), &shared).await;

    let ip = shared.keys.token.domain("ip").unwrap().ip("199.172.111.135".parse().unwrap());
    let device = shared.keys.token.domain("device_id").unwrap().text("593-47-5928").unwrap();
    let today = database.query("SELECT (now() AT TIME ZONE 'UTC')::date").await.remove(0);
    let row = |user: &str| format!("{user}\tandroid\t{ip}\t{device}\tNULL\t2.3.0\t{today}");
    assert_eq!(database.query("SELECT * FROM user_logins ORDER BY 1").await, [row("u1"), row("u2")]);
    assert_eq!(
        database.query("SELECT reason, queue FROM masq.dead_letters").await,
        ["unknown_message_type\tlogin-queue"]
    );
    assert_eq!(
        database.query("SELECT outcome, count(*) FROM masq.ledger GROUP BY 1 ORDER BY 1").await,
        ["1\t2", "2\t1"]
    );
    assert!(queue.count().is_empty());
}
