//! `masq reconcile`: do ledger, dead letters and rows of a live system add up. Reads one snapshot and changes nothing,
//! unless it is told to record a baseline.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, interval};

use super::{
    connect,
    context::Context,
    environment::lookup,
    exit::Exit,
    progress::Progress,
    report::{self, Failure},
    signals,
    sources::{DatabaseSource, Sources},
};
use crate::{
    db::{account, counts},
    reconcile::{self, Check, Verdict},
    start,
    vault::dead,
};

/// How long a database is waited for. Somebody sits in front of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(250);

/// Check that ledger, dead letters and rows add up, while workers go on
///
/// Everything is counted in one snapshot. Rows are compared by their number with a baseline that was recorded before;
/// where masq created the table itself, that is zero. Once a day is often enough with the default retention: each time
/// compares with the day before, and records the next baseline.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq reconcile
  masq reconcile --baseline    compare with the last baseline, then record a new one; for cron, daily")]
pub(super) struct Args {
    /// Record what is there now as the baseline that later times are compared with
    #[arg(long)]
    baseline: bool,
    /// Leave the number of rows alone: others than masq write to the table or delete from it
    #[arg(long)]
    other_writers: bool,
    /// Exit with 3 if something cannot be checked
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    database: DatabaseSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    signals::unless_stopped(reconcile(args, context)).await
}

async fn reconcile(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { database: args.database, ..Sources::default() }.config(context)?;
    let session = start::connect(&connect::connector(&config)?, Instant::now() + PATIENCE).await?;
    if !dead::are_kept(&session).await? {
        return Err(Failure::new(Exit::Config, "this database has no schema masq, and so nothing to reconcile")
            .hint("name the one that `masq run` writes to"));
    }
    let me = account::me(&lookup).unwrap_or_else(|| "unknown".to_owned());
    let seen = AtomicU64::new(0);
    let mut progress = Progress::new(context, "reading the ledger", None);
    let mut looks = interval(LOOK);
    let counts = {
        let mut counting = std::pin::pin!(counts::count(&session, &seen, args.baseline.then_some(me.as_str())));
        loop {
            tokio::select! {
                counted = &mut counting => break counted,
                _ = looks.tick() => progress.set(seen.load(Ordering::Relaxed)),
            }
        }
    };
    progress.finish();
    let checks = reconcile::judge(&counts?, args.other_writers);
    session.close().await;
    if args.json {
        report::print_json(&checks.iter().map(as_json).collect())?;
    } else {
        report::print(as_text(&checks))?;
    }
    if args.baseline {
        context.say("The baseline is recorded.");
    }
    let worst = |verdict| checks.iter().any(|check| check.verdict == verdict);
    Ok(match () {
        () if worst(Verdict::Broken) => Exit::Bug,
        () if args.strict && worst(Verdict::NotCheckable) => Exit::Rejects,
        () => Exit::Done,
    })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "ok",
        Verdict::Note => "note",
        Verdict::NotCheckable => "not checkable",
        Verdict::Broken => "BROKEN",
    }
}

/// A line a check, and its remedy below.
fn as_text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, verdict, found, remedy } in checks {
        text += format!("{:<13}  {name:<width$}  {found}", word(*verdict)).trim_end();
        text.push('\n');
        if !remedy.is_empty() {
            text += &format!("{:<13}  {remedy}\n", "");
        }
    }
    text
}

fn as_json(check: &Check) -> serde_json::Value {
    let Check { name, verdict, found, remedy } = check;
    let result = match verdict {
        Verdict::Holds => "ok",
        Verdict::Note => "note",
        Verdict::NotCheckable => "not_checkable",
        Verdict::Broken => "broken",
    };
    json!({"check": name, "result": result, "found": found, "remedy": remedy})
}
