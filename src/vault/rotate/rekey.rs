//! Entries of old tokens made entries of new ones, a page a transaction. Which page comes next the primary key says; what
//! was moved is no longer found, so a second run goes on where the first was cut off.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU8,
};

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    RotateError, Rotation,
    reseal::{Entry, Resealed, reseal},
};
use crate::{
    db::{DbError, Session},
    vault::{
        backend::random,
        epochs,
        recovery::RecoveryKey,
        seal::{OpenEpoch, OpenError, SubjectTag, unwrap},
        token::{DomainKey, Token, TokenRoot},
    },
};

/// Entries of one transaction. More would hold locks for longer that an erasure waits for; fewer leave the cost of a commit
/// to too few.
const PAGE: i32 = 1_000;

/// Epochs whose keys are kept: 100 bytes each. With fewer, entries in the order of their tokens, which is no order of time,
/// would have the same epoch opened again and again, at a hundred times the cost of an entry.
const EPOCHS: usize = 1_000_000;

/// What became of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// They lie under their new tokens.
    pub moved: u64,
    /// Of these: a worker had sealed the same value for the same person in the same month already.
    pub merged: u64,
    /// Nobody can open them: their slot or their epoch is gone, as after an erasure.
    pub shredded: u64,
    /// They are sealed to other recovery keys.
    pub locked: u64,
    /// They are not what a worker has sealed under that token. They stay, as evidence.
    pub tampered: u64,
}

impl Tally {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.moved + self.left()
    }

    /// Those that are as they were.
    pub fn left(&self) -> u64 {
        self.shredded + self.locked + self.tampered
    }

    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.moved += other.moved;
        self.merged += other.merged;
        self.shredded += other.shredded;
        self.locked += other.locked;
        self.tampered += other.tampered;
    }
}

/// What takes values from their old tokens to their new ones.
pub struct Rekey<'a> {
    epochs: EpochKeys<'a>,
    domains: Domains<'a>,
    active: NonZeroU8,
    after: Option<(Token, SubjectTag, String)>,
}

/// How many entries there are to be moved.
///
/// # Errors
/// If they cannot be counted.
pub async fn count(session: &Session) -> Result<u64, DbError> {
    let count = session.query_typed_one("SELECT masq.count_rekey()", &[]).await.and_then(|row| row.try_get(0));
    count.map(i64::unsigned_abs).map_err(|error| DbError::new("counting the entries", &error))
}

impl<'a> Rekey<'a> {
    /// From the first entry on. `roots` must have the active key, and the old one of every entry that is asked for.
    pub fn new(identity: &'a RecoveryKey, roots: &'a BTreeMap<NonZeroU8, TokenRoot>, active: NonZeroU8) -> Self {
        let epochs = EpochKeys { identity, known: HashMap::new() };
        Self { epochs, domains: Domains { roots, made: HashMap::new() }, active, after: None }
    }

    /// Moves the next page of the entries of this key; `None` when there are no more. `slots`: where the slots are.
    ///
    /// # Errors
    /// If the database fails. What was moved stays moved.
    pub async fn next(
        &mut self,
        rotation: &mut Rotation<'_>,
        slots: &Session,
        old: NonZeroU8,
    ) -> Result<Option<Tally>, RotateError> {
        let entries = fetch(rotation, old, self.after.as_ref()).await?;
        self.after = entries.last().map(|last| (last.token, last.subject, last.month.clone()));
        if entries.is_empty() {
            return Ok(None);
        }
        self.epochs.learn(rotation.session, &entries).await?;
        let salts = salts(slots, &entries).await?;
        let mut tally = Tally::default();
        let mut moved = Vec::with_capacity(entries.len());
        let mut open = HashMap::new();
        for entry in &entries {
            let salt = salts.get(&(entry.subject.0, entry.epoch));
            match (self.epochs.known.get(&entry.epoch), salt) {
                (Some(Ok(key)), Some(salt)) => {
                    let epoch = open.entry(entry.epoch).or_insert_with(|| OpenEpoch::with_key(entry.epoch, key));
                    let nonce = random()?;
                    let domains = self.domains.of((old, self.active), &entry.field);
                    match domains.and_then(|domains| reseal(epoch, salt, entry, domains, *nonce)) {
                        Some(again) => moved.push((entry, again)),
                        None => tally.tampered += 1,
                    }
                }
                (Some(Err(Shut::Locked)), Some(_)) => tally.locked += 1,
                (Some(Err(Shut::Tampered)), Some(_)) => tally.tampered += 1,
                (Some(Err(Shut::Gone)) | None, _) | (_, None) => tally.shredded += 1,
            }
        }
        (tally.moved, tally.merged) = write(rotation, &moved).await?;
        Ok(Some(tally))
    }
}

/// Why an epoch stays shut.
enum Shut {
    Gone,
    Locked,
    Tampered,
}

/// On the heap, so that a table that grows leaves no copy behind.
type Key = Box<Zeroizing<[u8; 32]>>;

/// The keys of epochs, each opened once.
struct EpochKeys<'a> {
    identity: &'a RecoveryKey,
    known: HashMap<Uuid, Result<Key, Shut>>,
}

impl EpochKeys<'_> {
    /// Opens those of these entries that are not known yet.
    async fn learn(&mut self, session: &Session, entries: &[Entry]) -> Result<(), DbError> {
        if self.known.len() >= EPOCHS {
            self.known.clear();
        }
        let mut ids: Vec<Uuid> =
            entries.iter().map(|entry| entry.epoch).filter(|id| !self.known.contains_key(id)).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(());
        }
        for header in epochs::headers(session, &ids).await? {
            let key = unwrap(self.identity, &header).map(Box::new).map_err(|error| match error {
                OpenError::WrongKey { .. } | OpenError::Kms => Shut::Locked,
                OpenError::Tampered | OpenError::UnknownFormat(_) => Shut::Tampered,
            });
            self.known.insert(header.id, key);
        }
        for id in ids {
            self.known.entry(id).or_insert(Err(Shut::Gone));
        }
        Ok(())
    }
}

/// The keys of domains, each derived once.
struct Domains<'a> {
    roots: &'a BTreeMap<NonZeroU8, TokenRoot>,
    made: HashMap<String, HashMap<NonZeroU8, DomainKey>>,
}

impl Domains<'_> {
    /// The old and the new key of a field; `None` if no worker can have made tokens of it.
    fn of(&mut self, (old, new): (NonZeroU8, NonZeroU8), field: &str) -> Option<(&DomainKey, &DomainKey)> {
        if !self.made.contains_key(field) {
            let all = self.roots.iter().map(|(kid, root)| Some((*kid, root.domain(field).ok()?)));
            self.made.insert(field.to_owned(), all.collect::<Option<_>>()?);
        }
        let made = self.made.get(field)?;
        Some((made.get(&old)?, made.get(&new)?))
    }
}

async fn fetch(
    rotation: &mut Rotation<'_>,
    kid: NonZeroU8,
    after: Option<&(Token, SubjectTag, String)>,
) -> Result<Vec<Entry>, DbError> {
    const FETCH: &str = "SELECT token, subject_tag, month::text, field, epoch, sealed \
                         FROM masq.fetch_rekey($1, $2, $3, $4, $5::text::date, $6)";
    let kid = i16::from(kid.get());
    let token = after.map(|(token, ..)| token.0.as_slice());
    let subject = after.map(|(_, subject, _)| subject.0.as_slice());
    let month = after.map(|(.., month)| month.as_str());
    let rest: [(&(dyn ToSql + Sync), Type); 5] =
        [(&kid, Type::INT2), (&token, Type::BYTEA), (&subject, Type::BYTEA), (&month, Type::TEXT), (&PAGE, Type::INT4)];
    let doing = "reading the entries";
    let rows = rotation.call(doing, FETCH, &rest).await?;
    let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>();
    entries.map_err(|error| DbError::new(doing, &error))
}

fn entry(row: &Row) -> Result<Entry, tokio_postgres::Error> {
    // Of another length it is nobody's, and opens with no key.
    let fixed = |at| row.try_get::<_, &[u8]>(at);
    Ok(Entry {
        token: Token(fixed(0)?.try_into().unwrap_or([0; 32])),
        subject: SubjectTag(fixed(1)?.try_into().unwrap_or([0; 16])),
        month: row.try_get(2)?,
        field: row.try_get(3)?,
        epoch: row.try_get(4)?,
        sealed: row.try_get(5)?,
    })
}

/// By person and epoch.
type Salts = HashMap<([u8; 16], Uuid), [u8; 32]>;

/// The salts of the slots of these entries.
async fn salts(slots: &Session, entries: &[Entry]) -> Result<Salts, DbError> {
    const FETCH: &str = "SELECT subject_tag, epoch, salt FROM masq_slots.fetch_slots($1, $2)";
    let subjects: Vec<&[u8]> = entries.iter().map(|entry| entry.subject.0.as_slice()).collect();
    let epochs: Vec<Uuid> = entries.iter().map(|entry| entry.epoch).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&subjects, Type::BYTEA_ARRAY), (&epochs, Type::UUID_ARRAY)];
    let failed = |error| DbError::new("reading the slots", &error);
    let rows = slots.query_typed(FETCH, &parameters).await.map_err(failed)?;
    let salt = |row: &Row| {
        let (subject, epoch, salt): (&[u8], Uuid, &[u8]) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(subject.try_into().ok().zip(salt.try_into().ok()).map(|(subject, salt)| ((subject, epoch), salt)))
    };
    let salts = rows.iter().filter_map(|row| salt(row).transpose()).collect::<Result<_, _>>();
    salts.map_err(failed)
}

/// Answers how many were moved, and how many of them merged.
async fn write(rotation: &mut Rotation<'_>, moved: &[(&Entry, Resealed)]) -> Result<(u64, u64), DbError> {
    const WRITE: &str = "SELECT moved, merged FROM masq.rekey($1, $2, $3, $4, $5::text[]::date[], $6, $7, $8)";
    if moved.is_empty() {
        return Ok((0, 0));
    }
    let claimed = rotation.why().claimed;
    let column = |value: fn(&(&Entry, Resealed)) -> Vec<u8>| moved.iter().map(value).collect::<Vec<_>>();
    let tokens = column(|(entry, _)| entry.token.0.to_vec());
    let subjects = column(|(entry, _)| entry.subject.0.to_vec());
    let months: Vec<&str> = moved.iter().map(|(entry, _)| entry.month.as_str()).collect();
    let epochs: Vec<Uuid> = moved.iter().map(|(entry, _)| entry.epoch).collect();
    let new = column(|(_, again)| again.token.0.to_vec());
    let sealed = column(|(_, again)| again.sealed.clone());
    let rest: [(&(dyn ToSql + Sync), Type); 7] = [
        (&claimed, Type::TEXT),
        (&tokens, Type::BYTEA_ARRAY),
        (&subjects, Type::BYTEA_ARRAY),
        (&months, Type::TEXT_ARRAY),
        (&epochs, Type::UUID_ARRAY),
        (&new, Type::BYTEA_ARRAY),
        (&sealed, Type::BYTEA_ARRAY),
    ];
    let doing = "writing the entries";
    let row = rotation.call_one(doing, WRITE, &rest).await?;
    let counts = row.try_get::<_, i64>(0).and_then(|moved| Ok((moved, row.try_get::<_, i64>(1)?)));
    counts
        .map(|(moved, merged)| (moved.unsigned_abs(), merged.unsigned_abs()))
        .map_err(|error| DbError::new(doing, &error))
}
