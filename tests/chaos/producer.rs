//! The producer: sends while everything else goes wrong. What it is about to send is on disk before it is sent, and
//! under which MessageId the queue has it afterwards.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::{StreamExt as _, stream};
use masq::queue::{
    Queue as _,
    sqs::{Outgoing, Sent, SqsQueue},
};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    bodies::{Bodies, Body},
    records::Records,
};

/// Messages of one request: SQS's quota.
const BATCH: usize = 10;

/// Requests at the same time.
const AT_ONCE: usize = 8;

/// Messages whose log is synced to disk together. One by one the disk would set the pace.
const LARGEST_BURST: usize = 400;

/// Messages that may wait on the queue before the producer waits too.
const BACKLOG: u64 = 3_000;

/// Sends `messages` of them in bursts, spread over `time`. `sent` counts along.
pub(crate) async fn produce(
    queue: SqsQueue,
    records: Arc<Records>,
    sent: Arc<AtomicU64>,
    (seed, messages, time): (u64, u64, Duration),
) {
    let mut bodies = Bodies::new(seed);
    let mut random = Rng::with_seed(seed ^ 1);
    let start = Instant::now();
    let mut next = 0;
    while next < messages {
        let left = usize::try_from(messages - next).unwrap_or(usize::MAX);
        let burst = random.usize(1..=LARGEST_BURST).min(left);
        let burst: Vec<(u64, Body)> = (next..).zip(bodies.by_ref().take(burst)).collect();
        next += burst.len() as u64;
        let mut lines = String::new();
        for (number, Body { text, label }) in &burst {
            let _infallible = writeln!(lines, "{}", json!({ "n": number, "label": label, "body": text }));
        }
        records.write_durably("sent", &lines).expect("the producer's log can be written");
        stream::iter(burst.chunks(BATCH)).for_each_concurrent(AT_ONCE, |chunk| send(&queue, &records, chunk)).await;
        sent.store(next, Ordering::Relaxed);

        let due = time.mul_f64(next as f64 / messages as f64);
        sleep(due.saturating_sub(start.elapsed())).await;
        // On a slow machine the campaign takes longer, and does not end with a pile of messages that nobody hurts.
        while queue.depth().await.expect("the queue says how much it holds").visible > BACKLOG {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn send(queue: &SqsQueue, records: &Records, chunk: &[(u64, Body)]) {
    let bodies: Vec<Outgoing<'_>> = chunk.iter().map(|(_, body)| body.text.as_str().into()).collect();
    // The queue's faults are for its readers: a send that fails is a defect of the campaign.
    let answers = queue.send(&bodies).await.expect("the queue takes messages");
    for ((number, _), answer) in chunk.iter().zip(answers) {
        match answer {
            Sent::Accepted(id) => records.write("sent", json!({ "n": number, "id": id })),
            Sent::Refused(code) => panic!("the queue refuses message {number} with {code}"),
        }
    }
}
