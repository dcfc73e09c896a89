//! Step 4: the outcomes of a batch become durable, in one transaction where that is possible.
//!
//! An outage is waited out here, under the lease, since giving messages back would burn their receive counts. A row
//! that the table refuses is found by halving and becomes a dead letter; its neighbours are written once. A fault of
//! the system (a missing column, a lost permission) stops the line and never makes a dead letter.
//! This is the only place that can say that a message is settled.

use std::{ops::Range, time::Duration};

use crate::{
    backoff::Backoff,
    event::Reason,
    pipeline::{Status, Trouble, decode::Decoder, mask::Masker},
    queue::Receipt,
    shutdown::Shutdown,
    sink::{Batch, Entry, Outcome, Sink, SinkError, Verdict},
};

/// A batch whose outcomes are durable, except for what a shutdown left undone. Only this file can make one.
pub struct Loaded {
    settled: Vec<Receipt>,
    unsettled: Vec<Unsettled>,
    tally: Tally,
}

/// A message that goes back to the queue.
pub struct Unsettled {
    /// Of its newest delivery.
    pub receipt: Receipt,
    /// How often it has been delivered.
    pub attempt: u32,
}

/// What became of the messages of a batch. The first four add up to what was received, doubles included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows written now.
    pub rows: u64,
    /// Dead letters written now, by reason.
    pub dead: Vec<Reason>,
    /// Deliveries of messages whose outcome was there already, and older deliveries within the batch.
    pub duplicates: u64,
    /// Messages given back to the queue.
    pub returned: u64,
    /// SentTimestamps of the rows written now, in milliseconds since 1970-01-01 UTC: oldest and newest.
    pub sent: Option<(i64, i64)>,
}

impl Loaded {
    /// Receipts to delete, messages to give back, and the count of all.
    pub fn into_parts(self) -> (Vec<Receipt>, Vec<Unsettled>, Tally) {
        (self.settled, self.unsettled, self.tally)
    }
}

/// What a worker needs to judge a message again: the table may refuse what decode took for good.
pub struct Judge<'a> {
    /// Finds whom a refused message concerns.
    pub decoder: &'a Decoder,
    /// Seals refused messages.
    pub masker: &'a mut Masker,
    /// Where troubles are shown.
    pub status: &'a Status,
}

/// Writes a batch, however long that takes; gives up only when told to stop.
pub async fn load<S: Sink>(sink: &mut S, batch: Batch, judge: Judge<'_>, shutdown: &Shutdown) -> Loaded {
    let outcomes = vec![None; batch.len()];
    let mut load = Load { sink, batch, outcomes, judge, shutdown, backoff: new_backoff(), sound: false };
    load.set_late_aside();
    let whole = 0..load.batch.len();
    let mut refused = load.write(Vec::from([whole])).await;
    while !refused.is_empty() {
        refused = if load.is_table_sound(&refused) {
            load.condemn(refused).await
        } else {
            load.wait_for_sound_table(refused).await
        };
    }
    load.finish()
}

/// Retried every second at most: a database that is back should be noticed at once, and one small transaction a second
/// a worker is no burden for one that is coming up.
fn new_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(1))
}

/// A batch on its way into the sink.
struct Load<'a, S> {
    sink: &'a mut S,
    batch: Batch,
    /// What became of each entry, as far as it is known to be committed.
    outcomes: Vec<Option<Outcome>>,
    judge: Judge<'a>,
    shutdown: &'a Shutdown,
    backoff: Backoff,
    /// Whether the table is known to take rows while this batch is written: only then is a refused row itself at fault.
    sound: bool,
}

/// An entry whose row the table refuses, with which SQLSTATE, and because of which constraint or column.
struct Refused {
    at: usize,
    sqlstate: String,
    place: String,
}

impl Refused {
    fn part(&self) -> Range<usize> {
        self.at..self.at + 1
    }
}

impl<S: Sink> Load<'_, S> {
    /// Writes these parts of the batch, halving what is refused. Answers the entries that are refused alone.
    async fn write(&mut self, mut parts: Vec<Range<usize>>) -> Vec<Refused> {
        let mut refused = Vec::new();
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.sink.write(&self.batch, part.clone()).await {
                Ok(outcomes) => self.record(part, outcomes),
                Err(SinkError::Refused { sqlstate, place }) if part.len() == 1 => {
                    refused.push(Refused { at: part.start, sqlstate, place });
                }
                Err(SinkError::Refused { .. } | SinkError::TooSlow(_)) if part.len() > 1 => parts.extend(halves(part)),
                Err(error) => {
                    if !self.wait_out(&error).await {
                        return Vec::new();
                    }
                    self.set_late_aside();
                    parts.push(part);
                }
            }
        }
        refused
    }

    fn record(&mut self, part: Range<usize>, outcomes: Vec<Outcome>) {
        let written = part.clone().zip(&outcomes).any(|(at, &outcome)| {
            outcome == Outcome::Written && matches!(self.batch.entries[at].verdict, Verdict::Row(_))
        });
        if written {
            self.sound = true;
            self.judge.status.rows_flow(true);
        }
        self.judge.status.clear(Trouble::Database);
        self.backoff = new_backoff();
        for (at, outcome) in part.zip(outcomes) {
            self.outcomes[at] = Some(outcome);
        }
    }

    /// Waits before the same is tried again. `false`: it is time to stop instead.
    async fn wait_out(&mut self, error: &SinkError) -> bool {
        self.judge.status.set(Trouble::Database, error);
        self.shutdown.sleep(self.backoff.next(fastrand::f64())).await
    }

    /// Whether refused rows may become dead letters: only if the table takes others, for a table that takes nothing is
    /// at fault itself. Dead letters and duplicates prove nothing of it. A row written before this batch vouches for
    /// the table against a single refused message, and only against one: a second in a row is a doubt.
    fn is_table_sound(&self, refused: &[Refused]) -> bool {
        self.sound || (refused.len() == 1 && self.judge.status.do_rows_flow())
    }

    /// Stops the line until the table takes a row again, one of these or another worker's; then tries all of these
    /// again, since they may have been refused for the table's fault. One is tried at a time: a table that takes
    /// nothing should not have to refuse thousands a second.
    async fn wait_for_sound_table(&mut self, mut refused: Vec<Refused>) -> Vec<Refused> {
        self.judge.status.rows_flow(false);
        let Refused { sqlstate, place, .. } = &refused[0];
        let error = SinkError::Misconfigured(format!(
            "the table refuses every row (SQLSTATE {sqlstate}{place}); nothing becomes a dead letter until it takes one: \
             look at its constraints and triggers"
        ));
        while !self.sound {
            if !self.wait_out(&error).await {
                return Vec::new();
            }
            self.sound = self.judge.status.do_rows_flow();
            if !self.sound {
                refused.rotate_left(1);
                self.write(Vec::from([refused[0].part()])).await;
                refused.retain(|refused| self.outcomes[refused.at].is_none());
            }
            if refused.is_empty() {
                return refused;
            }
        }
        self.write(refused.iter().map(Refused::part).collect()).await
    }

    /// Makes dead letters of refused rows.
    async fn condemn(&mut self, refused: Vec<Refused>) -> Vec<Refused> {
        if !self.sound {
            self.judge.status.rows_flow(false);
        }
        let parts = refused.iter().map(Refused::part).collect();
        for Refused { at, sqlstate, place } in refused {
            tracing::warn!(%sqlstate, place, "PostgreSQL refuses a row; it becomes a dead letter");
            self.make_dead(at, Reason::DbRejected(sqlstate));
        }
        self.write(parts).await
    }

    /// Messages sent before the ledger's memory begins cannot be known not to be rows already.
    fn set_late_aside(&mut self) {
        let oldest = self.sink.oldest();
        for at in 0..self.batch.len() {
            let Entry { message, verdict } = &self.batch.entries[at];
            let is_late = message.key.sent_at < oldest;
            let knows = matches!(verdict, Verdict::Dead(dead) if dead.reason == Reason::OlderThanLedger);
            if self.outcomes[at].is_none() && is_late && !knows {
                self.make_dead(at, Reason::OlderThanLedger);
            }
        }
    }

    fn make_dead(&mut self, at: usize, reason: Reason) {
        let message = &self.batch.entries[at].message;
        let subject = self.judge.decoder.subject(message);
        let dead = self.judge.masker.dead_letter(message, reason, subject.as_ref());
        self.batch.entries[at].verdict = Verdict::Dead(dead);
    }

    fn finish(self) -> Loaded {
        let mut loaded = Loaded { settled: Vec::new(), unsettled: Vec::new(), tally: Tally::default() };
        loaded.tally.duplicates = self.batch.doubles as u64;
        for (entry, outcome) in self.batch.entries.into_iter().zip(self.outcomes) {
            loaded.count(&entry, outcome);
            let Entry { message, .. } = entry;
            match outcome {
                Some(_) => loaded.settled.push(message.receipt),
                None => loaded.unsettled.push(Unsettled { receipt: message.receipt, attempt: message.attempt }),
            }
        }
        loaded
    }
}

impl Loaded {
    fn count(&mut self, entry: &Entry, outcome: Option<Outcome>) {
        let tally = &mut self.tally;
        match (outcome, &entry.verdict) {
            (None, _) => tally.returned += 1,
            (Some(Outcome::Duplicate | Outcome::Repeated), _) => tally.duplicates += 1,
            (Some(Outcome::Written), Verdict::Dead(dead)) => tally.dead.push(dead.reason.clone()),
            (Some(Outcome::Written), Verdict::Row(_)) => {
                tally.rows += 1;
                let sent = entry.message.key.sent_at;
                let (oldest, newest) = tally.sent.unwrap_or((sent, sent));
                tally.sent = Some((oldest.min(sent), newest.max(sent)));
            }
        }
    }
}

fn halves(part: Range<usize>) -> [Range<usize>; 2] {
    let middle = part.start + part.len() / 2;
    [middle..part.end, part.start..middle]
}
