//! The simulation: the real pipeline in a world that one seed decides, on tokio's paused clock.
//!
//! Everything between the two edges is the code that ships. The queue is the one in memory behind a wrapper that does
//! what Amazon SQS may do, the sink is a database with transactions that outlive their clients; processes are killed,
//! stand still, stop and start again. When the faults stop, everything must be settled within the visibility time-out
//! and ten seconds, and the invariants must hold against what was sent. The same seed gives the same trace.
//!
//! `./dev simulate` runs more of it; a seed that failed once is kept in tests/data/seeds and runs first ever after.

mod body;
mod check;
mod database;
mod fault;
mod plan;
mod process;
mod queue;
mod run;
mod sink;
mod trace;
mod transaction;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::OpenOptions,
    io::{self, Write},
    ops::Range,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use masq::mutant::Mutant;

use self::{
    fault::{Counts, Fault},
    process::Ground,
    run::{Ran, simulate},
};
use crate::source::read;

/// How many worlds, where nobody asks for more or fewer.
const SEEDS: u64 = 2_000;

/// In so many seeds each broken variant is found.
const LIMIT: u64 = 200;

/// Seeds that failed once, a line each.
const KEPT: &str = "tests/data/seeds/kept";

/// Worlds that ran.
#[derive(Default)]
struct Sum {
    worlds: u64,
    simulated: Duration,
    counts: Counts,
    failed: Vec<Ran>,
}

impl Sum {
    fn add(&mut self, ran: Ran) {
        self.worlds += 1;
        self.simulated += ran.simulated;
        self.counts.add(&ran.counts);
        if !ran.wrong.is_empty() {
            self.failed.push(ran);
        }
    }

    fn join(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.simulated += other.simulated;
        self.counts.add(&other.counts);
        self.failed.extend(other.failed);
    }
}

/// Lets these worlds happen, on two threads.
fn simulate_all(seeds: &[u64], broken: Option<Mutant>) -> Sum {
    let ground = Arc::new(Ground::new());
    let sum = Mutex::new(Sum::default());
    thread::scope(|scope| {
        for first in 0..2 {
            let (ground, sum) = (&ground, &sum);
            scope.spawn(move || {
                let mut part = Sum::default();
                for seed in seeds.iter().skip(first).step_by(2) {
                    part.add(simulate(*seed, broken, ground, false));
                }
                sum.lock().unwrap().join(part);
            });
        }
    });
    let mut sum = sum.into_inner().unwrap();
    sum.failed.sort_by_key(|ran| ran.seed);
    sum
}

fn kept() -> Vec<u64> {
    let seeds = read(KEPT);
    let seeds = seeds.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    seeds.filter(|seed| !seed.is_empty()).map(|seed| seed.parse().expect("a seed is a number")).collect()
}

/// Which seeds `./dev simulate` asks for.
fn asked() -> Range<u64> {
    let number = |name| env::var(name).ok().map(|number: String| number.parse().expect("a number of seeds"));
    let from = number("MASQ_SIMULATE_FROM").unwrap_or(0);
    from..from + number("MASQ_SIMULATE_SEEDS").unwrap_or(SEEDS)
}

/// Goes past the test harness, which shows what a test prints only when it fails.
fn say(text: &str) {
    io::stderr().write_all(text.as_bytes()).unwrap();
}

/// Every fault with how often it happened and how often it was felt.
fn table(counts: &Counts) -> String {
    let line = |fault: &Fault| {
        let count = |counts: &BTreeMap<Fault, u64>| counts.get(fault).copied().unwrap_or(0);
        format!("  {:<14} {:>9} {:>9}\n", format!("{fault:?}"), count(&counts.fired), count(&counts.felt))
    };
    let lines: String = Fault::ALL.iter().map(line).collect();
    format!("  fault             fired      felt\n{lines}")
}

#[test]
fn every_world_settles_every_message_once() {
    let begin = Instant::now();
    if let Ok(seed) = env::var("MASQ_SIMULATE_SEED") {
        let ran = simulate(seed.parse().expect("a seed is a number"), None, &Arc::new(Ground::new()), true);
        say(&format!("{}{}", ran.trace, table(&ran.counts)));
        assert!(ran.wrong.is_empty(), "seed {}: {:#?}", ran.seed, ran.wrong);
        return;
    }
    let asked = asked();
    let mut seeds = kept();
    seeds.extend(asked.clone());
    let sum = simulate_all(&seeds, None);
    say(&format!(
        "simulation: {} seeds ({}..{} and those kept) in {:.1} s, {:.0} h of simulated time, {} failed\n\
         dead letters through no fault of their own: {:?}\n{}",
        sum.worlds,
        asked.start,
        asked.end,
        begin.elapsed().as_secs_f64(),
        sum.simulated.as_secs_f64() / 3600.0,
        sum.failed.len(),
        sum.counts.excused,
        table(&sum.counts)
    ));
    if let Some(first) = sum.failed.first() {
        keep(&sum.failed);
        let ran = simulate(first.seed, None, &Arc::new(Ground::new()), true);
        let failed: Vec<String> = sum.failed.iter().map(|ran| format!("seed {}: {:?}", ran.seed, ran.wrong)).collect();
        panic!("{}{}\nagain: ./dev simulate --seed {}", ran.trace, failed.join("\n"), first.seed);
    }
    if sum.worlds >= SEEDS {
        for fault in Fault::ALL {
            assert!(sum.counts.felt.get(fault).is_some_and(|felt| *felt > 0), "{fault:?} is never felt");
        }
    }
}

/// Writes seeds down that are not written down yet.
fn keep(failed: &[Ran]) {
    let known = kept();
    let mut file = OpenOptions::new().append(true).open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/seeds/kept"));
    for ran in failed.iter().filter(|ran| !known.contains(&ran.seed)).take(10) {
        writeln!(file.as_mut().unwrap(), "{}", ran.seed).unwrap();
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    let ground = Arc::new(Ground::new());
    let hashes = || (0..40).map(|seed| simulate(seed, None, &ground, false).hash).collect::<Vec<u64>>();
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(hashes);
        (hashes(), other.join().unwrap())
    });
    assert_eq!(one, other);
    let different: BTreeSet<u64> = one.iter().copied().collect();
    assert_eq!(different.len(), one.len(), "different seeds are different worlds");
}

#[test]
fn every_broken_variant_is_found() {
    // What is broken, and what comes of that.
    let variants = [
        (Mutant::NoLedger, "twice"),
        (Mutant::DeleteFirst, "lost"),
        (Mutant::LedgerFirst, "lost"),
        (Mutant::RowsFirst, "twice"),
        (Mutant::UnknownIsDone, "lost"),
        (Mutant::PrunedEarly, "twice"),
        (Mutant::SelectThenInsert, "twice"),
        (Mutant::NoDedupe, "twice"),
        (Mutant::AsynchronousCommit, "lost"),
    ];
    let ground = Arc::new(Ground::new());
    thread::scope(|scope| {
        for (mutant, violation) in variants {
            let ground = &ground;
            scope.spawn(move || {
                let finds = |seed: &u64| {
                    let wrong = simulate(*seed, Some(mutant), ground, false).wrong;
                    wrong.iter().any(|wrong| wrong.contains(violation))
                };
                let found = (0..LIMIT).find(finds);
                let seed = found.unwrap_or_else(|| panic!("{mutant:?} is not found in {LIMIT} seeds"));
                say(&format!("simulation: {mutant:?} is found by seed {seed}: something is {violation}\n"));
            });
        }
    });
}
