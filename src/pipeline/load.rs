//! Step 4: the outcomes of a batch become durable, in one transaction where that is possible.
//!
//! An outage is waited out here, under the lease, since giving messages back would burn their receive counts. A row
//! that the table refuses is found by halving and becomes a dead letter; its neighbours are written once. A fault of
//! the system (a missing column, a lost permission) stops the line and never makes a dead letter.
//! This is the only place that can say that a message is settled.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use crate::{
    event::Reason,
    pipeline::{Status, Trouble, decode::Decoder, mask::Masker, refused::Refused, retry::Retry},
    queue::{Key, Message, Receipt},
    shutdown::Shutdown,
    sink::{Batch, Entry, Outcome, Sink, SinkError, Verdict, Witness},
};

/// A batch whose outcomes are durable, except for what a shutdown left undone and what the next batch is to settle.
/// Only this file can make one.
#[derive(Default)]
pub struct Loaded {
    settled: Vec<Receipt>,
    unsettled: Vec<Unsettled>,
    carried: Vec<Message>,
    tally: Tally,
    key_replaced: bool,
}

/// A message that goes back to the queue.
pub struct Unsettled {
    /// Of its newest delivery.
    pub receipt: Receipt,
    /// How often it has been delivered.
    pub attempt: u32,
}

/// What became of the messages of a batch. The first four add up to all of them, doubles included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows written now.
    pub rows: u64,
    /// Dead letters written now, by reason.
    pub dead: Vec<Reason>,
    /// Deliveries of messages whose outcome was there already, older deliveries within the batch, and repeated events.
    pub duplicates: u64,
    /// How many of the duplicates are events that another message had brought already.
    pub repeated: u64,
    /// Messages given back to the queue.
    pub returned: u64,
    /// SentTimestamps of the rows written now, in milliseconds since 1970-01-01 UTC: oldest and newest.
    pub sent: Option<(i64, i64)>,
}

impl From<Message> for Unsettled {
    fn from(message: Message) -> Self {
        Self { receipt: message.receipt, attempt: message.attempt }
    }
}

impl Tally {
    /// How many messages it counts.
    pub fn messages(&self) -> u64 {
        self.rows + self.dead.len() as u64 + self.duplicates + self.returned
    }
}

impl Loaded {
    /// What became of its messages, but for those that are carried.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether what is given back has to be masked with another key.
    pub fn is_key_replaced(&self) -> bool {
        self.key_replaced
    }

    /// Takes out what the next batch is to settle.
    pub fn take_carried(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.carried)
    }

    /// Receipts to delete, and messages to give back.
    pub fn into_parts(self) -> (Vec<Receipt>, Vec<Unsettled>) {
        (self.settled, self.unsettled)
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
    /// Whether refused messages may wait for the next batch to tell whose fault it is.
    pub may_carry: bool,
    /// Those that have waited, with the value of [`Status::rows_taken`] when they were first refused.
    pub doubted: &'a HashMap<Key, u64>,
}

/// Writes a batch, however long that takes; gives up only when told to stop.
pub async fn load<S: Sink>(sink: &mut S, batch: Batch, judge: Judge<'_>, shutdown: &Shutdown) -> Loaded {
    let mut load = Load::new(sink, batch, judge, shutdown);
    load.set_late_aside();
    let whole = 0..load.batch.len();
    let mut parts = Vec::from([whole]);
    while !parts.is_empty() {
        let refused = load.write(parts).await;
        if refused.is_empty() {
            break;
        }
        parts = load.decide(refused).await;
        // What is last is written first.
        parts.splice(0..0, load.waiting.drain(..).rev());
    }
    load.finish()
}

/// A batch on its way into the sink.
pub(super) struct Load<'a, S> {
    sink: &'a mut S,
    pub(super) batch: Batch,
    /// What became of each entry, as far as it is known to be committed.
    pub(super) outcomes: Vec<Option<Outcome>>,
    pub(super) judge: Judge<'a>,
    pub(super) shutdown: &'a Shutdown,
    retry: Retry<'a>,
    /// Whether the table has refused something of this batch. From then on single rows are written with a witness.
    refuses: bool,
    /// Whether the table is known to take rows while this batch is written: only then is a refused row itself at fault.
    pub(super) sound: bool,
    /// What waits for refused messages: what comes after them in their groups, and all if it is the table's fault. In
    /// order.
    pub(super) waiting: Vec<Range<usize>>,
    /// What is left to the next batch.
    pub(super) carried: HashSet<usize>,
    /// Whether the rest has to be masked anew, with another key.
    key_replaced: bool,
}

impl<'a, S: Sink> Load<'a, S> {
    fn new(sink: &'a mut S, batch: Batch, judge: Judge<'a>, shutdown: &'a Shutdown) -> Self {
        Self {
            sink,
            outcomes: vec![None; batch.len()],
            batch,
            retry: Retry::new(judge.status, shutdown),
            judge,
            shutdown,
            refuses: false,
            sound: false,
            waiting: Vec::new(),
            carried: HashSet::new(),
            key_replaced: false,
        }
    }

    /// Writes these parts of the batch, the last one first, halving what is refused. Answers the entries that are
    /// refused alone.
    pub(super) async fn write(&mut self, mut parts: Vec<Range<usize>>) -> Vec<Refused> {
        let mut refused = BTreeMap::new();
        let mut failed_groups = HashSet::new();
        while let Some(part) = parts.pop() {
            let part = self.before_failed(part, &failed_groups, &mut parts);
            if part.is_empty() {
                continue;
            }
            let is_alone = part.len() == 1 && self.refuses;
            match self.try_part(part.clone(), is_alone, &refused).await {
                Ok(outcomes) => self.record(part, outcomes),
                Err(SinkError::Refused { sqlstate, place, witness }) if is_alone => {
                    self.retry.works();
                    failed_groups.extend(self.group(part.start));
                    refused.insert(part.start, Refused { at: part.start, sqlstate, place, witness });
                    match witness {
                        // The table would refuse the rest, too.
                        Witness::TakesNone => self.waiting.extend(parts.drain(..).rev()),
                        _ => join_next(&mut parts),
                    }
                }
                Err(SinkError::Refused { .. }) => {
                    self.refuses = true;
                    parts.extend(halves(part));
                }
                Err(SinkError::TooSlow(_)) if part.len() > 1 => parts.extend(halves(part)),
                Err(SinkError::KeyReplaced(_)) => {
                    self.key_replaced = true;
                    return Vec::new();
                }
                Err(error) => {
                    if !self.retry.wait_out(&error).await {
                        return Vec::new();
                    }
                    self.set_late_aside();
                    parts.push(part);
                }
            }
        }
        refused.into_values().collect()
    }

    async fn try_part(
        &mut self,
        part: Range<usize>,
        is_alone: bool,
        refused: &BTreeMap<usize, Refused>,
    ) -> Result<Vec<Outcome>, SinkError> {
        if is_alone {
            let other = self.other(part.start, refused);
            self.sink.write_alone(&self.batch, part.start, other).await
        } else {
            self.sink.write(&self.batch, part).await
        }
    }

    /// A row that the table has not been given yet, but among others: any, so that another one is found if it is bad.
    fn other(&self, at: usize, refused: &BTreeMap<usize, Refused>) -> Option<usize> {
        let is_open = |other: &usize| {
            let is_row = matches!(self.batch.entries[*other].verdict, Verdict::Row(_));
            *other != at && is_row && self.outcomes[*other].is_none() && !refused.contains_key(other)
        };
        let begin = fastrand::usize(..self.batch.len());
        (begin..self.batch.len()).chain(0..begin).find(is_open)
    }

    /// The group of an entry, on a FIFO queue.
    pub(super) fn group(&self, at: usize) -> Option<u128> {
        self.batch.entries[at].message.place.map(|place| place.group)
    }

    /// The beginning of a part, up to the first entry whose group waits for a refused message before it. That entry is
    /// put aside; what comes after it goes back to the parts.
    fn before_failed(
        &mut self,
        part: Range<usize>,
        failed: &HashSet<u128>,
        parts: &mut Vec<Range<usize>>,
    ) -> Range<usize> {
        let waits = |at: &usize| self.group(*at).is_some_and(|group| failed.contains(&group));
        let Some(at) = part.clone().find(waits).filter(|_| !failed.is_empty()) else { return part };
        self.waiting.push(at..at + 1);
        parts.push(at + 1..part.end);
        part.start..at
    }

    fn record(&mut self, part: Range<usize>, outcomes: Vec<Outcome>) {
        let written = part.clone().zip(&outcomes).any(|(at, &outcome)| {
            outcome == Outcome::Written && matches!(self.batch.entries[at].verdict, Verdict::Row(_))
        });
        if written {
            self.sound = true;
            self.judge.status.row_taken();
            self.judge.status.clear(Trouble::Table);
        }
        self.judge.status.clear(Trouble::Database);
        self.retry.done();
        for (at, outcome) in part.zip(outcomes) {
            self.outcomes[at] = Some(outcome);
            if let (Outcome::Written, Verdict::Row(row)) = (outcome, &self.batch.entries[at].verdict) {
                self.judge.masker.remember(&self.batch, row);
            }
        }
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

    pub(super) fn make_dead(&mut self, at: usize, reason: Reason) {
        let Entry { message, verdict } = &mut self.batch.entries[at];
        if let Verdict::Dead(sealed) = verdict {
            sealed.reason = reason;
            return;
        }
        let subject = self.judge.decoder.subject(message);
        *verdict = Verdict::Dead(self.judge.masker.dead_letter(message, reason, subject.as_ref()));
    }

    fn finish(self) -> Loaded {
        let mut loaded = Loaded { key_replaced: self.key_replaced, ..Loaded::default() };
        loaded.tally.duplicates = self.batch.doubles as u64;
        for (at, (entry, outcome)) in self.batch.entries.into_iter().zip(self.outcomes).enumerate() {
            if self.carried.contains(&at) {
                loaded.carried.push(entry.message);
                continue;
            }
            loaded.count(&entry, outcome);
            match outcome {
                Some(_) => loaded.settled.push(entry.message.receipt),
                None => loaded.unsettled.push(entry.message.into()),
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
            (Some(Outcome::Duplicate), _) => tally.duplicates += 1,
            (Some(Outcome::Repeated), _) => {
                tally.duplicates += 1;
                tally.repeated += 1;
            }
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

/// Of a single entry, itself and nothing.
fn halves(part: Range<usize>) -> [Range<usize>; 2] {
    let middle = part.start + part.len() / 2;
    [middle..part.end, part.start..middle]
}

/// What comes next to a row that was refused is likely to be good: the next two parts are tried as one.
fn join_next(parts: &mut Vec<Range<usize>>) {
    if let [.., after, next] = &mut parts[..]
        && next.end == after.start
    {
        after.start = next.start;
        parts.pop();
    }
}
