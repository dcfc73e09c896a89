//! `masq reveal`: the values behind tokens, for who says why and has the recovery key. The request is on record before
//! anything that is sealed is fetched. A value is shown only if it makes its token again; where it does not, that is an
//! alarm, and the next sealed value of the token is tried.

pub(super) mod destination;
mod fates;

use super::{
    context::Context,
    exit::Exit,
    opening::{self, OpeningSource},
    report::Failure,
    signals,
    sources::{DatabaseSource, KeysSource, Sources},
    vault::{self, Databases},
};
use crate::vault::{
    audit::checkpoint_after,
    epochs::Opener,
    reveal::{self, Answer, AnswerError, Why},
    token::{Token, TokenRoot},
    token_keys::{Origin, TokenKeys},
};
use destination::DestinationArgs;
use fates::Fates;

/// Reveal the values behind tokens with the recovery key; who and why is put on the record first
///
/// One line a token, in the order of asking: the token, a tab, and the value as it came. Where there is none nothing follows
/// the tab, and stderr says why. Control characters are escaped; --json has every value to the letter. Values go to a
/// terminal, or to a person with --recipient.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq reveal --identity /media/usb/recovery.key --purpose SAR --ticket T-17 \\
    --reason \"asked for in a letter of 3 May\" 01c0ffee…
  masq reveal --identity recovery.key --request 17 --recipient age1… --output values.age")]
pub(super) struct Args {
    /// Reveal these tokens, as they stand in the table; if none is named, they are read from stdin, one a line
    #[arg(value_name = "TOKEN")]
    tokens: Vec<String>,
    /// Say what for, in one of the words of the table masq.purposes: SAR, FRAUD, SECURITY, LEGAL, SUPPORT and others
    #[arg(long, value_name = "PURPOSE", required_unless_present = "request")]
    purpose: Option<String>,
    /// Name the ticket or case
    #[arg(long, value_name = "TICKET", required_unless_present = "request")]
    ticket: Option<String>,
    /// Say why, in ten characters at least; that is kept in the database
    #[arg(long, value_name = "TEXT", required_unless_present = "request")]
    reason: Option<String>,
    /// Go on with the request with this number: it was approved, or cut off
    #[arg(long, value_name = "REQUEST", conflicts_with_all = ["tokens", "purpose", "ticket", "reason"])]
    request: Option<i64>,
    #[command(flatten)]
    with: OpeningSource,
    #[command(flatten)]
    destination: DestinationArgs,
    #[command(flatten)]
    database: DatabaseSource,
    #[command(flatten)]
    keys: KeysSource,
    /// Write a line of JSON for each token
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    signals::unless_stopped(Box::pin(reveal(args, context))).await
}

async fn reveal(args: Args, context: &Context) -> Result<Exit, Failure> {
    // All that can be wrong on this side is found out before anything is asked of the database.
    let destination = args.destination.decide()?;
    let tokens = if args.request.is_some() { Vec::new() } else { tokens(&args.tokens)? };
    let sources = Sources { database: args.database, keys: args.keys, ..Sources::default() };
    let config = sources.config(context)?;
    let with = args.with.get(&config).await?;

    let databases = Databases::connect(&config).await?;
    let keys = vault::token_keys(&config, databases.rows()).await?;
    if let Some(key) = &with.key {
        opening::check(databases.rows(), key).await?;
    }
    let tokens = match args.request {
        Some(number) => reveal::requested(databases.rows(), number).await.map_err(vault::refused)?,
        None => tokens,
    };
    let (mut fates, wanted) = sort(&keys, &tokens);
    let claimed = vault::claimed();
    let number = match args.request {
        None if wanted.is_empty() => None,
        None => {
            let why = [&args.purpose, &args.ticket, &args.reason];
            let [purpose, ticket, reason] = why.map(|said| said.as_deref().unwrap_or_default());
            let asked = ask(&databases, Why { purpose, ticket, reason, claimed: &claimed }, &wanted).await;
            Some(asked.inspect_err(|_| fates.say(&tokens, context))?)
        }
        number => number,
    };
    if let Some(number) = number {
        let opened = open(&databases, number, (&keys, &wanted), (&mut with.opener(), &mut fates)).await;
        opened.map_err(|error| match error {
            AnswerError::Database(error) => vault::refused(error),
            AnswerError::Kms(error) => error.into(),
        })?;
        // Before anything is shown: a value whose showing cannot be recorded stays here.
        let counts = fates.counts(wanted.iter().map(|(token, _)| token));
        reveal::record(databases.rows(), number, &claimed, counts).await.map_err(vault::refused)?;
        checkpoint_after(databases.rows(), &config).await;
    }
    databases.close().await;
    let written = destination.write(&fates.text(&tokens, args.json));
    written.map_err(|failure| match (number, &failure.hint) {
        (Some(number), None) => failure.hint(format!("within the hour --request {number} asks for the same again")),
        _ => failure,
    })?;
    fates.say(&tokens, context);
    Ok(fates.exit())
}

/// The tokens that were named, or those on stdin.
fn tokens(named: &[String]) -> Result<Vec<Token>, Failure> {
    let malformed = |place: String| {
        Failure::new(Exit::Usage, format!("{place} is no token: 64 hexadecimal digits, as in the table"))
            .hint("nothing was asked for; `masq find` turns values into tokens")
    };
    if !named.is_empty() {
        let token = |(at, text): (usize, &String)| text.parse().map_err(|_| malformed(format!("token {}", at + 1)));
        return named.iter().enumerate().map(token).collect();
    }
    let input = vault::stdin()?;
    let token = |(number, line): (usize, &[u8])| {
        let text = std::str::from_utf8(line).ok().map(str::trim);
        text.and_then(|text| text.parse().ok()).ok_or_else(|| malformed(format!("line {number}")))
    };
    let tokens = vault::lines(&input).map(token).collect::<Result<Vec<Token>, Failure>>()?;
    if tokens.is_empty() { Err(Failure::new(Exit::Usage, "no token is named, and stdin has none")) } else { Ok(tokens) }
}

/// A token that can be asked for, with the root that checks what is opened.
type Wanted<'a> = Vec<(Token, &'a TokenRoot)>;

/// What can be told without asking, and what must be asked for.
fn sort<'a>(keys: &'a TokenKeys, tokens: &[Token]) -> (Fates, Wanted<'a>) {
    let (mut fates, mut wanted) = (Fates::default(), Vec::new());
    for token in tokens {
        match keys.origin(token) {
            Origin::Root(root) if wanted.iter().all(|(other, _)| other != token) => wanted.push((*token, root)),
            Origin::Root(_) => {}
            other => fates.set_unasked(token, &other),
        }
    }
    (fates, wanted)
}

/// Puts the request on record. Answers its number if it may be answered at once.
async fn ask(databases: &Databases, why: Why<'_>, wanted: &Wanted<'_>) -> Result<i64, Failure> {
    let tokens: Vec<Token> = wanted.iter().map(|(token, _)| *token).collect();
    let request = reveal::request(databases.rows(), why, &tokens).await.map_err(vault::refused)?;
    let (number, tokens, left) = (request.number, tokens.len(), request.alone_left);
    if !request.needs_approval {
        return Ok(number);
    }
    let what = format!(
        "request {number} is for {tokens} tokens, and this login may have {left} more today without a second person"
    );
    Err(Failure::new(Exit::Unfinished, what).hint(format!(
        "let somebody with another login run `masq approve {number}`, then within the hour go on with --request {number} \
         instead of purpose, ticket, reason and tokens"
    )))
}

/// Fetches what was asked for and opens it.
async fn open(
    databases: &Databases,
    number: i64,
    (keys, wanted): (&TokenKeys, &Wanted<'_>),
    (opener, fates): (&mut Opener<'_>, &mut Fates),
) -> Result<(), AnswerError> {
    let mut answer = Answer::fetch(databases.rows(), databases.slots(), number).await?;
    for (token, root) in wanted {
        fates.set(token, answer.open(token, opener, root).await?, keys.is_over(token));
    }
    Ok(())
}
