//! `masq dead list`: how many dead letters there are and why; with a reason, which. Never what is in them.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{connect, moment};
use crate::{
    cli::{
        context::Context,
        exit::Exit,
        report::{self, Failure},
        sources::DatabaseSource,
    },
    event::Reason,
    logging::Escaping,
    vault::dead::{self, Count, Letter, Which},
};

/// Count dead letters by reason, or list those of one reason
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq dead list
  masq dead list --code bad_ip
  masq dead list --all --limit 1000 --json")]
pub(super) struct Args {
    /// List the letters of the reason with this code, with its field or without, as in bad_ip:ip or bad_ip
    #[arg(long, value_name = "CODE", value_parser = code, conflicts_with = "all")]
    code: Option<String>,
    /// List the letters of all reasons
    #[arg(long)]
    all: bool,
    /// Count or list letters that were replayed into rows, instead of those that are dead still
    #[arg(long)]
    resolved: bool,
    /// List at most so many letters, the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    database: DatabaseSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A slip of the hand would list nothing, which looks like good news.
pub(super) fn code(text: &str) -> Result<String, String> {
    let kind = text.split(':').next().unwrap_or_default();
    if Reason::KINDS.contains(&kind) {
        return Ok(text.to_owned());
    }
    Err(format!("expected one of {}, with its field or without", Reason::KINDS.join(", ")))
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let session = connect(args.database, context).await?;
    let (text, json): (String, Vec<Value>) = if args.all || args.code.is_some() {
        let limit = args.limit as usize;
        // One more than is shown tells whether there are more.
        let which = args.code.as_deref().map_or(Which::All, Which::Reason);
        let mut letters = dead::list(&session, which, args.resolved, i64::from(args.limit) + 1).await?;
        if letters.len() > limit {
            letters.truncate(limit);
            context.say(format_args!("There are older ones; --limit lists more than {limit}."));
        }
        (letters_as_text(&letters), letters.iter().map(letter_as_json).collect())
    } else {
        let counts = dead::count(&session, args.resolved).await?;
        (counts_as_text(&counts), counts.iter().map(count_as_json).collect())
    };
    session.close().await;
    if args.json {
        report::print_json(&json.into())?;
    } else if json.is_empty() {
        context.say("No dead letters.");
    } else {
        report::print(text)?;
    }
    Ok(Exit::Done)
}

fn counts_as_text(counts: &[Count]) -> String {
    let row =
        |count: &Count| [moment(count.newest), moment(count.oldest), count.letters.to_string(), count.reason.clone()];
    table(["newest", "oldest", "letters", "reason"], counts.iter().map(row).collect())
}

fn letters_as_text(letters: &[Letter]) -> String {
    let row = |letter: &Letter| {
        [
            letter.key.id.to_string(),
            moment(letter.key.sent_at),
            letter.reason.clone(),
            letter.queue.clone(),
            letter.receive_count.to_string(),
            letter.body_bytes.to_string(),
            moment(letter.recorded_at),
        ]
    };
    let heads = ["message id", "sent at", "reason", "queue", "received", "bytes", "recorded at"];
    table(heads, letters.iter().map(row).collect())
}

fn count_as_json(count: &Count) -> Value {
    json!({
        "reason": count.reason,
        "letters": count.letters,
        "oldest": moment(count.oldest),
        "newest": moment(count.newest),
    })
}

/// What can be known of a letter without opening it.
pub(super) fn letter_as_json(letter: &Letter) -> Value {
    json!({
        "message_id": letter.key.id.to_string(),
        "sent_at": moment(letter.key.sent_at),
        "reason": letter.reason,
        "queue": letter.queue,
        "receive_count": letter.receive_count,
        "body_bytes": letter.body_bytes,
        "recorded_at": moment(letter.recorded_at),
        "resolved_at": letter.resolved_at.map(moment),
    })
}

/// Cells below their heads, two spaces between columns. Nothing in a cell moves the cursor.
fn table<const N: usize>(heads: [&str; N], rows: Vec<[String; N]>) -> String {
    let lines: Vec<[String; N]> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _infallible = Escaping(&mut text).write_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_heads() {
        let count =
            |reason: &str, letters| Count { reason: reason.into(), letters, oldest: 0, newest: 1_683_356_889_120 };
        let text = counts_as_text(&[count("bad_ip:ip", 12_345_678), count("not_json", 1)]);
        assert_eq!(
            text,
            "newest                    oldest                    letters   reason\n\
             2023-05-06T07:08:09.120Z  1970-01-01T00:00:00.000Z  12345678  bad_ip:ip\n\
             2023-05-06T07:08:09.120Z  1970-01-01T00:00:00.000Z  1         not_json\n"
        );
        assert!(counts_as_text(&[count("bad_ip:\x1b[2J", 1)]).ends_with("bad_ip:\\u{1b}[2J\n"));
    }

    #[test]
    fn a_slip_is_no_code() {
        assert_eq!(code("bad_ip"), code("bad_ip:ip").map(|_| "bad_ip".to_owned()));
        for slip in ["", "bad_ipp", "Bad_ip", ":ip"] {
            assert!(code(slip).is_err(), "{slip}");
        }
    }
}
