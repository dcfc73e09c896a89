//! What the tests stand on: one moto, keys, the masq binary, and the databases of `database.rs`.
//!
//! Cluster and moto are shared by all tests of this process and end with it, however it ends: each has a watchdog that
//! waits for the end of a pipe.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use masq::{
    config::{Config, Sources},
    db::{Connector, Session, Timeouts, conninfo::Conninfo},
    metrics::Metrics,
    pipeline::Status,
    start::Shared,
    vault::keyring::{self, KeyRing},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::OnceCell,
};

pub use crate::database::{Database, in_database};

/// The body of a good login.
pub fn login(user: &str, ip: &str) -> String {
    format!(
        r#"{{"user_id": "{user}", "app_version": "2.3.0", "device_type": "android", "ip": "{ip}", "locale": null, "device_id": "593-47-5928"}}"#
    )
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

/// A session, with a server that answers.
pub async fn session(url: &str) -> Session {
    connector(url).connect().await.unwrap()
}

/// A session as somebody else opens one, who asks for nothing.
pub async fn plain(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The Python of the virtual environment with tests/requirements.txt in it.
pub fn python() -> PathBuf {
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = std::env::var_os("MASQ_TEST_PYTHON").map_or_else(ours, PathBuf::from);
    assert!(python.exists(), "{} is missing; ./dev test installs it", python.display());
    python
}

/// What a program of ours or of others prints, given this on stdin.
pub async fn python_prints(script: &str, arguments: &[&str], stdin: String) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
    let mut child = Command::new(python())
        .arg(path)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // Beside each other: it may print before it has read everything.
    let writing = async move { pipe.write_all(stdin.as_bytes()).await.unwrap() };
    let ((), output) = tokio::join!(writing, child.wait_with_output());
    let output = output.unwrap();
    assert!(output.status.success(), "{script} failed");
    String::from_utf8(output.stdout).unwrap()
}

/// moto's server, an SQS and a KMS that nobody here wrote.
pub struct Moto {
    /// Its endpoint.
    pub url: String,
    _program: Child,
}

impl Moto {
    /// One of a test's own, which may set it as it likes. It ends with its handle.
    pub async fn start() -> Self {
        /// It imports much before it listens.
        const PATIENCE: Duration = Duration::from_secs(120);
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
        let mut program = Command::new("sh")
            .args(["-c", r#""$0" -H 127.0.0.1 -p "$1" >/dev/null 2>&1 & cat; kill "$!""#])
            .arg(python().with_file_name("moto_server"))
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let listening = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                assert!(program.try_wait().unwrap().is_none(), "moto_server ended before it listened");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("moto_server does not listen");
        Self { url: format!("http://127.0.0.1:{port}"), _program: program }
    }
}

/// The endpoint of the moto that all tests share; queues of different regions do not see each other.
pub async fn moto() -> &'static str {
    static MOTO: OnceCell<Moto> = OnceCell::const_new();
    &MOTO.get_or_init(Moto::start).await.url
}

/// The program with these arguments, in this directory and with nothing of this machine's environment.
pub fn masq(directory: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_masq"));
    command.args(arguments).current_dir(directory).env_clear().stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Credentials that any stand-in takes, and where it is said to be.
const AWS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "eu-west-1")];

/// The environment of a client in this process: these and no more.
pub fn environment(name: &str) -> Option<String> {
    AWS.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
}

/// The program as a service, with credentials that any stand-in takes and no port of its own. It ends with its handle.
pub fn service(arguments: &[&str]) -> Command {
    let mut command = masq(Path::new("/"), arguments);
    command.envs(AWS).env("MASQ_LISTEN", "off");
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
