//! `masq dead replay --queue`: an SQS dead-letter queue through the ordinary pipeline, under the same ledger, until it is
//! empty. What has its outcome already is deleted there, also if moving it gave it another sent time.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, interval};

use super::PATIENCE;
use crate::{
    check::{self, Severity},
    cli::{
        connect,
        context::Context,
        exit::Exit,
        progress::Progress,
        report::Failure,
        signals::{self, Stop},
    },
    config::Config,
    metrics::Metrics,
    pipeline::{self, Status, Worker},
    queue::{redriven::Redriven, sqs::SqsQueue},
    sink::{lookup::Lookup, postgres::PostgresSink},
    start::{self, Options, Shared},
};

/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn run(url: &str, config: &Config, context: &Context) -> Result<Exit, Failure> {
    let mut drained = config.clone();
    drained.queue.url = Some(url.to_owned());
    let shared = Shared {
        status: Arc::new(Status::default()),
        metrics: Arc::new(Metrics::new().map_err(|error| Failure::of(Exit::Bug, &error))?),
        keys: connect::keys(config).await?,
    };
    let queue = connect::queue(&drained).await?;
    // Where a message does not say itself which queue it comes from.
    let source =
        config.queue.url.as_deref().unwrap_or(url).trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let queue = queue.redriven_from(source);
    let databases = connect::databases(config)?;
    connect::announce(context, &drained, &queue, &databases.rows);
    let options = Options { deadline: Instant::now() + PATIENCE, allow_unsafe: false };
    let mut ready = Box::pin(start::database(databases, &drained, &shared.keys, queue.name(), options)).await?;
    if config.queue.dedupe.is_some() {
        // Ids of events are claimed for the queue that the messages were sent to.
        ready = ready.of_queue(&start::attributes(&connect::queue(config).await?, options.deadline).await?);
    }
    let attributes = start::attributes(&queue, options.deadline).await?;
    let mut findings = check::queue(&drained, &attributes);
    // What is worth a note of a queue that is received from all day is not of one that is drained once.
    findings.retain(|finding| finding.severity != Severity::Note);
    start::refuse_problems(&mut findings)?;

    let intake = start::intake(&drained, attributes.visibility, true);
    let redriven = Redriven::new(queue, Lookup::new(ready.target()));
    let workers = ready.workers(&redriven, &drained, &shared, &intake).await?;
    let stop = signals::listen()?;
    let ended = follow(workers, &shared.metrics, &stop, context).await;
    context.say(summary(&shared.metrics));
    ended?;
    if stop.gently.has_started() {
        return Err(signals::stopped().hint("what was not settled comes again; the same command goes on with it"));
    }
    Ok(if shared.metrics.dead_lettered() > 0 { Exit::Rejects } else { Exit::Done })
}

async fn follow(
    workers: Vec<Worker<Redriven<SqsQueue>, PostgresSink>>,
    metrics: &Metrics,
    stop: &Stop,
    context: &Context,
) -> Result<(), Failure> {
    let mut progress = Progress::new(context, "draining", None);
    let mut looks = interval(LOOK);
    let mut running = std::pin::pin!(pipeline::run(workers, &stop.gently));
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended.map_err(Failure::from),
            () = stop.now.started() => break Ok(()),
            _ = looks.tick() => progress.set(metrics.received.get()),
        }
    };
    progress.finish();
    ended
}

fn summary(metrics: &Metrics) -> String {
    format!(
        "{} messages received: {} became rows, {} dead letters, {} had their outcome already.",
        metrics.received.get(),
        metrics.rows.get(),
        metrics.dead_lettered(),
        metrics.duplicates.get()
    )
}
