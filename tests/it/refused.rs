//! Rows that the table refuses, between a scripted queue and a sink in memory: a row at fault becomes a dead letter, a
//! table at fault makes none.
//!
//! The clock is paused and wound on by itself, so that hours take milliseconds.

use std::time::Duration;

use masq::{
    pipeline::Trouble,
    queue::{Key, room::Room},
    sink::memory::{
        Fault::{AnswerLost, Down, Misconfigured},
        Stored,
    },
};
use tokio::time::sleep;

use crate::stage::Stage;

/// Refuses rows of these users, as a constraint would.
const POISON: &str = "poison";

/// What no row holds: nothing is refused any more.
const NOTHING: &[u8] = b"\0no row holds this\0";

#[tokio::test(start_paused = true)]
async fn a_refused_row_is_found_by_halving_and_its_neighbours_are_rows_once() {
    for count in [2, 3, 10, 100, 1000] {
        for place in [0, 1, count / 2, count - 1] {
            let stage = Stage::new(1);
            stage.sink.refuse(POISON.as_bytes());
            let user = |number| if number == place { POISON.to_owned() } else { format!("user-{number}") };
            let keys: Vec<Key> = (0..count).map(|number| stage.send(&user(number))).collect();
            stage.drain().await;
            assert_eq!(stage.reasons(), [(keys[place], "db_rejected:23514".to_owned())]);
            assert_eq!(stage.counted(), (count as u64 - 1, 1, 0, 0));
            let transactions = stage.sink.transactions();
            assert!(transactions <= 2 * log2(count) + 3, "{count} messages: {transactions} transactions");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refused_rows_stay_apart_from_the_sinks_own_troubles() {
    for script in [[Down, AnswerLost].repeat(40), [AnswerLost, Misconfigured, Down].repeat(30)] {
        let stage = Stage::new(3);
        stage.sink.refuse(POISON.as_bytes());
        let mut keys = stage.send_many(60);
        let poison: Vec<Key> = (0..6).map(|number| stage.send(&format!("{POISON}-{number}"))).collect();
        keys.extend(stage.send_many(60));
        stage.sink.script(script);
        stage.drain().await;
        let expected: Vec<_> = poison.into_iter().map(|key| (key, "db_rejected:23514".to_owned())).collect();
        let mut reasons = stage.reasons();
        reasons.sort_by_key(|(key, _)| expected.iter().position(|(expected, _)| expected == key));
        assert_eq!(reasons, expected);
        assert_eq!(stage.sink.outcomes().len(), keys.len() + 6);
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_takes_nothing_makes_no_dead_letters_whatever_else_is_in_the_batch() {
    let stage = Stage::new(1);
    stage.sink.refuse(b"android"); // every login
    let keys = stage.send_many(200);
    // Neither dead letters nor duplicates prove that the table takes rows.
    let wrong: Vec<Key> = (0..5).map(|_| stage.send_wrong()).collect();
    let running = stage.run();
    stage.until("the line stops", |stage| stage.trouble(Trouble::Table).is_some()).await;
    let halving = stage.sink.transactions();
    sleep(Duration::from_secs(60)).await;
    let what = stage.trouble(Trouble::Table).unwrap();
    assert!(
        what.starts_with("the table refuses rows, and has taken no other since (SQLSTATE 23514); nothing becomes"),
        "{what}"
    );
    assert!(stage.sink.transactions() - halving < 1000, "a table at fault is asked about once a second");
    assert!(stage.reasons().iter().all(|(key, reason)| wrong.contains(key) && reason == "unknown_message_type"));

    running.stop().await;
    assert_eq!(stage.counted(), (0, 5, 0, 200));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.queue.inner.count().visible, keys.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_mended_takes_all_that_it_refused() {
    for workers in [1, 3] {
        let stage = Stage::new(workers);
        stage.sink.refuse(b"android");
        let mut keys = stage.send_many(300);
        let running = stage.run();
        stage.until("the line stops", |stage| stage.trouble(Trouble::Table).is_some()).await;
        sleep(Duration::from_secs(100)).await;
        stage.sink.refuse(NOTHING);
        keys.push(stage.send("one more"));
        stage.until("all is settled", |stage| stage.queue.inner.count().is_empty()).await;
        running.stop().await;
        stage.assert_rows(&keys);
        assert_eq!(stage.counted(), (301, 0, 0, 0));
        assert_eq!(stage.trouble(Trouble::Table), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_refused_row_is_judged_by_rows_before_it_and_only_once() {
    let stage = Stage::new(1);
    stage.sink.refuse(POISON.as_bytes());
    let good = stage.send("good");
    stage.drain().await;
    let first = stage.send(POISON);
    stage.drain().await;
    assert_eq!(stage.reasons(), [(first, "db_rejected:23514".to_owned())], "a row before it vouches for the table");

    let second = stage.send(POISON);
    let running = stage.run();
    stage.until("the line stops", |stage| stage.trouble(Trouble::Table).is_some()).await;
    sleep(Duration::from_secs(600)).await;
    assert!(!stage.sink.outcomes().contains_key(&second), "that row has vouched already");
    running.stop().await;
    assert_eq!(stage.sink.outcomes().len(), 2);
    assert!(stage.sink.outcomes().contains_key(&good));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_refuses_what_it_took_makes_no_dead_letter_of_a_lone_row() {
    let stage = Stage::new(1);
    let mut keys = Vec::from([stage.send("good")]);
    stage.drain().await;
    stage.sink.refuse(b"android");
    keys.push(stage.send("good as well"));
    let running = stage.run();
    stage.until("the line stops", |stage| stage.trouble(Trouble::Table).is_some()).await;
    assert!(
        stage.trouble(Trouble::Table).unwrap().starts_with("the table refuses every row, also what it took before")
    );
    keys.push(stage.send("another"));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.sink.outcomes().len(), 1);
    stage.sink.refuse(NOTHING);
    stage.until("all is settled", |stage| stage.queue.inner.count().is_empty()).await;
    running.stop().await;
    stage.assert_rows(&keys);
    assert_eq!(stage.trouble(Trouble::Table), None);
}

#[tokio::test(start_paused = true)]
async fn a_table_at_fault_is_told_by_a_few_of_many_rows() {
    let stage = Stage::new(1);
    let mut keys = Vec::from([stage.send("good")]);
    stage.drain().await;
    // The first is refused after the table is mended, too.
    let poison = stage.send(POISON);
    keys.extend(stage.send_many(1000));
    stage.sink.refuse(b"android");
    let before = stage.sink.transactions();
    let running = stage.run();
    stage.until("the line stops", |stage| stage.trouble(Trouble::Table).is_some()).await;
    assert!(stage.sink.transactions() - before < 20);
    sleep(Duration::from_secs(600)).await;
    stage.sink.refuse(POISON.as_bytes());
    stage.until("all is settled", |stage| stage.queue.inner.count().is_empty()).await;
    running.stop().await;
    assert_eq!(stage.reasons(), [(poison, "db_rejected:23514".to_owned())]);
    assert_eq!(stage.sink.outcomes().len(), keys.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn refused_rows_that_wait_are_judged_by_rows_that_other_workers_write_later() {
    let stage = Stage::new(4);
    stage.sink.refuse(POISON.as_bytes());
    stage.send("good");
    stage.drain().await;
    (0..20).for_each(|_| _ = stage.send(POISON));
    let running = stage.run();
    stage.until("they wait", |stage| stage.trouble(Trouble::Table).is_some()).await;
    sleep(Duration::from_secs(60)).await;
    // One waits in vain for a row before it; the others have none.
    assert!(stage.reasons().len() < 10);
    stage.send("good as well");
    stage.until("all is settled", |stage| stage.queue.inner.count().is_empty()).await;
    running.stop().await;
    assert_eq!((stage.counted().0, stage.counted().1), (2, 20));
}

#[tokio::test(start_paused = true)]
async fn few_good_rows_among_many_bad_ones_are_found_after_a_start() {
    let stage = Stage::new(1);
    stage.sink.refuse(POISON.as_bytes());
    let users = (0..600).map(|number| if number % 50 == 49 { "good" } else { POISON });
    users.for_each(|user| _ = stage.send(user));
    stage.drain_within(Duration::from_secs(60)).await;
    assert_eq!((stage.counted().0, stage.counted().1), (12, 588));
}

#[tokio::test(start_paused = true)]
async fn where_no_other_message_has_room_a_refused_row_is_judged_by_one_that_was_taken() {
    let mut stage = Stage::new(1);
    let good = stage.send("good");
    stage.drain().await;
    stage.sink.refuse(POISON.as_bytes());
    stage.room = Room::new(1);
    let mut poison = [stage.send(POISON), stage.send(POISON)];
    stage.drain().await;
    poison.sort();
    assert_eq!(stage.reasons(), poison.map(|key| (key, "db_rejected:23514".to_owned())));
    assert!(matches!(stage.sink.outcomes()[&good], Stored::Row(_)));
}

#[tokio::test(start_paused = true)]
async fn who_drains_a_queue_leaves_a_refused_row_on_it_for_which_nothing_vouches() {
    let stage = Stage::new(1);
    stage.sink.refuse(POISON.as_bytes());
    stage.send(POISON);
    stage.drain_in_vain(Duration::from_secs(120)).await;
    assert!(stage.sink.outcomes().is_empty());
    assert_eq!(stage.counted(), (0, 0, 0, 1));
    assert!(stage.trouble(Trouble::Table).is_some());
    assert!(!stage.queue.inner.count().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lone_refused_row_waits_for_a_row_of_another_worker() {
    let stage = Stage::new(2);
    stage.sink.refuse(POISON.as_bytes());
    let poison = stage.send(POISON);
    let running = stage.run();
    stage.until("the line stops", |stage| stage.trouble(Trouble::Table).is_some()).await;
    sleep(Duration::from_secs(60)).await;
    assert!(stage.sink.outcomes().is_empty());
    stage.send("good");
    stage.until("both are settled", |stage| stage.sink.outcomes().len() == 2).await;
    running.stop().await;
    assert_eq!(stage.reasons(), [(poison, "db_rejected:23514".to_owned())]);
    assert_eq!(stage.counted(), (1, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lone_refused_row_waits_for_company() {
    let stage = Stage::new(1);
    stage.sink.refuse(POISON.as_bytes());
    let poison = stage.send(POISON);
    let running = stage.run();
    stage.until("it is doubted", |stage| stage.trouble(Trouble::Table).is_some()).await;
    sleep(Duration::from_secs(600)).await;
    assert!(stage.sink.outcomes().is_empty());
    let good = stage.send("good");
    stage.until("both are settled", |stage| stage.queue.inner.count().is_empty()).await;
    assert_eq!(stage.trouble(Trouble::Table), None);
    running.stop().await;
    assert_eq!(stage.reasons(), [(poison, "db_rejected:23514".to_owned())]);
    assert!(stage.sink.outcomes().contains_key(&good));
    assert_eq!(stage.counted(), (1, 1, 0, 0));
    assert_eq!(stage.shared.metrics.extend_failures.get(), 0, "what waits stays hidden");
}

#[tokio::test(start_paused = true)]
async fn refused_rows_that_wait_are_given_back_at_the_signal_to_stop() {
    let stage = Stage::new(2);
    stage.sink.refuse(b"android");
    stage.send_many(20);
    let running = stage.run();
    stage.until("the table is doubted", |stage| stage.trouble(Trouble::Table).is_some()).await;
    assert!(running.stop().await < Duration::from_secs(2));
    assert_eq!(stage.counted(), (0, 0, 0, 20));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.queue.inner.count().visible, 20);
}

/// The fewest halvings that leave one of so many.
fn log2(count: usize) -> usize {
    count.next_power_of_two().ilog2() as usize
}
