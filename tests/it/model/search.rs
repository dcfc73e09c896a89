//! Goes breadth first to every state that can be reached, so that the first way found to a violation is a shortest one.

use std::{
    collections::{BTreeMap, HashMap, hash_map},
    fmt::Write,
};

use super::{
    protocol::{MESSAGES, Protocol, Slot, State, Worker},
    step::Step,
};

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A message is deleted and has no outcome, and nothing is under way that would give it one.
    Lost,
    /// An event is two rows, or a message two dead letters.
    Twice,
    /// A message is a row and a dead letter.
    Both,
    /// The ledger does not say what the tables hold.
    Unrecorded,
    /// Without another fault it will never be settled.
    Stuck,
}

/// All states that a protocol can come to.
pub struct Search {
    states: Vec<Reached>,
    /// The first state that violates each.
    found: BTreeMap<Violation, usize>,
}

/// A state, and the step that led to it first.
struct Reached {
    state: State,
    by: Option<(usize, Step)>,
}

impl Search {
    pub fn new(protocol: &Protocol) -> Self {
        let mut search = Self { states: Vec::new(), found: BTreeMap::new() };
        let mut known = HashMap::new();
        let start = State::start(protocol);
        known.insert(start.clone(), 0);
        search.states.push(Reached { state: start, by: None });
        // For each state those from which one step that is no fault leads to it.
        let mut before: Vec<Vec<usize>> = vec![Vec::new()];
        let mut at = 0;
        while at < search.states.len() {
            search.judge(at, protocol);
            for (step, state) in search.states[at].state.next(protocol) {
                let to = match known.entry(state) {
                    hash_map::Entry::Occupied(known) => *known.get(),
                    hash_map::Entry::Vacant(new) => {
                        let to = search.states.len();
                        search.states.push(Reached { state: new.key().clone(), by: Some((at, step)) });
                        before.push(Vec::new());
                        *new.insert(to)
                    }
                };
                if !step.is_fault() {
                    before[to].push(at);
                }
            }
            at += 1;
        }
        search.find_stuck(&before);
        search
    }

    pub fn states(&self) -> usize {
        self.states.len()
    }

    /// The shortest way to a violation, a step a line.
    pub fn trace(&self, violation: Violation) -> Option<String> {
        let mut at = *self.found.get(&violation)?;
        let mut steps = Vec::new();
        while let Some((from, step)) = self.states[at].by {
            steps.push(step);
            at = from;
        }
        let mut trace = String::new();
        for (number, step) in steps.iter().rev().enumerate() {
            writeln!(trace, "  {:>2}  {step}", number + 1).unwrap();
        }
        Some(trace)
    }

    /// The shortest way to each violation that there is.
    pub fn traces(&self) -> Vec<(Violation, String)> {
        self.found.keys().map(|&violation| (violation, self.trace(violation).unwrap_or_default())).collect()
    }

    fn judge(&mut self, at: usize, protocol: &Protocol) {
        let state = &self.states[at].state;
        let tables = &state.tables;
        let mut violations = Vec::new();
        for message in 0..MESSAGES {
            let (rows, dead, late) = (tables.rows[message], tables.dead[message], tables.late[message]);
            let under_way = state.is_held(message) || state.has_orphan_of(message);
            if state.queue[message] == Slot::Deleted
                && rows + dead + late == 0
                && !under_way
                && !state.is_repeated(message)
            {
                violations.push(Violation::Lost);
            }
            if rows > 1 || dead > 1 || late > 1 {
                violations.push(Violation::Twice);
            }
            if rows > 0 && dead > 0 {
                violations.push(Violation::Both);
            }
            let recorded = tables.ledger[message] || tables.forgotten[message];
            if rows + dead > 0 && !recorded {
                violations.push(Violation::Unrecorded);
            }
        }
        if protocol.resent && tables.rows.iter().sum::<u8>() > 1 {
            violations.push(Violation::Twice);
        }
        for violation in violations {
            self.found.entry(violation).or_insert(at);
        }
    }

    /// Goes back from the settled states; what is not met on the way is stuck.
    fn find_stuck(&mut self, before: &[Vec<usize>]) {
        let mut settles: Vec<bool> = self.states.iter().map(|reached| reached.state.is_settled()).collect();
        let mut todo: Vec<usize> = (0..settles.len()).filter(|&at| settles[at]).collect();
        while let Some(at) = todo.pop() {
            for &from in &before[at] {
                if !settles[from] {
                    settles[from] = true;
                    todo.push(from);
                }
            }
        }
        if let Some(stuck) = settles.iter().position(|settles| !settles) {
            self.found.insert(Violation::Stuck, stuck);
        }
    }
}

impl State {
    /// Everything is off the queue and nobody has anything in hand.
    fn is_settled(&self) -> bool {
        self.queue.iter().all(|slot| !matches!(slot, Slot::Visible | Slot::Hidden))
            && self.workers.iter().all(|worker| *worker == Worker::Receiving)
            && self.orphans.is_empty()
    }

    fn has_orphan_of(&self, message: usize) -> bool {
        self.orphans.iter().any(|orphan| orphan.transaction.message == message)
    }

    /// Whether the message's outcome is that its event is a row already, as another message.
    fn is_repeated(&self, message: usize) -> bool {
        self.tables.rows.iter().enumerate().any(|(other, &rows)| other != message && rows > 0)
            && (self.tables.ledger[message] || self.tables.forgotten[message])
    }
}
