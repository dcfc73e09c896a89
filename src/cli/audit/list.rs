//! `masq audit list`: what is on record, a line an entry; with `--json`, all that a proof needs.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use time::{
    Date, OffsetDateTime,
    format_description::well_known::{Iso8601, Rfc3339},
};

use super::session;
use crate::{
    cli::{
        context::Context,
        exit::Exit,
        report::{self, Failure},
        signals,
        sources::{DatabaseSource, Sources},
    },
    config,
    logging::Escaping,
    vault::audit::{
        export,
        leaf::Entry,
        read::{self, Which},
        verify::Seen,
    },
};

/// Bytes that are printed at a time. Fewer cost a call each, more would keep somebody waiting for the first.
const CHUNK: usize = 32 * 1024;

/// The longest age that can be asked for.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Every action that the schema writes down. What is asked for and what came of it have a word each.
const ACTIONS: [&str; 18] = [
    "reveal",
    "revealed",
    "approve",
    "find",
    "open",
    "opened",
    "resolve",
    "purge",
    "forget",
    "planned",
    "forgotten",
    "restore",
    "restored",
    "sweep",
    "retention",
    "rotate",
    "rotated",
    "epoch",
];

/// Show what is on record: who did what, and why; never a value
///
/// With --json each line is an entry with everything that its hash is made of: all of them, without a filter, are what
/// `masq audit verify --exported` takes.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq audit list --action reveal --since 30d
  masq audit list --json > audit.jsonl && masq audit verify --exported audit.jsonl")]
pub(super) struct Args {
    /// Show entries from this day, time or age on, as in 2026-05-06, 2026-05-06T07:08:09Z or 7d
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<i64>,
    /// Show entries of this action
    #[arg(long, value_name = "ACTION", value_parser = ACTIONS)]
    action: Option<String>,
    /// Show what this login did
    #[arg(long, value_name = "LOGIN")]
    login: Option<String>,
    /// Show the last N entries only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    #[command(flatten)]
    database: DatabaseSource,
    /// Print JSON, a line an entry
    #[arg(long)]
    json: bool,
}

/// Milliseconds since 1970-01-01 UTC.
fn since(text: &str) -> Result<i64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = config::parse_duration(text, Duration::ZERO, LONGEST).ok();
    let ago = ago.and_then(|ago| i64::try_from(now.saturating_sub(ago).as_millis()).ok());
    let moment = || OffsetDateTime::parse(text, &Rfc3339).ok();
    let day = || Date::parse(text, &Iso8601::DATE).ok().map(|day| day.midnight().assume_utc());
    let named = || moment().or_else(day).map(|moment| moment.unix_timestamp() * 1_000);
    ago.or_else(named).ok_or_else(|| "expected 2026-05-06, 2026-05-06T07:08:09Z, or an age such as 7d".to_owned())
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    signals::unless_stopped(list(args, context)).await
}

async fn list(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { database: args.database, ..Sources::default() }.config(context)?;
    let session = session(&config).await?;
    let limit = args.limit.map(i64::from);
    let which = Which { since: args.since, action: args.action, login: args.login, limit };
    let mut out = String::new();
    read::begin(&session).await?;
    read::entries(&session, &which, |seen| {
        let entry = match seen {
            Seen::Entry(entry) => entry,
            Seen::Unreadable(seq) => {
                context.say(format_args!("Entry {seq} cannot be read: `masq audit verify` says more."));
                return Ok(());
            }
        };
        if args.json {
            out.push_str(&export::write(&entry));
        } else {
            let _infallible = Escaping(&mut out).write_str(&line(&entry));
        }
        out.push('\n');
        if out.len() < CHUNK { Ok(()) } else { report::print(std::mem::take(&mut out)) }
    })
    .await?;
    read::end(&session).await?;
    session.close().await;
    report::print(out)?;
    Ok(Exit::Done)
}

/// Number, moment, who, what, of how many, why, and what came of it.
fn line(entry: &Entry) -> String {
    let Entry { seq, login, claimed, action, items, request, detail, .. } = entry;
    let mut line = format!("{seq:>6}  {}  {login} ({claimed})  {action}", export::moment(entry.at));
    if let Some(request) = request {
        line += &format!(" of {request}");
    }
    if !items.is_empty() {
        line += &format!("  {} item{}", items.len(), if items.len() == 1 { "" } else { "s" });
    }
    let why: Vec<&str> = [&entry.purpose, &entry.ticket].into_iter().flatten().map(String::as_str).collect();
    if !why.is_empty() {
        line += &format!("  {}", why.join(" "));
    }
    if let Some(reason) = &entry.reason {
        line += &format!("  \"{reason}\"");
    }
    if detail != "{}" {
        line += &format!("  {}", shortened(detail));
    }
    line
}

/// An outcome may list what was deleted of thousands of epochs.
fn shortened(detail: &str) -> String {
    const LONGEST: usize = 160;
    match detail.char_indices().nth(LONGEST) {
        None => detail.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &detail[..end], detail.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_what_and_why() {
        let mut entry = Entry {
            seq: 7,
            at: 845_000_000_123_456,
            action: "reveal".into(),
            login: "jane".into(),
            claimed: "jdoe".into(),
            purpose: Some("SAR".into()),
            ticket: Some("T-17".into()),
            reason: Some("she asked".into()),
            items: vec![Some(vec![1]), Some(vec![2])],
            request: None,
            detail: "{}".into(),
            prev: [0; 32],
            hash: [0; 32],
        };
        let line_7 = "     7  2026-10-11T02:13:20.123456Z  jane (jdoe)  reveal  2 items  SAR T-17  \"she asked\"";
        assert_eq!(line(&entry), line_7);
        entry.items.pop();
        assert!(line(&entry).contains("  reveal  1 item  SAR"), "{}", line(&entry));
        (entry.action, entry.request, entry.purpose, entry.ticket) = ("revealed".into(), Some(7), None, None);
        (entry.reason, entry.items, entry.detail) = (None, Vec::new(), "{\"shown\": 2}".into());
        assert!(line(&entry).ends_with("  jane (jdoe)  revealed of 7  {\"shown\": 2}"), "{}", line(&entry));
        entry.detail = "ä".repeat(1_000);
        assert!(line(&entry).ends_with("ä… (2000 bytes)"));
    }

    #[test]
    fn every_action_that_is_written_down_can_be_asked_for() {
        let scripts = ["0005_audit", "0006_forget", "0007_forgotten", "0009_retention", "0010_rotate", "0011_rekey"];
        let mut written: Vec<String> = Vec::new();
        for script in scripts.iter().map(|name| format!("{}/migrations/{name}.sql", env!("CARGO_MANIFEST_DIR"))) {
            let text = std::fs::read_to_string(script).unwrap();
            let entries = text.split("masq.append(").skip(1).filter_map(|entry| entry.split_once(','));
            written.extend(entries.flat_map(|(action, _)| action.split('\'').skip(1).step_by(2).map(str::to_owned)));
        }
        assert!(written.contains(&"restore".to_owned()) && written.len() > 15, "{written:?}");
        for action in written {
            assert!(ACTIONS.contains(&action.as_str()), "{action}");
        }
    }

    #[test]
    fn a_moment_is_a_day_a_time_or_an_age() {
        assert_eq!(since("1970-01-02"), Ok(86_400_000));
        assert_eq!(since("1970-01-01T01:00:01+01:00"), Ok(1_000));
        let (day, now) = (since("1d").unwrap(), since("0s").unwrap());
        assert!((86_399_000..86_401_000).contains(&(now - day)));
        for slip in ["", "yesterday", "2026-02-30", "7"] {
            assert!(since(slip).is_err(), "{slip}");
        }
    }
}
