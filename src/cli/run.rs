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
    watch,
};
use crate::{
    check,
    config::Config,
    http::HttpServer,
    metrics::Metrics,
    pipeline::{self, Status, Trouble, receive::suspect_from},
    queue::sqs::SqsQueue,
    start::{self, Databases, Options, Shared},
};

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
        keys: connect::keys(&config).await?,
    };
    let databases = connect::databases(&config)?;
    let queue = connect::queue(&config).await?;
    connect::announce(context, &config, &queue, &databases.rows);
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
        exit = service.work(databases) => exit?,
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

    async fn work(&self, databases: Databases) -> Result<Exit, Failure> {
        let Self { config, shared, queue, .. } = self;
        let ready = Box::pin(start::database(databases, config, &shared.keys, queue.name(), self.options)).await?;
        let attributes = start::attributes(queue, self.options.deadline).await?;
        start::refuse_problems(&mut check::configuration(config))?;
        start::refuse_problems(&mut check::queue(config, &attributes))?;
        let ready = ready.of_queue(&attributes);
        let mut intake = start::intake(config, attributes.visibility, self.drain);
        intake.suspect_from = suspect_from(attributes.redrive.map(|redrive| redrive.max_receive_count));
        let workers = ready.workers(queue, config, shared, &intake).await?;
        shared.status.clear(Trouble::Starting);
        tracing::info!("ready");

        let reporter = tokio::spawn(watch::watch(queue.clone(), ready.target(), shared.clone()));
        let exit = tokio::select! {
            ended = pipeline::run(workers, &self.stop.gently) => ended.map(|()| self.drained()).map_err(Failure::from),
            () = self.grace_over() => {
                tracing::warn!("stopped before everything in hand was settled; it comes again");
                Ok(Exit::Unfinished)
            }
        };
        reporter.abort();
        watch::log_totals(&shared.metrics, "stopped");
        exit
    }

    /// What it comes to that all workers have ended.
    fn drained(&self) -> Exit {
        if !self.drain || !self.shared.status.is_in(Trouble::Table) {
            return Exit::Done;
        }
        tracing::warn!("messages are left on the queue: the table refuses their rows and has taken no other");
        Exit::Unfinished
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
