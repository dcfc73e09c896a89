//! What a command is told about queue, database and keys by flags and variables, and the configuration that this and
//! the file add up to.

use std::{collections::BTreeMap, path::Path};

use clap::{ArgMatches, Args, Command, parser::ValueSource};

use super::{context::Context, report::Failure};
use crate::config::{self, Config, Overrides};

/// Everything that a pipeline needs to be told. Text, not numbers: the configuration's own checks say what is wrong.
#[derive(Args, Default)]
#[command(next_help_heading = "Queue, database and keys")]
pub(super) struct Sources {
    #[command(flatten)]
    pub(super) queue: QueueSource,
    /// Hide received messages from other readers for this long, such as 30s
    #[arg(long, value_name = "TIME")]
    pub(super) visibility: Option<String>,
    #[command(flatten)]
    pub(super) database: DatabaseSource,
    /// Run so many workers, each with a connection
    #[arg(long, value_name = "N")]
    pub(super) connections: Option<String>,
    #[command(flatten)]
    pub(super) keys: KeysSource,
}

/// Which queue.
#[derive(Args, Clone, Default)]
pub(super) struct QueueSource {
    /// Use the queue with this URL
    #[arg(long, value_name = "URL", env = "MASQ_QUEUE_URL", hide_env_values = true)]
    pub(super) queue_url: Option<String>,
    /// Reach SQS here; otherwise AWS_ENDPOINT_URL_SQS, AWS_ENDPOINT_URL and the profile say where
    #[arg(long, value_name = "URL")]
    pub(super) endpoint_url: Option<String>,
}

/// Which database.
#[derive(Args, Clone, Default)]
pub(super) struct DatabaseSource {
    /// Use this database, as psql takes it; the PG* variables fill in the rest. Other users see flags, so keep a
    /// password in the variable, in PGPASSFILE or in password_file
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub(super) database_url: Option<String>,
}

/// Which keys.
#[derive(Args, Clone, Default)]
pub(super) struct KeysSource {
    /// Use the keys in this directory, which `masq keys new` made
    #[arg(long, value_name = "DIR", env = "MASQ_KEYS", hide_env_values = true)]
    pub(super) keys: Option<String>,
}

impl Sources {
    /// What was said, with where.
    pub(super) fn overrides(&self, context: &Context) -> Overrides {
        Overrides {
            queue_url: context.said("queue_url", self.queue.queue_url.as_ref()),
            endpoint: context.said("endpoint_url", self.queue.endpoint_url.as_ref()),
            visibility: context.said("visibility", self.visibility.as_ref()),
            database_url: context.said("database_url", self.database.database_url.as_ref()),
            connections: context.said("connections", self.connections.as_ref()),
            keys_dir: context.said("keys", self.keys.keys.as_ref()),
            listen: None,
        }
    }

    /// The configuration: flag over variable over file over default.
    ///
    /// # Errors
    /// The file cannot be read, or every mistake in it and in what was said.
    pub(super) fn config(&self, context: &Context) -> Result<Config, Failure> {
        check(context, self.overrides(context))
    }
}

/// The configuration with these settings over the file's. Relative paths in the file start where the file is, those of
/// flags and variables where masq was started.
///
/// # Errors
/// As [`Sources::config`].
pub(super) fn check(context: &Context, overrides: Overrides) -> Result<Config, Failure> {
    let file = context.config_file()?;
    let home = file.as_ref().and_then(|(name, _)| Path::new(name).parent().map(Path::to_owned)).unwrap_or_default();
    let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let keys_by_file = overrides.keys_dir.is_none();
    let mut config = Config::check(&config::Sources { file, overrides })?;
    config.database.password_file = config.database.password_file.map(|path| home.join(path));
    config.audit.checkpoints = config.audit.checkpoints.map(|path| home.join(path));
    config.keys.dir = config.keys.dir.map(|dir| if keys_by_file { home.join(dir) } else { dir });
    Ok(config)
}

/// Which flag or variable each argument was given by, as complaints name it.
pub(super) fn origins(line: &Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let (mut line, mut matches) = (line, matches);
    let mut origins = BTreeMap::new();
    loop {
        for arg in line.get_arguments() {
            let id = arg.get_id().as_str();
            // Of the arguments that clap adds by itself, matches know nothing.
            let source = matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id));
            let origin = match source {
                Some(ValueSource::CommandLine) => arg.get_long().map(|long| format!("--{long}")),
                Some(ValueSource::EnvVariable) => arg.get_env().map(|name| name.to_string_lossy().into_owned()),
                _ => None,
            };
            origins.extend(origin.map(|origin| (id.to_owned(), origin)));
        }
        let Some((name, inner)) = matches.subcommand() else { return origins };
        let Some(command) = line.find_subcommand(name) else { return origins };
        (line, matches) = (command, inner);
    }
}
