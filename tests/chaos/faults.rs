//! Every fault of the campaign: its name, how often it has to happen, and how often it did and was seen to matter.
//!
//! A fault that was injected but had no effect has tested nothing. So each is counted twice: when it fires, and when
//! something independent of the injection shows that it was felt: an SQLSTATE that the server sent to a worker, a
//! connection that had to be made again, a message that came again.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is done to the workers, the database and the way between them. The queue's own faults are in its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// kill -9 of a worker.
    KillWorker,
    /// SIGSTOP for less than the visibility, then SIGCONT.
    PauseWorker,
    /// SIGSTOP for longer than the visibility and than a transaction may idle.
    FreezeWorker,
    /// SIGTERM, as in a deploy.
    StopWorker,
    /// A worker's wall clock jumps by a month, or back by an hour.
    ClockJump,
    /// `pg_ctl stop -m immediate`.
    CrashDatabase,
    /// kill -9 of one of the server's processes, which takes all others along.
    KillBackend,
    /// `pg_terminate_backend` on every worker's sessions.
    TerminateBackends,
    /// ALTER TABLE and LOCK hold the table or the ledger for longer than workers wait.
    LockStorm,
    /// The database takes no writes.
    ReadOnly,
    /// The table's disk is full.
    DiskFull,
    /// No more connections for the workers' login.
    ConnectionLimit,
    /// The connection ends when COMMIT is asked for; the server never hears of it.
    CutBeforeCommit,
    /// The connection ends after COMMIT was done; the worker never hears of it.
    CutAfterCommit,
    /// Silence instead of passing on COMMIT.
    StallBeforeCommit,
    /// Silence instead of the answer to COMMIT.
    StallAfterCommit,
    /// One direction ends after COMMIT was done.
    HalfClose,
    /// Every message between worker and database takes longer.
    Delay,
}

impl Fault {
    pub(crate) const ALL: [Self; 18] = [
        Self::KillWorker,
        Self::PauseWorker,
        Self::FreezeWorker,
        Self::StopWorker,
        Self::ClockJump,
        Self::CrashDatabase,
        Self::KillBackend,
        Self::TerminateBackends,
        Self::LockStorm,
        Self::ReadOnly,
        Self::DiskFull,
        Self::ConnectionLimit,
        Self::CutBeforeCommit,
        Self::CutAfterCommit,
        Self::StallBeforeCommit,
        Self::StallAfterCommit,
        Self::HalfClose,
        Self::Delay,
    ];

    /// Its name, and what shows that it was felt.
    pub(crate) fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::KillWorker => ("kill -9 of a worker", "messages in its hands came again"),
            Self::PauseWorker => ("SIGSTOP, short", "no commit meanwhile, and one afterwards"),
            Self::FreezeWorker => ("SIGSTOP, longer than visibility", "messages in its hands came again"),
            Self::StopWorker => ("SIGTERM", "it ended with exit code 0"),
            Self::ClockJump => ("clock +30 d or -1 h", "the worker's log shows that time"),
            Self::CrashDatabase => ("pg_ctl stop -m immediate", "commits before and after"),
            Self::KillBackend => ("kill -9 of a backend", "57P02 or a lost session, and commits afterwards"),
            Self::TerminateBackends => ("pg_terminate_backend", "57P01 at a worker"),
            Self::LockStorm => ("lock storm", "55P03 at a worker"),
            Self::ReadOnly => ("read-only database", "25006 at a worker"),
            Self::DiskFull => ("disk full", "53100 at a worker"),
            Self::ConnectionLimit => ("connection limit", "53300 at a worker"),
            Self::CutBeforeCommit => ("cut before COMMIT", "the worker commits on a new connection"),
            Self::CutAfterCommit => ("cut after COMMIT", "the worker commits on a new connection"),
            Self::StallBeforeCommit => ("stall before COMMIT", "the worker commits on a new connection"),
            Self::StallAfterCommit => ("stall after COMMIT", "the worker commits on a new connection"),
            Self::HalfClose => ("half-close after COMMIT", "the worker commits on a new connection"),
            Self::Delay => ("delay", "a COMMIT that took three times as long as usual"),
        }
    }
}

/// How often a fault fired and was felt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) fired: u64,
    pub(crate) observed: u64,
}

/// The count of all faults, and why some could not be made here.
#[derive(Default)]
pub(crate) struct Tally {
    counts: Mutex<BTreeMap<Fault, Count>>,
    skipped: Mutex<BTreeMap<Fault, String>>,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<Fault, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fired(&self, fault: Fault) {
        self.counts().entry(fault).or_default().fired += 1;
    }

    pub(crate) fn observed(&self, fault: Fault) {
        self.counts().entry(fault).or_default().observed += 1;
    }

    /// This fault cannot be made on this machine.
    pub(crate) fn skip(&self, fault: Fault, why: &str) {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).insert(fault, why.to_owned());
    }

    pub(crate) fn is_skipped(&self, fault: Fault) -> bool {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&fault)
    }

    pub(crate) fn count(&self, fault: Fault) -> Count {
        self.counts().get(&fault).copied().unwrap_or_default()
    }

    /// A table of all, and what is wrong with it: faults that fired less often than they had to, or without effect.
    pub(crate) fn judge(&self, required: &BTreeMap<Fault, u64>) -> (String, Vec<String>) {
        let mut table = String::from("| fault | fired | felt | how that was seen |\n|---|---|---|---|\n");
        let mut complaints = Vec::new();
        for fault in Fault::ALL {
            let ((name, effect), Count { fired, observed }) = (fault.describe(), self.count(fault));
            let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner).get(&fault).cloned();
            if let Some(why) = skipped {
                let _infallible = writeln!(table, "| {name} | skipped | | {why} |");
                continue;
            }
            let required = required.get(&fault).copied().unwrap_or(0);
            if fired == 0 && required == 0 {
                continue;
            }
            let _infallible = writeln!(table, "| {name} | {fired} | {observed} | {effect} |");
            if fired < required {
                complaints.push(format!("{name} fired {fired} times instead of {required}"));
            }
            if observed == 0 {
                complaints.push(format!("{name} was never felt"));
            }
        }
        (table, complaints)
    }
}
