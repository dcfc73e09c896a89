//! An SQS dead-letter queue, drained: by one, by two, and beside a worker.

use std::{fs, time::Duration};

use masq::{
    local::sqs::SqsServer,
    queue::{
        Key,
        memory::{MemoryQueue, MemoryQueues, Redrive, Settings},
    },
};

use super::ward::{MINUTE, Ward};
use crate::{
    stage::WRONG,
    support::{finish, login, until},
};

/// A queue with its dead-letter queue: a message goes there after its first delivery.
pub(super) async fn queues() -> (SqsServer, MemoryQueue, MemoryQueue) {
    let queues = MemoryQueues::new();
    let dead = queues.create("login-queue-dead", Settings::default()).unwrap();
    let redrive = Some(Redrive { target: "login-queue-dead".into(), max_receive_count: 1 });
    let queue = queues.create("login-queue", Settings { redrive, ..Settings::default() }).unwrap();
    let server = SqsServer::start(([127, 0, 0, 1], 0).into(), queues).await.unwrap();
    (server, queue, dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_queue_is_drained_and_what_is_known_is_not_written_again() {
    let ward = Ward::new().await;
    let (server, _, dead) = queues().await;
    let send = |user: &str, ip: &str| dead.send(login(user, ip).into_bytes());
    // One is a row under this very key, one is a row that was sent an hour earlier by the ledger, as when a FIFO queue's
    // message has moved; of one there is a letter under another time.
    let row = send("row", "1.1.1.1");
    ward.write(&[(row, login("row", "1.1.1.1").into_bytes())]).await;
    for user in ["moved", "letter"] {
        let Key { sent_at, id } = send(user, "1.1.1.1");
        let body = login(user, if user == "moved" { "1.1.1.1" } else { "1.1.1" }).into_bytes();
        ward.write(&[(Key { sent_at: sent_at - 60 * MINUTE, id }, body)]).await;
    }
    send("new", "1.1.1.1");
    dead.send(WRONG.to_vec());
    assert_eq!(ward.counts().await, "2\t2\t1x2 2x1\t1");

    let url = server.queue_url("login-queue-dead");
    let (exit, _, stderr) = finish(ward.masq(&["dead", "replay", "--queue", &url])).await;
    assert_eq!(exit, 3, "{stderr}");
    let said = "5 messages received: 1 became rows, 1 dead letters, 3 had their outcome already.";
    assert!(stderr.contains(said), "{stderr}");
    assert!(dead.count().is_empty());
    assert_eq!(ward.counts().await, "3\t3\t1x3 2x2\t2");
    let users = ward.query("SELECT user_id FROM user_logins ORDER BY 1").await;
    assert_eq!(users, ["moved", "new", "row"]);
    ward.assert_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_queue_of_large_messages_is_drained_through_a_small_room() {
    let ward = Ward::new().await;
    fs::write(ward.file(), "[queue]\nmax_in_flight_bytes = \"1MiB\"\nvisibility = \"2s\"\n").unwrap();
    let (server, _, dead) = queues().await;
    let body = |user: usize, padding: usize| {
        let login = login(&format!("user-{user}"), "1.1.1.1");
        login.replacen('{', &format!("{{\"padding\": \"{}\", ", "x".repeat(padding)), 1).into_bytes()
    };
    // The first ones give no idea of those that follow.
    for user in 0..60 {
        dead.send(body(user, if user < 20 { 1 } else { 300_000 }));
    }
    let url = server.queue_url("login-queue-dead");
    let (exit, _, stderr) = finish(ward.masq(&["dead", "replay", "--queue", &url])).await;
    assert_eq!(exit, 0, "{stderr}");
    assert_eq!(ward.query("SELECT count(DISTINCT user_id), count(*) FROM user_logins").await, ["60\t60"]);
    assert!(dead.count().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_drain_a_dead_letter_queue_beside_a_worker() {
    const MESSAGES: usize = 2_000;
    let ward = Ward::new().await;
    let (server, queue, dead) = queues().await;
    for number in 0..MESSAGES {
        queue.send(login(&format!("user-{number}"), "1.1.1.1").into_bytes());
    }
    // Delivered once and never settled: half of them go to the dead-letter queue, while the worker takes the others.
    for _ in 0..MESSAGES / 20 {
        queue.take(10, Duration::ZERO, Duration::from_secs(2)).await;
    }
    let (main, url) = (server.queue_url("login-queue"), server.queue_url("login-queue-dead"));
    let mut worker = ward.masq(&["run", "--queue-url", &main]).spawn().unwrap();
    let there = async || (dead.count().visible + dead.count().in_flight) as usize;
    until("some moved", async || there().await > 0).await;
    let drain = || finish(ward.masq(&["dead", "replay", "--queue", &url]));
    while !(queue.count().is_empty() && dead.count().is_empty()) {
        let (one, two) = tokio::join!(drain(), drain());
        assert_eq!((one.0, two.0), (0, 0), "{}{}", one.2, two.2);
    }
    worker.kill().await.unwrap();
    assert_eq!(ward.counts().await, format!("{MESSAGES}\t{MESSAGES}\t1x{MESSAGES}\t0"));
    ward.assert_reconciled().await;
}
