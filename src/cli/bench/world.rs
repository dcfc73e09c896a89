//! What the arms run against: a private PostgreSQL, keys and configurations in a directory that goes with the benchmark,
//! a database for each run, a queue in a process of its own, and the messages on it.

use std::{
    fs,
    io::Error,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::process::Process;
use crate::{
    cli::{connect, environment::lookup, exit::Exit, report::Failure},
    config::{Config, Override, Overrides, Sources},
    db::Session,
    local::{
        crowd::Crowd,
        postgres::{Options as PostgresOptions, PrivatePostgres},
        scratch::Scratch,
    },
    queue::sqs::{Outgoing, Sent, SqsQueue, SqsSettings},
    start::{self, Options},
    vault::keyring::{self, KeyRing},
};

/// The login pipeline without the vault.
const OFF: &str = include_str!("vault-off.toml");

/// Vacuum comes when it likes, for one arm's tables during another's run. What it costs does not depend on who wrote the
/// rows, so it is left out for all.
const SETTINGS: [(&str, &str); 1] = [("autovacuum", "off")];

/// What an AWS client wants to have, and the local queue does not look at. Requests are signed with them all the same.
const CREDENTIALS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "bench"), ("AWS_SECRET_ACCESS_KEY", "bench"), ("AWS_REGION", "us-east-1")];

/// The name of the queue.
pub(super) const QUEUE: &str = "bench";

/// The name of another one on the same server, which no worker reads.
const ASIDE: &str = "aside";

/// Requests with which messages are sent, at the same time.
const SENDERS: usize = 32;

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the arms run against. It ends with its handle.
pub(super) struct World {
    postgres: PrivatePostgres,
    directory: Scratch,
    pub(super) keys: Arc<KeyRing>,
    program: PathBuf,
}

fn absent(error: &dyn std::error::Error) -> Failure {
    Failure::of(Exit::Absent, error)
}

impl World {
    /// Starts PostgreSQL and prepares a database, of which each run gets a copy.
    pub(super) async fn start(postgres_bin: Option<PathBuf>) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|error| absent(&error))?;
        let directory = Scratch::new("masq-bench-").map_err(|error| absent(&error))?;
        let path = directory.path();
        keyring::create(&path.join("keys"), None)?;
        let files = [
            ("off.toml", OFF),
            ("vault.toml", ""),
            ("original.py", include_str!("../../../bench/original.py")),
            ("tuned.py", include_str!("../../../bench/tuned.py")),
        ];
        for (name, text) in files {
            fs::write(path.join(name), text).map_err(|error| absent(&error))?;
        }
        let options = PostgresOptions {
            directory: path.join("postgres"),
            bin: postgres_bin,
            path: lookup("PATH"),
            settings: SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..PostgresOptions::default()
        };
        let postgres = PrivatePostgres::start(&options).await.map_err(|error| absent(&error))?;
        let keys = Arc::new(KeyRing::load(&path.join("keys"))?);
        let world = Self { postgres, directory, keys, program };
        world.execute("postgres", &["CREATE DATABASE prepared"]).await?;
        let config = world.config("prepared")?;
        let options = Options { deadline: Instant::now() + PATIENCE, allow_unsafe: false };
        Box::pin(start::database(connect::databases(&config)?, &config, &world.keys, QUEUE, options)).await?;
        Ok(world)
    }

    /// A file in its directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The number of PostgreSQL's first process.
    pub(super) fn postgres(&self) -> u32 {
        self.postgres.id()
    }

    /// The address of a database.
    pub(super) fn database(&self, name: &str) -> String {
        let conninfo = self.postgres.conninfo();
        format!("{}/{name}", conninfo.trim_end_matches("/postgres"))
    }

    /// The configuration without the vault, for this database.
    pub(super) fn config(&self, database: &str) -> Result<Config, Failure> {
        let said = |value: String| Some(Override { value, source: "bench".to_owned() });
        let overrides = Overrides {
            database_url: said(self.database(database)),
            keys_dir: said(self.file("keys").display().to_string()),
            ..Overrides::default()
        };
        Ok(Config::check(&Sources { file: Some(("off.toml", OFF)), overrides })?)
    }

    /// A session with a database.
    pub(super) async fn session(&self, database: &str) -> Result<Session, Failure> {
        let connector = connect::connector(&self.config(database)?)?;
        Ok(start::connect(&connector, Instant::now() + PATIENCE).await?)
    }

    /// Runs statements one by one, each by itself.
    pub(super) async fn execute(&self, database: &str, statements: &[&str]) -> Result<(), Failure> {
        let session = self.session(database).await?;
        session.texts("lifting the limits of time", "SET statement_timeout = 0").await?;
        for statement in statements {
            session.texts("preparing a database", statement).await?;
        }
        session.close().await;
        Ok(())
    }

    /// An empty database, ready for workers, with nothing left to be written to disk.
    pub(super) async fn fresh_database(&self) -> Result<&'static str, Failure> {
        let anew = ["DROP DATABASE IF EXISTS bench", "CREATE DATABASE bench TEMPLATE prepared", "CHECKPOINT"];
        self.execute("postgres", &anew).await?;
        Ok("bench")
    }

    /// Makes the database `full`, whose ledger has so many keys of today, sent in order.
    pub(super) async fn fill_ledger(&self, keys: u64) -> Result<(), Failure> {
        self.execute("postgres", &["CREATE DATABASE \"full\" TEMPLATE prepared"]).await?;
        let fill = format!(
            "INSERT INTO masq.ledger (sent_at, message_id, outcome) \
             SELECT day + (now() - day) * (n::float8 / {keys}), md5(n::text)::uuid, 1 \
             FROM generate_series(1, {keys}) AS n, (SELECT date_trunc('day', now()) AS day) AS today"
        );
        self.execute("full", &[&fill, "VACUUM (ANALYZE) masq.ledger", "CHECKPOINT"]).await
    }

    /// This program, with nothing of the environment but what it needs here.
    pub(super) fn masq(&self, arguments: &[&str]) -> Command {
        self.command(&self.program, arguments)
    }

    /// A program, likewise.
    pub(super) fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(CREDENTIALS).env("AWS_DEFAULT_REGION", "us-east-1");
        command.envs(lookup("PATH").map(|path| ("PATH", path))).current_dir(self.directory.path());
        command
    }

    /// This program on a database, and maybe on a queue.
    pub(super) fn worker(&self, arguments: &[&str], config: &str, database: &str, queue: Option<&str>) -> Command {
        let mut command = self.masq(arguments);
        command.args(["--log", "info", "--log-format", "json", "--config"]).arg(self.file(config));
        command.arg("--keys").arg(self.file("keys")).args(["--database-url", &self.database(database)]);
        command.args(queue.into_iter().flat_map(|url| ["--queue-url", url]));
        command
    }

    /// A queue in a process of its own.
    pub(super) async fn queue(&self) -> Result<LocalQueue, Failure> {
        let listen = format!("{}:0", Ipv4Addr::LOCALHOST);
        let command = self.masq(&["queue", "--listen", &listen, "--create", QUEUE, ASIDE]);
        let mut process = Process::start("the local queue", command).map_err(|error| absent(&error))?;
        let url = process.line().await.map_err(|why| Failure::new(Exit::Absent, why))?;
        let queue = connect_to(&url).await?;
        Ok(LocalQueue { process, url, queue, not_counted: 0 })
    }

    /// Ends it and removes everything.
    pub(super) async fn stop(self) {
        self.postgres.stop().await;
        drop(self.directory);
    }
}

/// A local queue, and how this process talks to it.
pub(super) struct LocalQueue {
    pub(super) process: Process,
    pub(super) url: String,
    pub(super) queue: SqsQueue,
    /// Requests that the benchmark made itself while it prepared a run.
    pub(super) not_counted: u64,
}

async fn connect_to(url: &str) -> Result<SqsQueue, Failure> {
    let settings = SqsSettings { queue: url.to_owned(), ..SqsSettings::default() };
    let variable = |name: &str| CREDENTIALS.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Ok(SqsQueue::connect(settings, &variable).await?)
}

impl LocalQueue {
    /// The queue on this server that no worker reads.
    pub(super) async fn aside(&self) -> Result<SqsQueue, Failure> {
        connect_to(&format!("{}{ASIDE}", self.url.trim_end_matches(QUEUE))).await
    }

    /// Sends the first records of a crowd.
    pub(super) async fn fill(&self, records: usize) -> Result<(), Failure> {
        let crowd = Crowd::of(records);
        let tens = (0..records).step_by(10).map(|start| async move {
            let bodies: Vec<String> = (start..records.min(start + 10)).map(|n| crowd.record(n).body()).collect();
            let messages: Vec<Outgoing> = bodies.iter().map(|body| body.as_str().into()).collect();
            self.queue.send(&messages).await
        });
        let mut answers = stream::iter(tens).buffer_unordered(SENDERS);
        while let Some(answer) = answers.next().await {
            if answer?.iter().any(|sent| matches!(sent, Sent::Refused(_))) {
                return Err(Failure::new(Exit::Bug, "the local queue refuses a message"));
            }
        }
        Ok(())
    }

    /// Ends it. Answers how many requests came to receive, hide and delete messages.
    ///
    /// # Errors
    /// It does not end as it should; in words.
    pub(super) async fn stop(mut self) -> Result<u64, String> {
        let said = self.process.stop().await?;
        let counts = |line: &String| {
            let (action, count) = line.strip_suffix(" requests")?.split_once(": ")?;
            let counted = ["ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"];
            counted.iter().any(|name| action.starts_with(name)).then(|| count.parse::<u64>().ok())?
        };
        Ok(said.iter().filter_map(counts).sum::<u64>().saturating_sub(self.not_counted))
    }
}

/// That a process could not be started, in words.
pub(super) fn not_started(error: &Error) -> String {
    format!("cannot be started: {error}")
}
