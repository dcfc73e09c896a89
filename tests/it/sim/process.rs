//! The processes of a simulated world: each runs the real pipeline, and is started again however it ends.

use std::{num::NonZeroU8, sync::Arc, time::Duration};

use masq::{
    config::{ColumnType, Config},
    metrics::Metrics,
    pipeline::{
        self, Status, Worker,
        mask::Masker,
        now_ms,
        receive::{Intake, suspect_from},
    },
    queue::room::Room,
    shutdown::Shutdown,
    start,
    vault::{
        backend::Recipients,
        keyring::KeyRing,
        recovery::RecoveryKey,
        seal::{EpochKey, EpochSecret, SubjectKey, Wrap, header_digest},
        token::TokenRoot,
    },
};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::{
    body::{KID, TOKEN_ROOT, Tokens},
    database::Database,
    fault::Fault,
    plan::ProcessPlan,
    queue::{QUEUE, SimQueue},
    sink::SimSink,
    trace::Event,
    world::World,
};
use crate::support::config_of;

/// How long a process that is told to stop may take.
const GRACE: Duration = Duration::from_secs(25);

/// Longer than an epoch lasts, in milliseconds.
const OVER: i64 = 120_000;

/// What every world has in common, made once: keys and columns.
pub struct Ground {
    /// Of the older and of the newer version.
    configs: [Config; 2],
    stored: Vec<ColumnType>,
    pub keys: Arc<KeyRing>,
    pub recovery: RecoveryKey,
    pub tokens: Tokens,
}

impl Ground {
    pub fn new() -> Self {
        const DEDUPE: &str = "[queue]\ndedupe = \"body:event_id\"\n";
        let configs = [config_of(DEDUPE), config_of(&format!("unknown_fields = \"reject\"\n{DEDUPE}"))];
        let stored = configs[0].columns.iter().map(|column| column.column_type).collect();
        let recovery = RecoveryKey::new(&[3; 32]);
        let keys = KeyRing {
            token: TokenRoot::new(NonZeroU8::new(KID).unwrap(), &TOKEN_ROOT),
            subject: SubjectKey::new(&[5; 32]),
            epochs: Arc::new(Recipients(vec![recovery.public()])),
            origin: None,
        };
        Self { configs, stored, keys: Arc::new(keys), recovery, tokens: Tokens::new() }
    }
}

/// What a process needs to start.
#[derive(Clone)]
pub struct Process {
    pub number: usize,
    pub plan: ProcessPlan,
    pub queue: SimQueue,
    pub database: Database,
    pub ground: Arc<Ground>,
    pub visibility: Duration,
    pub room: u64,
    pub max_receive_count: Option<u32>,
}

impl Process {
    /// Runs until `over`, again and again.
    pub async fn live(self, over: Shutdown) {
        let world = self.database.world.clone();
        while !over.has_started() {
            let shutdown = Shutdown::new();
            let metrics = Arc::new(Metrics::new().unwrap());
            let room = Room::new(self.room);
            let short = tokio::spawn(feel_shortage(room.clone(), world.clone()));
            let workers = self.workers(&room, &metrics);
            let of_run = shutdown.clone();
            let mut run = tokio::spawn(async move { pipeline::run(workers, &of_run).await });
            world.started(self.number, run.abort_handle(), shutdown.clone());

            let ended = tokio::select! {
                biased;
                ended = &mut run => ended,
                () = told_to_stop(&over, &shutdown) => {
                    shutdown.start();
                    match timeout(GRACE, &mut run).await {
                        Ok(ended) => ended,
                        Err(_elapsed) => {
                            // What stands still or is never answered ends as by a second signal.
                            run.abort();
                            run.await
                        }
                    }
                }
            };
            match ended {
                Ok(Ok(())) => self.check_counters(&metrics),
                Ok(Err(_)) if world.has_panicked(self.number) => self.check_counters(&metrics),
                Ok(Err(error)) => world.wrong(format!("process {} fails: {error}", self.number)),
                Err(error) if error.is_cancelled() => {}
                Err(_panicked) => world.wrong(format!("process {} panics", self.number)),
            }
            short.abort();
            world.ended(self.number);
            sleep(world.between(50, 2_000)).await;
        }
    }

    fn workers(&self, room: &Room, metrics: &Arc<Metrics>) -> Vec<Worker<SimQueue, SimSink>> {
        let Ground { configs, stored, keys, .. } = &*self.ground;
        let config = &configs[usize::from(self.plan.newer)];
        let status = Arc::new(Status::default());
        let decoder = Arc::new(start::decoder(config, stored));
        let mut intake = Intake::new(self.visibility, room.clone(), false);
        intake.suspect_from = suspect_from(self.max_receive_count);
        let worker = |_| {
            let byte = || u8::try_from(self.database.world.below(256)).unwrap();
            let secret = EpochSecret::new(&Zeroizing::new(std::array::from_fn(|_| byte())));
            let encapsulation = std::array::from_fn(|_| byte());
            // Some have had their time, so that the first batch begins another.
            let age = if self.database.world.below(8) == 0 { OVER } else { 0 };
            let started_at = now_ms() - age;
            let digest = header_digest(secret.id, started_at);
            let wrap = Wrap::new(&self.ground.recovery.public(), &secret.key, &digest, &encapsulation);
            let epoch = EpochKey::new(&secret, started_at, vec![wrap]);
            Worker {
                queue: self.queue.of_process(self.number),
                sink: SimSink::new(self.number, &self.database),
                intake: intake.clone(),
                masker: Masker::new(&config.columns, stored, Arc::clone(keys), epoch).unwrap().of_queue(QUEUE),
                decoder: Arc::clone(&decoder),
                status: Arc::clone(&status),
                metrics: Arc::clone(metrics),
            }
        };
        (0..self.plan.workers).map(worker).collect()
    }

    /// Received is rows, dead letters, duplicates and what went back, together.
    fn check_counters(&self, metrics: &Metrics) {
        let world = &self.database.world;
        world.note(&Event::Ended(self.number));
        let ended = [metrics.rows.get(), metrics.dead_lettered(), metrics.duplicates.get(), metrics.returned.get()];
        let received = metrics.received.get();
        if received != ended.iter().sum::<u64>() {
            world.wrong(format!("process {}: {received} received, but {ended:?} ended", self.number));
        }
    }
}

async fn told_to_stop(over: &Shutdown, shutdown: &Shutdown) {
    tokio::select! {
        biased;
        () = over.started() => {}
        () = shutdown.started() => {}
    }
}

/// Notes that an answer waits for room.
async fn feel_shortage(room: Room, world: World) {
    room.runs_short().await;
    world.fired(Fault::NoRoom);
    world.feel_now(Fault::NoRoom);
}
