//! `masq audit verify`: is the audit log whole, as it stands in the database or in a file that was exported from there.

use std::{
    fmt::Write,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use tokio::{task::spawn_blocking, time::Instant};

use super::{PATIENCE, session};
use crate::{
    cli::{
        connect,
        context::Context,
        exit::Exit,
        progress::Progress,
        report::{self, Failure},
        signals,
        sources::{DatabaseSource, KeysSource, Sources},
    },
    config::Config,
    logging::Escaping,
    start,
    vault::{
        audit::{
            checkpoint::{self, Checkpoint},
            export,
            findings::{Code, Finding, Findings},
            read::{self, Which},
            verify::{Audit, Seen},
        },
        keyring::{self, Kind},
    },
};

/// Prove that no entry was changed, left out, moved or cut off
///
/// Whoever owns the database can change an entry and make all hashes anew. Only a checkpoint that was signed before, and
/// kept where that person cannot change it, tells: name such files with --checkpoint. In the database it is also checked
/// that the rows of the vault are those that were written and not deleted on record; that reads all of them once.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq audit verify --checkpoint /mnt/worm/checkpoints
  masq audit verify --exported audit.jsonl --checkpoint checkpoints \\
    --public-key audit.pub    without the database

Exits with 0 if the log is whole and with 3 if something is wrong with it.")]
pub(super) struct Args {
    /// Compare with the signed checkpoints in this file [default: checkpoints in [audit], if it is set]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    checkpoint: Vec<PathBuf>,
    /// Check their signatures with this key [default: audit.pub among the keys]
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Verify a log that `masq audit list --json` wrote, instead of the database's; - is stdin
    #[arg(long, value_name = "FILE")]
    exported: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseSource,
    #[command(flatten)]
    keys: KeysSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    signals::unless_stopped(verify(args, context)).await
}

async fn verify(args: Args, context: &Context) -> Result<Exit, Failure> {
    let sources = Sources { database: args.database, keys: args.keys, ..Sources::default() };
    let config = sources.config(context)?;
    let mut findings = Findings::default();
    let signed = checkpoints(args.checkpoint, args.public_key, &config, &mut findings)?;
    let count = signed.len();
    let mut audit = Audit::new(signed, findings);
    let mut audit = match args.exported {
        Some(path) => offline(path, audit).await?,
        None => {
            online(&config, &mut audit, context).await?;
            audit
        }
    };
    audit.end();
    if count == 0 && audit.tree().size() > 0 {
        let text =
            "there is no signed checkpoint to compare with: a log whose hashes were all made anew would look like this";
        audit.findings.note(Code::NoCheckpoint, None, text.to_owned());
    }
    if args.json {
        report::print_json(&as_json(&audit, count))?;
    } else {
        report::print(as_text(&audit, count))?;
    }
    Ok(if audit.findings.are_harmless() { Exit::Done } else { Exit::Rejects })
}

/// The checkpoints of these files, or of the configured one if it is there. Those that prove nothing are found.
fn checkpoints(
    mut files: Vec<PathBuf>,
    public_key: Option<PathBuf>,
    config: &Config,
    findings: &mut Findings,
) -> Result<Vec<Checkpoint>, Failure> {
    if files.is_empty() {
        files.extend(config.audit.checkpoints.clone().filter(|path| path.exists()));
    }
    let mut checkpoints = Vec::new();
    if files.is_empty() {
        return Ok(checkpoints);
    }
    let key = public_key.or_else(|| config.keys.dir.as_ref().map(|dir| dir.join(Kind::AuditPublic.file())));
    let key = key.ok_or_else(|| {
        Failure::new(Exit::Config, "no key is named that checks the signatures of checkpoints")
            .hint("name audit.pub with --public-key, or the directory of the keys with --keys")
    })?;
    let key = keyring::audit_public(&key)?;
    for file in files {
        let text = fs::read(&file).map_err(|error| unreadable(&file, &error))?;
        for (line, note) in checkpoint::notes(&String::from_utf8_lossy(&text)) {
            match checkpoint::open(note, &key) {
                Ok(checkpoint) => checkpoints.push(checkpoint),
                Err(error) => {
                    let text = format!("the checkpoint in line {line} of {} proves nothing: {error}", file.display());
                    findings.broken(Code::BadCheckpoint, None, text);
                }
            }
        }
    }
    Ok(checkpoints)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::of_file(error), format!("cannot read {}", path.display())).because(error)
}

async fn online(config: &Config, audit: &mut Audit, context: &Context) -> Result<(), Failure> {
    let session = session(config).await?;
    let slots = match connect::slots(config)? {
        Some(slots) => Some(start::connect_slots(&session, &slots, Instant::now() + PATIENCE).await?),
        None => None,
    };
    read::begin(&session).await?;
    let head = read::head(&session).await?;
    let total = head.as_ref().map(|head| head.size.max(0).unsigned_abs());
    let mut progress = Progress::new(context, "reading the audit log", total);
    read::entries(&session, &Which::default(), |seen| {
        audit.see(&seen);
        progress.add(1);
        Ok::<(), Failure>(())
    })
    .await?;
    progress.finish();
    audit.head(head.as_ref());
    read::epochs(&session, slots.as_ref(), &mut audit.epochs).await?;
    audit.epochs.judge(&mut audit.findings);
    read::end(&session).await?;
    session.close().await;
    Ok(())
}

/// In a thread of its own: reading a file or stdin waits.
async fn offline(path: PathBuf, audit: Audit) -> Result<Audit, Failure> {
    let verified = spawn_blocking(move || read_log(&path, audit)).await;
    verified.unwrap_or_else(|_| Err(Failure::new(Exit::Bug, "reading the log failed")))
}

fn read_log(path: &Path, mut audit: Audit) -> Result<Audit, Failure> {
    let failed = |error: io::Error| unreadable(path, &error);
    let mut log: Box<dyn BufRead> = match path.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(BufReader::new(File::open(path).map_err(failed)?)),
    };
    let (mut line, mut number) = (String::new(), 0_u64);
    while log.read_line(&mut line).map_err(failed)? > 0 {
        number += 1;
        if !line.trim().is_empty() {
            let entry = export::read(&line).map_err(|error| {
                Failure::new(Exit::Config, format!("line {number} of {} is no entry", path.display())).because(&error)
            })?;
            audit.see(&Seen::Entry(Box::new(entry)));
        }
        line.clear();
    }
    Ok(audit)
}

fn as_text(audit: &Audit, checkpoints: usize) -> String {
    let mut lines = Vec::new();
    let size = audit.tree().size();
    let mut line = |word: &str, text: &str| lines.push(format!("{word:<6}  {text}"));
    if audit.findings.are_harmless() {
        let root = BASE64_STANDARD.encode(audit.tree().root());
        line("ok", &format!("{size} entries, each as it was hashed and after the one before; root {root}"));
    }
    if let Some(agreed) = audit.agreed().filter(|agreed| *agreed > 0) {
        line(
            "ok",
            &format!("entries 1 to {agreed} are those that the latest of {checkpoints} checkpoints was signed for"),
        );
    }
    for Finding { is_note, text, .. } in &audit.findings.list {
        line(if *is_note { "note" } else { "BROKEN" }, text);
    }
    if audit.findings.more > 0 {
        line("BROKEN", &format!("and {} more findings", audit.findings.more));
    }
    let mut text = String::new();
    for line in lines {
        let _infallible = Escaping(&mut text).write_str(&line);
        text.push('\n');
    }
    text
}

fn as_json(audit: &Audit, checkpoints: usize) -> serde_json::Value {
    let finding = |finding: &Finding| {
        let Finding { code, entry, is_note, text } = finding;
        json!({"code": code.name(), "entry": entry, "result": if *is_note { "note" } else { "broken" }, "found": text})
    };
    json!({
        "whole": audit.findings.are_harmless(),
        "entries": audit.tree().size(),
        "root": BASE64_STANDARD.encode(audit.tree().root()),
        "checkpoints": checkpoints,
        "signed_until": audit.agreed(),
        "findings": audit.findings.list.iter().map(finding).collect::<Vec<_>>(),
        "more_findings": audit.findings.more,
    })
}
