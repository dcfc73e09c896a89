//! The arm *drain*: what the queue allows. Receive ten, delete ten, many at once, and do nothing else.

use std::{collections::HashSet, time::Duration};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::wait_to_begin;
use crate::{
    cli::report::Failure,
    queue::{Key, Queue, QueueError, Receipt, room::Room, sqs::SqsQueue},
};

/// Polls at the same time. On one machine more bring nothing: client and server have no time to wait.
const POLLERS: usize = 16;

/// Long enough that nothing comes twice.
const VISIBILITY: Duration = Duration::from_secs(600);

/// Drains the queue. Answers how many messages there were, and how many different ones.
pub(super) async fn run(queue: SqsQueue) -> Result<Value, Failure> {
    // A call beforehand, so that credentials are there and the first connection is open.
    queue.depth().await?;
    wait_to_begin()?;
    let mut pollers = JoinSet::new();
    for _ in 0..POLLERS {
        pollers.spawn(poll(queue.clone()));
    }
    let mut keys = Vec::new();
    for taken in pollers.join_all().await {
        keys.extend(taken?);
    }
    let messages = keys.len();
    let different = keys.into_iter().collect::<HashSet<_>>().len();
    Ok(json!({ "messages": messages, "different": different }))
}

/// Takes messages off the queue until it is empty.
async fn poll(queue: SqsQueue) -> Result<Vec<Key>, QueueError> {
    let (room, mut taken) = (Room::new(u64::MAX), Vec::new());
    loop {
        let messages = queue.receive(Duration::ZERO, VISIBILITY, &room).await?;
        if messages.is_empty() {
            return Ok(taken);
        }
        let receipts: Vec<Receipt> = messages.iter().map(|message| message.receipt.clone()).collect();
        let undone = queue.delete(&receipts).await?;
        let done = messages.iter().enumerate().filter(|(at, _)| !undone.contains(at));
        taken.extend(done.map(|(_, message)| message.key));
    }
}
