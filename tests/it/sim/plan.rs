//! What one seed decides before anything happens: the messages, the processes, which faults there are and how often.
//!
//! Not every fault is in every seed (a swarm): some only show where others are rare, and a world in which everything
//! fails gets nowhere.

use std::{ops::RangeInclusive, time::Duration};

use fastrand::Rng;
use masq::mutant::Mutant;

use super::fault::Fault;

/// What a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A login; messages of one number are byte for byte the same.
    Login(usize),
    /// A login that carries its producer's own id of it: messages of one number are one event, sent again.
    Event(usize),
    /// A login with a field more, which the newer version refuses.
    Disputed(usize),
    /// A login whose row the table refuses.
    Refused(usize),
    /// What ends the process that reads it.
    Poison,
    /// What nobody can read, and why.
    Bad(usize),
}

/// One process: which version it is, and how many workers it has.
#[derive(Clone, Copy, Debug)]
pub struct ProcessPlan {
    pub newer: bool,
    pub workers: usize,
}

/// Something that begins at a certain time, and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub struct Happening {
    pub at: Duration,
    pub what: What,
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    Send(Kind),
    Begin(Fault),
    End(Fault),
    Once(Fault),
}

/// A world before it begins.
pub struct Plan {
    pub seed: u64,
    pub broken: Option<Mutant>,
    pub visibility: Duration,
    /// Bytes of bodies that a process may hold.
    pub room: u64,
    /// How many groups there are, on a FIFO queue.
    pub groups: Option<usize>,
    /// How often a message may be received before it is moved to the dead-letter queue.
    pub max_receive_count: Option<u32>,
    /// Whether nothing but the database fails. Then no message may be received twice.
    pub only_database: bool,
    pub processes: Vec<ProcessPlan>,
    /// In order of time.
    pub happenings: Vec<Happening>,
    /// How often in 1000 opportunities each fault happens.
    pub shares: Vec<u32>,
    /// When faults stop.
    pub calm_at: Duration,
}

/// Which messages there may be that are not in every world.
struct Odd {
    poison: bool,
    refused: bool,
}

/// Faults that come over the world at a time and not on a call.
const TIMED: [Fault; 9] = [
    Fault::ShortOutage,
    Fault::RefusesAll,
    Fault::Misconfigured,
    Fault::Denied,
    Fault::Crash,
    Fault::Forget,
    Fault::Stop,
    Fault::Pause,
    Fault::LongOutage,
];

/// Faults of the database, which have to burn no receive counts.
const DATABASE: [Fault; 15] = [
    Fault::ShortOutage,
    Fault::LongOutage,
    Fault::BrokenSession,
    Fault::Busy,
    Fault::TooSlow,
    Fault::Slow,
    Fault::Stall,
    Fault::LostAnswer,
    Fault::LostCommit,
    Fault::LateCommit,
    Fault::Crash,
    Fault::RefusedRow,
    Fault::RefusesAll,
    Fault::Misconfigured,
    Fault::Forget,
];

impl Plan {
    pub fn new(seed: u64, broken: Option<Mutant>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let only_database = one_in(rng, 8);
        let has_poison = !only_database && one_in(rng, 8);
        let groups = one_in(rng, 4).then(|| rng.usize(1..=4));
        // Moved to its dead-letter queue, a FIFO queue's message is another one: nothing should be.
        let has_redrive = one_in(rng, 3) && (groups.is_none() || only_database);
        // Less than two answers: polls wait, and what waits is not hidden for long. A refused row that is met before the
        // process has written any waits there for another worker's.
        let is_narrow = !only_database && one_in(rng, 8);
        let processes =
            (0..rng.usize(1..=3)).map(|_| ProcessPlan { newer: rng.bool(), workers: rng.usize(1..=2) }).collect();
        let lasts = seconds(rng, 5..=120);
        let mut shares = vec![0; Fault::ALL.len()];
        for &fault in Fault::ALL {
            if rng.u32(0..100) < 35 && (!only_database || DATABASE.contains(&fault)) {
                // Who is killed at every other step does nothing but start again.
                shares[fault as usize] = 1 << rng.u32(1..if fault == Fault::Kill { 5 } else { 8 });
            }
        }
        let mut happenings = Vec::new();
        for fault in TIMED {
            let share = std::mem::take(&mut shares[fault as usize]);
            // An hour of retries takes as long as twenty other worlds.
            if share > 0 && (fault != Fault::LongOutage || rng.u32(0..if only_database { 30 } else { 150 }) == 0) {
                Self::schedule(rng, fault, lasts, &mut happenings);
            }
        }
        let odd = Odd { poison: has_poison, refused: !is_narrow };
        Self::send(rng, &odd, lasts, &mut happenings);
        happenings.sort_by_key(|happening| happening.at);
        let last = happenings.iter().map(|happening| happening.at).max().unwrap_or_default();
        Self {
            seed,
            broken,
            // Poison takes so many times that long.
            visibility: seconds(rng, 4..=if has_poison { 10 } else { 60 }),
            room: match one_in(rng, 4) {
                _ if is_narrow => rng.u64(300..3_000),
                true => 24_000,
                false => 64 << 20,
            },
            groups,
            max_receive_count: has_redrive.then(|| rng.u32(2..=8)),
            only_database,
            processes,
            happenings,
            shares,
            calm_at: last.max(lasts) + Duration::from_secs(1),
        }
    }

    fn send(rng: &mut Rng, odd: &Odd, lasts: Duration, happenings: &mut Vec<Happening>) {
        let count = rng.usize(20..=60);
        for number in 0..count {
            let kind = match rng.u32(0..20) {
                0 | 1 => Kind::Bad(rng.usize(0..super::body::BAD.len())),
                2 if odd.refused => Kind::Refused(number),
                3 | 4 => Kind::Disputed(number),
                // Two honest messages, byte for byte the same.
                5 => Kind::Login(number.saturating_sub(1)),
                6 => Kind::Event(number),
                _ if odd.poison && number == 0 => Kind::Poison,
                _ => Kind::Login(number),
            };
            let times = if matches!(kind, Kind::Event(_)) { rng.usize(2..=3) } else { 1 };
            for _ in 0..times {
                let at = if rng.bool() { Duration::ZERO } else { seconds(rng, 0..=lasts.as_secs()) };
                happenings.push(Happening { at, what: What::Send(kind) });
            }
        }
    }

    fn schedule(rng: &mut Rng, fault: Fault, lasts: Duration, happenings: &mut Vec<Happening>) {
        let once = matches!(fault, Fault::Crash | Fault::Forget | Fault::Stop | Fault::Pause);
        let times = if once { rng.usize(1..=3) } else { 1 };
        for _ in 0..times {
            let at = lasts.mul_f64(rng.f64());
            let length = match fault {
                Fault::LongOutage => Duration::from_secs(3600),
                _ => Duration::from_secs(30).mul_f64(rng.f64()),
            };
            if once {
                happenings.push(Happening { at, what: What::Once(fault) });
            } else {
                happenings.push(Happening { at, what: What::Begin(fault) });
                happenings.push(Happening { at: at + length, what: What::End(fault) });
            }
        }
    }
}

fn one_in(rng: &mut Rng, many: u32) -> bool {
    rng.u32(0..many) == 0
}

/// A time of so many seconds, to the millisecond.
fn seconds(rng: &mut Rng, range: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.u64(range.start() * 1000..=range.end() * 1000))
}
