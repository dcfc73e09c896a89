//! `masq keys status`: which keys there are in a directory, and whether they can be used.

use serde_json::json;

use crate::{
    cli::{
        context::Context,
        exit::Exit,
        report::{self, Failure, Hex},
        sources::{KeysSource, Sources},
    },
    vault::keyring::{self, FileStatus},
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
    let files = keyring::status(&dir);
    if args.json {
        report::print_json(&files.iter().map(to_json).collect())?;
    } else {
        report::print(table(&files))?;
    }
    if let Some(recovery) = files.last().filter(|recovery| recovery.mode.is_some() && !args.json) {
        context.say(format_args!("{} lies beside the worker's keys: move it away.", recovery.path.display()));
    }
    // What is wrong has been said already, for all files at once.
    let problem = files.into_iter().find_map(|file| file.problem);
    Ok(problem.map_or(Exit::Done, |problem| Failure::from(problem).exit))
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
        (None, Some(kid), _) => format!("  key id {kid}"),
        (None, None, []) if file.mode.is_none() => "  not here, as it should be".to_owned(),
        (None, None, []) => String::new(),
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
        "fingerprints": listed(&file.fingerprints),
        "problem": file.problem.as_ref().map(ToString::to_string),
    })
}
