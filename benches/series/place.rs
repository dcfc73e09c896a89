//! What the runs of a series share: a directory, a private PostgreSQL and keys. All of it is gone when the series ends,
//! however it ends.

use std::{path::PathBuf, process::Stdio, time::Duration};

use masq::{
    db::{Connector, Session, Timeouts, conninfo::Conninfo},
    local::{
        postgres::{Options, PrivatePostgres},
        scratch::Scratch,
    },
    vault::keyring,
};
use tokio::process::Command;

/// How long things may take in the series' own sessions, which count millions of rows.
const PATIENCE: Duration = Duration::from_secs(600);

/// The login pipeline without the vault.
const VAULT_OFF: &str = include_str!("../../src/cli/bench/vault-off.toml");

pub(crate) struct Place {
    pub(crate) server: PrivatePostgres,
    directory: Scratch,
}

impl Place {
    #[allow(clippy::disallowed_methods, reason = "initdb is looked for on the PATH")]
    pub(crate) async fn new() -> Result<Self, String> {
        let directory = Scratch::new("masq-series-").map_err(told)?;
        keyring::create(&directory.path().join("keys"), None).map_err(told)?;
        std::fs::write(directory.path().join("off.toml"), VAULT_OFF).map_err(told)?;
        std::fs::write(directory.path().join("on.toml"), "").map_err(told)?;
        let options = Options {
            directory: directory.path().join("cluster"),
            path: std::env::var("PATH").ok(),
            ..Options::default()
        };
        Ok(Self { server: PrivatePostgres::start(&options).await.map_err(told)?, directory })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A session with a database of this server, as its superuser.
    pub(crate) async fn session(&self, database: &str) -> Result<Session, String> {
        let timeouts =
            Timeouts { connect: PATIENCE, lock: PATIENCE, statement: PATIENCE, idle_in_transaction: PATIENCE };
        let conninfo = Conninfo::parse(&self.url(database), None, &|_| None).map_err(told)?;
        Connector::new(conninfo, timeouts).map_err(told)?.connect().await.map_err(told)
    }

    pub(crate) fn url(&self, database: &str) -> String {
        let url = self.server.conninfo();
        format!("{}/{database}", url.strip_suffix("/postgres").unwrap_or(&url))
    }

    /// masq with these arguments and nothing of this machine's environment. It ends with its handle.
    pub(crate) fn masq(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_masq"));
        command.args(arguments).current_dir(self.directory.path()).env_clear().kill_on_drop(true);
        for (name, value) in [("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any"), ("MASQ_LISTEN", "off")] {
            command.env(name, value);
        }
        command.env("AWS_REGION", "us-east-1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// An error as the series tells it.
pub(crate) fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}
