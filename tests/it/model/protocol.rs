//! What can happen next: the steps of two workers, of the sessions that they leave behind, of the queue and of PostgreSQL,
//! and the faults of all of them. A state is a small value; nothing here has a clock, for every order is tried.

use masq::mutant::Mutant;

use super::step::Step;

/// One event, as two messages if it is sent anew: by its producer, or by a redrive that gives it another MessageId.
pub const MESSAGES: usize = 2;
pub const WORKERS: usize = 2;

/// What is modelled.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// What each worker makes of the event: they may be of two versions.
    pub verdicts: [Verdict; WORKERS],
    /// Whether the event is sent anew; its producer's id then tells that it is the same (`dedupe`).
    pub resent: bool,
    /// How many faults happen at most, of whatever kinds.
    pub faults: u8,
    /// In which way it is broken.
    pub broken: Option<Mutant>,
}

/// What masking makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Row,
    Dead,
}

/// Everything there is at one moment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub queue: [Slot; MESSAGES],
    pub tables: Tables,
    /// What a crash of PostgreSQL leaves: the same, unless a COMMIT answers before it is on disk.
    on_disk: Tables,
    pub workers: [Worker; WORKERS],
    /// Transactions whose client is gone, until the server notices; sorted.
    pub orphans: Vec<Orphan>,
    faults_left: u8,
}

/// Where a message stands in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    Unsent,
    Visible,
    Hidden,
    Deleted,
    /// Moved to a dead-letter queue and sent from there under another id.
    Redriven,
}

/// What is committed: for each message its key in the ledger, its rows and dead letters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tables {
    pub ledger: [bool; MESSAGES],
    pub rows: [u8; MESSAGES],
    pub dead: [u8; MESSAGES],
    /// Dead letters `older_than_ledger`, unique by message id alone.
    pub late: [u8; MESSAGES],
    /// Whether the message was sent before the ledger's memory begins.
    pub forgotten: [bool; MESSAGES],
    /// The event's claim in `masq.dedupe`.
    pub claimed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Worker {
    Receiving,
    /// Decoded and masked: about to write.
    Holding(Held),
    /// In a transaction that has claimed its key.
    Writing(Held, Transaction),
    /// COMMIT is sent.
    Committing(Held, Transaction),
    /// The outcome is known to be committed.
    Loaded(Held),
}

/// A delivery in hand.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    pub message: usize,
    /// Whether no later delivery has overtaken it.
    newest: bool,
    /// Whether the worker has learnt that the ledger's memory begins later.
    late: bool,
    /// Only where rows and ledger are written one after the other: the first half is committed.
    half: bool,
}

/// What a COMMIT will make true.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transaction {
    pub message: usize,
    ledger: bool,
    row: bool,
    dead: bool,
    late: bool,
    claim: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Orphan {
    pub transaction: Transaction,
    /// Whether its COMMIT is on the way, so that it may still happen.
    committing: bool,
}

impl State {
    pub fn start(protocol: &Protocol) -> Self {
        Self {
            queue: [Slot::Visible, Slot::Unsent],
            tables: Tables::default(),
            on_disk: Tables::default(),
            workers: [Worker::Receiving; WORKERS],
            orphans: Vec::new(),
            faults_left: protocol.faults,
        }
    }

    /// All that can happen next.
    pub fn next(&self, protocol: &Protocol) -> Vec<(Step, Self)> {
        let mut next = Next { from: self, protocol, steps: Vec::with_capacity(16) };
        for worker in 0..WORKERS {
            next.of_worker(worker);
        }
        for message in 0..MESSAGES {
            next.of_message(message);
        }
        next.of_postgres();
        next.steps
    }

    /// Whether a delivery of the message is in some worker's hand.
    pub fn is_held(&self, message: usize) -> bool {
        self.workers.iter().any(|worker| worker.held().is_some_and(|held| held.message == message))
    }

    /// Every transaction that has not ended.
    fn transactions(&self) -> impl Iterator<Item = Transaction> {
        let of_workers = self.workers.iter().filter_map(|worker| match worker {
            Worker::Writing(_, transaction) | Worker::Committing(_, transaction) => Some(*transaction),
            _ => None,
        });
        of_workers.chain(self.orphans.iter().map(|orphan| orphan.transaction))
    }

    fn leave(&mut self, transaction: Transaction, committing: bool) {
        self.orphans.push(Orphan { transaction, committing });
        self.orphans.sort_unstable();
    }
}

impl Worker {
    pub fn held(&self) -> Option<Held> {
        match self {
            Self::Receiving => None,
            Self::Holding(held) | Self::Writing(held, _) | Self::Committing(held, _) | Self::Loaded(held) => {
                Some(*held)
            }
        }
    }
}

/// Collects what can happen.
struct Next<'a> {
    from: &'a State,
    protocol: &'a Protocol,
    steps: Vec<(Step, State)>,
}

impl Next<'_> {
    fn is(&self, mutant: Mutant) -> bool {
        self.protocol.broken == Some(mutant)
    }

    fn add(&mut self, step: Step, change: impl FnOnce(&mut State)) {
        let mut state = self.from.clone();
        if step.is_fault() {
            let Some(left) = state.faults_left.checked_sub(1) else { return };
            state.faults_left = left;
        }
        change(&mut state);
        self.steps.push((step, state));
    }

    fn of_worker(&mut self, worker: usize) {
        match self.from.workers[worker] {
            Worker::Receiving => self.receive(worker),
            Worker::Holding(held) => self.write(worker, held),
            Worker::Writing(held, transaction) => {
                self.add(Step::Commit(worker), |state| {
                    state.workers[worker] = Worker::Committing(held, transaction);
                });
                self.add(Step::Cut(worker), |state| {
                    state.leave(transaction, false);
                    state.workers[worker] = Worker::Holding(held);
                });
            }
            Worker::Committing(held, transaction) => self.commit(worker, held, transaction),
            Worker::Loaded(held) => self.delete(worker, held),
        }
        if self.from.workers[worker] != Worker::Receiving {
            self.add(Step::Kill(worker), |state| {
                match state.workers[worker] {
                    Worker::Writing(_, transaction) => state.leave(transaction, false),
                    Worker::Committing(_, transaction) => state.leave(transaction, true),
                    _ => {}
                }
                state.workers[worker] = Worker::Receiving;
            });
        }
    }

    fn receive(&mut self, worker: usize) {
        let delete_first = self.is(Mutant::DeleteFirst);
        for message in 0..MESSAGES {
            if self.from.queue[message] != Slot::Visible {
                continue;
            }
            self.add(Step::Receive(worker, message), |state| {
                for worker in &mut state.workers {
                    worker.overtake(message);
                }
                state.queue[message] = if delete_first { Slot::Deleted } else { Slot::Hidden };
                let held = Held { message, newest: true, late: false, half: false };
                state.workers[worker] = Worker::Holding(held);
            });
        }
    }

    /// One transaction: claims the key, then writes the row or the dead letter. While another transaction holds the key
    /// or the event's claim, it waits.
    fn write(&mut self, worker: usize, held: Held) {
        let Held { message, late, half, .. } = held;
        let tables = &self.from.tables;
        let is_row = self.protocol.verdicts[worker] == Verdict::Row;
        let blind = self.is(Mutant::NoLedger);
        let waits = self.from.transactions().any(|other| {
            let same_key =
                other.message == message && (other.ledger || other.late) && !self.is(Mutant::SelectThenInsert);
            same_key || (other.claim && is_row && !late)
        });
        if waits {
            return;
        }
        let is_known = if late { tables.late[message] > 0 } else { tables.ledger[message] && !blind };
        if is_known && !half {
            self.add(Step::FindDuplicate(worker), |state| state.workers[worker] = Worker::Loaded(held));
            return;
        }
        if !late && tables.forgotten[message] {
            self.add(Step::FindForgotten(worker), |state| {
                state.workers[worker] = Worker::Holding(Held { late: true, ..held });
            });
            return;
        }
        let dedupe = self.protocol.resent && !self.is(Mutant::NoDedupe);
        let repeated = is_row && dedupe && tables.claimed;
        let whole = Transaction {
            message,
            ledger: !late && !blind,
            row: !late && is_row && !repeated,
            dead: !late && !is_row,
            late,
            claim: !late && is_row && dedupe && !repeated,
        };
        let only_ledger = Transaction { message, ledger: !late, late, ..Transaction::default() };
        let transaction = match self.protocol.broken {
            Some(Mutant::LedgerFirst) if !half => only_ledger,
            Some(Mutant::RowsFirst) if half => only_ledger,
            Some(Mutant::LedgerFirst | Mutant::RowsFirst) => Transaction { ledger: false, late: false, ..whole },
            _ => whole,
        };
        self.add(Step::Claim(worker), |state| state.workers[worker] = Worker::Writing(held, transaction));
    }

    fn commit(&mut self, worker: usize, held: Held, transaction: Transaction) {
        let in_halves = self.is(Mutant::LedgerFirst) || self.is(Mutant::RowsFirst);
        let lazy = self.is(Mutant::AsynchronousCommit);
        self.add(Step::Answer(worker), |state| {
            state.apply(transaction, lazy);
            state.workers[worker] = if in_halves && !held.half {
                Worker::Holding(Held { half: true, ..held })
            } else {
                Worker::Loaded(held)
            };
        });
        let careless = self.is(Mutant::UnknownIsDone);
        self.add(Step::CutAnswer(worker), |state| {
            state.leave(transaction, true);
            state.workers[worker] = if careless { Worker::Loaded(held) } else { Worker::Holding(held) };
        });
    }

    /// An old receipt may delete, or succeed and delete nothing.
    fn delete(&mut self, worker: usize, held: Held) {
        self.add(Step::Delete(worker), |state| {
            let slot = &mut state.queue[held.message];
            if *slot != Slot::Redriven {
                *slot = Slot::Deleted;
            }
            state.workers[worker] = Worker::Receiving;
        });
        if !held.newest {
            self.add(Step::DeleteStale(worker), |state| state.workers[worker] = Worker::Receiving);
        }
        self.add(Step::DeleteFails(worker), |state| state.workers[worker] = Worker::Receiving);
    }

    fn of_message(&mut self, message: usize) {
        match self.from.queue[message] {
            Slot::Hidden if self.from.is_held(message) => {
                self.add(Step::ExpireInHand(message), |state| state.queue[message] = Slot::Visible);
            }
            Slot::Hidden => self.add(Step::Expire(message), |state| state.queue[message] = Slot::Visible),
            Slot::Deleted => self.add(Step::Ghost(message), |state| state.queue[message] = Slot::Visible),
            Slot::Unsent if self.protocol.resent => {
                self.add(Step::Resend, |state| state.queue[message] = Slot::Visible);
                if self.from.queue[0] == Slot::Visible {
                    self.add(Step::Redrive, |state| state.queue = [Slot::Redriven, Slot::Visible]);
                }
            }
            _ => {}
        }
    }

    fn of_postgres(&mut self) {
        let lazy = self.is(Mutant::AsynchronousCommit);
        for (at, orphan) in self.from.orphans.iter().enumerate() {
            self.add(Step::End(false), |state| {
                state.orphans.remove(at);
            });
            if orphan.committing {
                self.add(Step::End(true), |state| {
                    state.orphans.remove(at);
                    state.apply(orphan.transaction, lazy);
                });
            }
        }
        if self.from.on_disk != self.from.tables {
            self.add(Step::Flush, |state| state.on_disk = state.tables);
        }
        self.add(Step::Crash, |state| {
            state.tables = state.on_disk;
            state.orphans.clear();
            for worker in &mut state.workers {
                if let Worker::Writing(held, _) | Worker::Committing(held, _) = *worker {
                    *worker = Worker::Holding(held);
                }
            }
        });
        // Dropping a partition waits for the transactions that have written to it.
        let early = self.is(Mutant::PrunedEarly);
        for message in 0..MESSAGES {
            let in_use =
                self.from.transactions().any(|transaction| transaction.message == message && transaction.ledger);
            if !in_use && !self.from.tables.forgotten[message] && self.from.queue[message] != Slot::Unsent {
                self.add(Step::Prune(message), |state| {
                    for tables in [&mut state.tables, &mut state.on_disk] {
                        tables.ledger[message] = false;
                        tables.forgotten[message] = !early;
                    }
                });
            }
        }
    }
}

impl Worker {
    /// Another delivery of the message makes this one's receipt an old one.
    fn overtake(&mut self, message: usize) {
        if let Self::Holding(held) | Self::Writing(held, _) | Self::Committing(held, _) | Self::Loaded(held) = self
            && held.message == message
        {
            held.newest = false;
        }
    }
}

impl State {
    fn apply(&mut self, transaction: Transaction, lazy: bool) {
        let Transaction { message, ledger, row, dead, late, claim } = transaction;
        let tables = &mut self.tables;
        tables.ledger[message] |= ledger;
        tables.claimed |= claim;
        tables.rows[message] += u8::from(row);
        tables.dead[message] += u8::from(dead);
        tables.late[message] += u8::from(late);
        if !lazy {
            self.on_disk = self.tables;
        }
    }
}
