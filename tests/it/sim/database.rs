//! The database of a simulated world: tables, and transactions that change them at COMMIT or not at all.
//!
//! A transaction holds the keys that it claims until it ends, and whoever wants one of them waits, as at a unique index.
//! It does not end because its client is gone: the server finds that out later, and a COMMIT that is on its way may
//! still happen. The ways in which a sink can be broken are built in here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use masq::{
    mutant::Mutant,
    queue::Key,
    sink::Outcome,
    vault::seal::{EpochHeader, SealedBody},
};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use super::{
    fault::{Fault, On},
    trace::Event,
    world::World,
};

/// A COMMIT that answers before it is on disk is on disk this much later.
const UNFLUSHED: Duration = Duration::from_secs(3);

/// What one message wants to become.
#[derive(Clone)]
pub struct Want {
    pub key: Key,
    pub claim: Option<Uuid>,
    pub what: Change,
    /// What is sealed for it.
    pub values: Vec<SealedFor>,
}

/// Whose value is in the vault, and behind which token.
pub type SealedFor = ([u8; 16], String);

/// What a transaction does for one message.
#[derive(Clone)]
pub enum Change {
    Row(Vec<u8>),
    Dead(Letter),
    /// A dead letter `older_than_ledger`: it has no key in the ledger.
    Late(Letter),
    /// Its event is a row already.
    Repeated,
}

/// What a transaction will have done for one message when it is committed.
pub struct Staged {
    pub key: Key,
    /// The key's outcome in the ledger.
    pub ledger: Option<u8>,
    pub claim: Option<Uuid>,
    pub change: Option<Change>,
    pub values: Vec<SealedFor>,
}

#[derive(Clone)]
pub struct Letter {
    pub key: Key,
    pub reason: String,
    pub sealed: SealedBody,
    pub epoch: Uuid,
}

/// What is committed; each with the transaction that did it.
#[derive(Default)]
pub struct Tables {
    pub ledger: BTreeMap<Key, (u64, u8)>,
    /// Without a key, as the target table is.
    pub rows: Vec<(u64, Vec<u8>)>,
    pub dead: Vec<(u64, Letter)>,
    pub late: Vec<(u64, Letter)>,
    pub claims: BTreeMap<Uuid, u64>,
    pub epochs: BTreeMap<Uuid, EpochHeader>,
    /// The vault's entries.
    pub values: BTreeMap<SealedFor, BTreeSet<u64>>,
    pub suspects: BTreeMap<Key, u32>,
    /// What the ledger remembers, as a SentTimestamp.
    pub oldest: i64,
    /// What the ledger has said and now forgotten; for the check at the end only.
    pub forgotten: BTreeMap<Key, u8>,
}

/// A handle; all clones are the same database.
#[derive(Clone)]
pub struct Database {
    server: Arc<Mutex<Server>>,
    pub changed: Arc<Notify>,
    pub world: World,
}

pub struct Server {
    pub tables: Tables,
    sessions: BTreeMap<u64, Session>,
    last: u64,
    /// Until when nobody gets in.
    down_until: Option<Instant>,
    /// Commits that a crash may undo: only where COMMIT does not wait for the disk.
    unflushed: Vec<(Instant, u64)>,
}

/// A transaction that has not ended.
#[derive(Default)]
struct Session {
    keys: BTreeSet<Key>,
    claims: BTreeSet<Uuid>,
    staged: Vec<Staged>,
    /// When the server notices that its client is gone.
    gone: Option<Instant>,
    committing: bool,
}

/// What came of asking for keys.
pub enum Claimed {
    Outcomes(Vec<Outcome>),
    /// Somebody else holds one of them; until then at most, if that one's client is gone.
    Wait(Option<Instant>),
    /// One of them is older than the ledger.
    Forgotten,
    /// The transaction is gone.
    Gone,
}

impl Database {
    pub fn new(world: &World) -> Self {
        let server = Server {
            tables: Tables::default(),
            sessions: BTreeMap::new(),
            last: 0,
            down_until: None,
            unflushed: Vec::new(),
        };
        Self { server: Arc::new(Mutex::new(server)), changed: Arc::default(), world: world.clone() }
    }

    pub fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap()
    }

    /// Whether a message that is deleted now would have been loaded.
    pub fn has_outcome(&self, key: Key) -> bool {
        self.server().tables.has_outcome(key)
    }

    pub fn is_down(&self) -> bool {
        let down = self.server().down_until.is_some_and(|until| until > Instant::now());
        down && !self.world.is_calm()
            || self.world.is_going_on(Fault::ShortOutage)
            || self.world.is_going_on(Fault::LongOutage)
    }

    pub fn begin(&self) -> u64 {
        let mut server = self.server();
        server.last += 1;
        let id = server.last;
        server.sessions.insert(id, Session::default());
        id
    }

    /// Claims the keys of these messages, all or none, and says what each will become. Broken in some ways, it does
    /// not ask, or asks without holding what it was told.
    pub fn claim(&self, id: u64, wants: &[Want]) -> Claimed {
        let now = Instant::now();
        let mut server = self.server();
        let gone: Vec<u64> =
            server.sessions.iter().filter(|(_, session)| session.is_over(now)).map(|(id, _)| *id).collect();
        for gone in gone {
            server.sessions.remove(&gone);
            self.world.note(&Event::RolledBack(gone));
        }
        if !server.sessions.contains_key(&id) {
            return Claimed::Gone;
        }
        let no_ledger = self.world.is(Mutant::NoLedger);
        let lockless = self.world.is(Mutant::SelectThenInsert) || no_ledger;
        let holders = server.sessions.iter().filter(|(other, _)| **other != id);
        let in_the_way = holders.map(|(_, session)| session).find(|session| session.holds_any_of(wants));
        if let Some(holder) = in_the_way.filter(|_| !lockless) {
            return Claimed::Wait(holder.gone);
        }
        let tables = &server.tables;
        let is_forgotten = |want: &Want| !matches!(want.what, Change::Late(_)) && want.key.sent_at < tables.oldest;
        if wants.iter().any(is_forgotten) {
            return Claimed::Forgotten;
        }
        let mut claims = BTreeSet::new();
        let mut outcomes = Vec::with_capacity(wants.len());
        for want in wants {
            let known = match want.what {
                Change::Late(_) => tables.late.iter().any(|(_, letter)| letter.key == want.key),
                _ => tables.ledger.contains_key(&want.key),
            };
            let claim = want.claim.filter(|_| !self.world.is(Mutant::NoDedupe));
            let taken = |claim: Uuid| tables.claims.contains_key(&claim) || !claims.insert(claim);
            outcomes.push(if known && !no_ledger {
                Outcome::Duplicate
            } else if claim.is_some_and(taken) {
                Outcome::Repeated
            } else {
                Outcome::Written
            });
        }
        let session = server.sessions.get_mut(&id).unwrap();
        if !lockless {
            session.keys = wants.iter().map(|want| want.key).collect();
            session.claims = claims;
        }
        Claimed::Outcomes(outcomes)
    }

    /// Writes what is to be written; COMMIT makes it so. `false`: the transaction is gone.
    pub fn stage(&self, id: u64, staged: Vec<Staged>) -> bool {
        let mut server = self.server();
        server.sessions.get_mut(&id).map(|session| session.staged = staged).is_some()
    }

    /// COMMIT has arrived: it will happen, whatever becomes of the client, unless there is a crash before.
    pub fn commit_arrives(&self, id: u64) -> bool {
        let mut server = self.server();
        server.sessions.get_mut(&id).map(|session| session.committing = true).is_some()
    }

    /// COMMIT happens. `false`: there was a crash before.
    pub fn commit(&self, id: u64) -> bool {
        let mut server = self.server();
        let Some(session) = server.sessions.remove(&id) else { return false };
        let code = |staged: &Staged| staged.ledger.or(staged.change.as_ref().map(Change::code)).unwrap_or(b'?');
        let numbered = session.staged.iter().map(|staged| (self.world.number(staged.key), code(staged)));
        self.world.note(&Event::Committed(id, numbered.collect()));
        let is_row = |staged: &&Staged| matches!(staged.change, Some(Change::Row(_)));
        let rows: Vec<Key> = session.staged.iter().filter(is_row).map(|staged| staged.key).collect();
        for staged in session.staged {
            self.world.feel(On::Outcome(staged.key));
            server.tables.apply(id, staged);
        }
        self.check_order(&server.tables, &rows);
        if self.world.is(Mutant::AsynchronousCommit) {
            server.unflushed.push((Instant::now(), id));
        }
        drop(server);
        self.changed.notify_waiters();
        true
    }

    /// Within a group, what was sent before a row has its outcome when the row is there.
    fn check_order(&self, tables: &Tables, rows: &[Key]) {
        for row in rows {
            if let Some(earlier) = self.world.before(*row).into_iter().find(|key| !tables.has_outcome(*key)) {
                let [row, earlier] = [*row, earlier].map(|key| self.world.number(key));
                self.world
                    .wrong(format!("message {row} is a row before message {earlier} of its group has its outcome"));
            }
        }
    }

    /// The client ends its transaction.
    pub fn roll_back(&self, id: u64) {
        if self.server().sessions.remove(&id).is_some() {
            self.world.note(&Event::RolledBack(id));
            self.changed.notify_waiters();
        }
    }

    /// The client is gone, and the server does not know yet.
    pub fn abandon(&self, id: u64) {
        let noticed = Instant::now() + self.world.between(0, 8_000);
        if let Some(session) = self.server().sessions.get_mut(&id).filter(|session| !session.committing) {
            session.gone = Some(noticed);
        }
    }

    /// Everything that is not committed is gone, and for a moment nobody gets in.
    pub fn crash(&self) {
        let now = Instant::now();
        let down = self.world.between(100, 5_000);
        let mut server = self.server();
        server.down_until = Some(now + down);
        for session in std::mem::take(&mut server.sessions).into_values() {
            for staged in session.staged {
                self.world.mark(On::Outcome(staged.key), Fault::Crash);
            }
        }
        let unflushed = std::mem::take(&mut server.unflushed);
        for (_, id) in unflushed.into_iter().filter(|(at, _)| now - *at < UNFLUSHED) {
            server.tables.undo(id);
        }
        drop(server);
        self.changed.notify_waiters();
    }

    /// The ledger's memory begins later from now on, unless somebody is about to write there. Broken, it forgets what
    /// it should still remember, and does not know that it has.
    pub fn forget(&self, keys: &[Key]) -> bool {
        let mut server = self.server();
        let Some(oldest) = keys.iter().map(|key| key.sent_at + 1).max() else { return false };
        if server.sessions.values().any(|session| session.keys.iter().any(|key| key.sent_at < oldest)) {
            return false;
        }
        let early = self.world.is(Mutant::PrunedEarly);
        if !early {
            server.tables.oldest = server.tables.oldest.max(oldest);
        }
        let kept = server.tables.ledger.split_off(&Key { sent_at: oldest, id: Uuid::nil() });
        let forgotten = std::mem::replace(&mut server.tables.ledger, kept);
        server.tables.forgotten.extend(forgotten.into_iter().map(|(key, (_, outcome))| (key, outcome)));
        true
    }
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        self.gone.is_some_and(|gone| gone <= now)
    }

    fn holds_any_of(&self, wants: &[Want]) -> bool {
        let holds =
            |want: &Want| self.keys.contains(&want.key) || want.claim.is_some_and(|claim| self.claims.contains(&claim));
        wants.iter().any(holds)
    }
}

impl Change {
    /// The ledger's code for it.
    pub fn code(&self) -> u8 {
        match self {
            Self::Row(_) => b'1',
            Self::Dead(_) => b'2',
            Self::Repeated => b'4',
            Self::Late(_) => b'l',
        }
    }
}

impl Tables {
    fn has_outcome(&self, key: Key) -> bool {
        let in_ledger = self.ledger.contains_key(&key) || self.forgotten.contains_key(&key);
        in_ledger || self.late.iter().any(|(_, letter)| letter.key == key)
    }

    fn apply(&mut self, id: u64, staged: Staged) {
        let Staged { key, ledger, claim, change, values } = staged;
        for value in values {
            self.values.entry(value).or_default().insert(id);
        }
        self.ledger.extend(ledger.map(|outcome| (key, (id, outcome))));
        self.claims.extend(claim.map(|claim| (claim, id)));
        match change {
            Some(Change::Row(tuple)) => self.rows.push((id, tuple)),
            Some(Change::Dead(letter)) => self.dead.push((id, letter)),
            Some(Change::Late(letter)) => self.late.push((id, letter)),
            Some(Change::Repeated) | None => {}
        }
    }

    fn undo(&mut self, id: u64) {
        self.ledger.retain(|_, (by, _)| *by != id);
        self.rows.retain(|(by, _)| *by != id);
        self.dead.retain(|(by, _)| *by != id);
        self.late.retain(|(by, _)| *by != id);
        self.claims.retain(|_, by| *by != id);
        self.values.values_mut().for_each(|by| by.retain(|by| *by != id));
        self.values.retain(|_, by| !by.is_empty());
    }
}
