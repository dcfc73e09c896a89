//! Everything that a campaign needs and that runs: the database, the queue, the ways between, and three workers of two
//! builds. Nothing is hurt here.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use masq::{queue::Depth, vault::keyring};
use serde_json::json;
use tokio::{process::Command, sync::Mutex};

use crate::{
    campaign::{Plans, VISIBILITY},
    clock::Clock,
    database::Database,
    faults::{Fault, Tally},
    proxy::{self, Lane},
    queue::{Queue, environment},
    records::Records,
    script,
    workers::{Plan, Supervised},
};

/// Workers, and which of them are of the other build.
const WORKERS: [bool; 3] = [false, true, false];
/// Everything that runs.
pub(crate) struct Scene {
    pub(crate) directory: PathBuf,
    pub(crate) records: Arc<Records>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) database: Arc<Mutex<Database>>,
    pub(crate) queue: Queue,
    pub(crate) lanes: Vec<Arc<Lane>>,
}

impl Scene {
    pub(crate) async fn set(plans: &Plans, directory: &Path) -> Self {
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

    pub(crate) async fn start_workers(&self, plans: &Plans) -> (Vec<Supervised>, Option<Clock>) {
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

    pub(crate) async fn facts(&self, plans: &Plans, settled: Duration, depth: Depth) -> serde_json::Value {
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
    command.args(["migrate", "--roles", "--database-url", database_url]).current_dir(directory).env_clear();
    let output = command.output().await.expect("masq migrate runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it has an address")
}
