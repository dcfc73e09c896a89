//! `masq init`: a commented configuration and new keys, to start from.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{self, Path, PathBuf},
};

use super::{
    context::{CONFIG_FILE, Context},
    exit::Exit,
    keys,
    passphrase::NewPassphrase,
    report::Failure,
};
use crate::config::{Config, Overrides, Sources, template};

/// Write a commented configuration and new keys; what is there is never overwritten
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq init --queue-url http://localhost:9324/000000000000/login-queue
  masq -c /etc/masq/masq.toml init --keys /etc/masq/keys")]
pub(super) struct Args {
    /// Name this queue in it
    #[arg(long, value_name = "URL")]
    queue_url: Option<String>,
    /// Name this database in it, as psql takes it
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Write the keys to this directory, and name it in the configuration [default: keys, beside the configuration]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Write the configuration only
    #[arg(long)]
    no_keys: bool,
    #[command(flatten)]
    passphrase: NewPassphrase,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let path = context.config.as_deref().unwrap_or(Path::new(CONFIG_FILE));
    let (keys, written) = keys_dir(args.keys.as_deref(), path)?;
    let overrides = Overrides {
        queue_url: context.said("queue_url", args.queue_url.as_ref()),
        database_url: context.said("database_url", args.database_url.as_ref()),
        keys_dir: context.said("keys", Some(&written)),
        ..Overrides::default()
    };
    Config::check(&Sources { file: None, overrides })?;
    write_new(path, &template(args.queue_url.as_deref(), args.database_url.as_deref(), &written))?;
    if !args.no_keys {
        keys::create(&keys, &args.passphrase, None, context).await.map_err(|failure| {
            // Written by us a moment ago; left behind, it would only be in the way of the next attempt.
            drop(fs::remove_file(path));
            match failure.exit {
                Exit::Config if failure.hint.is_none() => failure.hint("to keep the keys that you have, say --no-keys"),
                _ => failure,
            }
        })?;
    }
    context.say(next_steps(args, path));
    Ok(Exit::Done)
}

/// Where the keys go, and how the configuration says so: a relative path in it starts where the configuration is, one of
/// a flag where masq was started.
fn keys_dir(said: Option<&Path>, config: &Path) -> Result<(PathBuf, String), Failure> {
    let beside = config.parent().unwrap_or(Path::new(""));
    let (keys, written) = match said {
        None => (beside.join("keys"), Ok(PathBuf::from("keys"))),
        Some(dir) if beside == Path::new("") => (dir.to_owned(), Ok(dir.to_owned())),
        Some(dir) => (dir.to_owned(), path::absolute(dir)),
    };
    let written = written.ok().and_then(|path| path.into_os_string().into_string().ok());
    let written = written.ok_or_else(|| Failure::new(Exit::Usage, "--keys must be a path in UTF-8"))?;
    Ok((keys, written))
}

/// For the owner alone: a connection string may hold a password.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        let (exit, path) = (Exit::of_file(&error), path.display());
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Failure::new(exit, format!("{path} exists already")).hint("edit it, or name another with --config")
            }
            _ => Failure::new(exit, format!("cannot write {path}")).because(&error),
        }
    })
}

fn next_steps(args: &Args, path: &Path) -> String {
    let missing = match (&args.queue_url, &args.database_url) {
        (Some(_), Some(_)) => "",
        _ => "\n  name the queue and the database in it, or in MASQ_QUEUE_URL and DATABASE_URL",
    };
    let file = path.display();
    format!("Wrote {file}. Next:{missing}\n  masq check    is everything ready?\n  masq run      start")
}
