//! Messages that come again and again: which end their readers, and which were only in bad company.

use std::time::Duration;

use masq::{
    pipeline::Trouble,
    sink::{
        Sink,
        memory::{Fault::Down, Stored},
    },
};

use crate::stage::Stage;

/// Delivers a message so often that it is suspect at the next delivery.
async fn wear_out(stage: &Stage) {
    for _ in 1..5 {
        assert!(!stage.queue.inner.take(1000, Duration::ZERO, Duration::ZERO).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_often_is_read_on_the_record_and_written_with_the_others() {
    let stage = Stage::new(1);
    let mut keys = stage.send_many(9);
    keys.push(stage.send_wrong());
    wear_out(&stage).await;
    keys.extend(stage.send_many(20));
    stage.drain().await;
    assert_eq!(stage.sink.outcomes().len(), keys.len());
    assert_eq!(stage.counted(), (29, 1, 0, 0));
    assert_eq!(stage.sink.transactions(), 1);
    assert!(stage.sink.suspects().is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_who_ended_a_process_while_it_was_read_alone_is_poison() {
    let stage = Stage::new(1);
    let (innocent, poison) = (stage.send("innocent"), stage.send("poison"));
    wear_out(&stage).await;
    // As readers leave it who do not live to clear it; two may have been killed by anything.
    let mut sink = stage.sink.clone();
    assert_eq!(sink.suspect(&[innocent, poison]).await.ok(), Some(Vec::new()));
    sink.suspect_again(poison, 2).await.unwrap();
    sink.suspect_again(innocent, 2).await.unwrap();
    sink.suspect_again(poison, 3).await.unwrap();
    stage.drain().await;
    assert_eq!(stage.reasons(), [(poison, "poison_receive_count".to_owned())]);
    assert!(matches!(stage.sink.outcomes()[&innocent], Stored::Row(_)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_makes_no_poison_of_what_came_often() {
    let stage = Stage::new(1);
    let keys = stage.send_many(3);
    wear_out(&stage).await;
    stage.sink.script([Down; 200]);
    let running = stage.run();
    stage.until("the outage is noticed", |stage| stage.trouble(Trouble::Database).is_some()).await;
    running.stop().await;
    assert_eq!(stage.counted(), (0, 0, 0, 3));
    let again = Stage::beside(&stage);
    again.drain().await;
    again.assert_rows(&keys);
}
