//! Every promise of the queue, on a paused clock: no test waits for real.

mod polls;

use std::time::Duration;

use tokio::time::{advance, timeout};

use super::*;
use crate::queue::{Depth, Queue, Receipt};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const NOW: Duration = Duration::ZERO;
/// The visibility timeout in these tests.
const HIDDEN: Duration = Duration::from_secs(30);

fn queue() -> MemoryQueue {
    queue_with(Settings::default())
}

fn queue_with(settings: Settings) -> MemoryQueue {
    MemoryQueues::new().create("orders", settings).unwrap()
}

/// A queue that moves a message to `orders-dead` instead of delivering it more than `max_receive_count` times.
fn queue_with_redrive(max_receive_count: u32) -> (MemoryQueue, MemoryQueue) {
    let queues = MemoryQueues::new();
    let dead = queues.create("orders-dead", Settings::default()).unwrap();
    let redrive = Some(Redrive { target: "orders-dead".into(), max_receive_count });
    (queues.create("orders", Settings { redrive, ..Settings::default() }).unwrap(), dead)
}

async fn take_one(queue: &MemoryQueue) -> Delivery {
    let mut taken = queue.take(1, NOW, HIDDEN).await;
    assert_eq!(taken.len(), 1, "a message should be ready");
    taken.remove(0)
}

async fn is_quiet(queue: &MemoryQueue) -> bool {
    queue.take(10, NOW, HIDDEN).await.is_empty()
}

fn depth(visible: u64, in_flight: u64, delayed: u64) -> Depth {
    Depth { visible, in_flight, delayed }
}

fn room() -> crate::queue::room::Room {
    crate::queue::room::Room::new(1 << 20)
}

#[tokio::test(start_paused = true)]
async fn a_received_message_is_hidden_and_comes_again_with_a_new_handle() {
    let queue = queue();
    let key = queue.send(*b"body");
    advance(SECOND).await;
    let first = take_one(&queue).await;
    assert!(is_quiet(&queue).await);
    advance(HIDDEN - Duration::from_millis(1)).await;
    assert!(is_quiet(&queue).await);
    advance(Duration::from_millis(1)).await;
    let second = take_one(&queue).await;

    assert_eq!((first.id, first.sent_at), (key.id, key.sent_at));
    assert_eq!((second.id, second.sent_at), (key.id, key.sent_at));
    assert_eq!((first.count, second.count), (1, 2));
    assert_eq!(first.first_received_at, key.sent_at + 1000);
    assert_eq!(second.first_received_at, first.first_received_at);
    assert_ne!(first.receipt, second.receipt);
    assert_eq!(&*second.body, b"body");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_message_never_comes_again() {
    let queue = queue();
    queue.send(*b"a");
    let delivery = take_one(&queue).await;
    queue.remove(&delivery.receipt).unwrap();
    queue.remove(&delivery.receipt).unwrap();
    advance(HOUR).await;
    assert!(is_quiet(&queue).await);
    assert!(queue.count().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_newest_handle_deletes_even_after_its_time_is_over() {
    let queue = queue();
    queue.send(*b"a");
    let delivery = take_one(&queue).await;
    advance(HOUR).await;
    assert_eq!(queue.count(), depth(1, 0, 0));
    queue.remove(&delivery.receipt).unwrap();
    assert!(queue.count().is_empty());
    assert!(is_quiet(&queue).await);
}

#[tokio::test(start_paused = true)]
async fn an_old_handle_deletes_nothing_and_hides_nothing() {
    let queue = queue();
    queue.send(*b"a");
    let old = take_one(&queue).await;
    advance(HIDDEN).await;
    let new = take_one(&queue).await;
    assert_eq!(queue.remove(&old.receipt), Ok(Removal::Stale));
    assert_eq!(queue.hide(&old.receipt, HOUR), Err(ReceiptError::Gone));
    assert_eq!(queue.count(), depth(0, 1, 0));
    assert_eq!(queue.hide(&new.receipt, HOUR), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn hiding_counts_from_now_and_zero_gives_back() {
    let queue = queue();
    queue.send(*b"a");
    let delivery = take_one(&queue).await;
    advance(HIDDEN - SECOND).await;
    queue.hide(&delivery.receipt, HIDDEN).unwrap();
    advance(HIDDEN - SECOND).await;
    assert!(is_quiet(&queue).await);
    queue.hide(&delivery.receipt, NOW).unwrap();
    assert_eq!(queue.count(), depth(1, 0, 0));
    assert_eq!(take_one(&queue).await.count, 2);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_nobody_took_meanwhile_is_hidden_again() {
    let queue = queue();
    queue.send(*b"a");
    let delivery = take_one(&queue).await;
    advance(HIDDEN).await;
    queue.hide(&delivery.receipt, HIDDEN).unwrap();
    assert_eq!(queue.count(), depth(0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_hidden_for_twelve_hours_at_most() {
    let queue = queue();
    queue.send(*b"a");
    let delivery = take_one(&queue).await;
    queue.hide(&delivery.receipt, 12 * HOUR).unwrap();
    advance(HOUR).await;
    queue.hide(&delivery.receipt, 11 * HOUR).unwrap();
    assert_eq!(queue.hide(&delivery.receipt, 11 * HOUR + SECOND), Err(ReceiptError::TooLong));
}

#[tokio::test(start_paused = true)]
async fn a_handle_of_another_queue_is_invalid() {
    let (ours, theirs) = (queue(), queue());
    theirs.send(*b"a");
    let delivery = take_one(&theirs).await;
    for handle in [delivery.receipt.as_str(), "", "garbage"] {
        assert_eq!(ours.remove(handle), Err(ReceiptError::Invalid));
        assert_eq!(ours.hide(handle, HIDDEN), Err(ReceiptError::Invalid));
    }
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_waits_its_time() {
    let queue = queue_with(Settings { delay: SECOND, ..Settings::default() });
    queue.send(*b"the queue's delay");
    queue.send(Outgoing { delay: Some(3 * SECOND), ..Outgoing::from(*b"its own") });
    assert_eq!(queue.count(), depth(0, 0, 2));
    advance(SECOND).await;
    assert_eq!(&*take_one(&queue).await.body, b"the queue's delay");
    assert_eq!(queue.count(), depth(0, 1, 1));
    advance(2 * SECOND).await;
    assert_eq!(&*take_one(&queue).await.body, b"its own");
}

#[tokio::test(start_paused = true)]
async fn a_message_received_too_often_moves_to_the_dead_letter_queue() {
    let (queue, dead) = queue_with_redrive(2);
    let key = queue.send(*b"poison");
    advance(SECOND).await;
    for count in 1..=2 {
        let delivery = take_one(&queue).await;
        assert_eq!(delivery.count, count);
        queue.hide(&delivery.receipt, NOW).unwrap();
    }
    assert!(dead.count().is_empty());
    assert!(is_quiet(&queue).await, "the third receive moves it instead");
    assert!(queue.count().is_empty());
    let moved = take_one(&dead).await;
    assert_eq!((moved.id, moved.sent_at, moved.count), (key.id, key.sent_at, 3));
    assert_eq!(moved.first_received_at, key.sent_at + 1000);
}

#[tokio::test(start_paused = true)]
async fn poison_does_not_take_the_place_of_others_in_a_receive() {
    let (queue, dead) = queue_with_redrive(1);
    for number in 0..15_u8 {
        queue.send([number]);
    }
    assert_eq!(queue.take(10, NOW, NOW).await.len(), 10);
    let second: Vec<u8> = queue.take(10, NOW, HIDDEN).await.iter().map(|it| it.body[0]).collect();
    assert_eq!(second, [10, 11, 12, 13, 14]);
    assert_eq!(dead.count(), depth(10, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_its_dead_letter_queue_a_message_stays() {
    let queues = MemoryQueues::new();
    queues.create("orders-dead", Settings::default()).unwrap();
    let redrive = Some(Redrive { target: "orders-dead".into(), max_receive_count: 1 });
    let queue = queues.create("orders", Settings { redrive, ..Settings::default() }).unwrap();
    queues.delete("orders-dead");
    queue.send(*b"poison");
    for count in 1..=3 {
        let delivery = take_one(&queue).await;
        assert_eq!(delivery.count, count);
        queue.hide(&delivery.receipt, NOW).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_on_the_dead_letter_queue_wakes_when_a_message_moves() {
    let (queue, dead) = queue_with_redrive(1);
    queue.send(*b"poison");
    let waiter = tokio::spawn(async move { dead.take(1, HOUR, HIDDEN).await.len() });
    let delivery = take_one(&queue).await;
    queue.hide(&delivery.receipt, NOW).unwrap();
    assert!(is_quiet(&queue).await);
    assert_eq!(timeout(SECOND, waiter).await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_retention_is_dropped_in_flight_or_not() {
    let queue = queue_with(Settings { retention: HOUR, ..Settings::default() });
    queue.send(*b"in flight");
    let delivery = queue.take(1, NOW, 2 * HOUR).await.remove(0);
    queue.send(*b"ready");
    queue.send(Outgoing { delay: Some(2 * HOUR), ..Outgoing::from(*b"delayed") });
    advance(HOUR).await;
    assert_eq!(queue.count(), depth(1, 1, 1));
    advance(Duration::from_millis(1)).await;
    assert!(queue.count().is_empty());
    assert_eq!(queue.hide(&delivery.receipt, HIDDEN), Err(ReceiptError::Gone));
    assert_eq!(queue.remove(&delivery.receipt), Ok(Removal::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_purge_takes_everything_and_old_handles_touch_nothing_new() {
    let queue = queue();
    queue.send(*b"a");
    let old = take_one(&queue).await;
    queue.send(*b"b");
    queue.purge();
    assert!(queue.count().is_empty());
    queue.send(*b"c");
    queue.remove(&old.receipt).unwrap();
    assert_eq!(queue.hide(&old.receipt, HIDDEN), Err(ReceiptError::Gone));
    assert_eq!(&*take_one(&queue).await.body, b"c");
}

#[tokio::test(start_paused = true)]
async fn with_120_000_in_flight_a_receive_comes_back_empty() {
    let queue = queue();
    for _ in 0..120_001 {
        queue.send(*b"a");
    }
    let mut last = None;
    while let Some(delivery) = queue.take(10, NOW, HOUR).await.pop() {
        last = Some(delivery);
    }
    assert_eq!(queue.count(), depth(1, 120_000, 0));
    assert!(queue.is_full());
    assert!(queue.take(10, SECOND, HIDDEN).await.is_empty());
    queue.remove(&last.unwrap().receipt).unwrap();
    assert!(!is_quiet(&queue).await);
}

#[tokio::test(start_paused = true)]
async fn a_lapse_is_asked_for_only_where_a_message_would_go() {
    let queue = queue();
    queue.send(*b"a");
    let older = queue.take(1, NOW, NOW).await.remove(0).receipt;
    let newer = queue.take(1, NOW, HIDDEN).await.remove(0).receipt;
    let unasked = || unreachable!("nothing would be deleted");
    assert_eq!(queue.remove_with(&older, unasked), Ok(Removal::Stale));
    assert_eq!(queue.remove_with(&newer, || Some(Lapse::Ignored)), Ok(Removal::Deleted));
    assert_eq!(queue.remove(&newer), Ok(Removal::Deleted));
    assert_eq!(queue.remove_with(&newer, unasked), Ok(Removal::Gone));
}

#[tokio::test(start_paused = true)]
async fn the_trait_answers_the_positions_that_failed() {
    let queue = queue();
    queue.send(*b"a");
    queue.send(*b"b");
    let messages = queue.receive(NOW, HIDDEN, &room()).await.unwrap();
    assert_eq!(messages.iter().map(|it| it.attempt).collect::<Vec<_>>(), [1, 1]);
    let [a, b] = [0, 1].map(|it: usize| messages[it].receipt.clone());
    let wrong = Receipt("garbage".into());
    assert_eq!(queue.extend(&[wrong.clone(), a.clone()], HIDDEN).await.unwrap(), [0]);
    assert_eq!(queue.delete(&[a.clone(), wrong, a.clone()]).await.unwrap(), [1]);
    assert_eq!(queue.extend(&[a, b], HIDDEN).await.unwrap(), [0]);
    assert_eq!(queue.depth().await.unwrap(), depth(0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_queue_is_missing_and_its_waiters_go_home() {
    let queues = MemoryQueues::new();
    let queue = queues.create("orders", Settings::default()).unwrap();
    let poll = tokio::spawn({
        let queue = queue.clone();
        async move { queue.receive(HOUR, HIDDEN, &room()).await.map(drop) }
    });
    advance(SECOND).await;
    assert!(queues.delete("orders"));
    assert!(!queues.delete("orders"));
    let ended = timeout(SECOND, poll).await.unwrap().unwrap();
    assert!(matches!(ended, Err(crate::queue::QueueError::Unavailable { cause: crate::queue::Cause::Missing, .. })));
}

#[test]
fn a_name_is_what_the_service_takes() {
    let queues = MemoryQueues::new();
    let create = |name: &str| queues.create(name, Settings::default()).map(drop);
    assert_eq!(create("login-queue_2"), Ok(()));
    assert_eq!(create(&"n".repeat(80)), Ok(()));
    assert_eq!(create("login-queue_2.fifo"), Ok(()));
    for wrong in ["", ".fifo", "a.fifo.fifo", "a.b", &format!("{}.fifo", "n".repeat(76)), "a b", "ä", &"n".repeat(81)]
    {
        assert_eq!(create(wrong), Err(CreateError::Name));
    }
}

#[test]
fn a_queue_is_found_again_by_its_settings() {
    let queues = MemoryQueues::new();
    let first = queues.create("orders", Settings::default()).unwrap();
    first.send(*b"a");
    assert_eq!(queues.create("orders", Settings::default()).unwrap().count(), depth(1, 0, 0));
    let other = Settings { delay: SECOND, ..Settings::default() };
    assert_eq!(queues.create("orders", other).map(drop), Err(CreateError::Exists));
    assert_eq!(queues.names(), ["orders"]);
}
