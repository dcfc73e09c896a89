//! What the tests stand on: one PostgreSQL cluster with a database for each test, one moto, keys, the masq binary.
//!
//! Cluster and moto are shared by all tests of this process and end with it, however it ends: each has a watchdog that
//! waits for the end of a pipe.

mod python;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use masq::{
    config::{Config, Sources},
    db::{Connector, Session, Timeouts, conninfo::Conninfo, migrations, roles},
    local::{
        postgres::{Options, PrivatePostgres},
        scratch::Scratch,
    },
    metrics::Metrics,
    pipeline::Status,
    setup,
    start::{self, Shared},
    vault::keyring::{self, KeyRing},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::OnceCell,
};

pub use self::python::{Moto, moto, python, python_prints};

/// The body of a good login.
pub fn login(user: &str, ip: &str) -> String {
    format!(
        r#"{{"user_id": "{user}", "app_version": "2.3.0", "device_type": "android", "ip": "{ip}", "locale": null, "device_id": "593-47-5928"}}"#
    )
}

/// The cluster that all tests of this binary share. It ends with the process, and so does its directory: see
/// `local/postgres/watchdog.rs` and `local/scratch.rs`.
struct Cluster {
    server: PrivatePostgres,
    _directory: Scratch,
}

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static DATABASES: AtomicUsize = AtomicUsize::new(0);

impl Cluster {
    async fn start() -> Self {
        let directory = Scratch::new("masq-test-").unwrap();
        let options = Options {
            directory: directory.path().join("cluster"),
            bin: std::env::var_os("MASQ_TEST_POSTGRES").map(PathBuf::from),
            path: std::env::var("PATH").ok(),
            port: Some(0),
            settings: vec![("max_connections".into(), "300".into())],
            ..Options::default()
        };
        let server = PrivatePostgres::start(&options).await.expect("a private PostgreSQL starts");
        logins(&session(&server.conninfo()).await).await;
        Self { server, _directory: directory }
    }
}

async fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(Cluster::start).await
}

/// Logins of the cluster, each a member of one role and of nothing else.
const LOGINS: [(&str, &str); 6] = [
    ("worker", "masq_writer"),
    ("operator", "masq_operator"),
    ("analyst", "masq_analyst"),
    ("revealer", "masq_revealer"),
    ("eraser", "masq_eraser"),
    ("auditor", "masq_auditor"),
];

/// A database of a test's own.
pub struct Database {
    /// How its owner reaches it, over its socket.
    pub url: String,
    /// The owner's way over TCP, with a password.
    pub tcp_url: String,
    cluster: Option<Cluster>,
}

impl Database {
    /// A new, empty one.
    pub async fn create() -> Self {
        Self::create_on(&cluster().await.server, "template1").await
    }

    /// A new one with the schema masq and the roles, and no table yet: a copy, which is made faster than it is migrated.
    pub async fn ready() -> Self {
        static TEMPLATE: OnceCell<()> = OnceCell::const_new();
        const NAME: &str = "masq_template";
        const SCHEMAS: [&migrations::Schema; 2] = [&migrations::MASQ, &migrations::SLOTS];
        let server = &cluster().await.server;
        let template = async || {
            session(&server.conninfo()).await.batch_execute(&format!("CREATE DATABASE {NAME}")).await.unwrap();
            let session = session(&in_database(&server.conninfo(), NAME)).await;
            migrations::migrate(&session, &SCHEMAS).await.unwrap();
            assert_eq!(roles::apply(&session, &SCHEMAS).await.unwrap(), []);
            // Of a database that somebody is in there are no copies.
            session.close().await;
        };
        TEMPLATE.get_or_init(template).await;
        let database = Self::create_on(server, NAME).await;
        // A copy is not at home where it was made.
        let home = "UPDATE masq.home SET identity = masq.identity(); \
                    UPDATE masq_slots.home SET identity = masq_slots.identity()";
        database.execute(home).await;
        database
    }

    /// A new one to which workers with this configuration can write.
    pub async fn loadable(config: &Config) -> Self {
        let database = Self::ready().await;
        database.prepare(config).await;
        database
    }

    /// How one of the [`LOGINS`] reaches it, over its socket, where nobody asks for a password.
    pub fn login(&self, login: &str) -> String {
        let (before, after) = self.url.split_once("postgres@").expect("the superuser's address");
        format!("{before}{login}@{after}")
    }

    /// Does what `masq migrate --roles` does as the owner; afterwards the [`LOGINS`] are there.
    pub async fn prepare(&self, config: &Config) {
        let mut session = self.session().await;
        let mut findings = setup::database(&mut session, config, true).await.unwrap_or_else(|error| panic!("{error}"));
        start::refuse_problems(&mut findings).unwrap_or_else(|error| panic!("{error}"));
        logins(&session).await;
        session.close().await;
    }

    /// A new, empty one on a cluster of its own, for a test that changes the server's settings.
    pub async fn alone() -> Self {
        let cluster = Cluster::start().await;
        let database = Self::create_on(&cluster.server, "template1").await;
        Self { cluster: Some(cluster), ..database }
    }

    /// What the server of its own writes.
    pub fn log(&self) -> String {
        let cluster = self.cluster.as_ref().expect("a database on a cluster of its own");
        std::fs::read_to_string(cluster.server.log()).unwrap()
    }

    /// One that is there.
    pub fn of(url: &str) -> Self {
        Self { url: url.to_owned(), tcp_url: String::new(), cluster: None }
    }

    async fn create_on(server: &PrivatePostgres, template: &str) -> Self {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let session = session(&server.conninfo()).await;
        session.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.unwrap();
        let url = in_database(&server.conninfo(), &name);
        Self { url, tcp_url: in_database(&server.tcp_conninfo().unwrap(), &name), cluster: None }
    }

    /// PostgreSQL's major version, since some tests ask for what older ones do not have.
    pub async fn version(&self) -> u32 {
        self.query("SELECT current_setting('server_version_num')::int / 10000").await[0].parse().unwrap()
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

/// The address of another database of the same server.
pub fn in_database(url: &str, name: &str) -> String {
    format!("{}/{name}", url.strip_suffix("/postgres").unwrap())
}

/// The [`LOGINS`], unless the cluster has them already.
async fn logins(session: &Session) {
    session.batch_execute(roles::CREATE).await.unwrap();
    for (login, role) in LOGINS {
        let once = format!(
            "DO $$ BEGIN CREATE ROLE {login} LOGIN; GRANT {role} TO {login}; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        );
        session.batch_execute(&once).await.unwrap();
    }
}

/// How long things may take in sessions of tests.
pub const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    lock: Duration::from_secs(1),
    statement: Duration::from_secs(30),
    idle_in_transaction: Duration::from_secs(10),
};

/// How sessions of tests are opened.
pub fn connector(url: &str) -> Connector {
    connector_within(url, TIMEOUTS)
}

/// How sessions are opened that have other limits.
pub fn connector_within(url: &str, timeouts: Timeouts) -> Connector {
    Connector::new(Conninfo::parse(url, None, &|_| None).unwrap(), timeouts).unwrap()
}

async fn session(url: &str) -> Session {
    connector(url).connect().await.unwrap()
}

/// A session as somebody else opens one, who asks for nothing.
pub async fn plain(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The program with these arguments, in this directory and with nothing of this machine's environment.
pub fn masq(directory: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_masq"));
    command.args(arguments).current_dir(directory).env_clear().stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program as a service, with credentials that any stand-in takes and no port of its own. It ends with its handle.
pub fn service(arguments: &[&str]) -> Command {
    let mut command = masq(Path::new("/"), arguments);
    for (name, value) in [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "eu-west-1")]
    {
        command.env(name, value);
    }
    command.env("MASQ_LISTEN", "off");
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command
}

/// Runs a command to its end: exit code, stdout, stderr.
pub async fn finish(mut command: Command) -> (i32, String, String) {
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await.expect("it ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Asks again until the answer is yes; fails when it takes too long.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// An address on loopback where nobody listens yet.
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// What a server answers to a GET, head and body; empty if nobody listens.
pub async fn http_get(address: SocketAddr, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address).await else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        drop(stream.read_to_string(&mut answer).await);
    }
    answer
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

    /// The token root in hexadecimal digits, as reference.py takes it.
    pub fn token_root(&self) -> String {
        use base64::Engine as _;
        let file = std::fs::read_to_string(self.path().join("token.key")).unwrap();
        let line = file.lines().rfind(|line| !line.is_empty() && !line.starts_with('#')).unwrap();
        let root = base64::engine::general_purpose::STANDARD.decode(line).unwrap();
        assert_eq!(root.len(), 32);
        root.iter().map(|byte| format!("{byte:02x}")).collect()
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
