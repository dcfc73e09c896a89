//! What the canary test is played on: a cluster that logs all it can, a queue, workers of the real program at trace level,
//! and a directory in which all they leave behind comes to lie. Nothing here knows what is marked.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use masq::{
    local::{
        postgres::{Options, PrivatePostgres},
        scratch::Scratch,
        sqs::SqsServer,
    },
    queue::memory::{MemoryQueue, MemoryQueues, Settings},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use super::bodies::{CONFIG, TABLE};
use crate::support::{Database, Keys, config_of, free_address, http_get, masq, service, until};

/// All that can be asked for. Other crates' targets are named too: it must not help.
const LOUDEST: &str = "trace,hyper=trace,hyper_util=trace,tokio_postgres=trace,rustls=trace,aws_config=trace,\
                       aws_runtime=trace,aws_sigv4=trace,aws_smithy_runtime=trace";
const QUEUE: &str = "login-queue";

pub(super) struct Stage {
    /// Holds `cluster`; `here`, where programs run and put their temporary files; `said`, what they printed; and
    /// `revealed`, what was asked for in clear.
    pub(super) directory: Scratch,
    pub(super) database: Database,
    pub(super) queue: MemoryQueue,
    pub(super) keys: Keys,
    server: SqsServer,
    cluster: Option<PrivatePostgres>,
    listen: SocketAddr,
    calls: u32,
}

impl Stage {
    pub(super) async fn build() -> Self {
        let directory = Scratch::new("masq-canary-").unwrap();
        for name in ["here", "said", "revealed"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("here/masq.toml"), CONFIG).unwrap();
        let cluster = PrivatePostgres::start(&options(directory.path())).await.unwrap();
        let database = Database::of(&cluster.conninfo());
        database.prepare(&config_of(CONFIG)).await;
        database.execute(TABLE).await;
        talkative(&database).await;
        let queues = MemoryQueues::new();
        // A worker that was killed leaves its messages hidden for so long.
        let settings = Settings { visibility: Duration::from_secs(3), ..Settings::default() };
        let queue = queues.create(QUEUE, settings).unwrap();
        let server = SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), queues).await.unwrap();
        let (keys, listen) = (Keys::create(), free_address());
        Self { directory, database, queue, keys, server, cluster: Some(cluster), listen, calls: 0 }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn key_file(&self, name: &str) -> String {
        self.keys.path().join(name).display().to_string()
    }

    /// A file for what a program prints, in a directory of this one's.
    fn file(&self, directory: &str, name: &str) -> File {
        File::options().create_new(true).write(true).open(self.path(directory).join(name)).unwrap()
    }

    /// A worker, from a shell that asks for core dumps.
    pub(super) fn worker(&mut self, more: &[&str]) -> Child {
        self.calls += 1;
        let (url, login) = (self.server.queue_url(QUEUE), self.database.login("worker"));
        let (keys, listen) = (self.key_file(""), self.listen.to_string());
        let fixed = ["run", "--log", LOUDEST, "--listen", &listen, "--queue-url", &url, "--database-url", &login];
        let ours = service(&[&fixed[..], &["--keys", &keys], more].concat());
        let ours = ours.as_std();
        let mut command = tokio::process::Command::new("/bin/sh");
        let shell = r#"ulimit -c "$(ulimit -H -c)"; exec "$0" "$@""#;
        command.arg("-c").arg(shell).arg(ours.get_program()).args(ours.get_args());
        command.env_clear().envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.path("here")).env("TMPDIR", self.path("here")).kill_on_drop(true).stdin(Stdio::null());
        command.stdout(self.file("said", &format!("{}-worker.out", self.calls)));
        command.stderr(self.file("said", &format!("{}-worker.err", self.calls)));
        command.spawn().unwrap()
    }

    pub(super) async fn until_settled(&self) {
        until("all is settled", async || self.queue.count().is_empty()).await;
    }

    /// Waits until a worker holds messages and waits for a lock that this session took; answers the session.
    pub(super) async fn hold_up(&self, body: &str) -> masq::db::Session {
        let session = self.database.session().await;
        session.batch_execute("BEGIN; LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE").await.unwrap();
        self.queue.send(body.as_bytes().to_vec());
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'worker'";
        until("a worker waits", async || session.texts("looking", waits).await.unwrap()[0][0].as_deref() == Some("1"))
            .await;
        session
    }

    /// Cuts PostgreSQL's first process off and starts the server again, as after a loss of power.
    pub(super) async fn crash(&mut self) {
        let cluster = self.cluster.take().unwrap();
        let id = Pid::from_raw(i32::try_from(cluster.id()).unwrap()).unwrap();
        kill_process(id, Signal::KILL).unwrap();
        drop(cluster);
        self.start().await;
    }

    pub(super) async fn start(&mut self) {
        self.cluster = Some(PrivatePostgres::start(&options(self.directory.path())).await.unwrap());
    }

    /// Everything that PostgreSQL holds in memory goes to its files.
    pub(super) async fn stop(&mut self) {
        self.database.execute("CHECKPOINT").await;
        self.cluster.take().unwrap().stop().await;
    }

    /// What the worker answers over HTTP, which is kept too.
    pub(super) async fn ask(&self, path: &str) -> String {
        let answer = http_get(self.listen, path).await;
        let mut all = File::options().create(true).append(true).open(self.path("said/http")).unwrap();
        all.write_all(answer.as_bytes()).unwrap();
        answer
    }

    /// Runs a command of the program as this login. What it prints is kept in `said`, and how others see it while it runs;
    /// stdout goes to another directory if need be. Answers exit code and stdout.
    pub(super) fn masq(&mut self, login: &str, args: &[&str], stdin: &str, stdout: &str) -> (i32, String) {
        self.calls += 1;
        let name = format!("{}-{}", self.calls, args[..args.len().min(2)].join("-").replace('/', "_"));
        let mut command = masq(&self.path("here"), &[args, &["--log", LOUDEST]].concat());
        command.env("DATABASE_URL", self.database.login(login)).env("MASQ_KEYS", self.keys.path());
        command.env("MASQ_QUEUE_URL", self.server.queue_url(QUEUE)).env("TMPDIR", self.path("here"));
        command.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "eu-west-1")]);
        command.stdin(Stdio::piped()).stdout(self.file(stdout, &format!("{name}.out")));
        let mut child = command.stderr(self.file("said", &format!("{name}.err"))).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        for what in ["cmdline", "environ"] {
            // Only Linux has it.
            let seen = fs::read(format!("/proc/{}/{what}", child.id())).unwrap_or_default();
            self.file("said", &format!("{name}.{what}")).write_all(&seen).unwrap();
        }
        // It may not read, or have ended over a wrong command line.
        drop(pipe.write_all(stdin.as_bytes()));
        drop(pipe);
        let status = child.wait().unwrap();
        let mut out = String::new();
        File::open(self.path(stdout).join(format!("{name}.out"))).unwrap().read_to_string(&mut out).unwrap();
        (status.code().unwrap_or(-1), out)
    }

    /// What was printed to stderr by the last command.
    pub(super) fn complaint(&self) -> String {
        let of_last = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(&format!("{}-", self.calls)) && name.ends_with(".err")
        };
        let paths = fs::read_dir(self.path("said")).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(of_last).map(|path| fs::read_to_string(path).unwrap()).collect()
    }
}

/// Ends a worker by a signal that has memory dumped, unless it saw to it that it is not.
pub(super) async fn abort(mut worker: Child) -> ExitStatus {
    let id = Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap()).unwrap();
    if cfg!(target_os = "linux") {
        let limits = fs::read_to_string(format!("/proc/{}/limits", id.as_raw_nonzero())).unwrap();
        let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(cores.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{cores}");
    }
    kill_process(id, Signal::ABORT).unwrap();
    worker.wait().await.unwrap()
}

fn options(directory: &Path) -> Options {
    Options {
        directory: directory.join("cluster"),
        bin: std::env::var_os("MASQ_TEST_POSTGRES").map(PathBuf::from),
        path: std::env::var("PATH").ok(),
        ..Options::default()
    }
}

/// Has the server log every statement with its parameters, and keep all of its WAL.
async fn talkative(database: &Database) {
    let mut settings = vec![
        ("log_statement", "'all'"),
        ("log_min_messages", "debug2"),
        ("log_min_error_statement", "debug5"),
        ("log_min_duration_statement", "0"),
        ("log_error_verbosity", "verbose"),
        ("log_lock_waits", "on"),
        ("log_temp_files", "0"),
    ];
    settings.extend(match database.version().await {
        ..13 => vec![("wal_keep_segments", "64")],
        _ => vec![
            ("wal_keep_size", "'1GB'"),
            ("log_parameter_max_length", "-1"),
            ("log_parameter_max_length_on_error", "-1"),
        ],
    });
    for (name, value) in settings {
        database.execute(&format!("ALTER SYSTEM SET {name} = {value}")).await;
    }
    database.execute("SELECT pg_reload_conf()").await;
}
