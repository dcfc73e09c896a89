//! `masq run`: the pipeline, until it is told to stop or the queue is empty.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, interval, sleep};

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
    db::Connector,
    http::HttpServer,
    metrics::Metrics,
    pipeline::{self, Status, Trouble},
    queue::{Queue, sqs::SqsQueue},
    start::{self, Options, Shared},
};

/// How often the queue is asked how much it holds, and how often a log line says how far the work is. Each question
/// is a request of SQS's, so not every second.
const REPORT: Duration = Duration::from_secs(30);

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

    let stop = signals::listen()?;
    let http = listen(&config, &shared).await?;
    let options = Options {
        deadline: Instant::now() + Duration::from_secs(args.start_timeout),
        allow_unsafe: args.allow_unsafe_durability,
        drain: args.drain,
    };
    let exit = tokio::select! {
        exit = work(&queue, connector, &config, &shared, (options, &stop, args.grace)) => exit?,
        // Nothing has been received yet.
        () = stopped_before_start(&stop, &shared.status) => Exit::Done,
    };
    if let Some(http) = http {
        http.stop().await;
    }
    Ok(exit)
}

async fn stopped_before_start(stop: &Stop, status: &Status) {
    stop.gently.started().await;
    if !status.is_in(Trouble::Starting) {
        std::future::pending::<()>().await;
    }
}

async fn listen(config: &Config, shared: &Shared) -> Result<Option<HttpServer>, Failure> {
    shared.status.set(Trouble::Starting, &"not started yet");
    let Some(listen) = config.http.listen else { return Ok(None) };
    let server = HttpServer::start(listen, Arc::clone(&shared.status), Arc::clone(&shared.metrics)).await;
    let server = server.map_err(|error| {
        Failure::new(Exit::Config, format!("cannot listen on {listen}"))
            .because(&error)
            .hint("choose another address with --listen or [http] listen, or \"off\"")
    })?;
    tracing::info!(address = %server.addr(), "answering /livez, /readyz and /metrics");
    Ok(Some(server))
}

async fn work(
    queue: &SqsQueue,
    connector: Connector,
    config: &Config,
    shared: &Shared,
    (options, stop, grace): (Options, &Stop, u64),
) -> Result<Exit, Failure> {
    let ready = Box::pin(start::database(connector, config, &shared.keys, queue.name(), options)).await?;
    let attributes = start::attributes(queue, options.deadline).await?;
    start::refuse_problems(&mut check::configuration(config))?;
    start::refuse_problems(&mut check::queue(config, &attributes))?;
    let workers = start::workers(queue, &ready, config, shared, (attributes.visibility, options))?;
    shared.status.clear(Trouble::Starting);
    tracing::info!("ready");

    let reporter = tokio::spawn(report(queue.clone(), Arc::clone(&shared.metrics)));
    let exit = tokio::select! {
        ended = pipeline::run(workers, &stop.gently) => ended.map(|()| Exit::Done).map_err(Failure::from),
        () = grace_over(stop, &shared.status, grace) => {
            tracing::warn!("stopped before everything in hand was settled; it comes again");
            Ok(Exit::Unfinished)
        }
    };
    reporter.abort();
    log_totals(&shared.metrics, "stopped");
    exit
}

/// Returns when a stop takes too long or is asked for a second time.
async fn grace_over(stop: &Stop, status: &Status, grace: u64) {
    stop.gently.started().await;
    status.set(Trouble::Stopping, &"stopping");
    tokio::select! {
        () = stop.now.started() => {}
        () = sleep(Duration::from_secs(grace)) => {}
    }
}

/// Says now and then how far the work is, and how much there is left.
async fn report(queue: SqsQueue, metrics: Arc<Metrics>) {
    let mut ticks = interval(REPORT);
    let mut before = 0;
    loop {
        ticks.tick().await;
        if let Ok(depth) = queue.depth().await {
            metrics.depth(depth);
        }
        let received = metrics.received.get();
        if received != before {
            before = received;
            log_totals(&metrics, "working");
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
