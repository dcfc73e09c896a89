//! The database: a real PostgreSQL, durable, and every way in which the campaign hurts it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use masq::{
    db::{Connector, Session, Timeouts, account::Account, conninfo::Conninfo},
    local::postgres::{Options, PrivatePostgres},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

/// Room on the disk that can be filled.
const DISK: &str = "1g";

/// The login of the workers, with no right but those that a worker needs.
pub(crate) const LOGIN: &str = "worker";

/// The table as masq would make it, with a constraint that refuses some rows; its disk can be full.
const TABLE: &str = "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256), \
    masked_device_id varchar(256), locale varchar(32), app_version varchar(32), create_date date, \
    CHECK (device_type <> 'refused'))";

/// A server that can be crashed and started again, always on the same port.
pub(crate) struct Database {
    options: Options,
    running: Option<PrivatePostgres>,
    pub(crate) conninfo: String,
    tcp: String,
    /// A small disk of its own, where one can be mounted.
    disk: Result<PathBuf, String>,
}

impl Database {
    /// Makes and starts it below `directory`.
    pub(crate) async fn start(directory: &Path) -> Self {
        let mut settings = vec![
            ("track_commit_timestamp", "on"),
            ("max_connections", "60"),
            ("log_line_prefix", "%m [%p] %a "),
            ("log_error_verbosity", "verbose"),
            // What is committed without being waited for stays in memory longer, and a crash loses more of it.
            ("wal_writer_delay", "10s"),
            ("wal_writer_flush_after", "64MB"),
        ];
        settings.push(("max_wal_size", "512MB"));
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        #[expect(clippy::disallowed_methods, reason = "a test finds the server's programs as the shell would")]
        let path = std::env::var("PATH").ok();
        let mut options =
            Options { directory: directory.join("cluster"), path, port: Some(0), settings, ..Options::default() };
        let running = PrivatePostgres::start(&options).await.expect("a private PostgreSQL starts");
        let tcp = running.tcp_conninfo().expect("it listens");
        let port = tcp.rsplit(':').next().and_then(|rest| rest.split('/').next()?.parse().ok());
        options.port = Some(port.expect("its connection string names a port"));
        let conninfo = running.conninfo();
        let disk = small_disk(&directory.join("disk"));
        let database = Self { options, running: Some(running), conninfo, tcp, disk };
        database.prepare().await;
        database
    }

    async fn prepare(&self) {
        let session = self.session().await;
        let password = self.password();
        let role = format!("CREATE ROLE {LOGIN} LOGIN PASSWORD '{password}'");
        session.batch_execute(&role).await.expect("a role can be made");
        let place = match &self.disk {
            Ok(disk) => {
                let space = format!("CREATE TABLESPACE small LOCATION '{}'", disk.join("space").display());
                session.batch_execute(&space).await.expect("a tablespace can be made");
                " TABLESPACE small"
            }
            Err(_) => "",
        };
        session.batch_execute(&format!("{TABLE}{place}")).await.expect("the table can be made");
    }

    /// Makes the workers' login one of masq_writer. After `masq migrate --roles`. One right more is for the mutant that
    /// forgets keys early, whom otherwise PostgreSQL would find out.
    pub(crate) async fn grant(&self) {
        let grants = format!("GRANT masq_writer TO {LOGIN}; GRANT DELETE ON masq.ledger TO {LOGIN}");
        self.session().await.batch_execute(&grants).await.expect("rights can be given");
    }

    fn password(&self) -> &str {
        self.tcp.split(':').nth(2).and_then(|rest| rest.split('@').next()).unwrap_or_default()
    }

    /// How a worker reaches it at another address.
    pub(crate) fn url_at(&self, address: std::net::SocketAddr) -> String {
        format!("postgresql://{LOGIN}:{}@{address}/postgres?sslmode=disable", self.password())
    }

    /// Where it listens itself.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.options.port.unwrap_or_default()).into()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.options.directory.join("log")
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.options.directory
    }

    /// Why its disk cannot be filled, if it cannot.
    pub(crate) fn why_no_disk(&self) -> Option<&str> {
        self.disk.as_ref().err().map(String::as_str)
    }

    /// A session of the superuser's, which no limit of the campaign touches. Waits for a server that is coming up.
    pub(crate) async fn session(&self) -> Session {
        let second = Duration::from_secs(1);
        let timeouts =
            Timeouts { connect: second, lock: 30 * second, statement: 60 * second, idle_in_transaction: 60 * second };
        let conninfo = Conninfo::parse(&self.conninfo, None, &|_| None).expect("its own connection string is good");
        let connector = Connector::new(conninfo, timeouts).expect("it needs no certificates");
        let deadline = Instant::now() + 60 * second;
        loop {
            match connector.connect().await {
                Ok(session) => {
                    let writes = session.batch_execute("SET default_transaction_read_only = off").await;
                    if writes.is_ok() {
                        return session;
                    }
                }
                Err(error) => assert!(Instant::now() < deadline, "the database does not come up: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs SQL as the superuser.
    pub(crate) async fn execute(&self, sql: &str) {
        self.session().await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Ends it as a power cut would, as far as a process can, and starts it again after `away`. Answers when it accepted
    /// connections again.
    pub(crate) async fn crash(&mut self, away: Duration) -> Instant {
        let running = self.running.take();
        tokio::task::spawn_blocking(move || drop(running)).await.expect("the server ends");
        sleep(away).await;
        self.running = Some(PrivatePostgres::start(&self.options).await.expect("the server recovers"));
        Instant::now()
    }

    /// kill -9 of one of the workers' backends, so that the server restarts itself. Whether there was one.
    pub(crate) async fn kill_backend(&self) -> bool {
        let find = format!("SELECT pid FROM pg_stat_activity WHERE usename = '{LOGIN}' ORDER BY random() LIMIT 1");
        let found = self.session().await.texts("looking for a backend", &find).await.expect("it answers");
        let pid = found.first().and_then(|row| row[0].as_ref()?.parse().ok()).and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    }

    /// Fills the table's disk.
    pub(crate) fn fill_disk(&self) -> io::Result<()> {
        let Ok(disk) = &self.disk else { return Ok(()) };
        let mut file = fs::File::create(disk.join("ballast"))?;
        let block = vec![0_u8; 1 << 16];
        // Until there is no room left, which is what is wanted.
        while io::Write::write_all(&mut file, &block).is_ok() {}
        Ok(())
    }

    pub(crate) fn empty_disk(&self) -> io::Result<()> {
        match &self.disk {
            Ok(disk) => fs::remove_file(disk.join("ballast")),
            Err(_) => Ok(()),
        }
    }

    /// Stops it in good order.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
        if let Ok(disk) = &self.disk {
            drop(Command::new("umount").arg(disk).status());
        }
    }
}

/// Mounts a small file system in memory, which only root can. The campaign runs in a mount namespace of its own, so that
/// it goes with the campaign however that ends.
fn small_disk(directory: &Path) -> Result<PathBuf, String> {
    if !crate::namespace::is_own() {
        return Err("a small disk can be mounted by root alone, with unshare(1)".to_owned());
    }
    let failed = |error: io::Error| format!("a small disk cannot be made: {error}");
    fs::create_dir_all(directory).map_err(failed)?;
    let size = format!("size={DISK}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory).output();
    let mounted = mounted.map_err(failed)?;
    if !mounted.status.success() {
        return Err("a small disk cannot be mounted here".to_owned());
    }
    let space = directory.join("space");
    fs::create_dir(&space).map_err(failed)?;
    let account = Account::named("postgres").or_else(|| Account::named("nobody"));
    let account = account.ok_or("there is no account for it")?;
    std::os::unix::fs::chown(&space, Some(account.uid), Some(account.gid)).map_err(failed)?;
    Ok(directory.to_owned())
}
