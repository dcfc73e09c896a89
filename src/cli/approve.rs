//! `masq approve`: a second person looks at a request and lets it pass. What was asked for stays sealed to this one, too.

use std::fmt::Write;

use super::{
    confirm::confirm,
    context::Context,
    exit::Exit,
    report::Failure,
    signals,
    sources::{DatabaseSource, KeysSource, Sources},
    vault,
};
use crate::{
    logging::Escaping,
    vault::{
        audit::checkpoint_after,
        reveal::{self, Pending},
        token::Token,
    },
};

/// Approve a request of somebody else's to reveal many tokens; that is put on the record
#[derive(clap::Args)]
#[command(after_help = "Example:
  masq approve 17 --reason \"spoke to the fraud team\"")]
pub(super) struct Args {
    /// Approve the request with this number, which `masq reveal` said
    #[arg(value_name = "REQUEST")]
    request: i64,
    /// Say why; that is kept in the database
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    database: DatabaseSource,
    #[command(flatten)]
    keys: KeysSource,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    signals::unless_stopped(approve(args, context)).await
}

async fn approve(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { database: args.database, keys: args.keys, ..Sources::default() }.config(context)?;
    let session = vault::session(&config).await?;
    let number = args.request;
    let pending = reveal::pending(&session, number).await.map_err(vault::refused)?;
    let pending = pending.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("there is no request {number}"))
            .hint("`masq reveal` says the number of a request that waits")
    })?;
    context.say(about(number, &pending));
    if let Some(login) = pending.approved_by {
        session.close().await;
        context.say(escaped(&format!("Approved already, by {login}.")));
        return Ok(Exit::Done);
    }
    if !args.yes {
        confirm(context, "Approve it?", "nothing was approved", "to approve it without being asked, say --yes").await?;
    }
    reveal::approve(&session, number, &vault::claimed(), args.reason.as_deref()).await.map_err(vault::refused)?;
    checkpoint_after(&session, &config).await;
    session.close().await;
    context.say(format_args!("Approved. Who asked goes on with `masq reveal --request {number}`."));
    Ok(Exit::Done)
}

/// What somebody else typed cannot move the cursor.
fn about(number: i64, pending: &Pending) -> String {
    let Pending { at, login, claimed, purpose, ticket, reason, tokens, approved_by: _ } = pending;
    let of = |(token, field): &(Token, Option<String>)| {
        format!("token     {token}  {}", field.as_deref().unwrap_or("nothing in the vault"))
    };
    // They may be many: what is asked about stands nearest to the question.
    let mut lines: Vec<String> = tokens.iter().map(of).collect();
    lines.extend([
        format!("request   {number}, of {}", super::dead::moment(*at)),
        format!("by        {login}, at the terminal {claimed}"),
        format!("for       the values of {} tokens", tokens.len()),
        format!("purpose   {purpose}, ticket {ticket}"),
        format!("reason    {reason}"),
    ]);
    lines.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("\n")
}

fn escaped(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let _infallible = Escaping(&mut out).write_str(line);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_cannot_hide_what_is_asked_for() {
        let pending = Pending {
            at: 0,
            login: "eve".into(),
            claimed: "eve".into(),
            purpose: "SAR".into(),
            ticket: "T-1\r".into(),
            reason: "\x1b[2Jnothing to see".into(),
            tokens: vec![(Token([1; 32]), Some("ip\n".into())), (Token([2; 32]), None)],
            approved_by: None,
        };
        let shown = about(17, &pending);
        assert!(
            shown.contains(&format!("{}  ip", Token([1; 32]))) && shown.contains("nothing in the vault"),
            "{shown}"
        );
        assert!(shown.contains("2 tokens") && shown.contains("1970-01-01T00:00:00.000Z"), "{shown}");
        assert!(!shown.contains('\x1b') && !shown.contains('\r') && shown.lines().count() == 7, "{shown}");
    }
}
