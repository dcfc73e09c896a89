//! A measured series: what a message costs when there are more of them, and when more worker processes share one queue.
//! `./dev series`; docs/scaling.md says what to make of its figures.
//!
//! Each run has a queue, a database and worker processes of its own, checks that every message became one row, and counts
//! for nothing otherwise. It is no comparison with anything else: that is `masq bench`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench is run for what it prints")]

mod place;
mod process;
mod run;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    place::Place,
    run::{Figures, Run},
};

/// Measure what a message costs with more messages and with more worker processes
#[derive(Parser)]
#[command(name = "./dev series", max_term_width = 100)]
struct Arguments {
    /// Settle so many messages with one process
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "10000,100000,1000000,5000000")]
    messages: Vec<u64>,
    /// And with so many processes on one queue …
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4")]
    processes: Vec<usize>,
    /// … so many messages
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    shared: u64,
    /// Seal the originals, too
    #[arg(long)]
    vault: bool,
    /// Have the queue answer so many milliseconds late, as one does that is not on this machine
    #[arg(long, value_name = "MS", default_value_t = 0)]
    round_trip: u32,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    /// First with ever more messages, then with ever more processes.
    fn runs(&self) -> Vec<Run> {
        let run = |messages, processes| Run { messages, processes, vault: self.vault, round_trip: self.round_trip };
        let growing = self.messages.iter().map(|&messages| run(messages, 1));
        let shared = self.processes.iter().map(|&processes| run(self.shared, processes));
        growing.chain(shared).collect()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Dropped in the middle, it takes everything that it has started with it.
    let measured = tokio::select! {
        measured = series(&arguments) => measured,
        () = stopped() => Err("stopped before the end".to_owned()),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::FAILURE
        }
    }
}

/// Until Ctrl-C or SIGTERM.
async fn stopped() {
    let Ok(mut term) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}

async fn series(arguments: &Arguments) -> Result<(), String> {
    let place = Place::new().await?;
    println!("{}", Figures::HEAD);
    for run in arguments.runs() {
        let figures = run.measure(&place).await.map_err(|wrong| format!("{run}: {wrong}"))?;
        println!("{figures}");
    }
    place.server.stop().await;
    Ok(())
}
