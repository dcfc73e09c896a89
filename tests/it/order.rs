//! On a FIFO queue the rows of a group are written in the order in which its messages were sent, whatever goes wrong.
//!
//! The clock is paused and wound on by itself, so that hours take milliseconds.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use masq::{
    pipeline::Trouble,
    queue::{Key, memory::Outgoing},
    sink::memory::{
        Fault::{AnswerLost, Down, Misconfigured},
        Stored,
    },
};
use tokio::time::sleep;

use crate::{scripted::QueueFault, stage::Stage, support::login};

const QUEUE: &str = "login-queue.fifo";

/// Refuses rows of these users, as a constraint would.
const POISON: &str = "poison";

/// Sends to so many groups in turn; answers each group's messages in order.
fn send(stage: &Stage, groups: usize, each: usize, user: impl Fn(usize, usize) -> String) -> Vec<Vec<Key>> {
    let mut sent = vec![Vec::new(); groups];
    for number in 0..each {
        for (group, sent) in sent.iter_mut().enumerate() {
            let body = login(&user(group, number), "199.172.111.135").into_bytes();
            let group: Arc<str> = format!("group-{group}").into();
            let deduplication_id = Some(Arc::from(format!("{group}-{number}")));
            sent.push(stage.queue.inner.send(Outgoing { group: Some(group), deduplication_id, ..body.into() }));
        }
    }
    sent
}

fn plain(group: usize, number: usize) -> String {
    format!("user-{group}-{number}")
}

/// Every message has its outcome, and the rows of each group came in its order.
fn assert_order(stage: &Stage, groups: &[Vec<Key>]) {
    let outcomes = stage.sink.outcomes();
    let written = stage.sink.written();
    for sent in groups {
        let is_row = |key: &&Key| matches!(outcomes.get(*key), Some(Stored::Row(_)));
        let rows: Vec<&Key> = sent.iter().filter(is_row).collect();
        let order: Vec<&Key> = written.iter().filter(|key| sent.contains(key)).filter(is_row).collect();
        assert_eq!(order, rows);
        assert!(sent.iter().all(|key| outcomes.contains_key(key)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_groups_rows_are_written_in_its_order() {
    for workers in [1, 4] {
        let stage = Stage::on(QUEUE, workers);
        let sent = send(&stage, 7, 40, plain);
        stage.queue.receives([QueueFault::None, QueueFault::AnswerLost, QueueFault::Unavailable]);
        stage.queue.deletes([QueueFault::Half; 6]);
        stage.sink.script([Down, AnswerLost, AnswerLost, Misconfigured, Down]);
        stage.drain().await;
        assert_order(&stage, &sent);
        assert_eq!(stage.sink.written().len(), 280);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_is_passed_by_its_group_only_once_it_has_its_outcome() {
    let stage = Stage::on(QUEUE, 2);
    stage.sink.refuse(POISON.as_bytes());
    let user = |group, number| if number % 10 == 5 { format!("{POISON}-{group}") } else { plain(group, number) };
    let sent = send(&stage, 5, 30, user);
    stage.drain().await;
    assert_order(&stage, &sent);
    assert_eq!((stage.counted().0, stage.counted().1), (135, 15));
    let written = stage.sink.written();
    let at = |key: &Key| written.iter().position(|written| written == key);
    for group in &sent {
        assert!(group.windows(2).all(|pair| at(&pair[0]) < at(&pair[1])), "what comes later is written later");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_messages_at_the_head_of_the_only_group_stop_it_no_longer_than_others() {
    let stage = Stage::on(QUEUE, 4);
    stage.sink.refuse(POISON.as_bytes());
    let user = |group, number| if number % 50 < 3 { format!("{POISON}-{number}") } else { plain(group, number) };
    let sent = send(&stage, 1, 150, user);
    stage.drain().await;
    assert_order(&stage, &sent);
    assert_eq!((stage.counted().0, stage.counted().1), (141, 9));
    // Alone, and one after the other.
    for _ in 0..3 {
        stage.queue.inner.send(Outgoing {
            group: Some("group-0".into()),
            deduplication_id: Some(stage.sink.outcomes().len().to_string().into()),
            ..login(POISON, "199.172.111.135").into_bytes().into()
        });
        stage.drain().await;
    }
    assert_eq!(stage.reasons().len(), 12);
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_refused_message_and_is_sealed_stays_what_it_is() {
    let stage = Stage::on(QUEUE, 1);
    stage.sink.refuse(POISON.as_bytes());
    // Nobody logs in as "".
    let sent = send(&stage, 1, 3, |_, number| if number == 1 { String::new() } else { POISON.to_owned() });
    let running = stage.run();
    stage.until("the table is doubted", |stage| stage.trouble(Trouble::Table).is_some()).await;
    send(&stage, 2, 4, plain);
    stage.until("all is settled", |stage| stage.queue.inner.count().is_empty()).await;
    running.stop().await;
    let reasons = ["db_rejected:23514", "empty_field:user_id", "db_rejected:23514"].map(str::to_owned);
    let expected: BTreeMap<Key, String> = sent[0].iter().copied().zip(reasons).collect();
    assert_eq!(stage.reasons(), Vec::from_iter(expected));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_mended_later_gets_the_rows_in_order() {
    for each in [3, 60] {
        let stage = Stage::on(QUEUE, 2);
        stage.sink.refuse(b"android"); // every login
        let sent = send(&stage, 8, each, plain);
        let running = stage.run();
        stage.until("the table is doubted", |stage| stage.trouble(Trouble::Table).is_some()).await;
        sleep(Duration::from_secs(300)).await;
        stage.sink.refuse(b"\0nothing holds this\0");
        stage.until("all is settled", |stage| stage.queue.inner.count().is_empty()).await;
        running.stop().await;
        assert_order(&stage, &sent);
        assert_eq!(stage.counted(), (8 * each as u64, 0, 0, 0));
    }
}
