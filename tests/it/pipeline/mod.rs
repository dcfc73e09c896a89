//! The pipeline between a scripted queue and a sink in memory: every message settled once, whatever goes wrong.
//!
//! The clock is paused and wound on by itself, so that hours of outage take milliseconds.

mod suspects;

use std::time::Duration;

use masq::{
    pipeline::{PipelineError, Trouble},
    queue::room::Room,
    sink::memory::{
        Fault::{self, AnswerLost, Down, Misconfigured},
        Stored,
    },
};
use tokio::time::{Instant, sleep};

use crate::{
    scripted::QueueFault,
    stage::{Stage, VISIBILITY},
};

/// Refuses rows of these users, as a constraint would.
const POISON: &str = "poison";

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_is_waited_for_and_each_message_is_a_row_once() {
    let scripts: [&[Fault]; 7] = [
        &[],
        &[Down],
        &[Down; 20],
        &[AnswerLost],
        &[AnswerLost; 5],
        &[Misconfigured, Down, Misconfigured],
        &[Down, AnswerLost, Misconfigured, AnswerLost, Down],
    ];
    for script in scripts {
        for (count, workers) in [(1, 1), (25, 1), (700, 3)] {
            let stage = Stage::new(workers);
            let mut keys = stage.send_many(count);
            stage.sink.script(script.iter().copied());
            stage.drain().await;
            stage.assert_rows(&keys);
            let (rows, dead, duplicates, returned) = stage.counted();
            assert_eq!((dead, returned), (0, 0), "{script:?}");
            assert_eq!(rows + duplicates, count as u64, "{script:?}");
            assert_eq!(duplicates > 0, script.iter().any(|fault| matches!(fault, AnswerLost)), "{script:?}");
            assert_eq!(stage.trouble(Trouble::Database), None);

            // The way that a lost answer takes must not be closed to what comes later.
            keys.push(stage.send("later"));
            stage.drain().await;
            stage.assert_rows(&keys);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_hours_burns_no_receive_counts() {
    let stage = Stage::new(2);
    let keys = stage.send_many(35);
    stage.sink.script([Down; 20_000]);
    let running = stage.run();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(stage.trouble(Trouble::Database).as_deref(), Some("the database is away"));
    assert_eq!(stage.shared.metrics.received.get(), 35, "nothing became visible meanwhile");
    assert!(stage.shared.metrics.extended.get() >= 35 * 200);

    assert!(running.stop().await < Duration::from_secs(1));
    assert_eq!(stage.counted(), (0, 0, 0, 35));
    assert_eq!(stage.queue.inner.count().visible, 0, "at once would be a hot loop");
    sleep(Duration::from_secs(1)).await;
    let again = stage.queue.inner.take(1000, Duration::ZERO, VISIBILITY).await;
    assert_eq!(again.len(), keys.len());
    assert!(again.iter().all(|delivery| delivery.count == 2));
    assert!(stage.sink.outcomes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_more_often_it_went_back_the_longer_a_message_rests() {
    let stage = Stage::new(1);
    stage.send("user");
    for _ in 1..12 {
        // Received and left lying, as by a worker that was killed.
        assert_eq!(stage.queue.inner.take(1, Duration::ZERO, Duration::ZERO).await.len(), 1);
    }
    stage.sink.script([Down; 1000]);
    let running = stage.run();
    stage.until("the outage is noticed", |stage| stage.trouble(Trouble::Database).is_some()).await;
    running.stop().await;
    sleep(Duration::from_secs(9)).await;
    assert_eq!(stage.queue.inner.count().visible, 0);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.queue.inner.count().visible, 1);
}

#[tokio::test(start_paused = true)]
async fn what_another_worker_gets_meanwhile_is_one_row_and_a_duplicate() {
    let ours = Stage::new(1);
    let theirs = Stage::beside(&ours);
    let keys = ours.send_many(30);
    // No lease is ever extended, so that everything comes again while it waits.
    ours.queue.extends([QueueFault::Unavailable; 10_000]);
    ours.sink.script([Down; 300]);
    tokio::join!(ours.drain(), theirs.drain());
    ours.assert_rows(&keys);
    let ((rows, _, duplicates, _), (other_rows, _, other_duplicates, _)) = (ours.counted(), theirs.counted());
    assert_eq!(rows + other_rows, 30);
    assert!(duplicates + other_duplicates >= 30);
}

#[tokio::test(start_paused = true)]
async fn what_comes_again_after_it_was_deleted_changes_nothing() {
    let stage = Stage::new(2);
    stage.queue.haunt();
    let keys = stage.send_many(45);
    stage.drain().await;
    stage.assert_rows(&keys);
    assert_eq!(stage.counted(), (45, 0, 45, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_twice_in_a_batch_is_written_once_and_deleted_by_its_newest_receipt() {
    let stage = Stage::new(1);
    let keys = stage.send_many(10);
    // The first poll leaves them visible, so the wave that joins it brings them again.
    stage.queue.receives([QueueFault::Half]);
    stage.drain_within(Duration::from_secs(10)).await;
    stage.assert_rows(&keys);
    assert_eq!(stage.counted(), (10, 0, 10, 0));
    assert_eq!(stage.sink.transactions(), 1);
    assert_eq!(stage.shared.metrics.deleted.get(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_fails_is_tried_again_or_left_to_redelivery() {
    use QueueFault::{AnswerLost, Denied, Half, Unavailable};
    // What fails, how many settled messages could not be deleted, and how many of them came again.
    let scripts: [(&[QueueFault], u64, u64); 8] = [
        (&[Unavailable], 0, 0),
        (&[Unavailable; 3], 0, 0),
        (&[Unavailable; 4], 20, 20),
        (&[Half], 0, 0),
        (&[Half; 3], 0, 0),
        (&[Half, AnswerLost], 0, 0),
        (&[AnswerLost; 2], 0, 0),
        (&[Denied; 2], 40, 0),
    ];
    for (script, failures, again) in scripts {
        let stage = Stage::new(1);
        let keys = stage.send_many(20);
        stage.queue.deletes(script.iter().copied());
        stage.drain().await;
        stage.assert_rows(&keys);
        let (rows, dead, duplicates, returned) = stage.counted();
        assert_eq!((rows, dead, returned), (20, 0, 0), "{script:?}");
        assert_eq!(duplicates, again, "what was not deleted comes again: {script:?}");
        assert_eq!(stage.shared.metrics.delete_failures.get(), failures, "{script:?}");
        assert_eq!(stage.shared.metrics.deleted.get(), 20, "{script:?}");
        assert_eq!(stage.trouble(Trouble::Delete), None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_deleted_stops_receiving() {
    let stage = Stage::new(3);
    let keys = stage.send_many(20);
    stage.queue.deletes([QueueFault::Denied; 10_000]);
    let running = stage.run();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(stage.trouble(Trouble::Delete).as_deref(), Some("DeleteMessageBatch: AccessDenied"));
    assert!(stage.queue.polls() < 10, "{} polls", stage.queue.polls());
    assert_eq!(stage.queue.inner.count().visible, 0, "what is settled stays hidden");
    running.stop().await;
    stage.assert_rows(&keys);
    assert_eq!(stage.counted(), (20, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_received_while_the_database_is_away_and_one_worker_asks_for_it() {
    let stage = Stage::new(8);
    let keys = stage.send_many(20);
    stage.sink.script([Down; 600]);
    let running = stage.run();
    stage.until("the outage is noticed", |stage| stage.trouble(Trouble::Database).is_some()).await;
    let (polls, transactions) = (stage.queue.polls(), stage.sink.transactions());
    let more = stage.send_many(2000);
    sleep(Duration::from_secs(60)).await;
    // What was under way still comes, a poll a worker.
    assert!(stage.queue.polls() - polls <= 8 * 65, "{} polls", stage.queue.polls() - polls);
    assert!(stage.sink.transactions() - transactions <= 300, "{} tries", stage.sink.transactions() - transactions);
    assert!(stage.queue.inner.count().visible >= 1000, "{:?}", stage.queue.inner.count());
    stage.until("all is settled", |stage| stage.queue.inner.count().is_empty()).await;
    running.stop().await;
    stage.assert_rows(&[keys, more].concat());
}

#[tokio::test(start_paused = true)]
async fn a_message_from_before_the_ledger_is_a_dead_letter_once() {
    let stage = Stage::new(1);
    let late = [stage.send("early-1"), stage.send_wrong(), stage.send("early-2")];
    sleep(Duration::from_secs(1)).await;
    let on_time = stage.send("on time");
    stage.sink.forget_before(on_time.sent_at);
    stage.queue.haunt();
    stage.drain().await;
    let mut expected = late.map(|key| (key, "older_than_ledger".to_owned())).to_vec();
    expected.sort_by_key(|(key, _)| *key);
    assert_eq!(stage.reasons(), expected);
    assert!(matches!(stage.sink.outcomes()[&on_time], Stored::Row(_)));
    assert_eq!(stage.counted(), (1, 3, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_becomes_too_old_while_it_waits_is_a_dead_letter() {
    let stage = Stage::new(1);
    let key = stage.send("user");
    stage.sink.script([Down; 5]);
    let running = stage.run();
    stage.until("it waits", |stage| stage.trouble(Trouble::Database).is_some()).await;
    stage.sink.forget_before(key.sent_at + 1);
    stage.until("it is settled", |stage| stage.queue.inner.count().is_empty()).await;
    running.stop().await;
    assert_eq!(stage.reasons(), [(key, "older_than_ledger".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn draining_ends_when_nothing_is_left_in_anybodys_hands() {
    let stage = Stage::new(2);
    let keys = stage.send_many(3);
    let elsewhere = stage.queue.inner.take(2, Duration::ZERO, Duration::from_secs(60)).await;
    let begin = Instant::now();
    stage.drain().await;
    assert!(begin.elapsed() >= Duration::from_secs(60), "{:?}", begin.elapsed());
    assert_eq!(elsewhere.len(), 2);
    stage.assert_rows(&keys);

    let begin = Instant::now();
    stage.drain().await;
    assert!(begin.elapsed() < Duration::from_secs(5), "an empty queue is drained at once");
}

#[tokio::test(start_paused = true)]
async fn batches_grow_under_a_backlog_up_to_their_caps() {
    // An intake expects bodies of 1,024 bytes until it has seen larger ones, and these are smaller.
    let body = 1024;
    // Messages; bytes of a batch at most; transactions at most; bytes held at most.
    for (count, max_bytes, transactions, held) in
        [(6000, 64 << 20, 12, 2000 * body), (1000, 100 * body, 25, 100 * body), (100, 1, 10, 10 * body)]
    {
        let mut stage = Stage::new(1);
        stage.room = Room::new(max_bytes);
        let keys = stage.send_many(count);
        stage.drain().await;
        stage.assert_rows(&keys);
        assert!(stage.sink.transactions() <= transactions, "{count}: {} transactions", stage.sink.transactions());
        assert!(stage.queue.most_held() <= held, "{count}: {} bytes held", stage.queue.most_held());
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_makes_three_polls_a_minute_and_a_lone_message_goes_through_at_once() {
    let stage = Stage::new(1);
    let running = stage.run();
    sleep(Duration::from_secs(600)).await;
    assert!(stage.queue.polls() <= 31, "{} polls", stage.queue.polls());
    let begin = Instant::now();
    stage.send("user");
    while stage.sink.outcomes().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(begin.elapsed() < Duration::from_millis(10));
    running.stop().await;
    assert_eq!(stage.counted(), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_fails_is_waited_for_and_what_it_lost_comes_again() {
    use QueueFault::{AnswerLost, Denied, None, Unavailable};
    let scripts: [&[QueueFault]; 4] =
        [&[Unavailable; 10], &[Denied; 3], &[AnswerLost, None, AnswerLost], &[None, Unavailable, AnswerLost, Denied]];
    for script in scripts {
        let stage = Stage::new(1);
        let keys = stage.send_many(60);
        stage.queue.receives(script.iter().copied());
        stage.drain().await;
        stage.assert_rows(&keys);
        assert_eq!(stage.counted(), (60, 0, 0, 0), "{script:?}");
        assert_eq!(stage.trouble(Trouble::Queue), Option::None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_under_way_at_the_signal_to_stop_has_a_moment_to_answer() {
    let stage = Stage::new(1);
    let running = stage.run();
    sleep(Duration::from_secs(5)).await;
    stage.shutdown.start();
    sleep(Duration::from_millis(100)).await;
    let key = stage.send("last");
    running.end().await.unwrap();
    stage.assert_rows(&[key]);
    assert!(stage.queue.inner.count().is_empty());

    let stage = Stage::new(3);
    stage.queue.receives([QueueFault::Hang; 3]);
    let running = stage.run();
    sleep(Duration::from_secs(100)).await;
    assert!(running.stop().await < Duration::from_secs(1), "a poll that hangs keeps nobody waiting");

    let stage = Stage::new(3);
    stage.send_many(30);
    stage.queue.deletes([QueueFault::Hang; 9]);
    let running = stage.run();
    stage.until("all is loaded", |stage| stage.sink.outcomes().len() == 30).await;
    assert!(running.stop().await < Duration::from_secs(5), "a delete that hangs keeps nobody waiting for long");
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_a_redelivery_and_is_told_at_the_end() {
    let stage = Stage::new(2);
    let keys = stage.send_many(40);
    stage.queue.receives([QueueFault::Panic, QueueFault::None, QueueFault::Panic]);
    stage.queue.deletes([QueueFault::Panic]);
    let running = stage.run();
    stage.until("all is settled", |stage| stage.queue.inner.count().is_empty()).await;
    stage.shutdown.start();
    assert!(matches!(running.end().await, Err(PipelineError::Bug)));
    stage.assert_rows(&keys);
    stage.assert_adds_up();
}

#[tokio::test(start_paused = true)]
async fn random_faults_neither_lose_a_message_nor_write_one_twice() {
    for seed in 0..50 {
        fastrand::seed(seed);
        let stage = Stage::new(fastrand::usize(1..4));
        stage.sink.refuse(POISON.as_bytes());
        let mut wrong = Vec::new();
        let mut keys = stage.send_many(fastrand::usize(20..200));
        for number in 0..fastrand::usize(0..20) {
            wrong.push(stage.send_wrong());
            wrong.push(stage.send(&format!("{POISON}-{number}")));
            keys.push(stage.send("between"));
        }
        let sink = [Down, AnswerLost, Misconfigured];
        stage.sink.script((0..fastrand::usize(0..60)).map(|_| sink[fastrand::usize(0..3)]));
        let faults = [QueueFault::Unavailable, QueueFault::AnswerLost, QueueFault::Half, QueueFault::None];
        let some = || {
            let count = fastrand::usize(0..30);
            (0..count).map(|_| faults[fastrand::usize(0..4)]).collect::<Vec<_>>()
        };
        stage.queue.receives(some());
        stage.queue.extends(some());
        stage.queue.deletes(some());
        if fastrand::bool() {
            stage.queue.haunt();
        }
        stage.drain().await;
        let outcomes = stage.sink.outcomes();
        assert_eq!(outcomes.len(), keys.len() + wrong.len(), "seed {seed}");
        assert!(keys.iter().all(|key| matches!(outcomes.get(key), Some(Stored::Row(_)))), "seed {seed}");
        assert!(wrong.iter().all(|key| matches!(outcomes.get(key), Some(Stored::Dead(_)))), "seed {seed}");
    }
}
