//! One campaign from beginning to end: set the scene, hurt it while messages flow, let it settle, collect the evidence.
//! It judges nothing but its own faults; the checker, a program of its own, judges the rest.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use masq::{
    queue::{
        Depth, Queue as _,
        sqs::{SqsQueue, SqsSettings},
    },
    vault::keyring,
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::Mutex,
    time::sleep,
};

use crate::{
    clock::Clock,
    database::Database,
    effects::Effects,
    faults::{Fault, Tally},
    nemesis::{Nemesis, Schedule},
    producer,
    programs::Programs,
    proxy::{self, Lane},
    records::Records,
    script,
    workers::{Plan, Supervised, sample},
};

/// How long a received message stays hidden. Shorter than masq would be run with, so that messages come again often.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(5);

/// Workers, and which of them are of the other build.
const WORKERS: [bool; 3] = [false, true, false];

/// How often it is said how far the campaign is.
const SAY: Duration = Duration::from_secs(20);

/// How long the end is waited for beyond what is allowed: so that the checker can tell late from never.
const NEVER: Duration = Duration::from_secs(180);

/// More messages than these are a backlog.
const BACKLOG: u64 = 200;

/// What to do.
pub(crate) struct Plans {
    pub(crate) seed: u64,
    pub(crate) messages: u64,
    pub(crate) time: Duration,
    /// How often each fault has to happen.
    pub(crate) faults: BTreeMap<Fault, u64>,
    /// How often each fault of the queue has to happen.
    pub(crate) queue_faults: u64,
    /// The build that every worker is, for a campaign that must find something; else two builds.
    pub(crate) mutant: Option<String>,
    pub(crate) programs: Programs,
}

/// What a campaign shows of itself; the checker shows the rest.
pub(crate) struct Outcome {
    pub(crate) faults: String,
    pub(crate) complaints: Vec<String>,
    pub(crate) recoveries: Vec<Duration>,
    pub(crate) stops: Vec<Duration>,
    pub(crate) sqlstates: BTreeMap<String, u64>,
    pub(crate) took: Duration,
    /// Still running, for the checker.
    pub(crate) database: Arc<Mutex<Database>>,
}

/// Everything that runs.
struct Scene {
    directory: PathBuf,
    records: Arc<Records>,
    tally: Arc<Tally>,
    database: Arc<Mutex<Database>>,
    queue: Queue,
    lanes: Vec<Arc<Lane>>,
}

/// The queue's own process.
struct Queue {
    process: Child,
    url: String,
    client: SqsQueue,
}

/// Runs it, with all evidence below `directory`.
pub(crate) async fn run(plans: &Plans, directory: &Path) -> Outcome {
    let start = Instant::now();
    let scene = Scene::set(plans, directory).await;
    let (workers, clock) = scene.start_workers(plans).await;
    let nemesis = Arc::new(Nemesis {
        database: Arc::clone(&scene.database),
        workers,
        lanes: scene.lanes.clone(),
        clock,
        tally: Arc::clone(&scene.tally),
        freeze: VISIBILITY + Duration::from_secs(2),
        recoveries: std::sync::Mutex::default(),
    });
    let sampling = tokio::spawn(watch(Arc::clone(&nemesis), Arc::clone(&scene.records), directory.to_owned()));
    scene.hurt(plans, &nemesis).await;
    println!("the faults have ended; what is left has to settle");
    let settled = scene.settle().await;
    sampling.abort();
    drop(sampling.await);
    let Ok(nemesis) = Arc::try_unwrap(nemesis).map_err(drop) else { unreachable!("all lanes have ended") };
    let stops: Vec<_> = nemesis.workers.iter().map(|worker| Arc::clone(&worker.stops)).collect();
    for worker in nemesis.workers {
        worker.end().await;
    }
    let depth = scene.queue.depth().await;
    let facts = scene.facts(plans, settled, depth).await;
    fs::write(directory.join("campaign.json"), facts.to_string()).expect("the facts can be written");
    // Its last word is the history's last line.
    scene.queue.stop().await;

    let mut sqlstates = BTreeMap::new();
    for (code, count) in scene.lanes.iter().flat_map(|lane| lane.sqlstates()) {
        *sqlstates.entry(code).or_default() += count;
    }
    let effects = Effects::read(directory);
    effects.count(directory, &scene.tally, VISIBILITY);
    let (faults, mut complaints) = scene.tally.judge(&plans.faults);
    let (queue_faults, more) = effects.judge(plans.queue_faults);
    complaints.extend(more);
    Outcome {
        faults: format!("{faults}\n{queue_faults}"),
        complaints,
        recoveries: nemesis.recoveries.into_inner().unwrap_or_default(),
        stops: stops.iter().flat_map(|stops| stops.lock().map(|stops| stops.clone()).unwrap_or_default()).collect(),
        sqlstates,
        took: start.elapsed(),
        database: scene.database,
    }
}

impl Scene {
    async fn set(plans: &Plans, directory: &Path) -> Self {
        let records = Arc::new(Records::new(directory));
        let tally = Arc::new(Tally::default());
        fs::create_dir_all(directory.join("logs")).expect("a directory can be made");
        fs::create_dir_all(directory.join("metrics")).expect("a directory can be made");
        keyring::create(&directory.join("keys"), None).expect("keys can be made");
        fs::write(directory.join("masq.toml"), settings()).expect("the configuration can be written");
        let database = Database::start(directory).await;
        if let Some(why) = database.why_no_disk() {
            tally.skip(Fault::DiskFull, why);
        }
        let script = script::script(&mut Rng::with_seed(plans.seed), plans.messages, plans.time);
        fs::write(directory.join("faults.jsonl"), script).expect("the script can be written");
        let queue = Queue::start(&plans.programs.ordinary, directory, plans.seed).await;
        let mut lanes = Vec::new();
        for _ in WORKERS {
            let (lane, _accepting) =
                proxy::start(database.address(), Arc::clone(&tally)).await.expect("a port is free");
            lanes.push(lane);
        }
        migrate(&plans.programs.ordinary, directory, &database.conninfo).await;
        database.grant().await;
        let database = Arc::new(Mutex::new(database));
        Self { directory: directory.to_owned(), records, tally, database, queue, lanes }
    }

    async fn start_workers(&self, plans: &Plans) -> (Vec<Supervised>, Option<Clock>) {
        let logs = self.directory.join("logs");
        let last = format!("worker-{}", WORKERS.len());
        let clock = Clock::new(&self.directory, &logs, &last, &self.tally);
        if clock.is_none() {
            self.tally.skip(Fault::ClockJump, "libfaketime is not installed");
        }
        let (clock, faketime) = clock.map_or((None, Vec::new()), |(clock, faketime)| (Some(clock), faketime));
        let database = self.database.lock().await;
        let mut workers = Vec::new();
        for (number, (other, lane)) in (1..).zip(WORKERS.iter().zip(&self.lanes)) {
            let name = format!("worker-{number}");
            let mutant = plans.mutant.as_deref().or(other.then_some("other-verdict"));
            let metrics = free_address();
            let mut environment = environment();
            environment.push(("MASQ_LISTEN".to_owned(), metrics.to_string()));
            environment.push(("AWS_ACCESS_KEY_ID".to_owned(), name.clone()));
            environment.extend(mutant.map(|mutant| ("MASQ_MUTANT".to_owned(), mutant.to_owned())));
            if name == last {
                environment.extend(faketime.clone());
            }
            let plan = Plan {
                program: if mutant.is_some() { &plans.programs.mutant } else { &plans.programs.ordinary }.clone(),
                arguments: run_arguments(&self.directory, &self.queue.url, &database.url_at(lane.address)),
                environment,
                logs: logs.clone(),
                name,
                metrics,
                lane: Arc::clone(lane),
            };
            workers.push(Supervised::start(plan, Arc::clone(&self.records), Arc::clone(&self.tally)));
        }
        (workers, clock)
    }

    /// Sends and hurts at the same time, until both have ended.
    async fn hurt(&self, plans: &Plans, nemesis: &Arc<Nemesis>) {
        let sent = Arc::new(AtomicU64::new(0));
        let load = (plans.seed, plans.messages, plans.time);
        let client = self.queue.client.clone();
        let producing = tokio::spawn(producer::produce(client, Arc::clone(&self.records), Arc::clone(&sent), load));
        let mut random = Rng::with_seed(plans.seed);
        let lanes: [&[Fault]; 4] = [
            &[Fault::KillWorker, Fault::PauseWorker, Fault::FreezeWorker, Fault::StopWorker],
            &[
                Fault::CrashDatabase,
                Fault::KillBackend,
                Fault::TerminateBackends,
                Fault::LockStorm,
                Fault::ReadOnly,
                Fault::DiskFull,
                Fault::ConnectionLimit,
            ],
            &[
                Fault::CutBeforeCommit,
                Fault::CutAfterCommit,
                Fault::StallBeforeCommit,
                Fault::StallAfterCommit,
                Fault::HalfClose,
                Fault::Delay,
            ],
            &[Fault::ClockJump],
        ];
        let mut tasks = Vec::new();
        for faults in lanes {
            let counts: Vec<_> = faults.iter().filter_map(|fault| Some((*fault, *plans.faults.get(fault)?))).collect();
            let schedule = Schedule::new(&mut random, plans.time, &counts);
            let (nemesis, random) = (Arc::clone(nemesis), random.fork());
            tasks.push(tokio::spawn(async move { nemesis.follow(schedule, random).await }));
        }
        let start = Instant::now();
        let mut said = Duration::ZERO;
        while !(producing.is_finished() && tasks.iter().all(tokio::task::JoinHandle::is_finished)) {
            sleep(Duration::from_millis(200)).await;
            if start.elapsed() > said + SAY {
                said = start.elapsed();
                self.say_how_far(start.elapsed(), sent.load(Ordering::Relaxed)).await;
            }
        }
        producing.await.expect("the producer sends all");
        for task in tasks {
            task.await.expect("a lane of faults ends");
        }
        // Blows wait for a COMMIT; there may have been fewer than expected.
        let deadline = Instant::now() + proxy::STALL + VISIBILITY;
        while self.lanes.iter().any(|lane| lane.pending() > 0) && Instant::now() < deadline {
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn say_how_far(&self, time: Duration, sent: u64) {
        let depth = self.queue.depth().await;
        let commits: u64 = self.lanes.iter().map(|lane| lane.commits()).sum();
        println!(
            "{:4} s: {sent} sent, {} waiting, {} in hand, {commits} commits, {} kills",
            time.as_secs(),
            depth.visible,
            depth.in_flight,
            self.tally.count(Fault::KillWorker).fired,
        );
    }

    /// Waits until the queue is empty. How long that took from when nothing was waiting there any more: how long a
    /// backlog takes is a matter of speed.
    async fn settle(&self) -> Duration {
        let end = Instant::now() + NEVER;
        let mut since = Instant::now();
        loop {
            let depth = self.queue.depth().await;
            if depth.is_empty() || Instant::now() > end {
                return since.elapsed();
            }
            if depth.visible > BACKLOG {
                since = Instant::now();
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn facts(&self, plans: &Plans, settled: Duration, depth: Depth) -> serde_json::Value {
        let database = self.database.lock().await;
        database.execute("CREATE TABLE planted (text text); INSERT INTO planted VALUES ('canary-planted')").await;
        fs::write(self.directory.join("logs/planted.log"), "canary-planted\n").expect("a log can be written");
        json!({
            "seed": plans.seed,
            "messages": plans.messages,
            "visibility": VISIBILITY.as_secs_f64(),
            "settled_after": settled.as_secs_f64(),
            "left": depth.visible + depth.in_flight + depth.delayed,
            "database": database.conninfo,
            "cluster": database.directory(),
            "database_log": database.log(),
            "keys": self.directory.join("keys"),
            "connections": self.lanes.iter().map(|lane| lane.most_open()).collect::<Vec<_>>(),
        })
    }
}

impl Queue {
    async fn start(program: &Path, directory: &Path, seed: u64) -> Self {
        let log = fs::File::create(directory.join("queue.log")).expect("a log can be made");
        let mut command = Command::new(program);
        command.args(["queue", "--listen", "127.0.0.1:0", "--create", "login-queue", "--history"]).env_clear();
        command.arg(directory.join("history.jsonl"));
        command.arg("--faults").arg(directory.join("faults.jsonl")).args(["--seed", &seed.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut process = command.spawn().expect("the queue starts");
        let stdout = process.stdout.take().expect("its output can be read");
        let mut url = String::new();
        BufReader::new(stdout).read_line(&mut url).await.expect("the queue says where it is");
        let url = url.trim().to_owned();
        let settings = SqsSettings { queue: url.clone(), ..SqsSettings::default() };
        let client = SqsQueue::connect(settings, &|name| lookup(name)).await.expect("the queue can be reached");
        Self { process, url, client }
    }

    async fn depth(&self) -> Depth {
        self.client.depth().await.expect("the queue says how much it holds")
    }

    async fn stop(mut self) {
        let pid = self.process.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        drop(self.process.wait().await);
    }
}

/// Notes every second what the workers take of the machine and what they count.
async fn watch(nemesis: Arc<Nemesis>, records: Arc<Records>, directory: PathBuf) {
    loop {
        sleep(Duration::from_secs(1)).await;
        for worker in &nemesis.workers {
            let pid = worker.pid.load(Ordering::Relaxed);
            if pid == 0 {
                continue;
            }
            let (peak_kib, files) = sample(pid);
            let name = &worker.plan.name;
            records.write("samples", json!({ "worker": name, "pid": pid, "peak_kib": peak_kib, "files": files }));
            if let Some(metrics) = scrape(worker.plan.metrics).await {
                drop(fs::write(directory.join(format!("metrics/{name}.{pid}.txt")), metrics));
            }
        }
    }
}

/// What a worker counts, if it answers.
async fn scrape(address: SocketAddr) -> Option<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let asking = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    tokio::time::timeout(Duration::from_millis(500), asking).await.ok()?
}

fn settings() -> String {
    format!(
        "[queue]\nvisibility = \"{}s\"\ndedupe = \"body:event_id\"\n[database]\nconnections = 2\nconnect_timeout = \"3s\"\nlock_timeout = \"1s\"\n\
         statement_timeout = \"4s\"\n",
        VISIBILITY.as_secs()
    )
}

fn run_arguments(directory: &Path, queue_url: &str, database_url: &str) -> Vec<String> {
    let (config, keys) = (directory.join("masq.toml").display().to_string(), directory.join("keys"));
    let keys = keys.display().to_string();
    let arguments = ["run", "--config", &config, "--queue-url", queue_url, "--database-url", database_url];
    arguments.into_iter().chain(["--keys", &keys, "--log", "debug"]).map(str::to_owned).collect()
}

async fn migrate(program: &Path, directory: &Path, database_url: &str) {
    let mut command = Command::new(program);
    command.args(["migrate", "--database-url", database_url]).current_dir(directory).env_clear();
    let output = command.output().await.expect("masq migrate runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Credentials that the local queue takes, as it takes all.
fn environment() -> Vec<(String, String)> {
    let variables = [("AWS_SECRET_ACCESS_KEY", "any"), ("AWS_REGION", "us-east-1")];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn lookup(name: &str) -> Option<String> {
    let mut known = environment();
    known.push(("AWS_ACCESS_KEY_ID".to_owned(), "producer".to_owned()));
    known.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it has an address")
}
