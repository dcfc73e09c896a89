//! The right edge of a simulated world: one worker's way into the database, with everything that may happen on it.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use masq::{
    db::known_keys::Active,
    event::Reason,
    mutant::Mutant,
    queue::Key,
    sink::{Batch, Entry, Outcome, Sink, SinkError, Verdict, Witness},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    body::REFUSED,
    database::{Change, Claimed, Database, Want},
    fault::{Call, Fault, On},
    trace::{Event, code},
    transaction::{Half, Transaction, stage, want},
};

/// How long a session waits for a key that somebody else holds: `lock_timeout`.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a session waits for a server that does not answer: `tcp_user_timeout`.
const STALLED: Duration = Duration::from_secs(15);

pub struct SimSink {
    process: usize,
    database: Database,
    /// Whether there is a session.
    connected: bool,
    oldest: i64,
}

fn unavailable(what: &str) -> SinkError {
    SinkError::Unavailable(what.to_owned())
}

impl SimSink {
    pub fn new(process: usize, database: &Database) -> Self {
        let oldest = database.server().tables.oldest;
        Self { process, database: database.clone(), connected: true, oldest }
    }

    fn fail(&mut self, fault: Fault, error: SinkError) -> SinkError {
        self.connected = false;
        self.database.world.fail(self.process, Call::Write, fault);
        error
    }

    /// A point at which the process may be killed or stand still, and at which this may panic.
    async fn point(&self) {
        let world = &self.database.world;
        world.point(self.process).await;
        if world.hit(Fault::Panic) {
            world.panic(self.process);
        }
    }

    /// Whoever has read poison has ended before anybody hears of anything that it did since.
    async fn die_of(&self, mut read: impl Iterator<Item = Key>) {
        let world = &self.database.world;
        if let Some(poison) = read.find(|key| world.is_poison(*key)) {
            world.fired(Fault::Poison);
            world.mark(On::Outcome(poison), Fault::Poison);
            world.kill(self.process, Fault::Poison).await;
        }
    }

    async fn latency(&self) {
        sleep(self.database.world.between(1, 20)).await;
    }

    /// What goes wrong before a transaction begins.
    async fn connect(&mut self, entries: usize) -> Result<(), SinkError> {
        self.latency().await;
        let world = self.database.world.clone();
        if self.database.is_down() {
            let fault = if world.is_going_on(Fault::LongOutage) { Fault::LongOutage } else { Fault::ShortOutage };
            return Err(self.fail(fault, unavailable("the database is away")));
        }
        if !self.connected {
            self.connected = true;
            self.oldest = self.database.server().tables.oldest;
        }
        if world.is_going_on(Fault::Misconfigured) {
            let error = SinkError::Misconfigured("a column is missing".to_owned());
            return Err(self.fail(Fault::Misconfigured, error));
        }
        if world.hit(Fault::Busy) {
            return Err(self.fail(Fault::Busy, SinkError::Busy("deadlock detected".to_owned())));
        }
        if world.hit(Fault::Stall) {
            world.endure(STALLED).await;
            return Err(self.fail(Fault::Stall, unavailable("no answer")));
        }
        if entries > 1 && world.hit(Fault::TooSlow) {
            return Err(self.fail(Fault::TooSlow, SinkError::TooSlow("statement timeout".to_owned())));
        }
        Ok(())
    }

    async fn transact(&mut self, wants: &[Want], half: Half) -> Result<Vec<Outcome>, SinkError> {
        let world = self.database.world.clone();
        let transaction = Transaction::begin(&self.database);
        let Some(outcomes) = self.claim(&transaction, wants).await? else {
            transaction.roll_back();
            self.oldest = self.database.server().tables.oldest;
            return Err(SinkError::Busy("a partition of the ledger was missing".to_owned()));
        };
        world.point(self.process).await;
        self.latency().await;
        if world.hit(Fault::Slow) {
            let visibility = world.state().visibility;
            wants.iter().for_each(|want| world.mark(On::Extension(want.key), Fault::Slow));
            world.endure(visibility.mul_f64(1.5)).await;
        }
        if world.hit(Fault::BrokenSession) {
            return Err(self.fail(Fault::BrokenSession, unavailable("connection reset")));
        }
        let new = || wants.iter().zip(&outcomes).filter(|(_, outcome)| **outcome != Outcome::Duplicate);
        if let Some(fault) = new().find_map(|(want, outcome)| self.refusal(want, *outcome)) {
            world.note(&Event::Refused(self.process));
            new().for_each(|(want, _)| world.mark(On::Outcome(want.key), fault));
            world.fired(fault);
            transaction.roll_back();
            let witness = Witness::Unknown;
            return Err(SinkError::Refused { sqlstate: "23514".to_owned(), place: String::new(), witness });
        }
        let staged = new().map(|(want, outcome)| stage(want, *outcome, half)).collect();
        if !self.database.stage(transaction.id, staged) {
            return Err(self.fail(Fault::Crash, unavailable("the server has crashed")));
        }
        self.point().await;
        self.commit(transaction, wants).await?;
        Ok(outcomes)
    }

    /// `None`: one of them is older than the ledger.
    async fn claim(&mut self, transaction: &Transaction, wants: &[Want]) -> Result<Option<Vec<Outcome>>, SinkError> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        self.latency().await;
        loop {
            let changed = self.database.changed.clone();
            let changed = changed.notified();
            match self.database.claim(transaction.id, wants) {
                Claimed::Outcomes(outcomes) => {
                    let numbered = wants.iter().zip(&outcomes);
                    let world = &self.database.world;
                    let numbered = numbered.map(|(want, outcome)| (world.number(want.key), code(*outcome)));
                    world.note(&Event::Claimed(self.process, numbered.collect()));
                    return Ok(Some(outcomes));
                }
                Claimed::Forgotten => return Ok(None),
                Claimed::Gone => return Err(self.fail(Fault::Crash, unavailable("the server has crashed"))),
                Claimed::Wait(until) => {
                    let until = until.map_or(deadline, |until| until.min(deadline));
                    if timeout_at(until, changed).await.is_err() && Instant::now() >= deadline {
                        return Err(self.fail(Fault::Busy, SinkError::Busy("lock timeout".to_owned())));
                    }
                }
            }
        }
    }

    fn refusal(&self, want: &Want, outcome: Outcome) -> Option<Fault> {
        let Change::Row(tuple) = &want.what else { return None };
        if outcome != Outcome::Written {
            None
        } else if self.database.world.is_going_on(Fault::RefusesAll) {
            Some(Fault::RefusesAll)
        } else {
            tuple.windows(REFUSED.len()).any(|bytes| bytes == REFUSED.as_bytes()).then_some(Fault::RefusedRow)
        }
    }

    /// What becomes of a row of the batch, and of one that is there already.
    fn witness(&self, other: Option<&Want>) -> Witness {
        let old = || !self.database.server().tables.rows.is_empty();
        match other.map(|want| self.refusal(want, Outcome::Written)) {
            Some(None) => Witness::TakesNew,
            _ if !old() => Witness::Unknown,
            _ if self.database.world.is_going_on(Fault::RefusesAll) => Witness::TakesNone,
            _ => Witness::TakesOld,
        }
    }

    async fn commit(&mut self, transaction: Transaction, wants: &[Want]) -> Result<(), SinkError> {
        let world = self.database.world.clone();
        let mut answer = None;
        let unknown = if world.hit(Fault::LostCommit) {
            Some(Fault::LostCommit)
        } else {
            let late = world.hit(Fault::LateCommit);
            answer = self.send_commit(&transaction, late);
            if late { Some(Fault::LateCommit) } else { world.hit(Fault::LostAnswer).then_some(Fault::LostAnswer) }
        };
        if let Some(fault) = unknown {
            if fault != Fault::LostCommit {
                wants.iter().for_each(|want| world.mark(On::Duplicate(want.key), fault));
            }
            self.latency().await;
            let error = self.fail(fault, unavailable("no answer to COMMIT"));
            return if world.is(Mutant::UnknownIsDone) { Ok(()) } else { Err(error) };
        }
        let answered = match answer {
            Some(answer) => timeout(STALLED, answer).await.is_ok_and(|answer| answer.is_ok_and(|done| done)),
            None => false,
        };
        world.point(self.process).await;
        if answered { Ok(()) } else { Err(self.fail(Fault::Crash, unavailable("the server has crashed"))) }
    }

    /// From here on COMMIT happens on the server, whether or not anybody waits for it.
    fn send_commit(&self, transaction: &Transaction, late: bool) -> Option<oneshot::Receiver<bool>> {
        let (tell, answer) = oneshot::channel();
        let (database, id) = (self.database.clone(), transaction.id);
        if !database.commit_arrives(id) {
            return None;
        }
        let takes = database.world.between(1, if late { 6_000 } else { 20 });
        tokio::spawn(async move {
            sleep(takes).await;
            // Nobody may be waiting any more.
            let done = database.commit(id);
            tell.send(done).unwrap_or_default();
        });
        Some(answer)
    }
}

/// Whether somebody must have read it to say this of it.
fn is_read(entry: &Entry) -> bool {
    let Verdict::Dead(dead) = &entry.verdict else { return true };
    !matches!(dead.reason, Reason::PoisonReceiveCount | Reason::OlderThanLedger)
}

impl Sink for SimSink {
    async fn write(&mut self, batch: &Batch, part: Range<usize>) -> Result<Vec<Outcome>, SinkError> {
        let world = self.database.world.clone();
        let entries = &batch.entries[part];
        self.die_of(entries.iter().filter(|entry| is_read(entry)).map(|entry| entry.message.key)).await;
        self.point().await;
        world.feel(On::Call(self.process, Call::Write));
        self.connect(entries.len()).await?;
        if entries.iter().any(|entry| matches!(entry.verdict, Verdict::Dead(_))) {
            self.database.server().tables.epochs.insert(batch.epoch.id, batch.epoch.clone());
        }
        let wants: Vec<Want> = entries.iter().map(|entry| want(entry, batch)).collect();
        let outcomes = if world.is(Mutant::LedgerFirst) {
            let outcomes = self.transact(&wants, Half::Ledger).await?;
            self.second_half(&wants, &outcomes, Half::Rows).await?;
            outcomes
        } else if world.is(Mutant::RowsFirst) {
            let outcomes = self.transact(&wants, Half::Rows).await?;
            self.second_half(&wants, &outcomes, Half::Ledger).await?;
            outcomes
        } else {
            self.transact(&wants, Half::Whole).await?
        };
        let numbered = wants.iter().zip(&outcomes).map(|(want, outcome)| (world.number(want.key), code(*outcome)));
        world.note(&Event::Answered(self.process, numbered.collect()));
        for (want, outcome) in wants.iter().zip(&outcomes) {
            if *outcome == Outcome::Duplicate {
                world.feel(On::Duplicate(want.key));
            }
        }
        Ok(outcomes)
    }

    fn oldest(&self) -> i64 {
        self.oldest
    }

    async fn write_alone(&mut self, batch: &Batch, at: usize, other: Option<usize>) -> Result<Vec<Outcome>, SinkError> {
        let other = other.map(|at| want(&batch.entries[at], batch));
        // No fault of the table begins or ends between the row and the witness.
        self.write(batch, at..at + 1).await.map_err(|error| match error {
            SinkError::Refused { sqlstate, place, .. } => {
                SinkError::Refused { sqlstate, place, witness: self.witness(other.as_ref()) }
            }
            error => error,
        })
    }

    async fn suspect(&mut self, keys: &[Key]) -> Result<Vec<(Key, u32)>, SinkError> {
        self.on_record(keys, |suspects| {
            let known = keys.iter().filter_map(|key| Some((*key, *suspects.get(key)?))).collect();
            for key in keys {
                suspects.entry(*key).or_insert(1);
            }
            known
        })
        .await
    }

    async fn suspect_again(&mut self, key: Key, readers: u32) -> Result<(), SinkError> {
        self.on_record(&[key], |suspects| {
            let noted = suspects.entry(key).or_default();
            *noted = readers.max(*noted);
        })
        .await
    }

    async fn absolve(&mut self, keys: &[Key]) -> Result<(), SinkError> {
        self.die_of(keys.iter().copied()).await;
        self.on_record(&[], |suspects| suspects.retain(|key, _| !keys.contains(key))).await?;
        let mut state = self.database.world.state();
        state.processes[self.process].reading.retain(|key| !keys.contains(key));
        Ok(())
    }

    async fn active_key(&mut self) -> Result<Option<Active>, SinkError> {
        Ok(None)
    }

    fn reset(&mut self) {
        self.connected = false;
    }
}

impl SimSink {
    /// A transaction of its own on the record of suspects; these are being read from now on.
    async fn on_record<T>(
        &mut self,
        keys: &[Key],
        change: impl FnOnce(&mut BTreeMap<Key, u32>) -> T + Send,
    ) -> Result<T, SinkError> {
        let world = self.database.world.clone();
        world.point(self.process).await;
        self.connect(1).await?;
        let done = change(&mut self.database.server().tables.suspects);
        world.state().processes[self.process].reading.extend(keys);
        if world.hit(Fault::LostAnswer) {
            world.abandon(keys);
            return Err(self.fail(Fault::LostAnswer, unavailable("no answer to COMMIT")));
        }
        world.point(self.process).await;
        Ok(done)
    }

    /// What a broken sink does in a transaction of its own, for what the first one found to be new.
    async fn second_half(&mut self, wants: &[Want], outcomes: &[Outcome], half: Half) -> Result<(), SinkError> {
        self.latency().await;
        self.database.world.point(self.process).await;
        if self.database.is_down() {
            return Err(self.fail(Fault::ShortOutage, unavailable("the database is away")));
        }
        let transaction = Transaction::begin(&self.database);
        let new = wants.iter().zip(outcomes).filter(|(_, outcome)| **outcome != Outcome::Duplicate);
        let staged = new.map(|(want, outcome)| stage(want, *outcome, half)).collect();
        if !self.database.stage(transaction.id, staged) {
            return Err(self.fail(Fault::Crash, unavailable("the server has crashed")));
        }
        self.commit(transaction, wants).await
    }
}
