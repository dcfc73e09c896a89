//! One world from beginning to end, and many of them.

use std::{sync::Arc, time::Duration};

use masq::{mutant::Mutant, shutdown::Shutdown};
use tokio::{
    runtime::Builder,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    check::check,
    database::Database,
    fault::{Counts, Fault, On},
    plan::{Kind, Plan, ProcessPlan, What},
    process::{Ground, Process},
    queue::SimQueue,
    trace::Event,
    world::{Sent, World},
};

/// The longest for which a worker waits before it asks again, whether things are well or not: receive's back-off.
const LONGEST_BACKOFF: Duration = Duration::from_secs(20);

/// The longest for which a worker rests that may not delete what is settled, or has panicked.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// How often a login comes after the last fault, until no refused row is held.
const BETWEEN_LOGINS: Duration = Duration::from_millis(200);

/// What a world came to.
pub struct Ran {
    pub seed: u64,
    pub hash: u64,
    pub counts: Counts,
    pub wrong: Vec<String>,
    /// If it was asked for.
    pub trace: String,
    pub simulated: Duration,
}

/// Lets one world happen.
pub fn simulate(seed: u64, broken: Option<Mutant>, ground: &Arc<Ground>, text: bool) -> Ran {
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(happen(Plan::new(seed, broken), ground, text))
}

async fn happen(plan: Plan, ground: &Arc<Ground>, text: bool) -> Ran {
    let begin = Instant::now();
    let world = World::new(&plan, text);
    let database = Database::new(&world);
    let queue = SimQueue::new(&world, &database, &plan);
    let over = Shutdown::new();
    let start = |process: ProcessPlan, queue: SimQueue| {
        let process = Process {
            number: world.add_process(),
            plan: process,
            queue,
            database: database.clone(),
            ground: Arc::clone(ground),
            visibility: plan.visibility,
            room: plan.room,
            max_receive_count: plan.max_receive_count,
        };
        tokio::spawn(process.live(over.clone()))
    };
    let mut processes: Vec<_> = plan.processes.iter().map(|process| start(*process, queue.clone())).collect();
    for happening in &plan.happenings {
        sleep_until(begin + happening.at).await;
        befall(happening.what, &world, &database, &queue);
    }
    sleep_until(begin + plan.calm_at).await;
    world.calm();
    queue.calm();
    let mut queues = Vec::from([queue.clone()]);
    if plan.max_receive_count.is_some() {
        // Somebody drains the dead-letter queue.
        queues.push(queue.of_dead_letters());
        processes.push(start(plan.processes[0], queue.of_dead_letters()));
    }
    settle(&world, &database, &queues).await;
    over.start();
    for process in processes {
        if timeout(Duration::from_secs(60), process).await.is_err() {
            world.wrong("a process does not stop".to_owned());
        }
    }
    check(&world, &database.server().tables, ground);
    let mut state = world.state();
    Ran {
        seed: plan.seed,
        hash: state.trace.hash(),
        counts: state.counts.clone(),
        wrong: std::mem::take(&mut state.wrong),
        trace: state.trace.text(),
        simulated: begin.elapsed(),
    }
}

/// Something that comes over the world at its time.
fn befall(what: What, world: &World, database: &Database, queue: &SimQueue) {
    match what {
        What::Send(kind) => queue.send(kind),
        What::Begin(fault) => world.begin(fault),
        What::End(fault) => world.end(fault),
        What::Once(fault) => {
            world.begin(fault);
            world.end(fault);
            let processes = world.state().processes.len();
            let process = world.below(processes);
            match fault {
                Fault::Crash => database.crash(),
                Fault::Stop => world.stop(process),
                Fault::Pause => world.pause(process),
                _ => forget(world, database),
            }
        }
    }
}

/// The ledger forgets the oldest of what was sent.
fn forget(world: &World, database: &Database) {
    let mut keys: Vec<_> = world.state().sent.iter().map(|sent| sent.key).collect();
    keys.sort_unstable();
    keys.truncate(keys.len() / 3);
    if database.forget(&keys) {
        keys.iter().for_each(|key| world.mark(On::Delivery(*key), Fault::Forget));
    }
}

/// How long it may take until everything is settled.
fn limit(world: &World) -> Duration {
    let state = world.state();
    let has = |fault: Fault| state.counts.fired.contains_key(&fault);
    let rest = if has(Fault::Denied) || has(Fault::Panic) { LONGEST_REST } else { LONGEST_BACKOFF };
    let once = state.visibility.max(rest) + Duration::from_secs(10);
    // Whatever it takes down comes again after that long, and so does itself.
    if state.sent.iter().any(|sent| sent.kind == Kind::Poison) { once * 20 } else { once }
}

/// Waits until everything is off the queue, and no longer than that may take. As long as a worker holds a refused row,
/// logins go on coming: only they show it that the table takes others.
async fn settle(world: &World, database: &Database, queues: &[SimQueue]) {
    let begin = Instant::now();
    let limit = limit(world);
    while begin.elapsed() < limit {
        if queues.iter().all(SimQueue::is_empty) {
            return world.note(&Event::Settled);
        }
        let is_held = |sent: &Sent| matches!(sent.kind, Kind::Refused(_)) && !database.has_outcome(sent.key);
        let sent = world.state().sent.clone();
        if sent.iter().any(is_held) && begin.elapsed() + BETWEEN_LOGINS * 10 < limit {
            queues[sent.len() % queues.len()].send(Kind::Login(sent.len()));
        }
        sleep(BETWEEN_LOGINS).await;
    }
    world.wrong(format!("not settled {limit:?} after the last fault"));
}
