//! The arm *latency*: how long a message that comes alone takes until its row can be seen, and how long the round trips
//! take that it cannot do without: send, receive, one transaction that copies its key and its row, and a look.
//!
//! Both take turns on the same servers. A message is lone: before the next is sent, the queue is empty again.

use std::time::{Duration, Instant};

use super::{
    copies::{Copies, copy_rows},
    measure::Bench,
    plan::Arm,
    process::Process,
    results::{Figure, Figures, Spread},
    verify::{Masks, Wrong},
    world::{LocalQueue, QUEUE, not_started},
};
use crate::{
    cli::{connect, report::Failure},
    config::Config,
    db::Session,
    local::crowd::Crowd,
    pipeline::{decode::Decoder, mask, mask::Masker, now_ms},
    queue::{
        Message, Queue, QueueError, Receipt,
        room::Room,
        sqs::{Sent, SqsQueue},
    },
    start::{self, Options},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What both need.
struct Stage<'a> {
    /// Looks whether rows are there.
    observer: Session,
    /// Loads by itself.
    loader: Session,
    queue: &'a LocalQueue,
    /// A queue that no worker reads.
    aside: SqsQueue,
    copy_rows: String,
    decoder: Decoder,
    masker: Masker,
    crowd: Crowd,
}

/// Runs the arm.
pub(super) async fn run(bench: &Bench<'_>) -> Result<Figures, Wrong> {
    let world = bench.world;
    let (pairs, since) = (bench.size.of(Arm::Latency), now_ms());
    let database = world.fresh_database().await?;
    let queue = world.queue().await?;
    let config = world.config(database)?;
    let mut stage = Stage::set(bench, &config, database, &queue, pairs * 2).await?;
    let command = world.worker(&["run", "--listen", "off"], "off.toml", database, Some(&queue.url));
    let mut process = Process::start("masq run", command).map_err(|error| Wrong(not_started(&error)))?;
    process.says(r#""message":"ready""#).await?;
    let (mut lone, mut needed) = (Vec::with_capacity(pairs), Vec::with_capacity(pairs));
    for pair in 0..pairs {
        lone.push(stage.lone(pair * 2).await?);
        needed.push(stage.round_trips(pair * 2 + 1).await?);
    }
    process.stop().await?;
    stage.observer.close().await;
    stage.loader.close().await;
    bench.check(database, pairs * 2, Masks::Keyed(&world.keys), Some(since)).await?;
    queue.stop().await?;
    let median = |times: Vec<Duration>| {
        let millis = times.into_iter().map(|time| time.as_secs_f64() * 1e3);
        Spread::of(millis).map_or(f64::NAN, |spread| spread.median)
    };
    Ok(Figures::from([(Figure::Latency, median(lone)), (Figure::RoundTrips, median(needed))]))
}

impl<'a> Stage<'a> {
    async fn set(
        bench: &Bench<'_>,
        config: &Config,
        database: &str,
        queue: &'a LocalQueue,
        records: usize,
    ) -> Result<Self, Wrong> {
        let world = bench.world;
        let options = Options { deadline: tokio::time::Instant::now() + PATIENCE, allow_unsafe: false };
        let ready = Box::pin(start::database(connect::databases(config)?, config, &world.keys, QUEUE, options)).await;
        let ready = ready.map_err(Failure::from)?;
        let (decoder, masker, _sink) = ready.reader(config, &world.keys).await.map_err(Failure::from)?;
        Ok(Self {
            observer: world.session(database).await?,
            loader: world.session(database).await?,
            aside: queue.aside().await?,
            queue,
            copy_rows: copy_rows(config),
            decoder,
            masker,
            crowd: Crowd::of(records),
        })
    }

    /// From sending the n-th message to its row, through a pipeline that waits for it.
    async fn lone(&self, n: usize) -> Result<Duration, Wrong> {
        let started = Instant::now();
        self.send(&self.queue.queue, n).await?;
        while self.rows().await? <= n {
            if started.elapsed() > PATIENCE {
                return Err(Wrong("a message that came alone has no row yet".to_owned()));
            }
        }
        let took = started.elapsed();
        while !is_empty(&self.queue.queue).await? {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(took)
    }

    /// The round trips that the n-th message cannot do without.
    async fn round_trips(&mut self, n: usize) -> Result<Duration, Wrong> {
        let started = Instant::now();
        self.send(&self.aside, n).await?;
        let messages = self.aside.receive(Duration::from_secs(1), PATIENCE, &Room::new(u64::MAX)).await;
        let messages: Vec<Message> = messages.map_err(failed)?;
        let receipts: Vec<Receipt> = messages.iter().map(|message| message.receipt.clone()).collect();
        let batch = mask::mask(messages, |message| self.decoder.read(message), &mut self.masker);
        Copies::from(batch).write(&self.loader, &self.copy_rows).await?;
        let rows = self.rows().await?;
        let took = started.elapsed();
        self.aside.delete(&receipts).await.map_err(failed)?;
        if rows == n + 1 { Ok(took) } else { Err(Wrong(format!("{rows} rows instead of {}", n + 1))) }
    }

    async fn send(&self, queue: &SqsQueue, n: usize) -> Result<(), Wrong> {
        let body = self.crowd.record(n).body();
        let sent = queue.send(&[body.as_str().into()]).await.map_err(failed)?;
        if matches!(sent[..], [Sent::Accepted(_)]) { Ok(()) } else { Err(Wrong("a message is refused".to_owned())) }
    }

    async fn rows(&self) -> Result<usize, Wrong> {
        let rows = self.observer.texts("counting rows", "SELECT count(*) FROM user_logins").await?;
        Ok(rows.first().and_then(|row| row[0].as_ref()?.parse().ok()).unwrap_or(0))
    }
}

/// Whether a queue is empty.
async fn is_empty(queue: &SqsQueue) -> Result<bool, Wrong> {
    Ok(queue.depth().await.map_err(failed)?.is_empty())
}

fn failed(error: QueueError) -> Wrong {
    Wrong(error.to_string())
}
