//! What can go wrong in a simulated world, and the count of how often it did and how often that was felt.
//!
//! A fault that changes nothing tests nothing. So each leaves a mark on what should feel it (a message that will come
//! again, a call that will be tried again), and counts as felt when that happens.

use std::collections::BTreeMap;

use masq::queue::Key;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// One kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $($(#[doc = $doc])+ $name,)+ }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

faults! {
    /// The queue asks for fewer requests.
    Throttle,
    /// It is away.
    Unavailable,
    /// It never answers, until the call's own time-out ends it.
    Hang,
    /// It says that something is not permitted.
    Denied,
    /// Too many messages are in flight.
    Crowded,
    /// A poll comes back empty although there are messages.
    Empty,
    /// Messages are handed out and the answer is lost, so that they are stranded.
    LostReceive,
    /// A message is handed out and stays visible to others.
    Double,
    /// Its visibility ends long before it should.
    Early,
    /// What was deleted comes again.
    Ghost,
    /// A delete is done and its answer lost.
    LostDelete,
    /// Some entries of a delete fail.
    FailedEntries,
    /// A delete succeeds and deletes nothing.
    StaleDelete,
    /// An extension of the visibility is done and its answer lost.
    LostExtend,
    /// An extension of the visibility fails for some.
    FailedExtend,
    /// The database is away for seconds.
    ShortOutage,
    /// It is away for an hour.
    LongOutage,
    /// A session breaks before COMMIT.
    BrokenSession,
    /// Another transaction is in the way.
    Busy,
    /// A statement takes too long.
    TooSlow,
    /// A transaction takes longer than messages stay hidden.
    Slow,
    /// The database never answers, until the session's own time-out ends it.
    Stall,
    /// COMMIT is done and its answer lost.
    LostAnswer,
    /// COMMIT is lost on its way.
    LostCommit,
    /// COMMIT is done long after its client has lost sight of it.
    LateCommit,
    /// The database crashes: every transaction that was not committed is gone.
    Crash,
    /// The table refuses a row for what it holds.
    RefusedRow,
    /// The table refuses every row for a while.
    RefusesAll,
    /// Somebody has to mend the table first.
    Misconfigured,
    /// The ledger's memory begins later than before.
    Forget,
    /// A process is killed.
    Kill,
    /// A process stands still for longer than messages stay hidden.
    Pause,
    /// A process is told to stop, and started again.
    Stop,
    /// The sink panics.
    Panic,
    /// A message ends the process that reads it.
    Poison,
    /// A message comes more often than the redrive policy allows, and is moved to the dead-letter queue.
    Redriven,
    /// A poll's answer waits for room.
    NoRoom,
}

/// What will feel a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    /// The message is delivered.
    Delivery(Key),
    /// Its visibility is extended or it is delivered.
    Extension(Key),
    /// A delete is asked for.
    Delete(Key),
    /// An outcome of it is committed.
    Outcome(Key),
    /// A write answers that its outcome was there.
    Duplicate(Key),
    /// This process makes such a call again.
    Call(usize, Call),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    Receive,
    Extend,
    Delete,
    Write,
}

/// How often each fault fired, and how often it was felt: by every message or call that it concerned.
#[derive(Clone, Default)]
pub struct Counts {
    pub fired: BTreeMap<Fault, u64>,
    pub felt: BTreeMap<Fault, u64>,
    /// Messages that became dead letters through no fault of their own, as they may, by reason.
    pub excused: BTreeMap<String, u64>,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        for (sum, counts) in [(&mut self.fired, &other.fired), (&mut self.felt, &other.felt)] {
            for (fault, count) in counts {
                *sum.entry(*fault).or_default() += count;
            }
        }
        for (reason, count) in &other.excused {
            *self.excused.entry(reason.clone()).or_default() += count;
        }
    }
}
