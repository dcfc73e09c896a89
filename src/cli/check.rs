//! `masq check`: is everything ready? Says all that is wrong at once and changes nothing.

use serde_json::json;

use super::{
    connect,
    context::Context,
    exit::Exit,
    keys,
    report::{self, Failure},
    sources::Sources,
};
use crate::{
    check::{self, Finding, Severity},
    config::Config,
    db::{
        ConnectError, DbError, Session,
        examine::{self, Examined},
        slots,
    },
    queue::{Cause, Queue, QueueError, Receipt, sqs::SqsQueue},
    vault::keyring::{self, KeyRing, Kind},
};

/// Say what is not ready, each with its remedy; change nothing and take nothing off the queue
///
/// The permissions to delete and to hide messages are tried out with a receipt handle that belongs to no message.
#[derive(clap::Args)]
#[command(after_help = "Exit code: 0 ready; 69 something does not answer; 77 a permission is missing;
78 configuration, schema or keys must be changed; with --strict, 3 if there are notes")]
pub(super) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Let notes count too
    #[arg(long)]
    strict: bool,
    /// Take a database that can lose what it has committed
    #[arg(long)]
    allow_unsafe_durability: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = args.sources.config(context)?;
    let mut findings = check::configuration(&config);
    let keys = match connect::keys(&config).await {
        Ok(keys) => Some(keys),
        Err(failure) => {
            findings.extend(key_files(&config, &failure));
            None
        }
    };
    findings.extend(queue(&config).await);
    findings.extend(database(&config, keys.as_deref(), args.allow_unsafe_durability).await);

    report::print(if args.json { as_json(&findings) } else { as_text(&findings) })?;
    Ok(match Exit::of_findings(&findings) {
        Exit::Done if args.strict && !findings.is_empty() => Exit::Rejects,
        exit => exit,
    })
}

/// Every problem of the files that a worker needs; `failure` if it is in none of them.
fn key_files(config: &Config, failure: &Failure) -> Vec<Finding> {
    let mut files: Vec<_> = config.keys.dir.as_deref().map(keyring::status).into_iter().flatten().collect();
    if config.keys.kms_epoch_key.is_some() {
        keys::forgive_missing_recipients(&mut files);
    }
    let files = files.into_iter();
    let problems = files.filter(|file| file.kind != Kind::Recovery).filter_map(|file| file.problem);
    let findings: Vec<_> = problems.map(|problem| of_failure("keys", &problem.into())).collect();
    if findings.is_empty() { vec![of_failure("keys", failure)] } else { findings }
}

async fn queue(config: &Config) -> Vec<Finding> {
    let queue = match connect::queue(config).await {
        Ok(queue) => queue,
        Err(failure) => return vec![of_failure("queue", &failure)],
    };
    match queue.attributes().await {
        Ok(attributes) => {
            let mut findings = check::queue(config, &attributes);
            findings.extend(permissions(&queue).await);
            findings
        }
        Err(error) => vec![of_queue(&error)],
    }
}

/// A handle that belongs to no message is refused by itself where the call is allowed.
async fn permissions(queue: &SqsQueue) -> Vec<Finding> {
    let nobody = [Receipt("masq-check".into())];
    let delete = queue.delete(&nobody).await.err();
    let extend = queue.extend(&nobody, std::time::Duration::from_secs(30)).await.err();
    let denied = |error: &QueueError| matches!(error, QueueError::Denied { reason, .. } if !is_about_handle(reason));
    delete.iter().chain(&extend).filter(|error| denied(error)).map(of_queue).collect()
}

/// Some stand-ins refuse the whole request for such a handle: then the call itself is allowed.
fn is_about_handle(reason: &str) -> bool {
    reason.contains("ReceiptHandle")
}

async fn database(config: &Config, keys: Option<&KeyRing>, allow_unsafe: bool) -> Vec<Finding> {
    let connector = match connect::connector(config) {
        Ok(connector) => connector,
        Err(failure) => return vec![of_failure("database", &failure)],
    };
    let session = match connector.connect().await {
        Ok(session) => session,
        Err(error) => return vec![of_connect(&error)],
    };
    let examined = examine::examine(&session, config, keys, allow_unsafe).await;
    let elsewhere = slots(config, &session).await;
    session.close().await;
    of_examined(examined).into_iter().chain(elsewhere).collect()
}

/// What is wrong with a database that the slots are to have for themselves.
async fn slots(config: &Config, rows: &Session) -> Option<Finding> {
    let connector = match connect::slots(config) {
        Ok(connector) => connector?,
        Err(failure) => return Some(of_failure("database", &failure)),
    };
    let session = match connector.connect().await {
        Ok(session) => session,
        Err(error) => return Some(of_connect(&error)),
    };
    let beside = slots::beside_rows(rows, &session).await;
    session.close().await;
    beside.unwrap_or_else(|error| Some(of_database(error)))
}

fn of_examined(examined: Result<Examined, DbError>) -> Vec<Finding> {
    match examined {
        Ok(examined) => {
            let mut findings = examined.findings;
            if examined.needs_migration {
                findings.push(Finding::new(
                    Severity::Note,
                    "database",
                    "the schema masq or the target table is not there yet",
                    "`masq run` creates them where its login may; otherwise run `masq migrate` with one that may",
                ));
            }
            findings
        }
        Err(error) => vec![of_database(error)],
    }
}

fn of_connect(error: &ConnectError) -> Finding {
    let severity = match error {
        ConnectError::Unavailable(_) => Severity::Absent,
        ConnectError::Denied(_) => Severity::Denied,
        ConnectError::Misconfigured(_) | ConnectError::Tls(_) => Severity::Refused,
    };
    Finding::new(severity, "database", error.to_string(), "")
}

fn of_database(error: DbError) -> Finding {
    match error {
        DbError::Unavailable(what) => Finding::new(Severity::Absent, "database", what, ""),
        DbError::Denied(what) => Finding::new(Severity::Denied, "database", what, ""),
        DbError::Misconfigured(what) => Finding::refused("database", what, ""),
        DbError::Refused(refusal) => Finding::refused("database", refusal.said, refusal.remedy.advice()),
    }
}

fn of_queue(error: &QueueError) -> Finding {
    match error {
        QueueError::Unavailable { cause: Cause::Missing, .. } => Finding::new(
            Severity::Absent,
            "queue",
            error.to_string(),
            "`masq run` waits for a queue that is about to be created; check the URL and the region",
        ),
        QueueError::Unavailable { .. } => Finding::new(Severity::Absent, "queue", error.to_string(), ""),
        QueueError::Denied { .. } => Finding::new(Severity::Denied, "queue", error.to_string(), ""),
    }
}

fn of_failure(part: &'static str, failure: &Failure) -> Finding {
    let severity = match failure.exit {
        Exit::Absent => Severity::Absent,
        Exit::Denied => Severity::Denied,
        _ => Severity::Refused,
    };
    let what = std::iter::once(failure.error.as_str()).chain(failure.causes.iter().map(String::as_str));
    Finding::new(severity, part, what.collect::<Vec<_>>().join(": "), failure.hint.clone().unwrap_or_default())
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Refused | Severity::Denied | Severity::Absent => "problem",
    }
}

/// Notes are in nobody's way.
fn is_ready(findings: &[Finding]) -> bool {
    Exit::of_findings(findings) == Exit::Done
}

fn as_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { severity, part, what, remedy } in findings {
        text.push_str(&format!("{}: {part}: {what}\n", word(*severity)));
        if !remedy.is_empty() {
            text.push_str(&format!("  remedy: {remedy}\n"));
        }
    }
    if is_ready(findings) {
        text.push_str(if findings.is_empty() { "ready\n" } else { "ready, with notes\n" });
    }
    text
}

fn as_json(findings: &[Finding]) -> String {
    let ready = is_ready(findings);
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "severity": word(finding.severity), "part": finding.part, "what": finding.what,
                "remedy": finding.remedy,
            })
        })
        .collect();
    format!("{:#}\n", json!({ "ready": ready, "findings": findings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_no_reason_not_to_be_ready() {
        let finding = |severity| Finding::new(severity, "queue", "what", "");
        for (findings, ready, last) in [
            (vec![], true, Some("ready")),
            (vec![finding(Severity::Note)], true, Some("ready, with notes")),
            (vec![finding(Severity::Note), finding(Severity::Absent)], false, Some("problem: queue: what")),
        ] {
            assert_eq!(as_text(&findings).lines().last(), last);
            let json: serde_json::Value = serde_json::from_str(&as_json(&findings)).unwrap();
            assert_eq!((&json["ready"], json["findings"].as_array().unwrap().len()), (&ready.into(), findings.len()));
        }
    }
}
