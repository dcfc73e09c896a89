//! The campaign's report, in Markdown on stdout: what was done on which machine, what was felt, and how long things took.
//! What the checker says follows it. Progress goes to stderr.

use std::{
    fs,
    process::Command,
    time::{Duration, SystemTime},
};

use crate::campaign::Outcome;

/// What to type to have the same again.
pub(crate) struct Repeat(pub(crate) String);

/// The first part: what was done, and where. Its facts about the server come from the server.
pub(crate) async fn begin(repeat: &Repeat, outcome: &Outcome, release: bool) {
    let day = time::OffsetDateTime::from(SystemTime::now()).date();
    let builds = if release { "release, and dev as the other version" } else { "dev, and dev as the other version" };
    let database = outcome.database.lock().await;
    let durable = "SELECT concat(version(), ', fsync ', current_setting('fsync'), ', synchronous_commit ', \
         current_setting('synchronous_commit'))";
    let said = database.session().await.texts("asking for the version", durable).await.unwrap_or_default();
    let said: Vec<_> = said.into_iter().flatten().flatten().collect();
    println!("# A chaos campaign\n");
    println!("    {}\n", repeat.0);
    println!("| | |\n|---|---|");
    for (what, value) in [
        ("day", day.to_string()),
        ("commit", commit()),
        ("builds", builds.to_owned()),
        ("machine", machine()),
        ("PostgreSQL", said.join(", ")),
        ("duration", format!("{:.0?}, without building and checking", outcome.took)),
    ] {
        println!("| {what} | {value} |");
    }
}

/// The second part: what was done and felt, and what it took.
pub(crate) fn tell(outcome: &Outcome) {
    println!("\n## Faults\n\n{}", outcome.faults);
    let sqlstates: Vec<_> = outcome.sqlstates.iter().map(|(code, count)| format!("{code} × {count}")).collect();
    println!("What PostgreSQL said to the workers: {}.\n", sqlstates.join(", "));
    println!("## Times\n\n| | how many | median | p99 | longest |\n|---|---|---|---|---|");
    let mut recoveries = outcome.recoveries.clone();
    recoveries.sort();
    for (what, times) in [
        ("first commit after PostgreSQL accepts connections again", &recoveries),
        ("graceful stop", &outcome.stops.times),
    ] {
        let at = |share| percentile(times, share).map_or_else(|| "–".to_owned(), |time| format!("{time:.2?}"));
        println!("| {what} | {} | {} | {} | {} |", times.len(), at(0.5), at(0.99), at(1.0));
    }
    println!("\n| messages that a worker held when it was told to stop | |\n|---|---|");
    println!("| given back, and so delivered again soon | {} |", outcome.stops.given_back);
    println!(
        "| delivered again, after a fault of the queue touched their worker within 10 s before the stop | {} |",
        outcome.stops.touched
    );
    println!("| delivered again because of the stop alone | {} |\n", outcome.stops.caused);
    println!("## What the checker found\n");
}

/// The time that this share of the sorted times does not exceed.
fn percentile(times: &[Duration], share: f64) -> Option<Duration> {
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied()
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "not known".to_owned());
    if changed { format!("{commit}, with changes") } else { commit }
}

fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").and_then(|total| total.split(' ').next()?.parse::<u64>().ok());
    let memory = memory.map_or_else(String::new, |kib| format!(", {} GiB", kib >> 20));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cpu}, {cores} cores{memory}, {} {}", std::env::consts::OS, kernel.trim())
}
