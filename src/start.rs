//! From a configuration to workers that can run: wait for the database and the queue, migrate where this login may,
//! refuse to start over a problem, and put the parts of each worker together.
//!
//! Used by `masq run` and by the demo. It takes no message off the queue.

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::{
    backoff::Backoff,
    check::{self, Finding, Severity},
    config::{ColumnType, Config, Dedupe},
    db::{
        ConnectError, Connector, DbError, Session,
        catalog::Table,
        examine::{self, Examined},
        known_keys, slots, targets,
    },
    metrics::Metrics,
    pipeline::{Status, Worker, decode::Decoder, mask::Masker, now_ms, receive::Intake, value::Limits},
    queue::{
        Queue, QueueError,
        room::Room,
        sqs::{QueueAttributes, SqsQueue},
    },
    setup,
    sink::{
        ledger::{self, Retention},
        postgres::{PostgresSink, Target},
        witness::Stand,
    },
    vault::{keyfile::KeyError, keyring::KeyRing, refusal::Refusal, retention::Keep, token::TooLong},
};

/// How long a message is hidden from others where neither the configuration nor the queue says: SQS's own default.
const VISIBILITY: Duration = Duration::from_secs(30);

/// The shortest time for which one is hidden, whatever the queue says: extending it is not to become all the work.
const SHORTEST_VISIBILITY: Duration = Duration::from_secs(2);

/// Why nothing was started.
#[derive(Debug, Error)]
pub enum StartError {
    /// It did not answer before the deadline.
    #[error("{0}")]
    Absent(String),
    /// A login or permission was refused.
    #[error("{0}")]
    Denied(String),
    /// Problems to be solved first, all at once.
    #[error("{}", lines(.0))]
    Problems(Vec<Finding>),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The domain of a token is too long.
    #[error(transparent)]
    Domain(#[from] TooLong),
}

/// How to start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Until when what is absent is waited for.
    pub deadline: Instant,
    /// Whether a database that may lose commits is good enough.
    pub allow_unsafe: bool,
}

/// A database in which the pipeline can run.
pub struct Ready {
    target: Arc<Target>,
    stored: Vec<ColumnType>,
    oldest: i64,
    /// The queue's ARN or name.
    queue: String,
    /// The keys to be used instead of those that were given, for another of theirs makes the tokens here.
    active_keys: Option<Arc<KeyRing>>,
}

impl Ready {
    /// What the workers write to, and how it is reached.
    pub fn target(&self) -> Arc<Target> {
        Arc::clone(&self.target)
    }

    /// Claims producers' ids under the ARN of the queue, where it says one, so that a queue of the same name elsewhere
    /// has ids of its own.
    #[must_use]
    pub fn of_queue(self, attributes: &QueueAttributes) -> Self {
        if attributes.arn.is_empty() { self } else { Self { queue: attributes.arn.clone(), ..self } }
    }

    /// Puts workers together, as many as there are connections.
    ///
    /// # Errors
    /// If keys cannot be used.
    pub async fn workers<Q: Queue>(
        &self,
        queue: &Q,
        config: &Config,
        shared: &Shared,
        intake: &Intake,
    ) -> Result<Vec<Worker<Q, PostgresSink>>, StartError> {
        let decoder = Arc::new(decoder(config, &self.stored));
        let keys = self.active_keys.as_ref().unwrap_or(&shared.keys);
        let mut workers = Vec::with_capacity(config.database.connections);
        for _ in 0..config.database.connections {
            let epoch = keys.new_epoch(now_ms()).await?;
            workers.push(Worker {
                queue: queue.clone(),
                sink: PostgresSink::new(self.target(), self.oldest),
                intake: intake.clone(),
                decoder: Arc::clone(&decoder),
                masker: Masker::new(&config.columns, &self.stored, Arc::clone(keys), epoch)?.of_queue(&self.queue),
                status: Arc::clone(&shared.status),
                metrics: Arc::clone(&shared.metrics),
            });
        }
        Ok(workers)
    }

    /// What reads and masks dead letters again, and the sink that takes them.
    ///
    /// # Errors
    /// As [`Ready::workers`].
    pub async fn reader(
        &self,
        config: &Config,
        keys: &Arc<KeyRing>,
    ) -> Result<(Decoder, Masker, PostgresSink), StartError> {
        let keys = self.active_keys.as_ref().unwrap_or(keys);
        let epoch = keys.new_epoch(now_ms()).await?;
        let masker = Masker::new(&config.columns, &self.stored, Arc::clone(keys), epoch)?.of_queue(&self.queue);
        Ok((decoder(config, &self.stored), masker, PostgresSink::new(self.target(), self.oldest)))
    }
}

fn lines(findings: &[Finding]) -> String {
    let line = |finding: &Finding| match finding.remedy.as_str() {
        "" => format!("{}: {}", finding.part, finding.what),
        remedy => format!("{}: {}: {remedy}", finding.part, finding.what),
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Connects, waiting for a server that is away.
///
/// # Errors
/// [`StartError::Absent`] after the deadline; at once what no waiting helps against.
pub async fn connect(connector: &Connector, deadline: Instant) -> Result<Session, StartError> {
    let mut patience = Patience::new(deadline);
    loop {
        match connector.connect().await {
            Ok(session) => return Ok(session),
            Err(ConnectError::Unavailable(what)) => patience.wait("database", what).await?,
            Err(ConnectError::Denied(what)) => return Err(StartError::Denied(what)),
            Err(error) => return Err(refused("database", error.to_string())),
        }
    }
}

/// Asks a queue for its attributes, waiting for one that does not answer or does not exist yet.
///
/// # Errors
/// As [`connect`].
pub async fn attributes(queue: &SqsQueue, deadline: Instant) -> Result<QueueAttributes, StartError> {
    let mut patience = Patience::new(deadline);
    loop {
        match queue.attributes().await {
            Ok(attributes) => return Ok(attributes),
            Err(error @ QueueError::Unavailable { .. }) => patience.wait("queue", error.to_string()).await?,
            Err(error @ QueueError::Denied { .. }) => return Err(StartError::Denied(error.to_string())),
        }
    }
}

/// The ways to the databases that outcomes are written to.
pub struct Databases {
    /// To that of the rows.
    pub rows: Connector,
    /// To that of the slots, if they are in one of their own.
    pub slots: Option<Connector>,
}

impl From<Connector> for Databases {
    fn from(rows: Connector) -> Self {
        Self { rows, slots: None }
    }
}

/// Makes a database ready: migrates it if something is missing, examines it, claims it for these keys. Begins anew when
/// the database goes away meanwhile.
///
/// # Errors
/// All problems at once.
pub async fn database(
    databases: impl Into<Databases>,
    config: &Config,
    keys: &KeyRing,
    queue_name: &str,
    options: Options,
) -> Result<Ready, StartError> {
    let Databases { rows: connector, slots } = databases.into();
    // Before a table is created that does not take them.
    refuse_problems(&mut check::defaults(config))?;
    let mut patience = Patience::new(options.deadline);
    let Prepared { table, stored, oldest, active_keys } = loop {
        match prepare(&connector, slots.as_ref(), config, keys, options).await {
            Err(StartError::Absent(what)) => patience.wait("database", what).await?,
            prepared => break prepared?,
        }
    };
    let columns = config.columns.iter().map(|column| column.name.clone()).collect();
    let (retention, dedupe_retention) = (Retention::new(config.ledger.retention), config.ledger.dedupe_retention);
    let queue = queue_name.to_owned();
    let stand = Stand::default();
    let keep = Keep { values: config.vault.retention, letters: config.dead_letters.retention };
    let target = Target { connector, table, columns, retention, dedupe_retention, queue, stand, keep, slots };
    Ok(Ready { target: Arc::new(target), stored, oldest, queue: queue_name.to_owned(), active_keys })
}

/// Connects with the database of the slots, waiting for one that is away.
///
/// # Errors
/// As [`connect`], and if it is the one with the rows.
pub async fn connect_slots(rows: &Session, slots: &Connector, deadline: Instant) -> Result<Session, StartError> {
    let session = connect(slots, deadline).await?;
    refuse_problems(&mut slots::beside_rows(rows, &session).await?.into_iter().collect())?;
    Ok(session)
}

/// The target table, the types of the configured columns, the oldest SentTimestamp that the ledger remembers, and the keys
/// to be used instead of those that were given.
struct Prepared {
    table: Table,
    stored: Vec<ColumnType>,
    oldest: i64,
    active_keys: Option<Arc<KeyRing>>,
}

async fn prepare(
    connector: &Connector,
    slots: Option<&Connector>,
    config: &Config,
    keys: &KeyRing,
    options: Options,
) -> Result<Prepared, StartError> {
    let mut session = connect(connector, options.deadline).await?;
    let slots = match slots {
        Some(slots) => Some(connect_slots(&session, slots, options.deadline).await?),
        None => None,
    };
    let mut examined = examine::examine(&session, config, Some(keys), options.allow_unsafe).await?;
    refuse_problems(&mut examined.findings)?;
    if examined.needs_migration {
        setup::migrate(&mut session, config).await?;
        examined = examine::examine(&session, config, Some(keys), options.allow_unsafe).await?;
    }
    let Examined { mut findings, table, stored, active_keys, .. } = examined;
    refuse_problems(&mut findings)?;
    refuse_problems(&mut known_keys::claim(&session, active_keys.as_ref().unwrap_or(keys)).await?)?;
    let Some(table) = table else {
        return Err(refused("table", format!("{} cannot be found after it was created", config.table.name)));
    };
    refuse_problems(&mut targets::describe(&session, &table, &config.columns).await?)?;
    if let Some(slots) = slots {
        setup::migrate_slots(&slots, config).await?;
        slots.close().await;
    }
    let oldest = session
        .within(ledger::keep_partitions(&session, config.ledger.retention))
        .await
        .map_err(|error| DbError::new("making the ledger's partitions", &error))?;
    session.close().await;
    Ok(Prepared { table, stored, oldest, active_keys: active_keys.map(Arc::new) })
}

/// What every worker shares.
#[derive(Clone)]
pub struct Shared {
    /// What is wrong right now.
    pub status: Arc<Status>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// The keys.
    pub keys: Arc<KeyRing>,
}

/// How each worker receives, where the queue itself hides messages for `visibility`; with `drain` until it is empty.
pub fn intake(config: &Config, visibility: Option<Duration>, drain: bool) -> Intake {
    let visibility = config.queue.visibility.or(visibility).unwrap_or(VISIBILITY).max(SHORTEST_VISIBILITY);
    Intake::new(visibility, Room::new(config.queue.max_in_flight_bytes), drain)
}

/// What judges messages, as the configuration says they come, for columns that are stored as these types.
pub fn decoder(config: &Config, stored: &[ColumnType]) -> Decoder {
    let limits = config.columns.iter().zip(stored).map(|(column, stored)| Limits::of(*stored, column.mask.as_ref()));
    let decoder = Decoder::new(config.columns.clone(), limits.collect(), config.unknown_fields);
    let decoder = decoder.unwrapping(config.queue.envelope);
    match &config.queue.dedupe {
        Some(Dedupe::Body(path)) => decoder.with_event_id(path.clone()),
        // Comes with the message, not in it.
        Some(Dedupe::Attribute(_)) | None => decoder,
    }
}

/// Logs the notes and refuses to go on over anything worse.
///
/// # Errors
/// All problems at once.
pub fn refuse_problems(findings: &mut Vec<Finding>) -> Result<(), StartError> {
    for note in findings.extract_if(.., |finding| finding.severity == Severity::Note) {
        tracing::warn!(part = note.part, remedy = note.remedy, "{}", note.what);
    }
    if findings.is_empty() { Ok(()) } else { Err(StartError::Problems(std::mem::take(findings))) }
}

fn refused(part: &'static str, what: String) -> StartError {
    StartError::Problems(vec![Finding::new(Severity::Refused, part, what, "")])
}

impl From<DbError> for StartError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(what) => Self::Absent(what),
            DbError::Denied(what) => Self::Denied(what),
            DbError::Misconfigured(what) => refused("database", what),
            DbError::Refused(Refusal { remedy, said }) => {
                Self::Problems(vec![Finding::refused("database", said, remedy.advice())])
            }
        }
    }
}

/// Waits for what is absent, says so once, and gives up at the deadline.
struct Patience {
    backoff: Backoff,
    deadline: Instant,
    said: bool,
}

impl Patience {
    fn new(deadline: Instant) -> Self {
        let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));
        Self { backoff, deadline, said: false }
    }

    async fn wait(&mut self, part: &'static str, what: String) -> Result<(), StartError> {
        if Instant::now() >= self.deadline {
            return Err(StartError::Absent(what));
        }
        if !self.said {
            tracing::warn!(part, "waiting: {what}");
            self.said = true;
        }
        sleep(self.backoff.next(fastrand::f64())).await;
        Ok(())
    }
}
