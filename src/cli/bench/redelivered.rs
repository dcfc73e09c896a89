//! Brings a queue and a database into the state that a crash leaves: all messages have been delivered, some of them are
//! rows already, none was deleted.
//!
//! Which ones are rows is spread evenly, so that every batch that comes next holds some of them.

use std::time::Duration;

use super::{
    plan::{Arm, Size},
    verify::Wrong,
    world::{LocalQueue, QUEUE, World},
};
use crate::{
    cli::{connect, report::Failure},
    pipeline::mask,
    queue::{Message, Queue, Receipt, room::Room},
    sink::Sink,
    start::{self, Options},
};

/// Long enough that nothing comes back before it is given back.
const VISIBILITY: Duration = Duration::from_secs(600);

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// As many as the pipeline writes at a time.
const BATCH: usize = 2_000;

/// Receives all messages, loads some, and gives all back. Answers how many requests that took.
pub(super) async fn prepare(world: &World, queue: &LocalQueue, database: &str, size: Size) -> Result<u64, Wrong> {
    let config = world.config(database)?;
    let options = Options { deadline: tokio::time::Instant::now() + PATIENCE, allow_unsafe: false };
    let connector = connect::databases(&config)?;
    let ready = Box::pin(start::database(connector, &config, &world.keys, QUEUE, options)).await;
    let ready = ready.map_err(Failure::from)?;
    let reader = ready.reader(&config, &world.keys).await.map_err(Failure::from)?;
    let (decoder, mut masker, mut sink) = reader;
    let (room, mut receipts, mut requests) = (Room::new(u64::MAX), Vec::new(), 0);
    let all = size.of(Arm::Redelivered);
    while receipts.len() < all {
        let (messages, polls) = receive(queue, &room, BATCH.min(all - receipts.len())).await?;
        requests += polls;
        receipts.extend(messages.iter().map(|message| message.receipt.clone()));
        let is_row = |(at, _): &(usize, Message)| at * 37 % 100 < usize::from(size.redelivered);
        let rows: Vec<Message> = messages.into_iter().enumerate().filter(is_row).map(|(_, message)| message).collect();
        if rows.is_empty() {
            continue;
        }
        let batch = mask::mask(rows, |message| decoder.read(message), &mut masker);
        sink.write(&batch, 0..batch.len()).await.map_err(|error| Wrong(error.to_string()))?;
    }
    give_back(queue, &receipts).await?;
    Ok(requests + receipts.len().div_ceil(10) as u64)
}

/// So many messages, and with how many polls they came.
async fn receive(queue: &LocalQueue, room: &Room, messages: usize) -> Result<(Vec<Message>, u64), Wrong> {
    let (mut taken, mut polls) = (Vec::with_capacity(messages), 0);
    while taken.len() < messages {
        let answer = queue.queue.receive(Duration::ZERO, VISIBILITY, room).await;
        let answer = answer.map_err(|error| Wrong(error.to_string()))?;
        if answer.is_empty() {
            return Err(Wrong("the queue holds fewer messages than were sent".to_owned()));
        }
        taken.extend(answer);
        polls += 1;
    }
    Ok((taken, polls))
}

async fn give_back(queue: &LocalQueue, receipts: &[Receipt]) -> Result<(), Wrong> {
    let undone = queue.queue.extend(receipts, Duration::ZERO).await.map_err(|error| Wrong(error.to_string()))?;
    if undone.is_empty() { Ok(()) } else { Err(Wrong("the queue does not take messages back".to_owned())) }
}
