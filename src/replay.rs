//! Dead letters put through the pipeline again: opened on the record, read and masked as the configuration says now,
//! and written as rows in the transaction that resolves them.
//!
//! What is refused again stays the dead letter that it was. Nothing depends on getting to the end: what was written is
//! resolved, and the same command goes on with the rest. An outage of the database is waited out for a while.

use std::{collections::HashMap, fmt, time::Duration};

use thiserror::Error;
use tokio::time::Instant;

use crate::{
    backoff::Backoff,
    db::{DbError, Session},
    event::Reason,
    pipeline::{
        decode::Decoder,
        mask::{Masker, mask},
    },
    queue::{Key, Message, Receipt},
    shutdown::Shutdown,
    sink::{Batch, Entry, SinkError, Verdict, postgres::PostgresSink, replay::Replayed},
    vault::{
        dead::{self, Letter, Opening, Taken, Unresolved, Which},
        epochs::Opener,
        kms::{KmsError, epochs::KmsOpener},
        recovery::RecoveryKey,
        seal::OpenError,
    },
};

/// Letters of one transaction, at most. Fewer leave the cost of a commit to too few rows; more make the work larger that
/// a refused row halves and an outage repeats.
const LETTERS: usize = 500;

/// Bytes of bodies that are held at a time, unless a single one is larger. It bounds the memory.
const BODIES: u64 = 8 << 20;

/// How long a database is waited for that was there before. Longer than a restart takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// Which letters.
    pub which: Which<'a>,
    /// Who asks, and why.
    pub opening: Opening<'a>,
    /// Opens them.
    pub key: Option<&'a RecoveryKey>,
    /// Opens those that the key does not.
    pub kms: Option<&'a KmsOpener>,
    /// Also those that may be rows already, which the ledger is too young to know.
    pub force: bool,
    /// Writes nothing but the openings.
    pub dry_run: bool,
}

/// A letter, and what became of it.
pub struct Fate {
    /// As it was.
    pub letter: Letter,
    /// What it is now.
    pub became: Became,
}

/// What became of a letter.
pub enum Became {
    /// A row.
    Row,
    /// Nothing: it was replayed or purged by somebody else, or by this before an answer was lost.
    Settled,
    /// It stays a dead letter.
    Stays(Why),
}

/// Why a letter stays one.
#[derive(Debug, PartialEq, Eq)]
pub enum Why {
    /// Read or written today it would be a dead letter again, for this reason.
    Refused(Reason),
    /// It may be a row already, and nobody said to go on all the same.
    Late,
    /// The ledger says something else of its message.
    Contradicted,
    /// Another message that brought its event is a row.
    Repeated,
    /// It cannot be opened.
    Shut(OpenError),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => reason.fmt(f),
            Self::Late => f.write_str("it is older than the ledger and may be a row already; --force replays it"),
            Self::Contradicted => f.write_str("the ledger says that it is no dead letter: see `masq reconcile`"),
            Self::Repeated => f.write_str("another message brought the same event, and is a row"),
            Self::Shut(error) => error.fmt(f),
        }
    }
}

/// Why it did not go on. What was written stays written.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The database cannot do what was asked of it.
    #[error(transparent)]
    Database(#[from] DbError),
    /// KMS does not open them.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The signal to stop came while it waited.
    #[error("stopped while the database was away")]
    Stopped,
}

/// Letters on their way to becoming rows.
pub struct Replay<'a> {
    order: Order<'a>,
    opener: Opener<'a>,
    decoder: Decoder,
    masker: Masker,
    sink: PostgresSink,
    shutdown: &'a Shutdown,
    session: Option<Session>,
    letters: Unresolved<'a>,
    after: Option<Key>,
    outage: Option<Outage>,
}

/// The database is away.
struct Outage {
    deadline: Instant,
    backoff: Backoff,
}

impl<'a> Replay<'a> {
    /// Fixes which letters these are: those that there are now, of which it also answers how many.
    ///
    /// # Errors
    /// If the database cannot say.
    pub async fn new(
        order: Order<'a>,
        (decoder, masker, sink): (Decoder, Masker, PostgresSink),
        session: Session,
        shutdown: &'a Shutdown,
    ) -> Result<(Self, u64), DbError> {
        let letters = Unresolved::now(&session, order.which).await?;
        let count = letters.count(&session).await?;
        let (opener, session) = (Opener::either(order.key, order.kms), Some(session));
        Ok((
            Self { order, opener, decoder, masker, sink, shutdown, session, letters, after: None, outage: None },
            count,
        ))
    }

    /// Replays the next letters, `limit` at most. `None`: there are no more.
    ///
    /// # Errors
    /// What no waiting helps against, or has not helped against for a while.
    pub async fn next(&mut self, limit: u64) -> Result<Option<Vec<Fate>>, ReplayError> {
        let limit = usize::try_from(limit).unwrap_or(LETTERS).min(LETTERS);
        let letters = loop {
            match self.read(limit).await {
                Ok(letters) => break letters,
                Err(error) => self.wait_out(error).await?,
            }
        };
        self.outage = None;
        let Some(last) = letters.last() else { return Ok(None) };
        self.after = Some(last.key);
        let mut became: HashMap<Key, Became> = HashMap::new();
        let may_open = |letter: &&Letter| self.order.force || letter.reason != Reason::OlderThanLedger.to_string();
        let (open, late): (Vec<&Letter>, Vec<&Letter>) = letters.iter().partition(may_open);
        became.extend(late.iter().map(|letter| (letter.key, Became::Stays(Why::Late))));
        let messages = loop {
            match self.open(&open).await {
                Ok(opened) => break split(opened, &mut became),
                Err(ReplayError::Database(error)) => self.wait_out(error).await?,
                Err(error) => return Err(error),
            }
        };
        let batch = mask(messages, |message| self.decoder.read(message), &mut self.masker);
        self.write(&batch, &mut became).await?;
        // A letter that could not be read was purged between the two looks.
        let fate = |letter: Letter| Fate { became: became.remove(&letter.key).unwrap_or(Became::Settled), letter };
        Ok(Some(letters.into_iter().map(fate).collect()))
    }

    /// The next letters, unopened: as many as may be held at a time.
    async fn read(&mut self, limit: usize) -> Result<Vec<Letter>, DbError> {
        let (after, unresolved) = (self.after, self.letters);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut letters = unresolved.after(self.session().await?, after, limit).await?;
        let mut bytes = 0;
        let fitting = letters.iter().take_while(|letter| {
            bytes += u64::from(letter.body_bytes.unsigned_abs());
            bytes <= BODIES
        });
        let fitting = fitting.count();
        letters.truncate(fitting.max(1));
        Ok(letters)
    }

    /// The messages of these letters, or why one stays shut.
    async fn open(&mut self, letters: &[&Letter]) -> Result<Vec<Result<Message, (Key, OpenError)>>, ReplayError> {
        let opening = self.order.opening;
        let keys: Vec<Key> = letters.iter().map(|letter| letter.key).collect();
        let taken =
            if keys.is_empty() { Vec::new() } else { dead::take(self.session().await?, &keys, opening).await? };
        self.opener.fetch(taken.iter().map(Taken::header)).await?;
        let attempts: HashMap<Key, u32> =
            letters.iter().map(|letter| (letter.key, letter.receive_count.unsigned_abs())).collect();
        let message = |taken: &Taken| {
            let mut body = taken.open(&mut self.opener).map_err(|error| (taken.key(), error))?;
            let attempt = attempts.get(&taken.key()).copied().unwrap_or(1);
            Ok(Message::new(taken.key(), attempt, std::mem::take(&mut *body), Receipt("".into())))
        };
        Ok(taken.iter().map(message).collect())
    }

    /// Writes the rows of a batch, halving what the table refuses. What is refused alone stays a dead letter.
    async fn write(&mut self, batch: &Batch, became: &mut HashMap<Key, Became>) -> Result<(), ReplayError> {
        for Entry { message, verdict } in &batch.entries {
            match verdict {
                Verdict::Dead(dead) => {
                    became.insert(message.key, Became::Stays(Why::Refused(dead.reason.clone())));
                }
                Verdict::Row(_) if self.order.dry_run => {
                    became.insert(message.key, Became::Row);
                }
                Verdict::Row(_) => {}
            }
        }
        let mut parts = Vec::new();
        if !self.order.dry_run {
            parts.push(0..batch.len());
        }
        while let Some(part) = parts.pop() {
            match self.sink.replay(batch, part.clone(), self.order.opening).await {
                Ok(replayed) => {
                    self.outage = None;
                    became.extend(replayed.into_iter().map(|(key, replayed)| (key, now(replayed))));
                }
                Err(SinkError::Refused { .. } | SinkError::TooSlow(_)) if part.len() > 1 => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                }
                Err(SinkError::Refused { sqlstate, place, .. }) => {
                    tracing::warn!(%sqlstate, place, "PostgreSQL refuses a row; its message stays a dead letter");
                    let why = Why::Refused(Reason::DbRejected(sqlstate));
                    became.insert(batch.entries[part.start].message.key, Became::Stays(why));
                }
                Err(SinkError::Unavailable(what) | SinkError::Busy(what) | SinkError::TooSlow(what)) => {
                    self.wait_out(DbError::Unavailable(what)).await?;
                    parts.push(part);
                }
                Err(SinkError::Misconfigured(what) | SinkError::KeyReplaced(what)) => {
                    return Err(DbError::Misconfigured(what).into());
                }
            }
        }
        Ok(())
    }

    /// The session in which letters are opened: another one if it was lost.
    ///
    /// # Errors
    /// There is no other one.
    pub async fn session(&mut self) -> Result<&Session, DbError> {
        if self.session.as_ref().is_none_or(|session| session.is_closed()) {
            self.session = Some(self.sink.connect().await?);
        }
        self.session.as_ref().ok_or_else(|| DbError::Unavailable("the session is gone".to_owned()))
    }

    /// Waits before the same is tried again, if that can help.
    async fn wait_out(&mut self, error: DbError) -> Result<(), ReplayError> {
        let DbError::Unavailable(what) = &error else { return Err(error.into()) };
        if self.outage.is_none() {
            tracing::warn!(part = "database", "waiting: {what}");
        }
        let outage = self.outage.get_or_insert_with(|| Outage {
            deadline: Instant::now() + PATIENCE,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(1)),
        });
        if Instant::now() >= outage.deadline {
            return Err(error.into());
        }
        let delay = outage.backoff.next(fastrand::f64());
        if self.shutdown.sleep(delay).await { Ok(()) } else { Err(ReplayError::Stopped) }
    }
}

fn now(replayed: Replayed) -> Became {
    match replayed {
        Replayed::Written => Became::Row,
        Replayed::Settled => Became::Settled,
        Replayed::Contradicted => Became::Stays(Why::Contradicted),
        Replayed::Repeated => Became::Stays(Why::Repeated),
    }
}

/// Sets aside what stays shut.
fn split(opened: Vec<Result<Message, (Key, OpenError)>>, became: &mut HashMap<Key, Became>) -> Vec<Message> {
    let mut messages = Vec::with_capacity(opened.len());
    for opened in opened {
        match opened {
            Ok(message) => messages.push(message),
            Err((key, error)) => {
                became.insert(key, Became::Stays(Why::Shut(error)));
            }
        }
    }
    messages
}
