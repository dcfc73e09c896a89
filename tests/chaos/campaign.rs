//! One campaign from beginning to end: set the scene, hurt it while messages flow, let it settle, collect the evidence.
//! It judges nothing but its own faults; the checker, a program of its own, judges the rest.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    database::Database,
    effects::Effects,
    faults::Fault,
    nemesis::{Nemesis, Schedule},
    producer,
    programs::Programs,
    proxy,
    scene::Scene,
    stops::Stops,
    watch::watch,
};

/// How long a received message stays hidden. Shorter than masq would be run with, so that messages come again often.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(5);

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
    pub(crate) stops: Stops,
    pub(crate) sqlstates: BTreeMap<String, u64>,
    pub(crate) took: Duration,
    /// Still running, for the checker.
    pub(crate) database: Arc<Mutex<Database>>,
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
    eprintln!("the faults have ended; what is left has to settle");
    let settled = scene.settle().await;
    sampling.abort();
    drop(sampling.await);
    let Ok(nemesis) = Arc::try_unwrap(nemesis).map_err(drop) else { unreachable!("all lanes have ended") };
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
    effects.count(directory, &scene.tally);
    let (faults, mut complaints) = scene.tally.judge(&plans.faults);
    let (queue_faults, more) = effects.judge(plans.queue_faults);
    complaints.extend(more);
    Outcome {
        faults: format!("{faults}\n{queue_faults}"),
        complaints,
        recoveries: nemesis.recoveries.into_inner().unwrap_or_default(),
        stops: Stops::read(&effects, directory),
        sqlstates,
        took: start.elapsed(),
        database: scene.database,
    }
}

impl Scene {
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
        eprintln!(
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
}
