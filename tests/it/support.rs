//! What the tests stand on: a PostgreSQL cluster for all of them with a database for each, keys, sample messages.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use masq::{
    config::{Config, Sources},
    db::{Connector, Session, Timeouts, conninfo::Conninfo},
    local::postgres::{Options, PrivatePostgres},
    metrics::Metrics,
    pipeline::Status,
    start::Shared,
    vault::keyring::{self, KeyRing},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The body of a good login.
pub fn login(user: &str, ip: &str) -> String {
    format!(
        r#"{{"user_id": "{user}", "app_version": "2.3.0", "device_type": "android", "ip": "{ip}", "locale": null, "device_id": "593-47-5928"}}"#
    )
}

/// The cluster that all tests of this binary share. It ends with the process: see `local/postgres/watchdog.rs`.
struct Cluster {
    server: PrivatePostgres,
    _directory: TempDir,
}

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static DATABASES: AtomicUsize = AtomicUsize::new(0);

async fn cluster() -> &'static Cluster {
    CLUSTER
        .get_or_init(|| async {
            let directory = tempfile::Builder::new().prefix("masq-test-").tempdir_in("/tmp").unwrap();
            let options = Options {
                directory: directory.path().join("cluster"),
                path: std::env::var("PATH").ok(),
                port: Some(0),
                settings: vec![("max_connections".into(), "300".into())],
                ..Options::default()
            };
            let server = PrivatePostgres::start(&options).await.expect("a private PostgreSQL starts");
            Cluster { server, _directory: directory }
        })
        .await
}

/// A database of a test's own.
pub struct Database {
    /// How to reach it.
    pub url: String,
}

impl Database {
    /// A new, empty one.
    pub async fn create() -> Self {
        let server = &cluster().await.server;
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let session = session(&server.conninfo()).await;
        session.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let url = server.conninfo().strip_suffix("/postgres").map(|server| format!("{server}/{name}")).unwrap();
        Self { url }
    }

    /// A session with it.
    pub async fn session(&self) -> Session {
        session(&self.url).await
    }

    /// What a query answers, each row as text with tabs between.
    pub async fn query(&self, sql: &str) -> Vec<String> {
        let session = self.session().await;
        let messages = session.simple_query(sql).await.unwrap();
        messages
            .iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    let value = |at| row.get(at).unwrap_or("NULL").to_owned();
                    Some((0..row.len()).map(value).collect::<Vec<_>>().join("\t"))
                }
                _ => None,
            })
            .collect()
    }

    /// Runs SQL for its effect.
    pub async fn execute(&self, sql: &str) {
        self.session().await.batch_execute(sql).await.unwrap();
    }
}

/// How sessions of tests are opened.
pub fn connector(url: &str) -> Connector {
    let timeouts = Timeouts {
        connect: Duration::from_secs(10),
        lock: Duration::from_secs(3),
        statement: Duration::from_secs(30),
        idle_in_transaction: Duration::from_secs(10),
    };
    Connector::new(Conninfo::parse(url, None, &|_| None).unwrap(), timeouts).unwrap()
}

async fn session(url: &str) -> Session {
    connector(url).connect().await.unwrap()
}

/// New keys, in a directory that goes with them.
pub struct Keys {
    /// The directory.
    pub directory: TempDir,
}

impl Keys {
    /// Makes them; the recovery key has no passphrase.
    pub fn create() -> Self {
        let directory = TempDir::new().unwrap();
        keyring::create(&directory.path().join("keys"), None).unwrap();
        Self { directory }
    }

    /// Where the files are.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    /// What a worker loads.
    pub fn load(&self) -> Arc<KeyRing> {
        Arc::new(KeyRing::load(&self.path()).unwrap())
    }
}

/// What the workers of one test share.
pub fn shared(keys: &Keys) -> Shared {
    Shared { status: Arc::new(Status::default()), metrics: Arc::new(Metrics::new().unwrap()), keys: keys.load() }
}

/// The built-in configuration.
pub fn config() -> Config {
    Config::check(&Sources::default()).unwrap()
}

/// The built-in configuration with this file over it.
pub fn config_of(file: &str) -> Config {
    let sources = Sources { file: Some(("masq.toml", file)), ..Sources::default() };
    Config::check(&sources).unwrap_or_else(|complaints| panic!("{complaints}"))
}

/// The program with these arguments, in this directory and with nothing of this machine's environment.
pub(crate) fn masq(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_masq"));
    command.args(args).current_dir(directory).env_clear().stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
