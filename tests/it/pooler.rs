//! PgBouncer in transaction mode between masq and PostgreSQL: each transaction may be in another session, and the
//! sessions are other clients' too.

use std::{
    net::Ipv4Addr,
    os::unix::fs::chown,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use masq::{db::account::Account, local::sqs::SqsServer, queue::memory::MemoryQueues};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::{Database, Keys, config, free_address, login, service, until};

/// Fewer sessions than the workers of the test, so that they have to share.
const SESSIONS: usize = 3;

/// A running PgBouncer. It ends with its handle, and with this process however that ends.
struct PgBouncer {
    /// The database, through it.
    url: String,
    _child: Child,
    _directory: TempDir,
}

impl PgBouncer {
    /// `None` where the program is missing, which is said.
    #[allow(clippy::print_stderr)] // a test that is skipped says so
    async fn start(database: &Database) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
        let Some(program) = program.into_iter().find(|program| Path::new(program).exists()) else {
            eprintln!("skipped: PgBouncer is not installed; ./dev test installs it where it may");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("masq-pooler-").tempdir_in("/tmp").unwrap();
        let (server, name) = database.url.rsplit_once('/').unwrap();
        let (sockets, server_port) = server.split_once('@').unwrap().1.rsplit_once(':').unwrap();
        let sockets = sockets.replace("%2F", "/");
        let address = free_address();
        let users = directory.path().join("users");
        std::fs::write(&users, "\"worker\" \"\"\n").unwrap();
        let settings = format!(
            "[databases]\n* = host={sockets} port={server_port}\n[pgbouncer]\npool_mode = transaction\n\
             default_pool_size = {SESSIONS}\nmax_client_conn = 100\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\nlogfile = {}\n",
            address.port(),
            users.display(),
            directory.path().join("log").display(),
        );
        let config = directory.path().join("pgbouncer.ini");
        std::fs::write(&config, settings).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", r#""$@" >/dev/null 2>&1 & cat; kill "$!""#, "sh", program]).arg(&config);
        if let Some(account) = Account::named("postgres").filter(|_| rustix::process::geteuid().is_root()) {
            // Neither of the two runs as root, and the server's socket is its own.
            for path in [directory.path(), &users, &config] {
                chown(path, Some(account.uid), Some(account.gid)).unwrap();
            }
            command.uid(account.uid).gid(account.gid);
        }
        let child = command.current_dir("/").stdin(Stdio::piped()).spawn().unwrap();
        let url = format!("postgresql://worker@{address}/{name}");
        until("PgBouncer answers", async || crate::support::connector(&url).connect().await.is_ok()).await;
        Some(Self { url, _child: child, _directory: directory })
    }
}

/// What another client of the pool finds in the session that it is lent.
const FOUND: &str = "SELECT pg_backend_pid(), current_setting('lock_timeout'), current_setting('statement_timeout'), \
     current_setting('idle_in_transaction_session_timeout'), current_setting('client_min_messages')";

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_sessions_of_a_pooler_and_leave_nothing_in_them() {
    const MESSAGES: usize = 6_000;
    const BAD: usize = 60;
    let (keys, database) = (Keys::create(), Database::loadable(&config()).await);
    let Some(pooler) = PgBouncer::start(&database).await else { return };
    let queues = MemoryQueues::new();
    let settings = masq::queue::memory::Settings { visibility: Duration::from_secs(10), ..Default::default() };
    let queue = queues.create("login-queue", settings).unwrap();
    for number in 0..MESSAGES {
        let user = if number % (MESSAGES / BAD) == 0 { String::new() } else { format!("user-{number}") };
        queue.send(login(&user, "199.172.111.135").into_bytes());
    }
    let server = SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), queues).await.unwrap();
    let (queue_url, keys) = (server.queue_url("login-queue"), keys.path().display().to_string());
    let arguments = ["run", "--drain", "--queue-url", &queue_url, "--database-url", &pooler.url, "--keys", &keys];
    let run = || {
        let mut command = service(&arguments);
        command.args(["--connections", "3"]).spawn().unwrap()
    };

    // One is killed when it has begun, so that its messages come again; two go on, whose sessions are killed as well.
    let mut first = run();
    until("some rows", async || loaded(&database).await > 0).await;
    first.kill().await.unwrap();
    let rest = [run(), run()];
    let (begin, mut killed) = (Instant::now(), 0);
    while loaded(&database).await + BAD < MESSAGES || !queue.count().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(120), "{} rows only", loaded(&database).await);
        let client = crate::support::plain(&pooler.url).await;
        let found = client.query_typed_one(FOUND, &[]).await.unwrap();
        let settings: Vec<String> = (1..5).map(|at| found.get(at)).collect();
        assert_eq!(settings, ["0", "0", "0", "notice"], "left behind by others");
        if killed < 5 {
            killed += 1;
            database.query(&format!("SELECT pg_terminate_backend({})", found.get::<_, i32>(0))).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for child in rest {
        let output = child.wait_with_output().await.unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{log}");
        for sqlstate in ["26000", "42P05", "25P01", "panic"] {
            assert!(!log.contains(sqlstate), "{log}");
        }
    }
    let counts = "SELECT (SELECT count(*) FROM user_logins), (SELECT count(DISTINCT user_id) FROM user_logins), \
                  (SELECT count(*) FROM masq.dead_letters), (SELECT count(*) FROM masq.ledger)";
    let rows = MESSAGES - BAD;
    assert_eq!(database.query(counts).await, [format!("{rows}\t{rows}\t{BAD}\t{MESSAGES}")]);
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'worker'";
    let sessions: usize = database.query(sessions).await[0].parse().unwrap();
    assert!(sessions <= SESSIONS, "{sessions} sessions");
}

async fn loaded(database: &Database) -> usize {
    if database.query("SELECT to_regclass('user_logins') IS NOT NULL").await == ["f"] {
        return 0;
    }
    database.query("SELECT count(*) FROM user_logins").await[0].parse().unwrap()
}
