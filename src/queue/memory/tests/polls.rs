//! Polls that wait: who wakes them, and when.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_long_poll_wakes_on_a_send() {
    let queue = queue();
    let poll = tokio::spawn({
        let queue = queue.clone();
        async move { queue.take(10, HOUR, HIDDEN).await.len() }
    });
    advance(SECOND).await;
    queue.send(*b"a");
    assert_eq!(timeout(SECOND, poll).await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_wakes_when_a_hidden_message_is_due() {
    let queue = queue();
    queue.send(*b"a");
    take_one(&queue).await;
    let started = tokio::time::Instant::now();
    assert_eq!(queue.take(10, HOUR, HIDDEN).await.len(), 1);
    assert_eq!(started.elapsed(), HIDDEN);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_learns_of_a_deadline_that_moves_forward() {
    let queue = queue();
    queue.send(*b"a");
    let delivery = queue.take(1, NOW, 6 * HOUR).await.remove(0);
    let poll = tokio::spawn({
        let queue = queue.clone();
        async move { queue.take(10, 12 * HOUR, HIDDEN).await.len() }
    });
    advance(SECOND).await;
    queue.hide(&delivery.receipt, SECOND).unwrap();
    assert_eq!(timeout(2 * SECOND, poll).await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_empty_after_its_wait() {
    let started = tokio::time::Instant::now();
    assert!(queue().take(10, 20 * SECOND, HIDDEN).await.is_empty());
    assert_eq!(started.elapsed(), 20 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn every_waiter_gets_a_message_of_a_burst() {
    let queue = queue();
    let polls: Vec<_> = (0..8)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.take(1, HOUR, HIDDEN).await.len() })
        })
        .collect();
    advance(SECOND).await;
    for number in 0..8_u8 {
        queue.send([number]);
    }
    for poll in polls {
        assert_eq!(timeout(SECOND, poll).await.unwrap().unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_dropped_while_it_waits_takes_nothing() {
    let queue = queue();
    let dropped = timeout(SECOND, queue.take(10, HOUR, HIDDEN)).await;
    assert!(dropped.is_err());
    queue.send(*b"a");
    assert_eq!(take_one(&queue).await.count, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_poll_passes_its_wake_up_on() {
    let queue = queue();
    let mut dropped = Box::pin(queue.take(1, HOUR, HIDDEN));
    assert!(futures_util::poll!(&mut dropped).is_pending());
    let mut waiting = Box::pin(queue.take(1, HOUR, HIDDEN));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    queue.send(*b"a");
    drop(dropped);
    assert_eq!(timeout(SECOND, waiting).await.unwrap().len(), 1);
}
