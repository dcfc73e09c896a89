//! `masq bench`: how close the pipeline comes to what the queue and the database allow on this machine.
//!
//! Each arm is a process of its own, beside the local queue and a private PostgreSQL in processes of theirs, so that
//! everyone's CPU time is known. Rounds in which the arms take turns, each time in another order, make ratios that do
//! not depend on what else the machine does. A run that leaves behind what it should not scores nothing.

mod arm;
mod copies;
mod cpu;
mod gates;
mod latency;
mod machine;
mod measure;
mod plan;
mod process;
mod redelivered;
mod results;
mod table;
mod verify;
mod world;

use std::path::PathBuf;

use self::{
    machine::{BUILD, Machine},
    measure::Bench,
    plan::{Arm, Size},
    results::Results,
    table::Report,
    world::World,
};
use super::{
    context::Context,
    environment::lookup,
    exit::Exit,
    progress::Progress,
    report::{self, Failure},
    signals,
};

/// Measure on this machine how close the pipeline comes to what queue and database allow
///
/// Nothing needs to be configured or running; it takes about two minutes. The exit code is 3 if a goal is not reached
/// and 70 if a run of masq's left behind what it should not.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  masq bench
  masq bench --with-python --json >figures.json
  masq bench --vault --redelivered 50 --ledger-rows 10000000 --latency"
)]
pub(super) struct Args {
    #[command(subcommand)]
    arm: Option<arm::Arm>,
    /// Take so many messages in each run
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(100..=20_000_000))]
    messages: u64,
    /// Measure so many rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Compare with two programs in Python: the original's loop, and a tuned one; they need boto3 and psycopg
    #[arg(long)]
    with_python: bool,
    /// Run them with this interpreter [default: that of $VIRTUAL_ENV, of .venv, or python3 on PATH]
    #[arg(long, value_name = "FILE", requires = "with_python")]
    python: Option<PathBuf>,
    /// Measure the pipeline with the vault on, too
    #[arg(long)]
    vault: bool,
    /// Measure it with so many percent of the messages being rows already, too
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    redelivered: Option<u8>,
    /// Measure loading with so many keys in the ledger, too
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    ledger_rows: Option<u64>,
    /// Measure how long a message that comes alone takes to its row, too
    #[arg(long)]
    latency: bool,
    /// Find PostgreSQL's programs initdb and postgres here [default: on PATH and in the usual places]
    #[arg(long, value_name = "DIR")]
    postgres_bin: Option<PathBuf>,
}

impl Args {
    fn arms(&self) -> Vec<Arm> {
        let mut arms = vec![Arm::Drain, Arm::Load, Arm::Transform, Arm::Pipeline, Arm::Tenth];
        let more = [
            (self.ledger_rows.is_some(), &[Arm::FullLedger][..]),
            (self.vault, &[Arm::Vault]),
            (self.redelivered.is_some(), &[Arm::Redelivered]),
            (self.latency, &[Arm::Latency]),
            (self.with_python, &[Arm::Original, Arm::Tuned]),
        ];
        arms.extend(more.into_iter().filter(|(wanted, _)| *wanted).flat_map(|(_, arms)| arms));
        arms
    }

    fn size(&self) -> Size {
        Size {
            messages: usize::try_from(self.messages).unwrap_or(usize::MAX),
            redelivered: self.redelivered.unwrap_or(0),
            ledger_rows: self.ledger_rows.unwrap_or(0),
        }
    }
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    if let Some(arm) = args.arm {
        return arm::run(arm, context).await;
    }
    if cfg!(not(target_os = "linux")) {
        return Err(Failure::new(Exit::Absent, "CPU time of other processes is read from Linux's /proc"));
    }
    signals::unless_stopped(Box::pin(measure(&args, context))).await
}

async fn measure(args: &Args, context: &Context) -> Result<Exit, Failure> {
    if BUILD == "debug" {
        context.say("This is a debug build: its figures mean nothing. cargo run --release -- bench");
    }
    let (size, arms) = (args.size(), args.arms());
    let python = if args.with_python { Some(python(args.python.clone())?) } else { None };
    let world = World::start(args.postgres_bin.clone()).await?;
    if size.ledger_rows > 0 {
        context.say(format_args!("Filling a ledger with {} keys …", size.ledger_rows));
        world.fill_ledger(size.ledger_rows).await?;
    }
    let observer = world.session("postgres").await?;
    let machine = Machine::read(&observer).await?;
    let names: Vec<&str> = arms.iter().map(|arm| arm.name()).collect();
    context.say(format_args!("Rounds: {}; arms in each: {}", args.rounds, names.join("; ")));
    let rounds = usize::try_from(args.rounds).unwrap_or(usize::MAX);
    let bench = Bench { world: &world, observer: &observer, size, python };
    let results = all_rounds(&bench, &arms, rounds, context).await;
    observer.close().await;
    world.stop().await;
    let gates = gates::gates(&results, &arms);
    let report = Report { machine: &machine, size, rounds, results: &results, gates: &gates };
    if args.json {
        report::print_json(&report.json())?;
    } else {
        report::print(report.text())?;
    }
    Ok(match () {
        () if results.wrong.iter().any(|wrong| wrong.arm.is_ours()) => Exit::Bug,
        () if gates.iter().all(gates::Gate::holds) => Exit::Done,
        () => Exit::Rejects,
    })
}

/// Every arm once a round, each round beginning with another one.
async fn all_rounds(bench: &Bench<'_>, arms: &[Arm], rounds: usize, context: &Context) -> Results {
    let mut results = Results::default();
    let mut progress = Progress::new(context, "measuring", Some((arms.len() * rounds) as u64));
    for round in 0..rounds {
        let turn = round % arms.len();
        for &arm in arms[turn..].iter().chain(&arms[..turn]) {
            let outcome = Box::pin(bench.run(arm)).await;
            if let Err(why) = &outcome {
                context.say(format_args!("wrong: {} in round {}: {why}", arm.name(), round + 1));
            }
            results.add(arm, round, outcome);
            progress.add(1);
        }
    }
    progress.finish();
    results
}

/// The interpreter, which must have what the programs need.
fn python(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let in_venv = lookup("VIRTUAL_ENV").map_or_else(|| PathBuf::from(".venv"), PathBuf::from).join("bin/python");
    let python = named.unwrap_or_else(|| if in_venv.exists() { in_venv } else { "python3".into() });
    // It is run elsewhere, and a link in a virtual environment must stay a link.
    let python = if python.components().count() > 1 { std::path::absolute(&python).unwrap_or(python) } else { python };
    let shown = python.display().to_string();
    let output = std::process::Command::new(&python).args(["-c", "import boto3, psycopg"]).output();
    let output = output.map_err(|error| {
        let failure = Failure::new(Exit::Absent, format!("cannot run {shown}")).because(&error);
        failure.hint("name a Python 3 with --python")
    })?;
    if output.status.success() {
        return Ok(python);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or_default().to_owned();
    let failure = Failure::new(Exit::Absent, format!("{shown} lacks what the programs in Python need: {said}"));
    Err(failure.hint(format!("{shown} -m pip install boto3 'psycopg[binary]'; `./dev bench` does it in .venv")))
}
