//! `masq find`: the tokens of values, so that whoever asks "did this address log in" needs to reveal nothing. Values come
//! from stdin, never from the command line, where others see them, and are not printed. That somebody looked is on the
//! record before a token is printed; but whoever holds token.key could do without.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    context::Context,
    exit::Exit,
    passphrase,
    report::{self, Failure},
    signals,
    sources::{DatabaseSource, KeysSource, Sources},
    vault,
};
use crate::{
    config::{Column, Config, Mask, Meaning, suggestion},
    vault::{
        audit::checkpoint_after,
        reveal,
        token::{Kind, Token},
        token_keys::TokenKeys,
    },
};

/// Turn values from stdin into tokens, to look for them in the table; that is put on the record
///
/// One value a line, one token a line in the same order. While keys are rotated a value has a token for each key that is
/// in use: --json says which. On a terminal one value is asked for, and not shown.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq find --field ip -
  masq find --field device_id --reason \"ticket 4711\" - < devices.txt")]
pub(super) struct Args {
    /// Take the values to be of this field: the column's `from`, or its `domain` if it has one
    #[arg(long, value_name = "FIELD")]
    field: String,
    /// Take them as this, whatever the configuration says of the field
    #[arg(long = "as", value_name = "KIND")]
    kind: Option<As>,
    /// Say why; that is kept in the database
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Read the values from stdin, as is done anyway
    #[arg(value_name = "-", value_parser = stdin_alone)]
    stdin: Option<()>,
    #[command(flatten)]
    database: DatabaseSource,
    #[command(flatten)]
    keys: KeysSource,
    /// Print a line of JSON for each token
    #[arg(long)]
    json: bool,
}

/// What a value is.
#[derive(Clone, Copy, ValueEnum)]
enum As {
    /// An address
    Ip,
    /// A text, byte for byte
    Text,
}

/// Without the word that was said: it may be a value.
fn stdin_alone(text: &str) -> Result<(), String> {
    if text == "-" {
        return Ok(());
    }
    Err("values are read from stdin, not from the command line, where every user of this machine sees them".to_owned())
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    signals::unless_stopped(find(args, context)).await
}

async fn find(args: Args, context: &Context) -> Result<Exit, Failure> {
    let sources = Sources { database: args.database, keys: args.keys, ..Sources::default() };
    let config = sources.config(context)?;
    let kind = kind(&config, &args.field, args.kind)?;
    let values = if io::stdin().is_terminal() { asked().await? } else { vault::stdin()? };

    if let Some(reason) = &args.reason {
        for value in vault::lines(&values).filter_map(|(_, value)| std::str::from_utf8(value).ok()) {
            vault::quotes_nothing(reason, value)?;
        }
    }
    let session = vault::session(&config).await?;
    let keys = vault::token_keys(&config, &session).await?;
    let found = tokens(&keys, &args.field, kind, &values)?;
    let all: Vec<Token> = found.iter().map(|found| found.token).collect();
    if !all.is_empty() {
        let claimed = vault::claimed();
        let recorded = reveal::record_find(&session, &claimed, args.reason.as_deref(), (&args.field, &all)).await;
        recorded.map_err(vault::refused)?;
        checkpoint_after(&session, &config).await;
    }
    session.close().await;
    let line = |found: &Found<'_>| match args.json {
        true => format!(
            "{}\n",
            json!({ "line": found.line, "token": found.token.to_string(), "key_id": found.token.0[0], "state": found.state })
        ),
        false => format!("{}\n", found.token),
    };
    report::print(found.iter().map(line).collect::<String>())?;
    Ok(Exit::Done)
}

/// A value that nobody over the shoulder sees.
async fn asked() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut answer = passphrase::ask("Value (it is not shown): ").await?;
    Ok(Zeroizing::new(std::mem::take(&mut *answer).into_bytes()))
}

/// A token of the value in that line of the input.
struct Found<'a> {
    line: usize,
    token: Token,
    state: &'a str,
}

/// The tokens of all lines, for each key that is in use.
fn tokens<'a>(keys: &'a TokenKeys, field: &str, kind: Kind, values: &[u8]) -> Result<Vec<Found<'a>>, Failure> {
    let mut domains = Vec::new();
    for (root, state) in keys.in_use()? {
        let domain = root.domain(field).map_err(|error| Failure::of(Exit::Usage, &error))?;
        domains.push((domain, state));
    }
    let mut found = Vec::new();
    for (line, value) in vault::lines(values) {
        let value =
            std::str::from_utf8(value).map_err(|_| Failure::new(Exit::Usage, format!("line {line} is no UTF-8")))?;
        for (domain, state) in &domains {
            let token = domain.token(kind, value).ok_or_else(|| unfit(line, kind))?;
            found.push(Found { line, token, state });
        }
    }
    Ok(found)
}

fn unfit(line: usize, kind: Kind) -> Failure {
    match kind {
        Kind::Ip => Failure::new(Exit::Usage, format!("line {line} is no IP address, so it has no token"))
            .hint("write it as in the messages, without port or prefix length; --as text takes it as a text"),
        Kind::Text => Failure::new(Exit::Usage, format!("line {line} is longer than 65535 bytes, so it has no token")),
    }
}

/// What a value of this field is, by the columns whose tokens are of its domain.
fn kind(config: &Config, field: &str, said: Option<As>) -> Result<Kind, Failure> {
    let tokens = config.columns.iter().filter_map(|column| match &column.mask {
        Some(Mask::Hmac { domain }) => Some((domain.as_str(), kind_of(column))),
        _ => None,
    });
    let tokens: Vec<(&str, Kind)> = tokens.collect();
    let kinds: Vec<Kind> = tokens.iter().filter(|(domain, _)| *domain == field).map(|(_, kind)| *kind).collect();
    let Some(first) = kinds.first() else {
        return Err(unknown(field, tokens.iter().map(|(domain, _)| *domain).collect()));
    };
    match said {
        Some(As::Ip) => Ok(Kind::Ip),
        Some(As::Text) => Ok(Kind::Text),
        None if kinds.iter().all(|kind| kind == first) => Ok(*first),
        None => {
            Err(Failure::new(Exit::Usage, format!("\"{field}\" is an address in one column and a text in another"))
                .hint("say which is meant: --as ip or --as text"))
        }
    }
}

fn kind_of(column: &Column) -> Kind {
    if column.meaning == Meaning::Ip { Kind::Ip } else { Kind::Text }
}

fn unknown(field: &str, fields: Vec<&str>) -> Failure {
    let guess = suggestion(field, fields.iter().copied());
    let failure = Failure::new(Exit::Usage, format!("no column has tokens of a field \"{field}\"{guess}"));
    match fields.as_slice() {
        [] => failure.hint("only a column with mask = \"hmac\" has tokens"),
        fields => failure.hint(format!("those that have: {}", fields.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(columns: &str) -> Config {
        let text = format!("[columns]\n{columns}");
        let sources = config::Sources { file: Some(("masq.toml", &text)), ..config::Sources::default() };
        Config::check(&sources).unwrap_or_else(|complaints| panic!("{complaints}"))
    }

    #[test]
    fn a_field_is_what_its_columns_say() {
        let config = config(
            "a = { from = \"ip\", type = \"text\", as = \"ip\", mask = \"hmac\" }\n\
             b = { from = \"x\", type = \"text\", mask = \"hmac\", domain = \"both\" }\n\
             c = { from = \"y\", type = \"text\", as = \"ip\", mask = \"hmac\", domain = \"both\" }\n\
             d = { from = \"plain\", type = \"text\" }\n",
        );
        let kind = |field, said| kind(&config, field, said).map_err(|failure| failure.error);
        assert_eq!(kind("ip", None), Ok(Kind::Ip));
        assert_eq!(kind("ip", Some(As::Text)), Ok(Kind::Text));
        assert!(kind("both", None).unwrap_err().contains("in another"));
        assert_eq!(kind("both", Some(As::Ip)), Ok(Kind::Ip));
        assert!(kind("ipp", None).unwrap_err().contains("did you mean \"ip\"?"));
        for unmasked in ["x", "plain", "a", ""] {
            assert!(kind(unmasked, None).unwrap_err().contains("no column has tokens"), "{unmasked}");
        }
    }

    #[test]
    fn a_value_on_the_command_line_is_refused_and_not_repeated() {
        assert_eq!(stdin_alone("-"), Ok(()));
        let said = stdin_alone("199.172.111.135").unwrap_err();
        assert!(said.contains("stdin") && !said.contains("199"), "{said}");
    }
}
