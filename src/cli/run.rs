//! `masq run`: the pipeline, until it is told to stop or the queue is empty.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    connect,
    context::Context,
    exit::Exit,
    report::Failure,
    signals::{self, Stop},
    sources::{self, Sources},
};
use crate::{
    check,
    config::Config,
    db::{Connector, Session},
    http::HttpServer,
    metrics::Metrics,
    pipeline::{self, Status, Trouble, receive::suspect_from},
    queue::{Depth, Queue, sqs::SqsQueue},
    sink::postgres::Target,
    start::{self, Options, Shared},
};

/// How often a log line says how far the work is, where it goes on at all, and the database is asked whether it is
/// there. An outage on a quiet queue is noticed within this time.
const REPORT: Duration = Duration::from_secs(5);

/// Of so many reports one asks the queue how much it holds, which is a request of SQS's.
const ASK_QUEUE: u32 = 6;

/// From so many messages in flight on nothing may come any more: SQS allows about 120,000 (AWS, "Amazon SQS message
/// quotas"). Fewer would cry wolf; its figures lag by some thousands.
const CROWD: u64 = 115_000;

/// Load messages from the queue into the table, each exactly once, until SIGTERM or Ctrl-C
///
/// Without a configuration this is the login pipeline: only the queue, the database and the keys need naming. What is
/// missing in the database is created where the login may.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq run --queue-url URL --database-url postgres://localhost/app --keys keys
  masq run --drain        end when the queue is empty, for cron")]
pub(super) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// End when the queue holds nothing, neither visible nor in flight nor delayed
    #[arg(long)]
    drain: bool,
    /// Wait so many seconds for a queue or database that does not answer yet
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    start_timeout: u64,
    /// Give a stop so many seconds, then leave the rest to redelivery
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    grace: u64,
    /// Answer /livez, /readyz and /metrics here [default: 127.0.0.1:9464]; off: nowhere
    #[arg(long, value_name = "ADDR", env = "MASQ_LISTEN", hide_env_values = true)]
    listen: Option<String>,
    /// Run on a database that can lose what it has committed
    #[arg(long)]
    allow_unsafe_durability: bool,
}

/// A pipeline about to run or running.
struct Service {
    config: Config,
    shared: Shared,
    queue: SqsQueue,
    stop: Stop,
    options: Options,
    drain: bool,
    grace: Duration,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let mut overrides = args.sources.overrides(context);
    overrides.listen = context.said("listen", args.listen.as_ref());
    let config = sources::check(context, overrides)?;
    connect::all_named(&config)?;
    let shared = Shared {
        status: Arc::new(Status::default()),
        metrics: Arc::new(Metrics::new().map_err(|error| Failure::of(Exit::Bug, &error))?),
        keys: connect::keys(&config)?,
    };
    let connector = connect::connector(&config)?;
    let queue = connect::queue(&config).await?;
    connect::announce(context, &config, &queue, &connector);
    let service = Service {
        config,
        shared,
        queue,
        stop: signals::listen()?,
        options: Options {
            deadline: Instant::now() + Duration::from_secs(args.start_timeout),
            allow_unsafe: args.allow_unsafe_durability,
        },
        drain: args.drain,
        grace: Duration::from_secs(args.grace),
    };

    let http = service.listen().await?;
    let exit = tokio::select! {
        exit = service.work(connector) => exit?,
        // Nothing has been received yet.
        () = service.stopped_before_start() => Exit::Done,
    };
    if let Some(http) = http {
        http.stop().await;
    }
    Ok(exit)
}

impl Service {
    /// A service must not run unwatched; a run that drains the queue may do so beside the service that has the port.
    async fn listen(&self) -> Result<Option<HttpServer>, Failure> {
        let Shared { status, metrics, .. } = &self.shared;
        status.set(Trouble::Starting, &"queue and database are being examined; the log says what is awaited");
        let Some(listen) = self.config.http.listen else { return Ok(None) };
        match HttpServer::start(listen, Arc::clone(status), Arc::clone(metrics)).await {
            Ok(server) => {
                tracing::info!(address = %server.addr(), "answering /livez, /readyz and /metrics");
                Ok(Some(server))
            }
            Err(error) if self.drain => {
                tracing::warn!(address = %listen, %error, "goes on without /livez, /readyz and /metrics");
                Ok(None)
            }
            Err(error) => Err(Failure::new(Exit::Config, format!("cannot listen on {listen}"))
                .because(&error)
                .hint("choose another address with --listen or [http] listen, or \"off\"")),
        }
    }

    async fn stopped_before_start(&self) {
        self.stop.gently.started().await;
        if !self.shared.status.is_in(Trouble::Starting) {
            std::future::pending::<()>().await;
        }
        tracing::info!("stopped before anything was received");
    }

    async fn work(&self, connector: Connector) -> Result<Exit, Failure> {
        let Self { config, shared, queue, .. } = self;
        let ready = Box::pin(start::database(connector, config, &shared.keys, queue.name(), self.options)).await?;
        let attributes = start::attributes(queue, self.options.deadline).await?;
        start::refuse_problems(&mut check::configuration(config))?;
        start::refuse_problems(&mut check::queue(config, &attributes))?;
        let ready = ready.of_queue(&attributes);
        let mut intake = start::intake(config, attributes.visibility, self.drain);
        intake.suspect_from = suspect_from(attributes.redrive.map(|redrive| redrive.max_receive_count));
        let workers = ready.workers(queue, config, shared, &intake)?;
        shared.status.clear(Trouble::Starting);
        tracing::info!("ready");

        let reporter = tokio::spawn(report(queue.clone(), ready.target(), shared.clone()));
        let exit = tokio::select! {
            ended = pipeline::run(workers, &self.stop.gently) => ended.map(|()| Exit::Done).map_err(Failure::from),
            () = self.grace_over() => {
                tracing::warn!("stopped before everything in hand was settled; it comes again");
                Ok(Exit::Unfinished)
            }
        };
        reporter.abort();
        log_totals(&shared.metrics, "stopped");
        exit
    }

    /// Returns when a stop takes too long or is asked for a second time.
    async fn grace_over(&self) {
        self.stop.gently.started().await;
        self.shared.status.set(Trouble::Stopping, &"stopping");
        tokio::select! {
            () = self.stop.now.started() => {}
            () = sleep(self.grace) => {}
        }
    }
}

/// Says now and then how far the work is, how much there is left, and whether the database is there: while nothing is
/// received the workers would not notice.
async fn report(queue: SqsQueue, target: Arc<Target>, shared: Shared) {
    let mut before = 0;
    let mut session = None;
    for round in 0.. {
        sleep(REPORT).await;
        let received = shared.metrics.received.get();
        if received != before {
            before = received;
            log_totals(&shared.metrics, "working");
        }
        if round % ASK_QUEUE == 0
            && let Ok(depth) = queue.depth().await
        {
            shared.metrics.depth(depth);
            look_for_crowd(depth, &shared.status);
        }
        session = is_there(&target.connector, session, &shared.status).await;
    }
}

/// Where SQS has as many messages in flight as it allows, long polls come back empty and nobody is told why. Its figures
/// are approximate.
fn look_for_crowd(depth: Depth, status: &Status) {
    let Depth { visible, in_flight, .. } = depth;
    if visible > 0 && in_flight >= CROWD {
        let what = format!(
            "{in_flight} messages are in flight, about as many as SQS allows, so it hands out none of the {visible} that \
             wait: find out which consumer receives messages and does not delete them, or wait for their visibility to end"
        );
        status.set(Trouble::Crowd, &what);
    } else {
        status.clear(Trouble::Crowd);
    }
}

/// Asks the database whether it is there, in a session that is kept.
async fn is_there(connector: &Connector, session: Option<Session>, status: &Status) -> Option<Session> {
    let asked = async {
        let session = match session {
            Some(session) => session,
            None => connector.connect().await.map_err(|error| error.to_string())?,
        };
        session.texts("asking whether the database is there", "SELECT").await.map_err(|error| error.to_string())?;
        Ok::<_, String>(session)
    };
    match asked.await {
        Ok(session) => {
            status.clear(Trouble::Reach);
            Some(session)
        }
        Err(what) => {
            status.set(Trouble::Reach, &what);
            None
        }
    }
}

fn log_totals(metrics: &Metrics, what: &str) {
    tracing::info!(
        received = metrics.received.get(),
        rows = metrics.rows.get(),
        dead_letters = metrics.dead_lettered(),
        duplicates = metrics.duplicates.get(),
        returned = metrics.returned.get(),
        "{what}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_hands_out_nothing_for_a_crowd_is_recognised() {
        for (visible, in_flight, crowded) in [(1, 120_000, true), (0, 120_000, false), (1_000_000, 5_000, false)] {
            let status = Status::default();
            look_for_crowd(Depth { visible, in_flight, delayed: 0 }, &status);
            assert_eq!(status.is_in(Trouble::Crowd), crowded, "{visible} visible, {in_flight} in flight");
            look_for_crowd(Depth::default(), &status);
            assert!(status.troubles().is_empty());
        }
    }
}
