//! What the tests against PostgreSQL are played on: a scripted queue, a database of the test's own, and workers between
//! them that are made as `masq run` makes them.

use std::time::Duration;

use masq::{
    config::Config,
    db::Timeouts,
    pipeline::{self, PipelineError, Trouble},
    queue::Key,
    shutdown::Shutdown,
    start::{self, Options, StartError},
};
use tokio::{sync::OnceCell, task::JoinHandle, time::Instant};

use crate::{
    scripted::ScriptedQueue,
    support::{Database, Keys, TIMEOUTS, config, connector_within, login, shared, until},
};

pub(crate) struct Scene {
    pub(crate) queue: ScriptedQueue,
    pub(crate) database: Database,
    pub(crate) keys: Keys,
    pub(crate) shared: masq::start::Shared,
    pub(crate) config: Config,
    pub(crate) visibility: Duration,
    pub(crate) timeouts: Timeouts,
    pub(crate) prepared: OnceCell<()>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::on(Database::ready().await, config)
    }

    pub(crate) fn on(database: Database, config: Config) -> Self {
        let keys = Keys::create();
        let shared = shared(&keys);
        let visibility = Duration::from_secs(30);
        let queue = ScriptedQueue::new("login-queue", None);
        Self { queue, database, keys, shared, config, visibility, timeouts: TIMEOUTS, prepared: OnceCell::new() }
    }

    pub(crate) fn send(&self, user: &str) -> Key {
        self.queue.inner.send(login(user, "199.172.111.135").into_bytes())
    }

    pub(crate) fn send_many(&self, count: usize) -> Vec<Key> {
        (0..count).map(|number| self.send(&format!("user-{number}"))).collect()
    }

    /// Makes the database ready, as a worker does after its owner.
    pub(crate) async fn start(&self) -> Result<start::Ready, StartError> {
        self.prepare().await;
        self.start_as(&self.database.login("worker")).await
    }

    /// Does what the owner has to do before a worker can start, once.
    pub(crate) async fn prepare(&self) {
        self.prepared.get_or_init(|| self.database.prepare(&self.config)).await;
    }

    pub(crate) async fn start_as(&self, url: &str) -> Result<start::Ready, StartError> {
        let rows = connector_within(url, self.timeouts);
        let slots = self.config.vault.slots_url.as_ref().map(|url| connector_within(url, self.timeouts));
        let databases = start::Databases { rows, slots };
        start::database(databases, &self.config, &self.shared.keys, "login-queue", options()).await
    }

    /// Runs until [`Running::stop`].
    pub(crate) async fn run(&self) -> Running {
        self.run_in(self.start().await).await
    }

    /// Likewise, with a login that may do what it needs.
    pub(crate) async fn run_as(&self, url: &str) -> Running {
        self.run_in(self.start_as(url).await).await
    }

    async fn run_in(&self, ready: Result<start::Ready, StartError>) -> Running {
        let ready = ready.unwrap_or_else(|error| panic!("{error}"));
        let intake = start::intake(&self.config, Some(self.visibility), false);
        let workers = ready.workers(&self.queue, &self.config, &self.shared, &intake).await.unwrap();
        let shutdown = Shutdown::new();
        let signal = shutdown.clone();
        Running { shutdown, ended: tokio::spawn(async move { pipeline::run(workers, &signal).await }) }
    }

    /// Runs until nothing is left on the queue.
    pub(crate) async fn settle(&self) {
        let running = self.run().await;
        self.until_empty().await;
        running.stop().await;
        self.assert_adds_up();
    }

    pub(crate) async fn until_empty(&self) {
        until("the queue is empty", async || self.queue.is_empty()).await;
    }

    /// Waits for a trouble of the database and answers what is said of it.
    pub(crate) async fn until_trouble(&self) -> String {
        until("there is a trouble", async || self.trouble().is_some()).await;
        self.trouble().unwrap_or_default()
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        let troubles = self.shared.status.troubles();
        troubles.into_iter().find(|(part, _)| *part == Trouble::Database.name()).map(|(_, what)| what)
    }

    /// Rows, dead letters, duplicates, returned.
    pub(crate) fn counted(&self) -> (u64, u64, u64, u64) {
        let metrics = &self.shared.metrics;
        (metrics.rows.get(), metrics.dead_lettered(), metrics.duplicates.get(), metrics.returned.get())
    }

    pub(crate) fn assert_adds_up(&self) {
        let (rows, dead, duplicates, returned) = self.counted();
        assert_eq!(self.shared.metrics.received.get(), rows + dead + duplicates + returned);
    }

    /// Of these users each has one row, in the ledger each message has one key, and there is nothing else.
    pub(crate) async fn assert_rows(&self, keys: &[Key]) {
        let counts = "SELECT (SELECT count(*) FROM user_logins), (SELECT count(DISTINCT user_id) FROM user_logins), \
                      (SELECT count(*) FROM masq.ledger WHERE outcome = 1), (SELECT count(*) FROM masq.dead_letters)";
        let count = keys.len();
        assert_eq!(self.database.query(counts).await, [format!("{count}\t{count}\t{count}\t0")]);
        let mut ledger = self
            .database
            .query("SELECT round(extract(epoch FROM sent_at) * 1000)::bigint, message_id FROM masq.ledger")
            .await;
        let mut keys: Vec<String> = keys.iter().map(|key| format!("{}\t{}", key.sent_at, key.id)).collect();
        ledger.sort();
        keys.sort();
        assert_eq!(ledger, keys);
    }

    pub(crate) async fn reasons(&self) -> Vec<String> {
        self.database.query("SELECT reason FROM masq.dead_letters ORDER BY 1").await
    }
}

pub(crate) fn options() -> Options {
    Options { deadline: Instant::now() + Duration::from_secs(10), allow_unsafe: false }
}

/// A pipeline that goes on until it is stopped.
pub(crate) struct Running {
    shutdown: Shutdown,
    ended: JoinHandle<Result<(), PipelineError>>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.start();
        self.ended.await.unwrap().unwrap();
    }
}
