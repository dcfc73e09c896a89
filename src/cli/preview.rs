//! `masq preview`: what messages would become, as the pipeline's own decoder and masker judge them. It writes nothing,
//! deletes nothing and needs no database: the columns have the types of the configuration.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{
    connect,
    context::Context,
    exit::Exit,
    lines::{self, Lines, Unfit},
    report::{self, Failure},
    sources::{KeysSource, QueueSource, Sources},
};
use crate::{
    config::{ColumnType, Config, Mask},
    event::Reason,
    logging::Escaping,
    pipeline::{
        decode::Decoder,
        mask::{Masker, mask},
        now_ms,
    },
    queue::{Key, Message, Receipt, sqs::SqsQueue},
    sink::{Verdict, copy},
    start::{self, StartError},
    vault::keyring::KeyRing,
};

/// How long a peek waits for messages. Without a wait, SQS asks only some of its servers, and may miss all there are.
const WAIT: Duration = Duration::from_secs(2);

/// Show what messages would become, and write nothing
///
/// Values of masked columns are shown masked only. A message of a file counts as sent now; a blank line is none. Where
/// the producer's ids are looked for, one that was shown before is "repeated" and no second row; attributes come from the
/// queue alone. What the table itself would refuse, or has already, is not known here.
#[derive(clap::Args)]
#[group(required = true, multiple = false, args = ["file", "peek"])]
#[command(after_help = "Examples:
  masq preview logins.jsonl --keys keys
  head -1000 logins.jsonl | masq preview - --json | jq -r .verdict | sort | uniq -c
  masq preview --peek 10 --queue-url URL")]
pub(super) struct Args {
    /// Read messages from this file, one a line; - is stdin
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Look at up to so many messages on the queue instead, from 1 to 10; each then counts as received once more
    // With visibility 0 a second poll would get the same ones, and their counts would add up to a redrive.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=10))]
    peek: Option<u8>,
    #[command(flatten)]
    queue: QueueSource,
    #[command(flatten)]
    keys: KeysSource,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { queue: args.queue, keys: args.keys, ..Sources::default() }.config(context)?;
    // Found out about before anything is looked at.
    let queue = match args.peek {
        Some(max) => Some((connect::queue(&config).await?, max.into())),
        None => None,
    };
    let mut preview = Preview::new(&config, args.json, context).await?;
    if let Some((queue, max)) = queue {
        preview.peek(&queue, max, context).await?;
    }
    if let Some(path) = args.file {
        preview.file(&path)?;
    }
    context.say(preview.tally.summary());
    Ok(Exit::Done)
}

fn as_sent_now(body: Vec<u8>) -> Message {
    let key = Key { sent_at: now_ms(), id: Uuid::nil() };
    Message::new(key, 1, body, Receipt("".into()))
}

/// The pipeline's steps from body to row, and what has come out of them.
struct Preview {
    decoder: Decoder,
    masker: Masker,
    names: Vec<String>,
    stored: Vec<ColumnType>,
    claims: HashSet<Uuid>,
    json: bool,
    tally: Tally,
}

impl Preview {
    /// With the keys that are named, or with some that nobody has.
    async fn new(config: &Config, json: bool, context: &Context) -> Result<Self, Failure> {
        let keys = if config.keys.dir.is_some() {
            connect::keys(config).await?
        } else {
            if config.columns.iter().any(|column| matches!(column.mask, Some(Mask::Hmac { .. }))) {
                context.say(
                    "No keys are named, so tokens are made with a key that is thrown away: equal values have equal \
                     tokens below, but not those that stand in your table. For those name --keys.",
                );
            }
            Arc::new(KeyRing::throw_away()?)
        };
        let stored: Vec<ColumnType> = config.columns.iter().map(|column| column.column_type).collect();
        let epoch = keys.new_epoch(now_ms()).await?;
        Ok(Self {
            decoder: start::decoder(config, &stored),
            masker: Masker::new(&config.columns, &stored, keys, epoch).map_err(StartError::from)?,
            names: config.columns.iter().map(|column| column.name.clone()).collect(),
            stored,
            claims: HashSet::new(),
            json,
            tally: Tally::default(),
        })
    }

    async fn peek(&mut self, queue: &SqsQueue, max: usize, context: &Context) -> Result<(), Failure> {
        let messages = queue.peek(max, WAIT).await?;
        context.say(format_args!(
            "Looked at {} of {}: each counts as received once more; none was hidden or deleted.",
            number(messages.len() as u64, "message"),
            queue.name(),
        ));
        for message in messages {
            let origin = Origin::MessageId(message.key.id.to_string());
            let becomes = self.judge(message)?;
            self.show(&Shown { origin, becomes })?;
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), Failure> {
        for line in Lines::new(lines::open(path)?) {
            let becomes = match line.body {
                Ok(body) => self.judge(as_sent_now(body))?,
                Err(Unfit::Unreadable(error)) => {
                    let failure = Failure::new(Exit::of_file(&error), format!("cannot read line {}", line.number));
                    return Err(failure.because(&error));
                }
                Err(_) => Becomes::DeadLetter { reason: Reason::TooLarge.to_string() },
            };
            self.show(&Shown { origin: Origin::Line(line.number), becomes })?;
        }
        Ok(())
    }

    fn show(&mut self, shown: &Shown) -> Result<(), Failure> {
        self.tally.add(&shown.becomes);
        if !self.json {
            return report::print(shown.text());
        }
        let line = serde_json::to_string(shown).map_err(|error| Failure::of(Exit::Bug, &error))?;
        report::print(line + "\n")
    }

    fn judge(&mut self, message: Message) -> Result<Becomes, Failure> {
        let batch = mask(vec![message], |message| self.decoder.read(message), &mut self.masker);
        match batch.entries.first().map(|entry| &entry.verdict) {
            Some(Verdict::Dead(dead)) => Ok(Becomes::DeadLetter { reason: dead.reason.to_string() }),
            Some(Verdict::Row(row)) if row.claim.is_some_and(|claim| !self.claims.insert(claim)) => {
                Ok(Becomes::Repeated)
            }
            Some(Verdict::Row(_)) => {
                let values = copy::texts(&batch.rows, &self.stored).ok_or_else(unreadable)?;
                Ok(Becomes::Row { columns: Columns(self.names.iter().cloned().zip(values).collect()) })
            }
            None => Err(unreadable()),
        }
    }
}

fn unreadable() -> Failure {
    Failure::new(Exit::Bug, "a masked row does not read back").hint("this is a bug in masq; please report it")
}

/// What one message would become.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    origin: Origin,
    #[serde(flatten)]
    becomes: Becomes,
}

/// Where a message came from.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Origin {
    Line(u64),
    MessageId(String),
}

#[derive(Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
enum Becomes {
    Row { columns: Columns },
    DeadLetter { reason: String },
    Repeated,
}

/// Names and stored values, in the table's order; `None` is NULL.
struct Columns(Vec<(String, Option<String>)>);

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Shown {
    /// As the person at the terminal reads it: nothing in a value moves the cursor.
    fn text(&self) -> String {
        let mut text = match &self.origin {
            Origin::Line(number) => format!("line {number}: "),
            Origin::MessageId(id) => format!("message {id}: "),
        };
        let mut line = |line: std::fmt::Arguments<'_>| {
            let _infallible = Escaping(&mut text).write_fmt(line);
            text.push('\n');
        };
        match &self.becomes {
            Becomes::DeadLetter { reason } => line(format_args!("dead letter: {reason}")),
            Becomes::Repeated => line(format_args!("repeated: an earlier message has the same id of its event")),
            Becomes::Row { columns } => {
                line(format_args!("row"));
                let width = columns.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
                for (name, value) in &columns.0 {
                    line(format_args!("  {name:<width$} = {}", value.as_deref().unwrap_or("NULL")));
                }
            }
        }
        text
    }
}

/// How many became what.
#[derive(Default)]
struct Tally {
    rows: u64,
    repeated: u64,
    dead: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, becomes: &Becomes) {
        match becomes {
            Becomes::Row { .. } => self.rows += 1,
            Becomes::Repeated => self.repeated += 1,
            Becomes::DeadLetter { reason } => *self.dead.entry(reason.clone()).or_default() += 1,
        }
    }

    fn summary(&self) -> String {
        let dead = self.dead.values().sum();
        let mut summary = format!("{} and {}", number(self.rows, "row"), number(dead, "dead letter"));
        for (at, (reason, letters)) in self.dead.iter().enumerate() {
            summary += &format!("{} {letters} {reason}", if at == 0 { ":" } else { "," });
        }
        if self.repeated > 0 {
            summary += &format!("; {} repeated", number(self.repeated, "message"));
        }
        summary
    }
}

/// So many of these.
fn number(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(columns: &[(&str, Option<&str>)]) -> Shown {
        let columns = columns.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)));
        Shown { origin: Origin::Line(7), becomes: Becomes::Row { columns: Columns(columns.collect()) } }
    }

    #[test]
    fn columns_keep_their_order() {
        let shown = shown(&[("user_id", Some("u1")), ("ip", None)]);
        assert_eq!(shown.text(), "line 7: row\n  user_id = u1\n  ip      = NULL\n");
        let json = serde_json::to_string(&shown).unwrap();
        assert_eq!(json, r#"{"line":7,"verdict":"row","columns":{"user_id":"u1","ip":null}}"#);
    }

    #[test]
    fn a_value_cannot_forge_a_line() {
        let text = shown(&[("user_id", Some("u1\nline 8: row\x1b[2J"))]).text();
        assert_eq!(text, "line 7: row\n  user_id = u1\\nline 8: row\\u{1b}[2J\n");
    }

    #[test]
    fn the_summary_counts_by_reason() {
        let mut tally = Tally::default();
        assert_eq!(tally.summary(), "0 rows and 0 dead letters");
        tally.rows = 1;
        tally.dead = BTreeMap::from([("bad_ip:ip".to_owned(), 2), ("not_json".to_owned(), 1)]);
        assert_eq!(tally.summary(), "1 row and 3 dead letters: 2 bad_ip:ip, 1 not_json");
        tally.repeated = 1;
        assert_eq!(tally.summary(), "1 row and 3 dead letters: 2 bad_ip:ip, 1 not_json; 1 message repeated");
    }
}
