//! The way to queue, database and keys that a configuration names; opens what it can without waiting.

use std::{fs, path::Path, sync::Arc, time::Duration};

use super::{context::Context, environment::lookup, exit::Exit, iam, report::Failure};
use crate::{
    config::{self, Config, DatabaseConfig, Dedupe, VaultConfig},
    db::{Connector, Timeouts, account, conninfo::Conninfo},
    queue::{
        QueueError,
        sqs::{Protocol, SqsQueue, SqsSettings},
    },
    start::Databases,
    vault::keyring::{KeyRing, Lookup},
};

/// How long a transaction may stand still between two statements, where nothing but bytes is moved. Longer, and a
/// process that was stopped keeps the keys of messages that others have received meanwhile; shorter, and a starved
/// machine loses transactions.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);

/// Whether queue, database and keys are named. One that is missing alone is left to the function that opens it, which
/// has advice of its own.
///
/// # Errors
/// All that are missing, at once.
pub(super) fn all_named(config: &Config) -> Result<(), Failure> {
    let parts = [
        (config.queue.url.is_some(), "no queue is named", "--queue-url"),
        (names_database(config), "no database is named", "--database-url"),
        (config.keys.dir.is_some(), "no keys are named", "--keys"),
    ];
    let missing: Vec<_> = parts.iter().filter(|(is_named, ..)| !is_named).collect();
    if missing.len() < 2 {
        return Ok(());
    }
    let errors: Vec<_> = missing.iter().map(|(_, error, _)| *error).collect();
    let flags: Vec<_> = missing.iter().map(|(.., flag)| *flag).collect();
    Err(Failure::new(Exit::Config, errors.join("\n")).hint(format!(
        "name them with {}, or in the masq.toml that `masq init` writes with new keys; `masq demo` needs nothing",
        flags.join(" and "),
    )))
}

/// The queue that the configuration names.
///
/// # Errors
/// None is named, or its address or the credentials for it cannot be used.
pub(super) async fn queue(config: &Config) -> Result<SqsQueue, Failure> {
    let Some(url) = &config.queue.url else {
        return Err(Failure::new(Exit::Config, "no queue is named").hint(
            "name it with --queue-url, MASQ_QUEUE_URL or url in [queue]; `masq demo` and `masq queue` need none",
        ));
    };
    let protocol = match config.queue.protocol {
        config::Protocol::Auto => Protocol::Auto,
        config::Protocol::Json => Protocol::Json,
        config::Protocol::Query => Protocol::Query,
    };
    let endpoint = config.queue.endpoint.clone();
    let settings = SqsSettings { queue: url.clone(), endpoint, ca_bundle: None, protocol };
    // Nothing has been called yet, so whatever is wrong is wrong on this side.
    let queue = SqsQueue::connect(settings, &lookup).await.map_err(|error| match error {
        QueueError::Denied { reason, .. } => Failure::new(Exit::Config, reason),
        QueueError::Unavailable { .. } => error.into(),
    })?;
    Ok(match &config.queue.dedupe {
        Some(Dedupe::Attribute(name)) => queue.with_event_attribute(name),
        Some(Dedupe::Body(_)) | None => queue,
    })
}

/// The way to the database that the configuration and libpq's variables name.
///
/// # Errors
/// The connection string, the password file or a certificate cannot be used.
pub(super) fn connector(config: &Config) -> Result<Connector, Failure> {
    if !names_database(config) {
        return Err(Failure::new(Exit::Config, "no database is named")
            .hint("name it with --database-url, DATABASE_URL, PGHOST and its like, or url in [database]"));
    }
    let DatabaseConfig { url, password_file, auth, .. } = &config.database;
    connector_to(config, url.as_deref().unwrap_or_default(), password_file.as_deref(), *auth)
}

/// The way to the database with the slots, if they are in one of their own.
///
/// # Errors
/// As [`connector`].
pub(super) fn slots(config: &Config) -> Result<Option<Connector>, Failure> {
    let VaultConfig { slots_url, slots_password_file, slots_auth, .. } = &config.vault;
    slots_url.as_ref().map(|url| connector_to(config, url, slots_password_file.as_deref(), *slots_auth)).transpose()
}

/// The ways to both.
///
/// # Errors
/// As [`connector`].
pub(super) fn databases(config: &Config) -> Result<Databases, Failure> {
    Ok(Databases { rows: connector(config)?, slots: slots(config)? })
}

fn connector_to(
    config: &Config,
    url: &str,
    password_file: Option<&Path>,
    auth: config::Auth,
) -> Result<Connector, Failure> {
    let mut conninfo = Conninfo::parse(url, account::me(&lookup).as_deref(), &lookup)?;
    for warning in &conninfo.warnings {
        tracing::warn!(part = "database", "{warning}");
    }
    if let Some(path) = password_file {
        conninfo.set_password(&first_line(path)?);
    }
    let database = &config.database;
    let timeouts = Timeouts {
        connect: database.connect_timeout,
        lock: database.lock_timeout,
        statement: database.statement_timeout,
        idle_in_transaction: IDLE_IN_TRANSACTION,
    };
    let connector = Connector::new(conninfo, timeouts)?;
    Ok(match auth {
        config::Auth::Password => connector,
        config::Auth::RdsIam => iam::with_tokens(connector)?,
    })
}

/// By a connection string, or by libpq's variables.
fn names_database(config: &Config) -> bool {
    config.database.url.as_ref().is_some_and(|url| !url.is_empty())
        || ["PGHOST", "PGHOSTADDR", "PGDATABASE", "PGUSER"].iter().any(|name| lookup(name).is_some())
}

fn first_line(path: &Path) -> Result<zeroize::Zeroizing<String>, Failure> {
    let text = fs::read_to_string(path).map(zeroize::Zeroizing::new).map_err(|error| {
        Failure::new(Exit::of_file(&error), format!("cannot read the password from {}", path.display())).because(&error)
    })?;
    Ok(zeroize::Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

/// The keys that a worker needs.
///
/// # Errors
/// No directory is named, a file in it cannot be used, or KMS does not do its part.
pub(super) async fn keys(config: &Config) -> Result<Arc<KeyRing>, Failure> {
    let Some(dir) = &config.keys.dir else {
        return Err(Failure::new(Exit::Config, "no keys are named").hint(
            "make them with `masq keys new keys`, then name the directory with --keys, MASQ_KEYS or dir in [keys]",
        ));
    };
    let epoch_key = config.keys.kms_epoch_key.as_deref();
    Ok(Arc::new(Box::pin(KeyRing::load_with_kms(dir, None, epoch_key, &(Arc::new(lookup) as Lookup))).await?))
}

/// Says which server, queue and table are meant, so that a wrong one is noticed early.
pub(super) fn announce(context: &Context, config: &Config, queue: &SqsQueue, connector: &Connector) {
    tracing::info!(
        queue = queue.url(),
        region = queue.region(),
        database = %connector.conninfo(),
        table = config.table.name,
        workers = config.database.connections,
        file = context.config.as_ref().map(|path| path.display().to_string()),
        "starting"
    );
}
