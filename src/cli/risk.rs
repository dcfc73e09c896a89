//! `masq risk`: attacks the table as an outsider would who has it and no key, and says what that comes to. It reads and
//! changes nothing; a login that may SELECT from the table is enough. No value is printed, reversed or not.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use super::{
    connect,
    context::Context,
    exit::Exit,
    progress::Progress,
    report::{self, Failure},
    signals,
    sources::{DatabaseSource, Sources},
};
use crate::{
    config::Mask,
    risk::{
        self, Finding, Report,
        attack::{Effort, Outcome, Targets, attack},
        space::Space,
        table::{self, Sample},
        words::{conclusions, percent, time},
    },
    start,
};

/// How long a database is waited for. Somebody sits in front of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(250);

/// Attack your own table as an outsider would who has it and no key
///
/// Tries unkeyed MD5, SHA-1 and SHA-256 of all IPv4 addresses, short ids, small numbers and phone numbers against every
/// column that looks like hashes; counts how often the most frequent values stand there; groups rows by what is not
/// masked; and lists what is left of the identifiers of HIPAA's Safe Harbor. Ends with 3 if anything was reversed.
///
/// The table is only read, with a login that may do no more than SELECT from it. No value is printed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq risk
  masq risk --seconds 600 --rows 5000000")]
pub(super) struct Args {
    /// Attack for so many seconds at most
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    seconds: u64,
    /// Read so many rows at most; of a larger table a sample of its pages
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rows: u64,
    #[command(flatten)]
    database: DatabaseSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    signals::unless_stopped(risk(args, context)).await
}

async fn risk(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { database: args.database, ..Sources::default() }.config(context)?;
    let session = start::connect(&connect::connector(&config)?, Instant::now() + PATIENCE).await?;
    let seen = AtomicU64::new(0);
    let reading = table::read(&session, &config, args.rows, &seen);
    let sample = watched(Progress::new(context, "reading rows", None), &seen, reading).await?;
    session.close().await;
    let report = attacked(sample, Duration::from_secs(args.seconds), context).await?;
    if args.json {
        report::print_json(&as_json(&report))?;
    } else {
        report::print(as_text(&report))?;
    }
    Ok(if report.attack.has_reversed() { Exit::Rejects } else { Exit::Done })
}

/// Shows how far the work is while it goes on.
async fn watched<T>(mut progress: Progress, done: &AtomicU64, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            outcome = &mut work => {
                progress.finish();
                return outcome;
            }
            _ = looks.tick() => progress.set(done.load(Ordering::Relaxed)),
        }
    }
}

/// Ends an attack whose command has been stopped.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Attacks what was read, on all processors.
async fn attacked(sample: Sample, time: Duration, context: &Context) -> Result<Report, Failure> {
    let (targets, columns) = (risk::targets(&sample), sample.columns.len());
    let (tried, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let _ended = Ended(Arc::clone(&stop));
    let counted = Arc::clone(&tried);
    let attacking = tokio::task::spawn_blocking(move || on_all_processors(&targets, columns, time, (&counted, &stop)));
    let outcome = watched(Progress::new(context, "trying values", None), &tried, attacking).await;
    let outcome = outcome.map_err(|_| Failure::new(Exit::Bug, "this is a bug in masq; the attack ended early"))?;
    Ok(risk::assess(sample, outcome))
}

fn on_all_processors(
    targets: &Targets,
    columns: usize,
    time: Duration,
    (tried, stop): (&AtomicU64, &AtomicBool),
) -> Outcome {
    let threads = available_parallelism().map_or(1, usize::from);
    attack(targets, columns, &Space::all(), &Effort { time, threads, tried, stop })
}

fn mask(column: &Finding) -> &'static str {
    match (&column.mask, column.attacked) {
        (Some(Mask::Hmac { .. }), _) => "hmac",
        (Some(Mask::Sha256), _) => "sha256",
        (Some(Mask::Prefix), _) => "prefix",
        (Some(Mask::Redact), _) => "redact",
        (None, Some(_)) => "a hash",
        (None, None) => "none",
    }
}

fn as_text(report: &Report) -> String {
    let mut text = format!("{}: {} rows", report.table, grouped(report.rows));
    text += &match (report.is_whole, report.estimate) {
        (true, _) => ", all there are\n".to_owned(),
        (false, Some(rows)) if rows > report.rows => format!(" of some {}\n", grouped(rows)),
        (false, _) => " of more\n".to_owned(),
    };
    if !report.hidden.is_empty() {
        text += &format!("This login may not read {}.\n", report.hidden.join(", "));
    }
    text += &columns(report);
    text += &passes(&report.attack);
    text += "\nWhat follows\n";
    for sentence in conclusions(report) {
        text += &format!("* {sentence}\n");
    }
    text
}

/// A line a column.
fn columns(report: &Report) -> String {
    let width = report.columns.iter().map(|column| column.name.len()).max().unwrap_or(0).max(6);
    let mut text = format!(
        "\n{:width$}  {:7}  {:>12}  {:>15}  {:>15}  reversed\n",
        "column", "mask", "different", "most frequent", "ten most"
    );
    for column in &report.columns {
        let Finding { name, distinct, top, top_ten, .. } = column;
        let (distinct, top, top_ten) = (grouped(*distinct), percent(*top), percent(*top_ten));
        let mask = mask(column);
        let reversed = column.attacked.map(|attacked| format!("{} of {}", grouped(column.reversed), grouped(attacked)));
        let line = format!(
            "{name:width$}  {mask:7}  {distinct:>12}  {top:>15}  {top_ten:>15}  {}",
            reversed.unwrap_or_default()
        );
        text += line.trim_end();
        text.push('\n');
    }
    for column in &report.columns {
        let Some((identifier, by_values)) = column.identifier else { continue };
        let by = if by_values { "by its values" } else { "by its name" };
        let _infallible = writeln!(text, "{}: {by}, ({}) {}", column.name, identifier.letter, identifier.what);
    }
    text
}

/// A line for what each function came to over each space, with the measured rate.
fn passes(attack: &Outcome) -> String {
    let tried = attack.passes.iter().filter(|pass| pass.tried > 0);
    let mut text = String::from(if attack.tried() > 0 { "\n" } else { "" });
    for pass in tried {
        let (space, done) = (&pass.space, pass.tried as f64 / pass.space.size() as f64);
        let _infallible = writeln!(
            text,
            "{:7} of {:36}  {:>15} tried at {:>6.1} million/s, all in {}; {} reversed",
            pass.function.name(),
            space.name,
            percent(done),
            pass.rate() / 1e6,
            time(pass.seconds()),
            grouped(pass.reversed.iter().sum()),
        );
    }
    text
}

/// A number with its digits in threes.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn as_json(report: &Report) -> Value {
    let columns = report.columns.iter().map(|column| {
        json!({
            "column": column.name,
            "mask": mask(column),
            "values": column.values,
            "distinct": column.distinct,
            "most_frequent": column.top,
            "ten_most_frequent": column.top_ten,
            "attacked": column.attacked,
            "reversed": column.reversed,
            "seconds_here": column.seconds.map(|seconds| seconds.here),
            "seconds_graphics_card": column.seconds.map(|seconds| seconds.graphics_card),
            "hipaa": column.identifier.map(|(found, by_values)| {
                json!({"letter": found.letter, "what": found.what, "by": if by_values { "values" } else { "name" }})
            }),
        })
    });
    let passes = report.attack.passes.iter().map(|pass| {
        json!({
            "function": pass.function.name(),
            "space": pass.space.name,
            "size": pass.space.size(),
            "tried": pass.tried,
            "per_second": pass.rate(),
            "reversed": pass.reversed.iter().sum::<u64>(),
        })
    });
    json!({
        "table": report.table,
        "rows": report.rows,
        "estimated_rows": report.estimate,
        "all_rows": report.is_whole,
        "unreadable_columns": report.hidden,
        "columns": columns.collect::<Vec<_>>(),
        "attack": passes.collect::<Vec<_>>(),
        "groups": {
            "by": report.grouped_by,
            "count": report.groups.count,
            "smallest": report.groups.smallest,
            "rows_in_groups_below_5": report.groups.rows_in_small,
        },
        "conclusions": conclusions(report),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_threes() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
