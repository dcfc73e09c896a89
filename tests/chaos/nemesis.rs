//! Who hurts what, and when: four lanes that run side by side, each with its faults at random times of one seed. Faults
//! of one lane do not overlap, so that each is known by its effect.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    clock::Clock,
    database::{Database, LOGIN},
    faults::{Fault, Tally},
    proxy::{Lane, Phase},
    workers::{Order, Supervised},
};

/// What the lanes have in common.
pub(crate) struct Nemesis {
    pub(crate) database: Arc<Mutex<Database>>,
    pub(crate) workers: Vec<Supervised>,
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) clock: Option<Clock>,
    pub(crate) tally: Arc<Tally>,
    /// Longer than a received message stays hidden.
    pub(crate) freeze: Duration,
    /// From the server accepting connections again to the first commit of a worker.
    pub(crate) recoveries: std::sync::Mutex<Vec<Duration>>,
}

/// How long an effect is waited for that has to come by itself.
const EFFECT_PATIENCE: Duration = Duration::from_secs(8);

/// Faults at their times, in order.
pub(crate) struct Schedule(Vec<(Duration, Fault)>);

impl Schedule {
    /// Each fault so often, at random within `time`.
    pub(crate) fn new(random: &mut Rng, time: Duration, faults: &[(Fault, u64)]) -> Self {
        let mut schedule = Vec::new();
        for &(fault, count) in faults {
            for _ in 0..count {
                schedule.push((time.mul_f64(random.f64()), fault));
            }
        }
        schedule.sort();
        Self(schedule)
    }
}

impl Nemesis {
    /// Does what is on the schedule; what takes longer than there is time for moves the rest back.
    pub(crate) async fn follow(&self, Schedule(schedule): Schedule, mut random: Rng) {
        let start = Instant::now();
        for (at, fault) in schedule {
            sleep(at.saturating_sub(start.elapsed())).await;
            if !self.tally.is_skipped(fault) {
                self.inflict(fault, &mut random).await;
            }
        }
    }

    async fn inflict(&self, fault: Fault, random: &mut Rng) {
        let worker = &self.workers[random.usize(..self.workers.len())];
        match fault {
            Fault::KillWorker => {
                let moments = [None, Some(Phase::Open), Some(Phase::Committing), Some(Phase::Committed)];
                worker.order(Order::Kill(moments[random.usize(..moments.len())])).await;
            }
            Fault::PauseWorker => self.pause(worker).await,
            Fault::FreezeWorker => {
                self.tally.fired(fault);
                worker.order(Order::Stop(self.freeze)).await;
            }
            Fault::StopWorker => {
                self.tally.fired(fault);
                worker.order(Order::Term).await;
            }
            Fault::ClockJump => {
                if let Some(clock) = &self.clock {
                    self.tally.fired(fault);
                    clock.jump(random.bool()).await;
                }
            }
            Fault::CutBeforeCommit
            | Fault::CutAfterCommit
            | Fault::StallBeforeCommit
            | Fault::StallAfterCommit
            | Fault::HalfClose => self.lanes[random.usize(..self.lanes.len())].strike(fault),
            Fault::Delay => self.delay(random).await,
            _ => self.hurt_database(fault, random).await,
        }
    }

    async fn pause(&self, worker: &Supervised) {
        let lane = &worker.plan.lane;
        self.tally.fired(Fault::PauseWorker);
        worker.order(Order::Stop(Duration::from_millis(1500))).await;
        let before = lane.commits();
        if self.within(EFFECT_PATIENCE, || lane.commits() > before).await {
            self.tally.observed(Fault::PauseWorker);
        }
    }

    async fn delay(&self, random: &mut Rng) {
        let lane = &self.lanes[random.usize(..self.lanes.len())];
        self.tally.fired(Fault::Delay);
        let before = lane.slow_commits();
        lane.reaches(Phase::Open, EFFECT_PATIENCE).await;
        lane.slow_down(Duration::from_secs(3));
        if self.within(EFFECT_PATIENCE, || lane.slow_commits() > before).await {
            self.tally.observed(Fault::Delay);
        }
    }

    async fn hurt_database(&self, fault: Fault, random: &mut Rng) {
        let mut database = self.database.lock().await;
        let time = Duration::from_millis(random.u64(1500..4000));
        // What the server says to workers when they feel it.
        let felt: &[&str] = match fault {
            Fault::KillBackend => &["57P02", "57P03"],
            Fault::TerminateBackends => &["57P01"],
            Fault::LockStorm => &["55P03"],
            Fault::ReadOnly => &["25006"],
            Fault::DiskFull => &["53100"],
            Fault::ConnectionLimit => &["53300"],
            _ => &[],
        };
        let heard = || felt.iter().flat_map(|code| self.lanes.iter().map(|lane| lane.sqlstate(code))).sum::<u64>();
        let before = heard();
        match fault {
            Fault::CrashDatabase => return self.crash(&mut database, random).await,
            Fault::KillBackend => {
                let until = Instant::now() + EFFECT_PATIENCE;
                // They may all be connecting again at this moment.
                while !database.kill_backend().await {
                    if Instant::now() > until {
                        return;
                    }
                    sleep(Duration::from_millis(50)).await;
                }
                self.tally.fired(fault);
                sleep(time).await;
            }
            _ => {
                self.tally.fired(fault);
                begin(&database, fault, time).await;
                let until = Instant::now() + EFFECT_PATIENCE;
                sleep(time).await;
                while heard() == before && Instant::now() < until {
                    sleep(Duration::from_millis(50)).await;
                }
                end(&database, fault).await;
            }
        }
        if self.within(EFFECT_PATIENCE, || heard() > before).await {
            self.tally.observed(fault);
        }
    }

    async fn crash(&self, database: &mut Database, random: &mut Rng) {
        self.tally.fired(Fault::CrashDatabase);
        let accepted = database.crash(Duration::from_millis(random.u64(..1500))).await;
        let first_commit = || self.lanes.iter().filter_map(|lane| lane.first_commit_since(accepted)).min();
        self.within(EFFECT_PATIENCE, || first_commit().is_some()).await;
        if let Some(first) = first_commit() {
            self.tally.observed(Fault::CrashDatabase);
            self.recoveries.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(first - accepted);
        }
    }

    async fn within(&self, patience: Duration, is_so: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !is_so() {
            if Instant::now() > deadline {
                return false;
            }
            sleep(Duration::from_millis(10)).await;
        }
        true
    }
}

/// Begins a fault of the database that lasts until [`end`]; a lock storm ends by itself after `time`.
async fn begin(database: &Database, fault: Fault, time: Duration) {
    match fault {
        Fault::TerminateBackends => database.execute(&terminate()).await,
        Fault::LockStorm => {
            // Longer than a worker waits for a lock, the second time on what masq itself writes.
            let hold = format!("SELECT pg_sleep({})", time.as_secs_f64());
            database
                .execute(&format!(
                    "BEGIN; ALTER TABLE user_logins SET (fillfactor = 90); {hold}; COMMIT; \
                     BEGIN; LOCK TABLE masq.ledger IN ACCESS EXCLUSIVE MODE; {hold}; COMMIT"
                ))
                .await;
        }
        Fault::ReadOnly => {
            database.execute("ALTER SYSTEM SET default_transaction_read_only = on").await;
            database.execute("SELECT pg_reload_conf()").await;
        }
        Fault::DiskFull => database.fill_disk().expect("the disk can be filled"),
        Fault::ConnectionLimit => {
            database.execute(&format!("ALTER ROLE {LOGIN} CONNECTION LIMIT 1; {}", terminate())).await;
        }
        _ => {}
    }
}

async fn end(database: &Database, fault: Fault) {
    match fault {
        Fault::ReadOnly => {
            database.execute("ALTER SYSTEM RESET default_transaction_read_only").await;
            database.execute("SELECT pg_reload_conf()").await;
        }
        Fault::DiskFull => database.empty_disk().expect("the disk can be emptied"),
        Fault::ConnectionLimit => database.execute(&format!("ALTER ROLE {LOGIN} CONNECTION LIMIT -1")).await,
        _ => {}
    }
}

fn terminate() -> String {
    format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{LOGIN}'")
}
