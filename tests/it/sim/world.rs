//! What everything in one simulated world shares: the seed's random numbers, the faults of this moment, the processes,
//! the trace, and what was found to be wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fastrand::Rng;
use masq::{mutant::Mutant, queue::Key, shutdown::Shutdown};
use tokio::{task::AbortHandle, time::Instant};

use super::{
    fault::{Call, Counts, Fault, On},
    plan::{Kind, Plan},
    trace::{Event, Trace},
};

/// A handle; all clones are the same world.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

/// A message that was sent.
#[derive(Clone, Copy)]
pub struct Sent {
    pub key: Key,
    pub kind: Kind,
}

pub struct State {
    pub broken: Option<Mutant>,
    pub visibility: Duration,
    start: Instant,
    rng: Rng,
    shares: Vec<u32>,
    /// Those that have begun and not ended.
    going_on: BTreeSet<Fault>,
    calm: Shutdown,
    pub counts: Counts,
    marks: BTreeMap<On, BTreeSet<Fault>>,
    numbers: BTreeMap<Key, usize>,
    pub sent: Vec<Sent>,
    pub processes: Vec<ProcessState>,
    /// Messages whose reader was killed while it read them alone.
    pub killed_alone: BTreeSet<Key>,
    pub trace: Trace,
    /// What was found to be wrong, message by message.
    pub wrong: Vec<String>,
}

/// What the world knows of a process.
#[derive(Default)]
pub struct ProcessState {
    pub handle: Option<AbortHandle>,
    pub shutdown: Option<Shutdown>,
    paused_until: Option<Instant>,
    /// What was delivered to it and has not been deleted by it.
    pub held: BTreeSet<Key>,
    /// What it has put on record as being read alone.
    pub alone: BTreeSet<Key>,
}

impl World {
    /// `text`: whether the trace is kept as text, too.
    pub fn new(plan: &Plan, text: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            broken: plan.broken,
            visibility: plan.visibility,
            start: Instant::now(),
            rng: Rng::with_seed(!plan.seed),
            shares: plan.shares.clone(),
            going_on: BTreeSet::new(),
            calm: Shutdown::new(),
            counts: Counts::default(),
            marks: BTreeMap::new(),
            numbers: BTreeMap::new(),
            sent: Vec::new(),
            processes: plan.processes.iter().map(|_| ProcessState::default()).collect(),
            killed_alone: BTreeSet::new(),
            trace: Trace::new(text),
            wrong: Vec::new(),
        })))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.state().broken == Some(mutant)
    }

    pub fn note(&self, event: &Event) {
        let mut state = self.state();
        let at = state.start.elapsed();
        state.trace.note(at, event);
    }

    pub fn wrong(&self, what: String) {
        self.state().wrong.push(what);
    }

    /// Whether this fault happens now, where it could.
    pub fn hit(&self, fault: Fault) -> bool {
        let mut state = self.state();
        let share = state.shares[fault as usize];
        let hit = share > 0 && !state.calm.has_started() && state.rng.u32(0..1000) < share;
        if hit {
            *state.counts.fired.entry(fault).or_default() += 1;
        }
        hit
    }

    /// Counts a fault that is not drawn.
    pub fn fired(&self, fault: Fault) {
        *self.state().counts.fired.entry(fault).or_default() += 1;
    }

    /// Whether this fault has begun and not ended.
    pub fn is_going_on(&self, fault: Fault) -> bool {
        self.state().going_on.contains(&fault)
    }

    pub fn begin(&self, fault: Fault) {
        let mut state = self.state();
        state.going_on.insert(fault);
        *state.counts.fired.entry(fault).or_default() += 1;
        drop(state);
        self.note(&Event::Happened(fault));
    }

    pub fn end(&self, fault: Fault) {
        self.state().going_on.remove(&fault);
    }

    /// No fault begins any more, and those that go on end.
    pub fn calm(&self) {
        let mut state = self.state();
        state.calm.start();
        state.going_on.clear();
        drop(state);
        self.note(&Event::Calm);
    }

    pub fn is_calm(&self) -> bool {
        self.state().calm.has_started()
    }

    /// What a fault makes somebody wait for; it ends with the faults.
    pub async fn endure(&self, time: Duration) {
        let calm = self.state().calm.clone();
        calm.sleep(time).await;
    }

    /// A time between two, in milliseconds.
    pub fn between(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.state().rng.u64(least..=most))
    }

    pub fn below(&self, end: usize) -> usize {
        self.state().rng.usize(0..end)
    }

    /// Who or what will feel this fault.
    pub fn mark(&self, on: On, fault: Fault) {
        self.state().marks.entry(on).or_default().insert(fault);
    }

    /// It has happened: the faults that it was to feel have had their effect.
    pub fn feel(&self, on: On) {
        let mut state = self.state();
        for fault in state.marks.remove(&on).unwrap_or_default() {
            *state.counts.felt.entry(fault).or_default() += 1;
        }
    }

    /// A call of this process fails for this; it should be made again.
    pub fn fail(&self, process: usize, call: Call, fault: Fault) {
        self.mark(On::Call(process, call), fault);
        self.note(&Event::Failed(process, call, fault));
    }

    pub fn send(&self, key: Key, kind: Kind) {
        let mut state = self.state();
        let number = state.sent.len();
        state.numbers.insert(key, number);
        state.sent.push(Sent { key, kind });
        drop(state);
        self.note(&Event::Sent(number));
    }

    /// The number of a message. One that was never sent is the last of all.
    pub fn number(&self, key: Key) -> usize {
        self.state().numbers.get(&key).copied().unwrap_or(usize::MAX)
    }

    /// A point at which a process may be killed or stand still. Whoever is killed does not come back from here.
    pub async fn point(&self, process: usize) {
        if self.hit(Fault::Kill) {
            self.kill(process);
            pending::<()>().await;
        }
        if self.hit(Fault::Pause) {
            self.pause(process);
        }
        let until = self.state().processes[process].paused_until;
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            self.endure(until - Instant::now()).await;
        }
    }

    pub fn started(&self, process: usize, handle: AbortHandle, shutdown: Shutdown) {
        let mut state = self.state();
        state.processes[process].handle = Some(handle);
        state.processes[process].shutdown = Some(shutdown);
        drop(state);
        self.note(&Event::Started(process));
    }

    pub fn kill(&self, process: usize) {
        self.note(&Event::HappenedTo(process, Fault::Kill));
        self.mark_held(process, Fault::Kill);
        let mut state = self.state();
        state.processes[process].held.clear();
        let alone = std::mem::take(&mut state.processes[process].alone);
        state.killed_alone.extend(alone);
        let handle = state.processes[process].handle.take();
        drop(state);
        if let Some(handle) = handle {
            handle.abort();
        }
    }

    pub fn pause(&self, process: usize) {
        self.note(&Event::HappenedTo(process, Fault::Pause));
        self.mark_held(process, Fault::Pause);
        let mut state = self.state();
        let length = state.visibility.mul_f64(state.rng.f64() * 3.0);
        state.processes[process].paused_until = Some(Instant::now() + length);
    }

    pub fn stop(&self, process: usize) {
        self.note(&Event::HappenedTo(process, Fault::Stop));
        self.mark_held(process, Fault::Stop);
        if let Some(shutdown) = &self.state().processes[process].shutdown {
            shutdown.start();
        }
    }

    /// What a process holds will come again because of this.
    fn mark_held(&self, process: usize, fault: Fault) {
        let mut state = self.state();
        let held = state.processes[process].held.clone();
        for key in held {
            state.marks.entry(On::Delivery(key)).or_default().insert(fault);
        }
    }
}
