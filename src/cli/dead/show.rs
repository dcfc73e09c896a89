//! `masq dead show`: opens one dead letter with the recovery key. Who does and why is on the record before what is
//! sealed is fetched, also if it then stays shut. Without a recovery key nothing is fetched, and nothing recorded.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{list::letter_as_json, moment, session};
use crate::{
    cli::{
        context::Context,
        environment::lookup,
        exit::Exit,
        opening::{self, OpeningSource},
        report::{self, Failure, Hex},
        reveal::destination::may_show,
        signals,
        sources::{DatabaseSource, KeysSource, Sources},
    },
    db::{Session, account},
    logging::Escaping,
    vault::{
        audit::checkpoint_after,
        dead::{self, Letter, Opening, Taken},
        seal::OpenError,
    },
};

/// Open a dead letter with the recovery key; who and why is put on the record first
///
/// The body goes to the terminal with control characters escaped, what is known about it to stderr. Elsewhere it goes only
/// with --plain-output-i-know, and then byte for byte.
#[derive(clap::Args)]
#[command(after_help = "Example:
  masq dead show 5fd1ab2e-… --identity /media/usb/recovery.key \\
    --reason \"why app 6.02 sends no ip, ticket 4711\"")]
pub(super) struct Args {
    /// Open the letter of the message with this id, as `masq dead list --all` shows it
    #[arg(value_name = "MESSAGE_ID", value_parser = message_id)]
    id: Uuid,
    /// Tell letters of one message id apart by when they were sent
    #[arg(long, value_name = "TIME", value_parser = sent_at)]
    sent_at: Option<i64>,
    /// Say why it has to be opened; that is kept in the database
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    #[command(flatten)]
    with: OpeningSource,
    /// Write the message in clear to stdout though it is no terminal: whoever reads it keeps it
    #[arg(long)]
    plain_output_i_know: bool,
    #[command(flatten)]
    database: DatabaseSource,
    #[command(flatten)]
    keys: KeysSource,
    /// Print JSON, with the body in base64
    #[arg(long)]
    json: bool,
}

pub(super) fn message_id(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| "expected a UUID, as `masq dead list --all` shows it".to_owned())
}

pub(super) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("say why the letter has to be opened".to_owned()) } else { Ok(text.to_owned()) }
}

fn sent_at(text: &str) -> Result<i64, String> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok();
    let millis = moment.and_then(|moment| i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok());
    millis.ok_or_else(|| "expected a time such as 2023-05-06T07:08:09.123Z".to_owned())
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    signals::unless_stopped(show(args, context)).await
}

async fn show(args: Args, context: &Context) -> Result<Exit, Failure> {
    // Before anything is asked of the database: a slip of the hand is no attempt, and nothing is kept open while
    // somebody looks for a passphrase.
    if !may_show(args.plain_output_i_know) {
        return Err(Failure::new(Exit::Usage, "stdout is no terminal, so the message would be kept in clear")
            .hint("look at it on a terminal, or insist with --plain-output-i-know"));
    }
    let config = Sources { database: args.database, keys: args.keys, ..Sources::default() }.config(context)?;
    let with = args.with.get(&config).await?;
    let session = session(&config).await?;
    let letter = find(&session, args.id, args.sent_at).await?;
    let me = account::me(&lookup);
    let opening = Opening { claimed: me.as_deref().unwrap_or("unknown"), reason: &args.reason };
    let taken = dead::take(&session, &[letter.key], opening).await?.pop();
    checkpoint_after(&session, &config).await;
    session.close().await;
    let taken = taken.ok_or_else(|| Failure::new(Exit::Usage, "the dead letter has just been purged"))?;

    let mut opener = with.opener();
    opener.fetch([taken.header()]).await?;
    let body = taken.open(&mut opener).map_err(|error| shut(&error, &taken, &with))?;
    if args.json {
        let mut json = letter_as_json(&letter);
        json["body_base64"] = BASE64_STANDARD.encode(&body).into();
        report::print_json(&json)?;
        return Ok(Exit::Done);
    }
    context.say(about(&letter, opening));
    if io::stdout().is_terminal() {
        report::print(format_args!("{}\n", seen(&body)))?;
    } else {
        report::print_bytes(&body)?;
    }
    Ok(Exit::Done)
}

/// The letter that is meant.
async fn find(session: &Session, id: Uuid, sent_at: Option<i64>) -> Result<Letter, Failure> {
    let mut letters = dead::find(session, id).await?;
    letters.retain(|letter| sent_at.is_none_or(|sent_at| sent_at == letter.key.sent_at));
    match letters.len() {
        0 => {
            let sent = if sent_at.is_some() { " that was sent then" } else { "" };
            Err(none_of(id, sent))
        }
        1 => Ok(letters.swap_remove(0)),
        count => {
            let times: Vec<_> =
                letters.iter().map(|letter| format!("--sent-at {}", moment(letter.key.sent_at))).collect();
            Err(Failure::new(Exit::Usage, format!("there are {count} dead letters of a message {id}"))
                .hint(format!("say which: {}", times.join(" or "))))
        }
    }
}

/// There is no such letter.
pub(super) fn none_of(id: Uuid, sent: &str) -> Failure {
    Failure::new(Exit::Usage, format!("there is no dead letter of a message {id}{sent}"))
        .hint("masq dead list --all shows which there are")
}

/// Why the letter stays shut. Of another key both fingerprints are told.
fn shut(error: &OpenError, taken: &Taken, with: &opening::Opening) -> Failure {
    let failure = Failure::new(Exit::Config, "the dead letter cannot be opened").because(error);
    match (error, &with.key) {
        (OpenError::WrongKey { .. }, Some(key)) => failure.hint(format!(
            "the letter is sealed to {}, and the one named is {}; `masq keys status` shows the fingerprint of a recovery.pub",
            taken.recipients().map(|recipient| Hex(&recipient).to_string()).collect::<Vec<_>>().join(" and "),
            Hex(&key.public().fingerprint()),
        )),
        _ => failure,
    }
}

/// What is known of the letter, and what was put on the record.
fn about(letter: &Letter, opening: Opening<'_>) -> String {
    let Letter { key, reason, queue, receive_count, body_bytes, recorded_at, .. } = letter;
    let lines = [
        format!("message   {} of the queue {queue}, sent at {}", key.id, moment(key.sent_at)),
        format!("reason    {reason}, at delivery {receive_count}, recorded at {}", moment(*recorded_at)),
        format!("body      {body_bytes} bytes"),
        format!("opened    by {}: {}", opening.claimed, opening.reason),
    ];
    lines.map(|line| escaped(&line)).join("\n")
}

/// A body as a terminal can show it: nothing in it moves the cursor.
fn seen(body: &[u8]) -> String {
    escaped(&String::from_utf8_lossy(body))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let _infallible = Escaping(&mut out).write_str(text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_back() {
        for millis in [0, 1_683_356_889_000, 1_683_356_889_123] {
            assert_eq!(sent_at(&moment(millis)), Ok(millis));
        }
        assert!(sent_at("yesterday").is_err());
    }

    #[test]
    fn a_body_cannot_move_the_cursor() {
        assert_eq!(seen(b"{\"a\":\n\"\x1b[2J\xff\"}"), "{\"a\":\\n\"\\u{1b}[2J\u{fffd}\"}");
    }

    #[test]
    fn a_blank_reason_is_none() {
        for blank in ["", " ", "\t\n"] {
            assert!(reason(blank).is_err());
        }
        assert_eq!(reason(" ticket 4711 "), Ok("ticket 4711".to_owned()));
    }
}
