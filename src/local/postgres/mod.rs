//! A private PostgreSQL: a cluster of its own, made from the installed server programs, for the demo and the tests.
//!
//! Nobody else's server is touched. It listens on a Unix-domain socket in a directory that only its owner may enter,
//! where no password is asked for; on request also on a loopback port, which every user of the machine can reach and
//! which therefore wants a random password (SCRAM). It ends when it is dropped, and when the process that owns it
//! vanishes, however that happens.

mod home;
mod programs;
#[cfg(test)]
mod tests;
mod watchdog;

use std::{
    fs, io,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use thiserror::Error;
use tokio::time::sleep;

use crate::db::{ConnectError, Connector, Timeouts, conninfo::Conninfo};
use home::{Home, Owner};
use watchdog::Watchdog;

/// A cluster starts in under a second; recovery after a crash may take longer, a loaded machine too.
const START: Duration = Duration::from_secs(60);
/// How long sessions get to end their transactions at [`PrivatePostgres::stop`], before they are cut off.
const FAST_SHUTDOWN: Duration = Duration::from_secs(10);
/// How long a cluster that was told to drop everything is waited for.
const IMMEDIATE_SHUTDOWN: Duration = Duration::from_secs(5);
/// How often it is looked whether something has happened yet.
const GLANCE: Duration = Duration::from_millis(20);
/// The port in the name of a socket that is alone in its directory.
const SOCKET_PORT: u16 = 5432;
/// How often another free port is tried when somebody took the one that was just free.
const PORTS: usize = 5;

/// How to run a private cluster.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The cluster's own directory. Made if it is missing; a cluster that is there already is started again.
    pub directory: PathBuf,
    /// Where the server programs are; `None`: found.
    pub bin: Option<PathBuf>,
    /// The `PATH` on which to look for them.
    pub path: Option<String>,
    /// Listen on 127.0.0.1 too: on this port, or with 0 on a free one.
    pub port: Option<u16>,
    /// Settings of the server, `("work_mem", "8MB")`, which win over the ones made here.
    pub settings: Vec<(String, String)>,
    /// Offer TLS on the loopback port, with this certificate and key in PEM form.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// Why there is no private cluster.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the texts say it
pub enum PostgresError {
    #[error(
        "PostgreSQL's server programs (initdb, postgres) are not installed: `apt-get install postgresql` or \
         `brew install postgresql`, or name their directory"
    )]
    NotInstalled,
    #[error("{} does not hold PostgreSQL's server programs initdb and postgres", .0.display())]
    NotThere(PathBuf),
    #[error("PostgreSQL does not run as root, and there is neither a user postgres nor nobody to run it as")]
    NoAccount,
    #[error("PostgreSQL runs as user {account} here, who may not enter {}: use a directory under /tmp", directory.display())]
    OutOfReach { account: String, directory: PathBuf },
    #[error("{} holds something else than a private cluster: name an empty or a new directory", .0.display())]
    Occupied(PathBuf),
    #[error("{doing} {}: {source}", path.display())]
    Files { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{program} fails: {log}")]
    Failed { program: &'static str, log: String },
    #[error("the private PostgreSQL does not accept connections after {0:?}: {1}")]
    NotReady(Duration, ConnectError),
}

/// A running private cluster. Dropping it cuts every session off and waits until the server is gone, some milliseconds.
pub struct PrivatePostgres {
    server: Child,
    #[allow(dead_code)] // held for its drop
    watchdog: Watchdog,
    password: String,
    port: u16,
    tcp: bool,
    directory: PathBuf,
    sockets: PathBuf,
    /// Holds the sockets where the cluster's own directory has too long a name for them.
    _short: Option<TempDir>,
}

impl PrivatePostgres {
    /// Makes the cluster if need be, starts it and waits until it answers.
    ///
    /// # Errors
    /// If the programs are missing, the directory cannot be used, or the server does not come up.
    pub async fn start(options: &Options) -> Result<Self, PostgresError> {
        let bin = programs::find(options.bin.as_deref(), options.path.as_deref())?;
        let owner = Owner::choose()?;
        let home = Home::open(&options.directory, owner.as_ref())?;
        if !home.data().join("PG_VERSION").exists() {
            initdb(&bin, &home, owner.as_ref()).await?;
        }
        let free = options.port == Some(0);
        let mut attempts = if free { PORTS } else { 1 };
        loop {
            attempts -= 1;
            let port = match options.port {
                Some(0) => free_port()?,
                Some(port) => port,
                None => SOCKET_PORT,
            };
            let mut cluster = Self::launch(&bin, &home, owner.as_ref(), port, options)?;
            match cluster.wait_until_ready().await {
                Err(PostgresError::Failed { .. }) if attempts > 0 => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(cluster),
            }
        }
    }

    fn launch(
        bin: &Path,
        home: &Home,
        owner: Option<&Owner>,
        port: u16,
        options: &Options,
    ) -> Result<Self, PostgresError> {
        let (sockets, short) = home.sockets(owner, port)?;
        let log = home.log()?;
        let mut command = command(&bin.join("postgres"), home, owner);
        command.arg("-D").arg(home.data()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let list = format!("\"{}\"", sockets.display().to_string().replace('"', "\"\""));
        let listen = if options.port.is_some() { "127.0.0.1" } else { "" };
        let mut settings = vec![
            ("port", port.to_string()),
            ("listen_addresses", listen.into()),
            ("unix_socket_directories", list),
            ("unix_socket_permissions", "0700".into()),
            ("timezone", "UTC".into()),
        ];
        if let Some((certificate, key)) = &options.tls {
            let [certificate, key] = home.adopt(owner, [("server.crt", certificate), ("server.key", key)])?;
            settings.extend([("ssl", "on".into()), ("ssl_cert_file", certificate), ("ssl_key_file", key)]);
        }
        let given = options.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in settings.into_iter().chain(given) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let started = |source| PostgresError::Files { doing: "cannot run", path: bin.join("postgres"), source };
        let server = command.spawn().map_err(started)?;
        let watchdog = Watchdog::set(&server, home, owner).map_err(started)?;
        Ok(Self {
            server,
            watchdog,
            password: home.password()?,
            port,
            tcp: options.port.is_some(),
            directory: home.0.clone(),
            sockets,
            _short: short,
        })
    }

    /// Really connects, since a server that listens may still be recovering.
    async fn wait_until_ready(&mut self) -> Result<(), PostgresError> {
        let second = Duration::from_secs(1);
        let timeouts = Timeouts { connect: second, lock: second, statement: second, idle_in_transaction: second };
        let not_ready = |error| PostgresError::NotReady(START, error);
        let conninfo = Conninfo::parse(&self.conninfo(), None, &|_| None)
            .map_err(|error| not_ready(ConnectError::Misconfigured(error.to_string())))?;
        let connector = Connector::new(conninfo, timeouts).map_err(not_ready)?;
        let deadline = Instant::now() + START;
        loop {
            match connector.connect().await {
                Ok(session) => {
                    session.close().await;
                    return Ok(());
                }
                Err(_) if self.has_ended() => {
                    return Err(PostgresError::Failed { program: "postgres", log: tail(&self.log()) });
                }
                Err(ConnectError::Unavailable(_)) if Instant::now() < deadline => sleep(GLANCE).await,
                Err(error) => return Err(not_ready(error)),
            }
        }
    }

    /// A connection string for its superuser over the socket, for psql and for masq.
    pub fn conninfo(&self) -> String {
        let directory: String = self.sockets.display().to_string().bytes().map(percent).collect();
        format!("postgresql://postgres@{directory}:{}/postgres", self.port)
    }

    /// The same over TCP, if it listens there. It holds the password.
    pub fn tcp_conninfo(&self) -> Option<String> {
        self.tcp.then(|| format!("postgresql://postgres:{}@127.0.0.1:{}/postgres", self.password, self.port))
    }

    /// What the server says of itself.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The id of the server's first process, for tests that hurt it.
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Whether the server is no longer running.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.server.try_wait(), Ok(None))
    }

    /// Stops it in good order: open transactions are rolled back, and the next start needs no recovery.
    pub async fn stop(mut self) {
        self.signal(Signal::INT);
        let deadline = Instant::now() + FAST_SHUTDOWN;
        while !self.has_ended() && Instant::now() < deadline {
            sleep(GLANCE).await;
        }
    }

    fn signal(&self, signal: Signal) {
        // An error means that it has ended in this moment, which is what was wanted.
        let _ended = kill_process(Pid::from_child(&self.server), signal);
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal(Signal::QUIT);
        }
        let deadline = Instant::now() + IMMEDIATE_SHUTDOWN;
        while !self.has_ended() {
            if Instant::now() > deadline {
                // Its children end by themselves when they find the first process gone.
                self.signal(Signal::KILL);
            }
            std::thread::sleep(GLANCE);
        }
    }
}

/// A program of PostgreSQL's, in its own process group so that Ctrl-C at the terminal reaches it through us alone.
fn command(program: &Path, home: &Home, owner: Option<&Owner>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(&home.0).env("LC_ALL", "C").env("TZ", "UTC").process_group(0);
    if let Some(Owner(account)) = owner {
        // This drops root's supplementary groups too.
        command.uid(account.uid).gid(account.gid);
    }
    command
}

async fn initdb(bin: &Path, home: &Home, owner: Option<&Owner>) -> Result<(), PostgresError> {
    let password = home.keep("password", uuid::Uuid::new_v4().simple().to_string().as_bytes(), owner)?;
    let mut initdb = command(&bin.join("initdb"), home, owner);
    initdb.arg("-D").arg(home.data()).arg("--pwfile").arg(password).stdin(Stdio::null());
    initdb.args(["--username=postgres", "--encoding=UTF8", "--locale=C"]);
    initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256"]);
    let output = tokio::process::Command::from(initdb)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| PostgresError::Files { doing: "cannot run", path: bin.join("initdb"), source })?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(PostgresError::Failed { program: "initdb", log });
    }
    Ok(())
}

/// A port that nobody listens on; by the time it is used, somebody may.
fn free_port() -> Result<u16, PostgresError> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|source| PostgresError::Files {
        doing: "cannot find a free port on",
        path: "127.0.0.1".into(),
        source,
    })
}

/// The end of a log, in one line.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}

/// A byte as a URL holds it.
fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
        return char::from(byte).to_string();
    }
    format!("%{byte:02X}")
}
