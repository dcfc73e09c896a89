//! One run of one arm: prepares what it works on, takes the time and CPU time of the work alone, and checks what came out.
//!
//! The window opens when the arm says that it is ready and closes when it says that it is done; for the shipped pipeline
//! it closes when the queue is empty, which is looked at every few milliseconds.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::sleep;

use super::{
    cpu, latency,
    plan::{Arm, Size},
    process::Process,
    redelivered,
    results::{Figure, Figures},
    verify::{Expected, Masks, Wrong, same},
    world::{LocalQueue, World, not_started},
};
use crate::{db::Session, pipeline::now_ms, queue::Queue};

/// How often the queue is asked whether it is empty. More often would cost it time, less often blur the rate.
const GLANCE: Duration = Duration::from_millis(10);

/// How long nothing may change on a queue that a pipeline drains.
const STANDSTILL: Duration = Duration::from_secs(60);

/// Rows of a batch.
const BATCH: usize = 2_000;

/// Measures.
pub(super) struct Bench<'a> {
    pub(super) world: &'a World,
    /// A session that asks how far the WAL is.
    pub(super) observer: &'a Session,
    pub(super) size: Size,
    pub(super) python: Option<PathBuf>,
}

/// Whose time is taken.
struct Meters {
    client: u32,
    queue: Option<u32>,
}

/// What they have used so far.
struct Reading {
    at: Instant,
    client: Duration,
    postgres: Duration,
    queue: Duration,
    wal: f64,
}

/// What lies between two readings.
struct Window {
    seconds: f64,
    client: Duration,
    postgres: Duration,
    queue: Option<Duration>,
    wal: f64,
    resident: u64,
}

impl Window {
    /// The figures of so many messages.
    fn figures(&self, messages: usize, arm: Arm) -> Figures {
        let messages = messages as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / messages;
        let mut figures = Figures::from([(Figure::Rate, messages / self.seconds), (Figure::Client, each(self.client))]);
        // The others hold all their batches in memory beforehand.
        if !matches!(arm, Arm::Load | Arm::FullLedger | Arm::Transform) {
            figures.insert(Figure::Resident, self.resident as f64 / 1024.0 / 1024.0);
        }
        figures.extend(self.queue.map(|time| (Figure::Queue, each(time))));
        if !matches!(arm, Arm::Drain | Arm::Transform) {
            figures.extend([(Figure::Postgres, each(self.postgres)), (Figure::Wal, self.wal / messages)]);
        }
        figures
    }
}

impl Bench<'_> {
    /// Runs an arm once.
    ///
    /// # Errors
    /// It went wrong or left behind what it should not; in words.
    pub(super) async fn run(&self, arm: Arm) -> Result<Figures, String> {
        let outcome = match arm {
            Arm::Drain => self.drain().await,
            Arm::Load | Arm::FullLedger => self.load(arm).await,
            Arm::Transform => self.transform().await,
            Arm::Pipeline | Arm::Tenth | Arm::Vault | Arm::Redelivered => self.pipeline(arm).await,
            Arm::Original | Arm::Tuned => self.python(arm).await,
            Arm::Latency => latency::run(self).await,
        };
        outcome.map_err(|Wrong(why)| why)
    }

    async fn drain(&self) -> Result<Figures, Wrong> {
        let records = self.size.of(Arm::Drain);
        let queue = self.world.queue().await?;
        queue.fill(records).await?;
        let arguments = ["bench", "drain", "--messages", &records.to_string()];
        let command = self.world.worker(&arguments, "off.toml", "prepared", Some(&queue.url));
        let (window, done) = self.by_protocol("the arm drain", command, Some(&queue)).await?;
        same("messages deleted", &done["messages"].to_string(), records)?;
        same("different messages", &done["different"].to_string(), records)?;
        self.finish(window.figures(records, Arm::Drain), records, queue).await
    }

    async fn load(&self, arm: Arm) -> Result<Figures, Wrong> {
        let (records, since) = (self.size.of(arm), now_ms());
        let database = if arm == Arm::Load { self.world.fresh_database().await? } else { self.full_ledger().await? };
        let arguments = ["bench", "load", "--messages", &records.to_string()];
        let command = self.world.worker(&arguments, "off.toml", database, None);
        let (window, done) = self.by_protocol("the arm load", command, None).await?;
        same("rows copied", &done["messages"].to_string(), records)?;
        self.check(database, records, Masks::Keyed(&self.world.keys), Some(since)).await?;
        Ok(window.figures(records, arm))
    }

    /// The database whose ledger is full, without rows.
    async fn full_ledger(&self) -> Result<&'static str, Wrong> {
        self.world.execute("full", &["TRUNCATE user_logins", "CHECKPOINT"]).await?;
        Ok("full")
    }

    async fn transform(&self) -> Result<Figures, Wrong> {
        let records = self.size.of(Arm::Transform);
        let arguments = ["bench", "transform", "--messages", &records.to_string()];
        let command = self.world.worker(&arguments, "off.toml", "prepared", None);
        let (window, done) = self.by_protocol("the arm transform", command, None).await?;
        same("rows", &done["messages"].to_string(), records)?;
        let rows = done["rows"].as_str().unwrap_or_default().as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
        let bytes = rows.chunks_exact(2).map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).unwrap_or(0));
        let expected = Expected { records, masks: Masks::Keyed(&self.world.keys), since: None };
        expected.check_bytes(&bytes.collect::<Vec<u8>>(), BATCH)?;
        Ok(window.figures(records, Arm::Transform))
    }

    async fn python(&self, arm: Arm) -> Result<Figures, Wrong> {
        let Some(python) = &self.python else { return Err(Wrong("there is no Python".to_owned())) };
        let (records, since) = (self.size.of(arm), now_ms());
        let database = self.world.fresh_database().await?;
        let queue = self.world.queue().await?;
        queue.fill(records).await?;
        let (name, script) = if arm == Arm::Original {
            ("the original's loop", "original.py")
        } else {
            ("the tuned Python", "tuned.py")
        };
        let file = |name: &str| self.world.file(name).display().to_string();
        let (messages, url) = (records.to_string(), self.world.database(database));
        let arguments = [&file(script), &queue.url, &url, &messages, &file("keys/token.key")];
        let command = self.world.command(python, &arguments.map(String::as_str));
        let (window, done) = self.by_protocol(name, command, Some(&queue)).await?;
        same("messages taken", &done["messages"].to_string(), records)?;
        let (masks, since) = match arm {
            Arm::Original => (Masks::Sha256, None),
            _ => (Masks::Keyed(&self.world.keys), Some(since)),
        };
        self.check(database, records, masks, since).await?;
        self.finish(window.figures(records, arm), records, queue).await
    }

    async fn pipeline(&self, arm: Arm) -> Result<Figures, Wrong> {
        let (records, since) = (self.size.of(arm), now_ms());
        let database = self.world.fresh_database().await?;
        let mut queue = self.world.queue().await?;
        queue.fill(records).await?;
        if arm == Arm::Redelivered {
            queue.not_counted = redelivered::prepare(self.world, &queue, database, self.size).await?;
        }
        let config = if arm == Arm::Vault { "vault.toml" } else { "off.toml" };
        let arguments = ["run", "--drain", "--listen", "off"];
        let command = self.world.worker(&arguments, config, database, Some(&queue.url));
        let mut process = Process::start("masq run", command).map_err(|error| Wrong(not_started(&error)))?;
        process.says(r#""message":"ready""#).await?;
        let meters = Meters { client: process.id(), queue: Some(queue.process.id()) };
        let before = self.read(&meters).await?;
        self.until_empty(&mut process, &queue).await?;
        let window = self.since(before, &meters).await?;
        self.check(database, records, Masks::Keyed(&self.world.keys), Some(since)).await?;
        process.end().await?;
        let mut figures = window.figures(records, arm);
        if arm == Arm::Vault {
            figures.insert(Figure::Sealed, self.sealed(database).await? / records as f64);
        }
        self.finish(figures, records, queue).await
    }

    /// Waits until the queue holds nothing any more.
    async fn until_empty(&self, process: &mut Process, queue: &LocalQueue) -> Result<(), Wrong> {
        let mut last = (queue.queue.depth().await.map_err(|error| Wrong(error.to_string()))?, Instant::now());
        while !last.0.is_empty() {
            if process.has_ended().is_some() {
                return Err(Wrong(process.why().await));
            }
            if last.1.elapsed() > STANDSTILL {
                return Err(Wrong("masq run stands still, with messages on the queue".to_owned()));
            }
            sleep(GLANCE).await;
            let depth = queue.queue.depth().await.map_err(|error| Wrong(error.to_string()))?;
            if depth != last.0 {
                last = (depth, Instant::now());
            }
        }
        Ok(())
    }

    /// How many sealed values a database holds.
    async fn sealed(&self, database: &str) -> Result<f64, Wrong> {
        let session = self.world.session(database).await?;
        let rows = session.texts("counting sealed values", "SELECT count(*) FROM masq.entries").await?;
        session.close().await;
        Ok(rows.first().and_then(|row| row[0].as_ref()?.parse().ok()).unwrap_or(0.0))
    }

    /// Takes a process through its protocol. Answers what it took, and what it says it has done.
    async fn by_protocol(
        &self,
        name: &'static str,
        command: std::process::Command,
        queue: Option<&LocalQueue>,
    ) -> Result<(Window, Value), Wrong> {
        let mut process = Process::start(name, command).map_err(|error| Wrong(not_started(&error)))?;
        let ready = process.line().await?;
        if ready != "ready" {
            return Err(Wrong(format!("{name} says something else than that it is ready")));
        }
        let meters = Meters { client: process.id(), queue: queue.map(|queue| queue.process.id()) };
        let before = self.read(&meters).await?;
        process.go().await?;
        let done = process.line().await?;
        let window = self.since(before, &meters).await?;
        process.end().await?;
        let done = serde_json::from_str(&done).map_err(|_| Wrong(format!("{name} does not say what it did")))?;
        Ok((window, done))
    }

    async fn read(&self, meters: &Meters) -> Result<Reading, Wrong> {
        let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')";
        let wal = self.observer.texts("asking how far the WAL is", sql).await?;
        Ok(Reading {
            wal: wal.first().and_then(|row| row[0].as_ref()?.parse().ok()).unwrap_or(0.0),
            at: Instant::now(),
            client: cpu::of_process(meters.client)?,
            postgres: cpu::of_server(self.world.postgres())?,
            queue: meters.queue.map_or(Ok(Duration::ZERO), cpu::of_process)?,
        })
    }

    async fn since(&self, before: Reading, meters: &Meters) -> Result<Window, Wrong> {
        let ended = Instant::now();
        let after = self.read(meters).await?;
        Ok(Window {
            seconds: (ended - before.at).as_secs_f64(),
            client: after.client - before.client,
            postgres: after.postgres - before.postgres,
            queue: meters.queue.map(|_| after.queue - before.queue),
            wal: after.wal - before.wal,
            resident: cpu::most_resident(meters.client)?,
        })
    }

    /// Compares what is in a database with what should be.
    pub(super) async fn check(
        &self,
        database: &str,
        records: usize,
        masks: Masks<'_>,
        since: Option<i64>,
    ) -> Result<(), Wrong> {
        let session = self.world.session(database).await?;
        let checked = Expected { records, masks, since }.check_database(&session).await;
        session.close().await;
        checked
    }

    /// Looks whether the queue is empty, ends it, and adds what was asked of it.
    async fn finish(&self, mut figures: Figures, records: usize, queue: LocalQueue) -> Result<Figures, Wrong> {
        let depth = queue.queue.depth().await.map_err(|error| Wrong(error.to_string()))?;
        same("messages left on the queue", &(depth.visible + depth.in_flight + depth.delayed).to_string(), 0)?;
        let requests = queue.stop().await?;
        figures.insert(Figure::Requests, requests as f64 / records as f64);
        Ok(figures)
    }
}
