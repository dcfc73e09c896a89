//! The chaos campaign: real workers, a real PostgreSQL and the local queue as processes, hurt in every way that we can
//! name while messages flow; then a checker that shares no code with masq says whether each message counted once.
//!
//! `./dev chaos --help` says what can be asked for. Without arguments it is the short campaign of `./dev test`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test that fails says so by panicking, and a campaign that goes well says how"
)]

mod bodies;
mod campaign;
mod clock;
mod database;
mod effects;
mod faults;
mod mutants;
mod namespace;
mod nemesis;
mod producer;
mod programs;
mod proxy;
mod queue;
mod records;
mod report;
mod scene;
mod script;
mod stops;
mod verdict;
mod watch;
mod workers;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use masq::local::scratch::Scratch;
use tokio::signal::unix::{SignalKind, signal};

use crate::{campaign::Plans, faults::Fault, programs::Programs, report::Repeat, verdict::Verdict};

/// Hurt masq while it works, and check that every message counted once
#[derive(Parser)]
#[command(name = "./dev chaos", max_term_width = 100)]
struct Arguments {
    /// Send so many messages
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    messages: u64,
    /// Spread messages and faults over so many seconds
    #[arg(long, value_name = "N", default_value_t = 150)]
    seconds: u64,
    /// kill -9 a worker so often
    #[arg(long, value_name = "N", default_value_t = 60)]
    kills: u64,
    /// Crash PostgreSQL so often
    #[arg(long, value_name = "N", default_value_t = 4)]
    crashes: u64,
    /// Cut a connection at COMMIT so often, before and after by turns
    #[arg(long, value_name = "N", default_value_t = 20)]
    cuts: u64,
    /// Let each other fault happen so often
    #[arg(long, value_name = "N", default_value_t = 3)]
    others: u64,
    /// Choose messages, faults and their times [default: a new one each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Run this broken variant of masq; then the checker must find a violation
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Run a small campaign with each broken variant; in each the checker must find what is broken
    #[arg(long)]
    mutants: bool,
    /// Build the ordinary workers as they are released
    #[arg(long)]
    release: bool,
    /// Keep all evidence in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Which tests `cargo test` was asked for
    #[arg(hide = true)]
    filters: Vec<String>,
    /// As `cargo test` passes it on
    #[arg(long, hide = true)]
    nocapture: bool,
}

impl Arguments {
    fn faults(&self) -> BTreeMap<Fault, u64> {
        let often = |fault: &Fault| match fault {
            Fault::KillWorker => self.kills,
            Fault::CrashDatabase => self.crashes,
            Fault::CutBeforeCommit => self.cuts / 2,
            Fault::CutAfterCommit => self.cuts - self.cuts / 2,
            _ => self.others,
        };
        Fault::ALL.iter().map(|fault| (*fault, often(fault))).filter(|(_, count)| *count > 0).collect()
    }

    /// How the same is asked for again.
    fn again(&self, seed: u64) -> Repeat {
        let Self { messages, seconds, kills, crashes, cuts, others, .. } = self;
        let mut line = format!(
            "./dev chaos --messages {messages} --seconds {seconds} --kills {kills} --crashes {crashes} --cuts {cuts} \
             --others {others} --seed {seed}"
        );
        if self.release {
            line += " --release";
        }
        if let Some(mutant) = &self.mutant {
            line = format!("{line} --mutant {mutant}");
        }
        Repeat(line)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filters = &arguments.filters;
    if !filters.is_empty() && !filters.iter().any(|filter| "chaos".contains(filter.as_str())) {
        println!("chaos: not asked for");
        return ExitCode::SUCCESS;
    }
    let directory = namespace::directory();
    let scratch = directory.is_none().then(|| Scratch::new("masq-chaos-").expect("a directory can be made"));
    let directory = directory.or_else(|| Some(scratch.as_ref()?.path().to_owned())).expect("there is a directory");
    if let Some(ended) = namespace::enter(&directory) {
        return ended;
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let went_well = runtime.block_on(async {
        tokio::select! {
            went_well = go(&arguments, &directory) => went_well,
            // What runs ends with its handles.
            () = stopped() => false,
            () = namespace::left_alone() => false,
        }
    });
    if went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn go(arguments: &Arguments, directory: &Path) -> bool {
    let programs = Programs::build(arguments.release);
    if arguments.mutants {
        return mutants::are_found(&programs, arguments.seed.unwrap_or_else(new_seed), directory).await;
    }
    let plans = Plans {
        seed: arguments.seed.unwrap_or_else(new_seed),
        messages: arguments.messages,
        time: Duration::from_secs(arguments.seconds),
        faults: arguments.faults(),
        queue_faults: arguments.others,
        mutant: arguments.mutant.clone(),
        programs,
    };
    let repeat = arguments.again(plans.seed);
    eprintln!("{}", repeat.0);
    let directory = arguments.keep.as_deref().unwrap_or(directory);
    std::fs::create_dir_all(directory).expect("the directory can be made");
    let outcome = campaign::run(&plans, directory).await;
    report::begin(&repeat, &outcome, arguments.release).await;
    report::tell(&outcome);
    let verdict = Verdict::of(directory).await;
    print!("{}", verdict.printed);
    for complaint in &outcome.complaints {
        println!("chaos: {complaint}");
    }
    outcome.database.lock().await.stop().await;
    match &plans.mutant {
        // A mutant may also spoil the effects of faults; what counts is what the checker finds.
        Some(mutant) => mutants::is_found(mutant, &verdict),
        None => verdict.is_sound && outcome.complaints.is_empty(),
    }
}

/// Returns when somebody asks this program to end.
async fn stopped() {
    let listen = |kind| signal(kind).expect("signals can be listened for");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn new_seed() -> u64 {
    fastrand::u64(..1_000_000)
}
