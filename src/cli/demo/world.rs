//! What the demo runs in: a queue, a database and keys of its own, in a directory that goes when it ends.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::VISIBILITY;
use crate::{
    cli::{environment::lookup, exit::Exit, report::Failure},
    config::{Config, Override, Overrides, Sources},
    local::{
        postgres::{Options as PostgresOptions, PrivatePostgres},
        scratch::Scratch,
        sqs::SqsServer,
    },
    queue::memory::{MemoryQueues, Settings},
    vault::keyring,
};

/// The queue's name, as in the exercise that masq grew from.
pub(super) const QUEUE: &str = "login-queue";

/// What runs while the demo does; it ends with it.
pub(super) struct World {
    postgres: PrivatePostgres,
    server: SqsServer,
    directory: Scratch,
}

impl World {
    /// Starts the queue and the database, side by side.
    pub(super) async fn start(postgres_bin: Option<PathBuf>) -> Result<Self, Failure> {
        let failure = |error: &dyn std::error::Error| Failure::of(Exit::Absent, error);
        let directory = Scratch::new("masq-demo-").map_err(|error| failure(&error))?;
        let options = PostgresOptions {
            directory: directory.path().join("postgres"),
            bin: postgres_bin,
            path: lookup("PATH"),
            port: Some(0),
            ..PostgresOptions::default()
        };
        let queues = MemoryQueues::new();
        let settings = Settings { visibility: VISIBILITY, ..Settings::default() };
        queues.create(QUEUE, settings).map_err(|error| failure(&error))?;
        keyring::create(&directory.path().join("keys"), None)?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (postgres, server) = tokio::join!(PrivatePostgres::start(&options), SqsServer::start(loopback, queues));
        Ok(Self {
            postgres: postgres.map_err(|error| failure(&error))?,
            server: server.map_err(|error| failure(&error))?,
            directory,
        })
    }

    /// The directory of all keys, `recovery.key` among them.
    pub(super) fn keys(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    /// The file to which erasures are appended.
    pub(super) fn erasures(&self) -> PathBuf {
        self.directory.path().join("erasures.jsonl")
    }

    /// The database, for whoever wants to look inside.
    pub(super) fn database(&self) -> String {
        self.postgres.tcp_conninfo().unwrap_or_else(|| self.postgres.conninfo())
    }

    /// The built-in configuration, pointed at this world.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let said = |value: String| Some(Override { value, source: "demo".to_owned() });
        let overrides = Overrides {
            queue_url: said(self.server.queue_url(QUEUE)),
            database_url: said(self.postgres.conninfo()),
            keys_dir: said(self.keys().display().to_string()),
            ..Overrides::default()
        };
        Ok(Config::check(&Sources { file: None, overrides })?)
    }

    /// Ends it and removes everything.
    pub(super) async fn stop(self) {
        self.server.stop().await;
        self.postgres.stop().await;
        // Only now: a server that runs would miss its files.
        drop(self.directory);
    }
}
