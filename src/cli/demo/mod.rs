//! `masq demo`: the whole way on this machine with nothing configured, and a summary whose counts must add up.
//!
//! Everything is real: a PostgreSQL cluster, the SQS protocol over HTTP, the pipeline as `masq run` runs it, the way back
//! from a token to its value. Two things are arranged: a share of the deletes is swallowed on its way to the queue, so that
//! messages are delivered twice; and two persons log in from one address.

mod forgetful;
mod household;
mod summary;
mod way_back;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use self::{
    forgetful::Forgetful,
    household::Household,
    summary::{Counts, Summary},
    way_back::WayBack,
};
use super::{
    connect,
    context::Context,
    environment::lookup,
    exit::Exit,
    progress::Progress,
    report::{self, Failure},
    signals::{self, Stop},
};
use crate::{
    config::{Config, Override, Overrides, Sources},
    local::{
        logins::{Login, Logins, Share},
        postgres::{Options as PostgresOptions, PrivatePostgres},
        scratch::Scratch,
        sqs::SqsServer,
    },
    metrics::Metrics,
    pipeline::{self, Status, Worker},
    queue::{
        Queue,
        memory::{MemoryQueues, Settings},
        sqs::{Outgoing, Sent, SqsQueue},
    },
    sink::postgres::PostgresSink,
    start::{self, Options, Shared},
    vault::keyring,
};

/// The queue's name, as in the exercise that masq grew from.
const QUEUE: &str = "login-queue";

/// How long a received message stays hidden. Short, so that what was delivered twice comes again while one watches.
const VISIBILITY: Duration = Duration::from_secs(3);

/// Percent of the sample logins that are wrong.
const BAD: f64 = 1.0;

/// Requests with which the messages are sent, at the same time.
const SENDERS: usize = 16;

const NEXT: &str = "
Next, with your own queue and database:
  masq keys new keys
  masq check --keys keys --queue-url URL --database-url postgres://…
  masq run   --keys keys --queue-url URL --database-url postgres://…
";

/// Show the whole way on this machine: a local queue, a private PostgreSQL, sample logins, the pipeline
///
/// Nothing needs to be configured or running. What comes out is counted and compared with what went in; if it does not
/// add up, the exit code is 70.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Send so many sample logins
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    messages: u64,
    /// Leave queue, database and pipeline running until Ctrl-C, with the line for psql to look inside
    #[arg(long)]
    keep: bool,
    /// Make the sample logins of this seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Find PostgreSQL's programs initdb and postgres here [default: on PATH and in the usual places]
    #[arg(long, value_name = "DIR")]
    postgres_bin: Option<PathBuf>,
}

/// What the steps of the demo share.
struct Demo<'a> {
    context: &'a Context,
    stop: &'a Stop,
    config: Config,
    shared: Shared,
    queue: SqsQueue,
}

fn stopped() -> Failure {
    Failure::new(Exit::Unfinished, "stopped before the end; everything is removed")
}

/// # Errors
/// Something is not as it should be.
fn adds_up(wrong: &[String]) -> Result<(), Failure> {
    if wrong.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Exit::Bug, format!("it does not add up: {}", wrong.join("; ")));
    Err(failure.hint("this is a bug in masq; please report it with the seed"))
}

/// What runs while the demo does; it ends with it.
struct World {
    postgres: PrivatePostgres,
    server: SqsServer,
    directory: Scratch,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let stop = signals::listen()?;
    context.say("Starting a private PostgreSQL and a local SQS-compatible queue …");
    let world = tokio::select! {
        world = World::start(&args) => world?,
        () = stop.gently.started() => return Err(stopped()),
    };
    let outcome = tokio::select! {
        outcome = show(&args, context, &world, &stop) => outcome,
        () = stop.now.started() => Err(stopped()),
    };
    let World { postgres, server, directory } = world;
    server.stop().await;
    postgres.stop().await;
    // Only now: a server that runs would miss its files.
    drop(directory);
    outcome
}

async fn show(args: &Args, context: &Context, world: &World, stop: &Stop) -> Result<Exit, Failure> {
    let config = world.config()?;
    let demo = Demo {
        context,
        stop,
        queue: connect::queue(&config).await?,
        shared: Shared {
            status: Arc::new(Status::default()),
            metrics: Arc::new(Metrics::new().map_err(|error| Failure::of(Exit::Bug, &error))?),
            keys: connect::keys(&config).await?,
        },
        config,
    };
    let mut logins: Vec<Login> = Logins::new(args.seed, Share::percent(BAD).unwrap_or(Share::NONE))
        .take(usize::try_from(args.messages).unwrap_or(usize::MAX))
        .collect();
    let household = Household::arrange(&mut logins);
    demo.send(&logins).await?;
    let forgetful = Forgetful::new(demo.queue.clone());
    let took = demo.load(&forgetful, logins.len() as u64).await?;
    if stop.gently.has_started() {
        return Err(stopped());
    }
    demo.sum_up(&logins, forgetful.forgotten(), took).await?;
    if let Some(household) = &household {
        let way_back = WayBack::open(&demo.config, &world.keys(), household).await?;
        adds_up(&way_back.walk(&world.keys(), &world.directory.path().join("erasures.jsonl")).await?)?;
    }
    report::print(NEXT)?;
    if args.keep {
        demo.keep(world).await?;
    }
    Ok(Exit::Done)
}

impl World {
    /// Starts the queue and the database, side by side.
    async fn start(args: &Args) -> Result<Self, Failure> {
        let failure = |error: &dyn std::error::Error| Failure::of(Exit::Absent, error);
        let directory = Scratch::new("masq-demo-").map_err(|error| failure(&error))?;
        let options = PostgresOptions {
            directory: directory.path().join("postgres"),
            bin: args.postgres_bin.clone(),
            path: lookup("PATH"),
            port: Some(0),
            ..PostgresOptions::default()
        };
        let queues = MemoryQueues::new();
        let settings = Settings { visibility: VISIBILITY, ..Settings::default() };
        queues.create(QUEUE, settings).map_err(|error| failure(&error))?;
        keyring::create(&directory.path().join("keys"), None)?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (postgres, server) = tokio::join!(PrivatePostgres::start(&options), SqsServer::start(loopback, queues));
        Ok(Self {
            postgres: postgres.map_err(|error| failure(&error))?,
            server: server.map_err(|error| failure(&error))?,
            directory,
        })
    }

    fn keys(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    /// The built-in configuration, pointed at this world.
    fn config(&self) -> Result<Config, Failure> {
        let said = |value: String| Some(Override { value, source: "demo".to_owned() });
        let overrides = Overrides {
            queue_url: said(self.server.queue_url(QUEUE)),
            database_url: said(self.postgres.conninfo()),
            keys_dir: said(self.keys().display().to_string()),
            ..Overrides::default()
        };
        Ok(Config::check(&Sources { file: None, overrides })?)
    }
}

impl Demo<'_> {
    /// Puts the logins on the queue, in tens.
    async fn send(&self, logins: &[Login]) -> Result<(), Failure> {
        let mut progress = Progress::new(self.context, "sending", Some(logins.len() as u64));
        let requests = logins.chunks(10).map(|chunk| async move {
            let messages: Vec<Outgoing> = chunk.iter().map(|login| login.body.as_str().into()).collect();
            self.queue.send(&messages).await
        });
        let mut answers = stream::iter(requests).buffer_unordered(SENDERS);
        while let Some(answer) = answers.next().await {
            let sent = answer?;
            if sent.iter().any(|sent| matches!(sent, Sent::Refused(_))) {
                return Err(Failure::new(Exit::Bug, "the local queue refused a sample login"));
            }
            progress.add(sent.len() as u64);
        }
        progress.finish();
        Ok(())
    }

    /// The workers of `masq run`, until the queue is empty or for as long as it goes on.
    async fn workers<Q: Queue>(&self, queue: &Q, drain: bool) -> Result<Vec<Worker<Q, PostgresSink>>, Failure> {
        let Self { config, shared, .. } = self;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let options = Options { deadline, allow_unsafe: false };
        let databases = connect::databases(config)?;
        let ready = Box::pin(start::database(databases, config, &shared.keys, QUEUE, options)).await?;
        Ok(ready.workers(queue, config, shared, &start::intake(config, Some(VISIBILITY), drain)).await?)
    }

    /// Runs the pipeline until the queue is empty. Answers how long it took until every message had its outcome; after
    /// that only the second deliveries are waited for.
    async fn load(&self, queue: &Forgetful<SqsQueue>, total: u64) -> Result<Duration, Failure> {
        let workers = Box::pin(self.workers(queue, true)).await?;
        let started = Instant::now();
        let mut progress = Some(Progress::new(self.context, "loading", Some(total)));
        let mut pipeline = std::pin::pin!(pipeline::run(workers, &self.stop.gently));
        let mut all_settled = None;
        loop {
            let done = self.shared.metrics.rows.get() + self.shared.metrics.dead_lettered();
            if let Some(progress) = &mut progress {
                progress.set(done);
            }
            if done >= total && all_settled.is_none() {
                all_settled = Some(started.elapsed());
                progress.take().map(Progress::finish);
                self.context.say("All loaded. Waiting for those whose delete got lost, which come a second time …");
            }
            tokio::select! {
                ended = &mut pipeline => {
                    ended?;
                    break;
                }
                () = sleep(Duration::from_millis(10)) => {}
            }
        }
        progress.map(Progress::finish);
        Ok(all_settled.unwrap_or_else(|| started.elapsed()))
    }

    /// Says what came out.
    ///
    /// # Errors
    /// It does not add up.
    async fn sum_up(&self, logins: &[Login], forgotten: u64, took: Duration) -> Result<(), Failure> {
        let session = start::connect(&connect::connector(&self.config)?, tokio::time::Instant::now()).await?;
        let depth = self.queue.depth().await?;
        let counts = Counts::read(&session, &self.shared.metrics, forgotten, depth).await?;
        let summary = Summary { logins, counts, keys: &self.shared.keys, took };
        report::print(summary.text(&session).await?)?;
        session.close().await;
        adds_up(&summary.contradictions())
    }

    /// Goes on loading what is sent, until Ctrl-C.
    async fn keep(&self, world: &World) -> Result<(), Failure> {
        let workers = Box::pin(self.workers(&self.queue, false)).await?;
        let database = world.postgres.tcp_conninfo().unwrap_or_else(|| world.postgres.conninfo());
        self.context.say(format_args!(
            "\nStill running. Look inside from another terminal:\n  export DATABASE_URL='{database}'\n  \
             export MASQ_KEYS='{}'\n  psql \"$DATABASE_URL\"\n  masq find --field ip -\n  masq audit list\n\
             Send more, which is loaded at once:\n  masq send --generate 1000 --queue-url {}\n\
             Ctrl-C ends it and removes everything.",
            world.keys().display(),
            self.queue.url(),
        ));
        Ok(pipeline::run(workers, &self.stop.gently).await?)
    }
}
