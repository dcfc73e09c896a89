//! What everything in one simulated world shares: the seed's random numbers, the faults of this moment, the processes,
//! the trace, and what was found to be wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    panic::resume_unwind,
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
    /// On a FIFO queue.
    pub group: Option<usize>,
}

pub struct State {
    pub broken: Option<Mutant>,
    pub visibility: Duration,
    /// How many groups there are, on a FIFO queue.
    groups: Option<usize>,
    /// Whether nothing but the database fails.
    only_database: bool,
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
    /// How often a reader did not come to say that it has read a message, which it had put on record.
    pub unread: BTreeMap<Key, u32>,
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
    /// What it has put on record as being read.
    pub reading: BTreeSet<Key>,
    /// Whether its sink has panicked since it started.
    panicked: bool,
}

impl World {
    /// `text`: whether the trace is kept as text, too.
    pub fn new(plan: &Plan, text: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            broken: plan.broken,
            visibility: plan.visibility,
            groups: plan.groups,
            only_database: plan.only_database,
            start: Instant::now(),
            rng: Rng::with_seed(!plan.seed),
            shares: plan.shares.clone(),
            going_on: BTreeSet::new(),
            calm: Shutdown::new(),
            counts: Counts::default(),
            marks: BTreeMap::new(),
            numbers: BTreeMap::new(),
            sent: Vec::new(),
            processes: Vec::new(),
            unread: BTreeMap::new(),
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

    pub fn only_database(&self) -> bool {
        self.state().only_database
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

    /// It has its effect at once.
    pub fn feel_now(&self, fault: Fault) {
        *self.state().counts.felt.entry(fault).or_default() += 1;
    }

    /// A call of this process fails for this; it should be made again.
    pub fn fail(&self, process: usize, call: Call, fault: Fault) {
        self.mark(On::Call(process, call), fault);
        self.note(&Event::Failed(process, call, fault));
    }

    /// The group of the next message. What comes after the last fault is kept up by no other.
    pub fn next_group(&self) -> Option<usize> {
        let groups = self.state().groups?;
        Some(if self.is_calm() { groups + self.state().sent.len() } else { self.below(groups) })
    }

    pub fn send(&self, key: Key, kind: Kind, group: Option<usize>) {
        let mut state = self.state();
        let number = state.sent.len();
        state.numbers.insert(key, number);
        state.sent.push(Sent { key, kind, group });
        drop(state);
        self.note(&Event::Sent(number));
    }

    pub fn is_poison(&self, key: Key) -> bool {
        let state = self.state();
        state.numbers.get(&key).is_some_and(|number| state.sent[*number].kind == Kind::Poison)
    }

    /// The messages that were sent before this one in its group.
    pub fn before(&self, key: Key) -> Vec<Key> {
        let state = self.state();
        let Some((earlier, sent)) =
            state.numbers.get(&key).map(|number| (&state.sent[..*number], &state.sent[*number]))
        else {
            return Vec::new();
        };
        let before = earlier.iter().filter(|other| other.group.is_some() && other.group == sent.group);
        before.map(|sent| sent.key).collect()
    }

    /// The number of a message. One that was never sent is the last of all.
    pub fn number(&self, key: Key) -> usize {
        self.state().numbers.get(&key).copied().unwrap_or(usize::MAX)
    }

    /// A point at which a process may be killed or stand still. Whoever is killed does not come back from here.
    pub async fn point(&self, process: usize) {
        if self.hit(Fault::Kill) {
            self.kill(process, Fault::Kill).await;
        }
        if self.hit(Fault::Pause) {
            self.pause(process);
        }
        let until = self.state().processes[process].paused_until;
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            self.endure(until - Instant::now()).await;
        }
    }

    /// The number of one more process.
    pub fn add_process(&self) -> usize {
        let mut state = self.state();
        state.processes.push(ProcessState::default());
        state.processes.len() - 1
    }

    pub fn started(&self, process: usize, handle: AbortHandle, shutdown: Shutdown) {
        let mut state = self.state();
        state.processes[process].handle = Some(handle);
        state.processes[process].shutdown = Some(shutdown);
        state.processes[process].panicked = false;
        drop(state);
        self.note(&Event::Started(process));
    }

    /// A process has ended, in good order or not.
    pub fn ended(&self, process: usize) {
        self.abandon_reading(process);
        let mut state = self.state();
        state.processes[process].held.clear();
        state.processes[process].reading.clear();
    }

    /// Ends the process that this is called by, which does not come back from here.
    pub async fn kill(&self, process: usize, fault: Fault) {
        self.note(&Event::HappenedTo(process, fault));
        self.mark_held(process, fault);
        self.ended(process);
        let handle = self.state().processes[process].handle.take();
        if let Some(handle) = handle {
            handle.abort();
        }
        pending::<()>().await;
    }

    /// The sink of a worker of this process panics.
    pub fn panic(&self, process: usize) {
        self.note(&Event::HappenedTo(process, Fault::Panic));
        self.mark_held(process, Fault::Panic);
        self.abandon_reading(process);
        self.state().processes[process].panicked = true;
        // Without telling the hook, which would print it.
        resume_unwind(Box::new("the sink panics"));
    }

    pub fn has_panicked(&self, process: usize) -> bool {
        self.state().processes[process].panicked
    }

    /// Nobody may come to say that these have been read, which are on record as being read now.
    pub fn abandon(&self, keys: &[Key]) {
        let mut state = self.state();
        for key in keys {
            *state.unread.entry(*key).or_default() += 1;
        }
    }

    fn abandon_reading(&self, process: usize) {
        let reading: Vec<Key> = self.state().processes[process].reading.iter().copied().collect();
        self.abandon(&reading);
    }

    pub fn pause(&self, process: usize) {
        self.note(&Event::HappenedTo(process, Fault::Pause));
        self.mark_held(process, Fault::Pause);
        self.abandon_reading(process);
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
