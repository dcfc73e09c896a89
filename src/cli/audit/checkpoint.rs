//! `masq audit checkpoint`: signs how far the audit log goes and what is in it, for a place that the owner of the database
//! cannot reach.

use std::path::PathBuf;

use super::session;
use crate::{
    cli::{
        context::Context,
        exit::Exit,
        report::{self, Failure},
        signals,
        sources::{DatabaseSource, KeysSource, Sources},
    },
    vault::{
        audit::sign::{self, SignError},
        keyring::{self, KeyError},
    },
};

/// Sign the audit log as it is now, with audit.key
///
/// The signed checkpoint goes to stdout, as C2SP writes it (c2sp.org/tlog-checkpoint), and to the file of [audit]
/// checkpoints. What it covers cannot be changed any more without `masq audit verify` noticing. Reveals, erasures and
/// rotations sign one by themselves where that file and audit.key are at hand.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq audit checkpoint --append /mnt/worm/checkpoints
  masq audit checkpoint |
    aws s3 cp - s3://locked/masq/$(date -u +%FT%TZ)    to a bucket with Object Lock")]
pub(super) struct Args {
    /// Append it to this file [default: checkpoints in [audit], if it is set]
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseSource,
    #[command(flatten)]
    keys: KeysSource,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    signals::unless_stopped(checkpoint(args, context)).await
}

async fn checkpoint(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { database: args.database, keys: args.keys, ..Sources::default() }.config(context)?;
    let Some(dir) = &config.keys.dir else {
        return Err(Failure::new(Exit::Config, "no directory of keys is named")
            .hint("name the one with audit.key with --keys, MASQ_KEYS or dir in [keys]"));
    };
    let signer = keyring::audit_key(dir).map_err(|error| match error {
        KeyError::Missing { .. } | KeyError::Lost { .. } => Failure::from(error).hint(
            "keys that were made before there was an audit log have none: make new ones elsewhere with `masq keys new`, and \
             take audit.key and audit.pub from there",
        ),
        error => error.into(),
    })?;
    let session = session(&config).await?;
    let checkpoint = sign::checkpoint(&session, &signer).await?;
    session.close().await;
    if let Some(path) = args.append.or(config.audit.checkpoints) {
        sign::append(&path, &checkpoint)?;
        context.say(format_args!("The checkpoint is appended to {}.", path.display()));
    }
    report::print(checkpoint)?;
    Ok(Exit::Done)
}

impl From<SignError> for Failure {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Key(error) => error.into(),
            SignError::Database(error) => error.into(),
            SignError::File { ref source, .. } => Self::of(Exit::of_file(source), &error),
        }
    }
}
