//! Who tests the tester: a small campaign with workers of each broken variant, in which the checker has to find the very
//! violation that the mistake leads to. One that it does not find means that the campaign could pass while a message is
//! lost.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    campaign::{self, Plans},
    faults::Fault,
    programs::Programs,
    verdict::{self, Verdict},
};

/// A broken variant, the faults that bring its mistake to light, and the violations of which one must be found.
struct Trial {
    mutant: &'static str,
    faults: &'static [(Fault, u64)],
    expected: &'static [&'static str],
}

const fn trial(mutant: &'static str, faults: &'static [(Fault, u64)], expected: &'static [&'static str]) -> Trial {
    Trial { mutant, faults, expected }
}

const TRIALS: [Trial; 9] = [
    trial("no-ledger", &[(Fault::CutAfterCommit, 6)], &["row_twice"]),
    trial("delete-first", &[(Fault::CutBeforeCommit, 6)], &["deleted_before_commit", "deleted_without_outcome"]),
    trial("ledger-first", &[(Fault::KillWorker, 12), (Fault::CutAfterCommit, 6)], &["row_missing", "letter_missing"]),
    trial("rows-first", &[(Fault::KillWorker, 6), (Fault::CutAfterCommit, 6)], &["row_twice"]),
    trial("unknown-is-done", &[(Fault::CutBeforeCommit, 6)], &["lost"]),
    trial("pruned-early", &[(Fault::KillWorker, 6)], &["row_twice"]),
    trial("select-then-insert", &[(Fault::Delay, 12)], &["row_twice"]),
    trial("no-dedupe", &[], &["event_twice"]),
    trial("asynchronous-commit", &[(Fault::CrashDatabase, 4)], &["lost"]),
];

const MESSAGES: u64 = 4_000;
const TIME: Duration = Duration::from_secs(12);

/// Whether the checker has found a violation to which this mutant's mistake leads; of one that has no trial, any.
pub(crate) fn is_found(mutant: &str, verdict: &Verdict) -> bool {
    let trial = TRIALS.iter().find(|trial| trial.mutant == mutant);
    trial.map_or(!verdict.is_sound, |trial| trial.expected.iter().any(|kind| verdict.kinds().contains(kind)))
}

/// Whether all of them are found.
pub(crate) async fn are_found(programs: &Programs, seed: u64, directory: &Path) -> bool {
    let mut all = sound_is_sound(programs, seed, &directory.join("none")).await;
    for Trial { mutant, faults, .. } in TRIALS {
        let start = Instant::now();
        let plans = plans(programs, seed, faults, Some(mutant));
        let directory = directory.join(mutant);
        fs::create_dir(&directory).expect("a directory can be made");
        let outcome = campaign::run(&plans, &directory).await;
        let verdict = Verdict::of(&directory).await;
        outcome.database.lock().await.stop().await;
        let found = is_found(mutant, &verdict);
        all &= found;
        let (was, kinds) = (if found { "found" } else { "NOT FOUND" }, verdict.kinds());
        println!("{mutant}: {was} by {kinds:?}, seed {seed}, {:.0?}", start.elapsed());
    }
    all
}

/// Whether nothing is found where nothing is broken; and then, whether that evidence, spoilt, is found to be.
async fn sound_is_sound(programs: &Programs, seed: u64, directory: &Path) -> bool {
    let start = Instant::now();
    fs::create_dir(directory).expect("a directory can be made");
    let faults = [(Fault::KillWorker, 6), (Fault::CutBeforeCommit, 3), (Fault::CutAfterCommit, 3)];
    let outcome = campaign::run(&plans(programs, seed, &faults, None), directory).await;
    let verdict = Verdict::of(directory).await;
    let (spoilt, said) = verdict::spoilt_is_found(directory).await;
    outcome.database.lock().await.stop().await;
    let was = if verdict.is_sound { "found sound" } else { "NOT FOUND SOUND" };
    println!("no mutant: {was} {:?}, {}, seed {seed}, {:.0?}", verdict.kinds(), said.trim(), start.elapsed());
    verdict.is_sound && spoilt
}

fn plans(programs: &Programs, seed: u64, faults: &[(Fault, u64)], mutant: Option<&str>) -> Plans {
    Plans {
        seed,
        messages: MESSAGES,
        time: TIME,
        faults: BTreeMap::from_iter(faults.iter().copied()),
        queue_faults: 0,
        mutant: mutant.map(str::to_owned),
        programs: programs.clone(),
    }
}
