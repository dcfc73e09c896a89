//! What one seed decides before anything happens: the messages, the processes, which faults there are and how often.
//!
//! Not every fault is in every seed (a swarm): some only show where others are rare, and a world in which everything
//! fails gets nowhere.

use std::time::Duration;

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
    pub processes: Vec<ProcessPlan>,
    /// In order of time.
    pub happenings: Vec<Happening>,
    /// How often in 1000 opportunities each fault happens.
    pub shares: Vec<u32>,
    /// When faults stop.
    pub calm_at: Duration,
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

impl Plan {
    pub fn new(seed: u64, broken: Option<Mutant>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let seconds = |rng: &mut Rng, range: std::ops::RangeInclusive<u64>| {
            Duration::from_millis(rng.u64(range.start() * 1000..=range.end() * 1000))
        };
        let processes =
            (0..rng.usize(1..=3)).map(|_| ProcessPlan { newer: rng.bool(), workers: rng.usize(1..=2) }).collect();
        let lasts = seconds(rng, 5..=120);
        let mut shares = vec![0; Fault::ALL.len()];
        for &fault in Fault::ALL {
            if rng.u32(0..100) < 35 {
                // Who is killed at every other step does nothing but start again.
                shares[fault as usize] = 1 << rng.u32(1..if fault == Fault::Kill { 5 } else { 8 });
            }
        }
        let mut happenings = Vec::new();
        for fault in TIMED {
            let share = shares[fault as usize];
            shares[fault as usize] = 0;
            // An hour of retries takes as long as twenty other worlds.
            if share > 0 && (fault != Fault::LongOutage || rng.u32(0..100) == 0) {
                Self::schedule(rng, fault, lasts, &mut happenings);
            }
        }
        let count = rng.usize(20..=60);
        for number in 0..count {
            let kind = match rng.u32(0..20) {
                0 | 1 => Kind::Bad(rng.usize(0..super::body::BAD.len())),
                2 => Kind::Refused(number),
                3 | 4 => Kind::Disputed(number),
                // Two honest messages, byte for byte the same.
                5 => Kind::Login(number.saturating_sub(1)),
                6 => Kind::Event(number),
                _ => Kind::Login(number),
            };
            let times = if matches!(kind, Kind::Event(_)) { rng.usize(2..=3) } else { 1 };
            for _ in 0..times {
                let at = if rng.bool() { Duration::ZERO } else { seconds(rng, 0..=lasts.as_secs()) };
                happenings.push(Happening { at, what: What::Send(kind) });
            }
        }
        happenings.sort_by_key(|happening| happening.at);
        let last = happenings.iter().map(|happening| happening.at).max().unwrap_or_default();
        Self {
            seed,
            broken,
            visibility: seconds(rng, 4..=60),
            room: if rng.u32(0..4) == 0 { 24_000 } else { 64 << 20 },
            processes,
            happenings,
            shares,
            calm_at: last.max(lasts) + Duration::from_secs(1),
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
