//! What the figures were measured on: without that they mean nothing.

use std::{fs, thread};

use serde_json::{Value, json};

use crate::db::{DbError, Session};

/// The machine, and what ran on it.
pub(super) struct Machine {
    cores: usize,
    cpu: String,
    memory_gib: f64,
    /// The load average of the last minute when the benchmark began: others at work make every rate smaller.
    load: f64,
    postgres: String,
}

/// How this program was built.
pub(super) const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

impl Machine {
    /// This one, with the PostgreSQL of this session.
    ///
    /// # Errors
    /// PostgreSQL does not say which it is.
    pub(super) async fn read(session: &Session) -> Result<Self, DbError> {
        let version = session.texts("asking for the version", "SHOW server_version").await?;
        let version = version.first().and_then(|row| row[0].clone()).unwrap_or_default();
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let kib: f64 = after(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
        Ok(Self {
            cores: thread::available_parallelism().map_or(0, usize::from),
            cpu: after(&read("/proc/cpuinfo"), "model name"),
            memory_gib: kib / 1024.0 / 1024.0,
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            postgres: version.split(' ').next().unwrap_or_default().to_owned(),
        })
    }

    /// In a line or two.
    pub(super) fn text(&self) -> String {
        let Self { cores, cpu, memory_gib, load, postgres } = self;
        format!(
            "masq {} ({BUILD} build), PostgreSQL {postgres}, {cores} cores of {cpu}, {memory_gib:.0} GiB; load average \
             at the start {load:.2}",
            env!("CARGO_PKG_VERSION")
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "masq": env!("CARGO_PKG_VERSION"),
            "build": BUILD,
            "postgres": self.postgres,
            "cores": self.cores,
            "cpu": self.cpu,
            "memory_gib": (self.memory_gib * 10.0).round() / 10.0,
            "load_average": self.load,
        })
    }
}
