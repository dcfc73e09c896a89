//! What must be true when everything is settled, whatever happened before: the invariants, against what was sent.

use std::collections::{BTreeMap, BTreeSet};

use masq::{queue::Key, vault::seal};

use super::{
    database::{Letter, Tables},
    plan::Kind,
    process::Ground,
    world::{Sent, World},
};

/// What a message came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Row,
    Dead,
    /// A dead letter, although there is nothing wrong with it.
    Excused,
    /// Its event is a row already, as another message.
    Repeated,
}

/// Says everything that is wrong.
pub fn check(world: &World, tables: &Tables, ground: &Ground) {
    let sent = world.state().sent.clone();
    let excuses = Excuses::of(world);
    let row = |message: &Sent| message.kind.row(message.key.sent_at, &ground.tokens);
    let mut wrong = Vec::new();
    let mut rows: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    let mut events: BTreeMap<usize, (u32, u32)> = BTreeMap::new();
    for (number, message) in sent.iter().enumerate() {
        let expected = row(message);
        let end = match judge(message, tables, &excuses) {
            Ok(End::Row) if expected.is_none() => Err("is a row and should not be one".to_owned()),
            judged => judged,
        };
        if let (Ok(end), Kind::Event(event)) = (&end, message.kind) {
            let (rows, repeated) = events.entry(event).or_default();
            *rows += u32::from(*end == End::Row);
            *repeated += u32::from(*end == End::Repeated);
        }
        match end {
            Ok(End::Row) => *rows.entry(expected.unwrap_or_default()).or_default() += 1,
            Ok(End::Excused) => {
                let letter = &letters(&tables.dead, message.key)[0];
                *world.state().counts.excused.entry(letter.reason.clone()).or_default() += 1;
            }
            Ok(End::Dead | End::Repeated) => {}
            Err(what) => wrong.push(format!("message {number} {what}")),
        }
    }
    for (event, ends) in events {
        match ends {
            (0, 1..) => wrong.push(format!("event {event} is lost: it is said to be a row already and is none")),
            (2.., _) => wrong.push(format!("event {event} is there twice: {} rows", ends.0)),
            _ => {}
        }
    }
    for (_, tuple) in &tables.rows {
        *rows.entry(tuple.clone()).or_default() -= 1;
    }
    for (tuple, missing) in rows.into_iter().filter(|(_, missing)| *missing != 0) {
        match (missing, sent.iter().position(|message| row(message).as_ref() == Some(&tuple))) {
            (1.., whose) => wrong.push(format!("message {whose:?} is lost: its row is not there")),
            (_, Some(number)) => wrong.push(format!("message {number} is there twice: {} rows too many", -missing)),
            (_, None) => wrong.push("there is a row that nobody sent".to_owned()),
        }
    }
    let known: BTreeSet<Key> = sent.iter().map(|message| message.key).collect();
    let outcomes = tables.ledger.keys().chain(tables.forgotten.keys());
    let letters = tables.dead.iter().chain(&tables.late).map(|(_, letter)| &letter.key);
    if outcomes.chain(letters).any(|key| !known.contains(key)) {
        wrong.push("there is an outcome of a message that nobody sent".to_owned());
    }
    let letters = tables.dead.iter().chain(&tables.late);
    if letters.map(|(_, letter)| letter.epoch).any(|epoch| !tables.epochs.contains_key(&epoch)) {
        wrong.push("a dead letter's epoch is not there".to_owned());
    }
    if tables.rows.iter().any(|(_, tuple)| !is_in_vault(tuple, tables, ground)) {
        wrong.push("a row's value is not in the vault".to_owned());
    }
    wrong.extend(open_one(&sent, tables, ground));
    world.state().wrong.extend(wrong);
}

/// Why a message may be a dead letter that would be a row otherwise.
struct Excuses {
    /// How often a reader did not come to say that it has read a message.
    unread: BTreeMap<Key, u32>,
}

impl Excuses {
    fn of(world: &World) -> Self {
        Self { unread: world.state().unread.clone() }
    }

    fn allow(&self, key: Key, reason: &str) -> bool {
        let readers = self.unread.get(&key).copied().unwrap_or_default();
        reason == "poison_receive_count" && readers >= READERS
    }
}

/// What a message came to by the ledger and the dead letters, or what is wrong with that.
fn judge(message: &Sent, tables: &Tables, excuses: &Excuses) -> Result<End, String> {
    let Sent { key, kind, .. } = *message;
    let in_ledger = tables.ledger.get(&key).map(|(_, outcome)| *outcome);
    let outcome = in_ledger.or(tables.forgotten.get(&key).copied());
    let dead = letters(&tables.dead, key);
    let late = letters(&tables.late, key);
    if late.len() > 1 || (late.len() == 1 && key.sent_at >= tables.oldest) {
        return Err(format!("has {} letters for being older than a ledger that remembers it", late.len()));
    }
    match (outcome, dead.as_slice()) {
        (Some(b'1'), []) => Ok(End::Row),
        (Some(b'4'), []) => Ok(End::Repeated),
        (Some(b'2'), [letter]) if kind.reason() == Some(&letter.reason) => Ok(End::Dead),
        (Some(b'2'), [letter]) if excuses.allow(key, &letter.reason) => Ok(End::Excused),
        (Some(b'2'), [letter]) => Err(format!("is a dead letter for {}", letter.reason)),
        (Some(_), []) => Err("is lost: its dead letter is not there".to_owned()),
        (Some(b'2'), letters) => Err(format!("is there twice: {} dead letters", letters.len())),
        (Some(_), _) => Err("is a row and a dead letter".to_owned()),
        (None, []) if late.is_empty() => Err("is lost".to_owned()),
        (None, []) => Ok(End::Dead),
        (None, _) => Err("is a dead letter that the ledger does not know".to_owned()),
    }
}

fn letters(letters: &[(u64, Letter)], key: Key) -> Vec<&Letter> {
    letters.iter().map(|(_, letter)| letter).filter(|letter| letter.key == key).collect()
}

/// Whether the originals of a row's tokens are sealed for its person.
fn is_in_vault(tuple: &[u8], tables: &Tables, ground: &Ground) -> bool {
    let fields = fields(tuple);
    let subject = ground.keys.subject.tag(&fields[0]).0;
    [2, 3].into_iter().all(|at| tables.values.contains_key(&(subject, fields[at].clone())))
}

/// The texts of a tuple of COPY BINARY, as far as they are texts.
fn fields(mut tuple: &[u8]) -> Vec<String> {
    let mut fields = Vec::new();
    tuple = &tuple[2..];
    while let Some((length, rest)) = tuple.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        fields.push(String::from_utf8_lossy(&rest[..length]).into_owned());
        tuple = &rest[length..];
    }
    fields
}

/// In some worlds one dead letter is opened: to open all would take most of the time.
fn open_one(sent: &[Sent], tables: &Tables, ground: &Ground) -> Option<String> {
    let (transaction, letter) = tables.dead.last().or(tables.late.last())?;
    let message = sent.iter().find(|sent| sent.key == letter.key).filter(|_| transaction % OPENED == 0)?;
    let header = tables.epochs.get(&letter.epoch)?;
    match seal::open(&ground.recovery, header, letter.key, &letter.sealed) {
        Ok(body) if *body == message.kind.body() => None,
        Ok(_) => Some("a dead letter opens to something else than was sent".to_owned()),
        Err(error) => Some(format!("a dead letter cannot be opened: {error}")),
    }
}

/// One in so many worlds.
const OPENED: u64 = 16;

/// So many readers whom it outlived make poison of a message.
const READERS: u32 = 3;
