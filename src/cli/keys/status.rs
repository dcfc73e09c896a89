//! `masq keys status`: which keys there are in a directory, and whether they can be used.

use serde_json::json;

use crate::{
    cli::{
        context::Context,
        exit::Exit,
        report::{self, Failure, Hex},
        sources::{KeysSource, Sources},
    },
    vault::keyring::{self, FileStatus, Kind},
};

/// Show which keys there are and whether they can be used; never a key itself
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    keys: KeysSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { keys: args.keys.clone(), ..Sources::default() }.config(context)?;
    let Some(dir) = config.keys.dir else {
        return Err(Failure::new(Exit::Config, "no directory of keys is named")
            .hint("name it with --keys, MASQ_KEYS or dir in [keys]; or make keys: masq keys new keys"));
    };
    let mut files = keyring::status(&dir);
    if config.keys.kms_epoch_key.is_some() {
        forgive_missing_recipients(&mut files);
    }
    if args.json {
        report::print_json(&files.iter().map(to_json).collect())?;
    } else {
        report::print(table(&files))?;
    }
    let away = |file: &&FileStatus| file.kind == Kind::Recovery && file.mode.is_some() && !args.json;
    if let Some(recovery) = files.iter().find(away) {
        context.say(format_args!("{} lies beside the worker's keys: move it away.", recovery.path.display()));
    }
    // What is wrong has been said already, for all files at once.
    let problem = files.into_iter().find_map(|file| file.problem);
    Ok(problem.map_or(Exit::Done, |problem| Failure::from(problem).exit))
}

/// Where KMS makes the keys of epochs, nobody else needs to be able to open them.
pub(in crate::cli) fn forgive_missing_recipients(files: &mut [FileStatus]) {
    for file in files.iter_mut().filter(|file| file.kind == Kind::RecoveryPublic && file.mode.is_none()) {
        file.problem = None;
    }
}

/// A line a file: name, permissions, and what identifies it or is wrong with it.
pub(super) fn table(files: &[FileStatus]) -> String {
    files.iter().map(|file| format!("{:<13} {}\n", name(file), description(file))).collect()
}

fn name(file: &FileStatus) -> &str {
    file.path.file_name().and_then(|name| name.to_str()).unwrap_or(file.kind.file())
}

fn description(file: &FileStatus) -> String {
    let mode = file.mode.map_or_else(|| "-   ".to_owned(), |mode| format!("{mode:04o}"));
    let about = match (&file.problem, file.kid, file.fingerprints.as_slice()) {
        (Some(problem), ..) => format!("  {problem}"),
        (None, Some(kid), _) => match &file.kms {
            Some(arn) => format!("  key id {kid}, opened by {arn}"),
            None => format!("  key id {kid}"),
        },
        (None, None, []) if file.mode.is_none() => match file.kind {
            Kind::RecoveryPublic => "  KMS alone opens".to_owned(),
            Kind::AuditPublic => "  not here".to_owned(),
            _ => "  not here, as it should be".to_owned(),
        },
        (None, None, []) => file.verifier.as_ref().map(|key| format!("  {key}")).unwrap_or_default(),
        (None, None, fingerprints) => format!("  fingerprint {}", listed(fingerprints).join(", ")),
    };
    mode + &about
}

fn listed(fingerprints: &[[u8; 32]]) -> Vec<String> {
    fingerprints.iter().map(|fingerprint| Hex(fingerprint).to_string()).collect()
}

fn to_json(file: &FileStatus) -> serde_json::Value {
    json!({
        "file": name(file),
        "path": file.path,
        "mode": file.mode.map(|mode| format!("{mode:04o}")),
        "key_id": file.kid,
        "kms_key": file.kms,
        "fingerprints": listed(&file.fingerprints),
        "verifier": file.verifier.as_ref().map(ToString::to_string),
        "problem": file.problem.as_ref().map(ToString::to_string),
    })
}
