//! Seals each value once: what a worker knows of the values that are in the vault already. Pure.
//!
//! A value that a committed transaction has sealed in this epoch is not sealed again. What is remembered of it is its
//! [`Mark`], made of its token and its person's tag: outputs of keyed functions, never a plain value. The memory ends
//! with its epoch, so that a value that was erased meanwhile is sealed anew when it comes again.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    ops::Range,
    sync::Arc,
};

use super::{
    seal::{EpochKey, Original, Slot, SubjectTag},
    token::Token,
};

/// Values sealed in one epoch at most. More would take more memory for their marks (9 MB each worker for these); fewer
/// would begin epochs more often, at about 0.2 ms each.
const MOST: u64 = 250_000;

/// A person's value, as far as it is remembered: 128 bits of its token and of the person's tag.
type Mark = u128;

fn mark(token: &Token, subject: SubjectTag) -> Mark {
    // The token's first byte is its key id, the rest is as good as random.
    let token: [u8; 16] = std::array::from_fn(|i| token.0[i + 1]);
    u128::from_be_bytes(token) ^ u128::from_be_bytes(subject.0)
}

/// Takes bits of a mark as they are: they are random to whoever has no key.
#[derive(Default)]
struct Bits(u64);

impl Hasher for Bits {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |bits, byte| bits.rotate_left(8) ^ u64::from(*byte));
    }

    #[allow(clippy::cast_possible_truncation)] // the other half is as random
    fn write_u128(&mut self, mark: u128) {
        self.0 = mark as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Hash = BuildHasherDefault<Bits>;

/// An epoch in hand, and what is in the vault already.
pub struct Sealer {
    epoch: EpochKey,
    durable: HashSet<Mark, Hash>,
}

/// The sealed values of a batch, each once, and which of its rows need which.
#[derive(Default)]
pub struct Seals {
    slots: Vec<Slot>,
    values: Vec<SealedValue>,
    bytes: Vec<u8>,
    /// Of each row, one after the other, where its values stand.
    uses: Vec<usize>,
    by_mark: HashMap<Mark, usize, Hash>,
    by_subject: HashMap<Mark, usize, Hash>,
}

/// A value, sealed for its person.
pub struct SealedValue {
    /// The domain of its token.
    pub field: Arc<str>,
    /// What stands in the table in its place.
    pub token: Token,
    slot: usize,
    bytes: Range<usize>,
}

impl Sealer {
    /// Seals in this epoch, of which nothing is in the vault yet.
    pub fn new(epoch: EpochKey) -> Self {
        Self { epoch, durable: HashSet::default() }
    }

    /// The epoch under whose key it seals.
    pub fn epoch(&self) -> &EpochKey {
        &self.epoch
    }

    /// The same, to seal bodies.
    pub fn epoch_mut(&mut self) -> &mut EpochKey {
        &mut self.epoch
    }

    /// Seals in another epoch from now on; the old keys are wiped, and what was sealed with them forgotten.
    pub fn start(&mut self, epoch: EpochKey) {
        self.epoch = epoch;
        self.durable.clear();
    }

    /// Whether this epoch has sealed as much as one may.
    pub fn is_spent(&self) -> bool {
        self.epoch.sealed() >= MOST
    }

    /// Whether a person's value is in the vault, as far as is remembered.
    pub fn remembers(&self, subject: SubjectTag, token: &Token) -> bool {
        self.durable.contains(&mark(token, subject))
    }

    /// Seals a person's value for a row, unless it is among `seals` already.
    pub fn seal(
        &mut self,
        subject: SubjectTag,
        (field, token): (&Arc<str>, &Token),
        value: Original<'_>,
        seals: &mut Seals,
    ) {
        let mark = mark(token, subject);
        let at = match seals.by_mark.get(&mark) {
            Some(at) => *at,
            None => {
                let slot = self.slot(subject, seals);
                let start = seals.bytes.len();
                self.epoch.seal_value((&seals.slots[slot], field, token), value, &mut seals.bytes);
                let bytes = start..seals.bytes.len();
                seals.values.push(SealedValue { field: Arc::clone(field), token: *token, slot, bytes });
                seals.by_mark.insert(mark, seals.values.len() - 1);
                seals.values.len() - 1
            }
        };
        seals.uses.push(at);
    }

    fn slot(&self, subject: SubjectTag, seals: &mut Seals) -> usize {
        *seals.by_subject.entry(u128::from_be_bytes(subject.0)).or_insert_with(|| {
            seals.slots.push(self.epoch.slot(subject));
            seals.slots.len() - 1
        })
    }

    /// Takes note that a row is committed, and with it its sealed values. `row`: as [`Seals::end_row`] answered.
    pub fn remember(&mut self, seals: &Seals, row: &Range<usize>) {
        let marks = seals.uses[row.clone()].iter().map(|at| &seals.values[*at]);
        self.durable.extend(marks.map(|value| mark(&value.token, seals.slots[value.slot].subject)));
    }
}

impl Seals {
    /// Where the next row's values begin.
    pub fn begin_row(&self) -> usize {
        self.uses.len()
    }

    /// The values of a row that began there.
    pub fn end_row(&self, begin: usize) -> Range<usize> {
        begin..self.uses.len()
    }

    /// Whether nothing is sealed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values that these rows need, each once, in the order of the vault's key: so no two transactions wait for each
    /// other in a circle.
    pub fn needed<'a>(&'a self, rows: impl Iterator<Item = &'a Range<usize>>) -> Vec<&'a SealedValue> {
        let mut at: Vec<usize> = rows.flat_map(|row| &self.uses[row.clone()]).copied().collect();
        at.sort_unstable();
        at.dedup();
        let mut values: Vec<&SealedValue> = at.into_iter().map(|at| &self.values[at]).collect();
        values.sort_unstable_by_key(|value| (value.token.0, self.slot(value).subject.0));
        values
    }

    /// The slot in which a value is sealed.
    pub fn slot(&self, value: &SealedValue) -> &Slot {
        &self.slots[value.slot]
    }

    /// A value's sealed bytes.
    pub fn sealed(&self, value: &SealedValue) -> &[u8] {
        &self.bytes[value.bytes.clone()]
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::vault::{
        seal::{EpochSecret, OpenEpoch},
        token::Kind,
    };

    const U: SubjectTag = SubjectTag([1; 16]);
    const V: SubjectTag = SubjectTag([2; 16]);

    fn secret(byte: u8) -> EpochSecret {
        EpochSecret::new(&Zeroizing::new([byte; 80]))
    }

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(EpochKey::new(&secret(byte), 0, Vec::new()))
    }

    fn text(raw: &str) -> Original<'_> {
        Original { kind: Kind::Text, raw }
    }

    fn seal(sealer: &mut Sealer, seals: &mut Seals, subject: SubjectTag, values: &[(u8, &str)]) -> Range<usize> {
        let (begin, field) = (seals.begin_row(), Arc::from("f"));
        for (token, raw) in values {
            let token = Token([*token; 32]);
            if !sealer.remembers(subject, &token) {
                sealer.seal(subject, (&field, &token), text(raw), seals);
            }
        }
        seals.end_row(begin)
    }

    #[test]
    fn what_rows_share_is_sealed_once_and_opens_for_its_person() {
        let (mut sealer, mut seals) = (sealer(7), Seals::default());
        let one = seal(&mut sealer, &mut seals, U, &[(9, "x"), (3, "y")]);
        let two = seal(&mut sealer, &mut seals, U, &[(9, "x")]);
        let other = seal(&mut sealer, &mut seals, V, &[(9, "x")]);
        assert_eq!(sealer.epoch().sealed(), 3);
        let needed = seals.needed([&one, &two, &other].into_iter());
        let order: Vec<_> = needed.iter().map(|value| (value.token.0[0], seals.slot(value).subject)).collect();
        assert_eq!(order, [(3, U), (9, U), (9, V)]);
        assert_eq!(seals.needed([&two].into_iter()).len(), 1);

        let epoch = OpenEpoch::with_key(secret(7).id, &secret(7).key);
        for value in needed {
            let slot = epoch.slot(seals.slot(value).subject, &seals.slot(value).salt);
            let opened =
                epoch.open_value(&slot, "f", &value.token, seals.sealed(value)).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(opened.raw.as_str(), if value.token.0[0] == 9 { "x" } else { "y" });
        }
    }

    #[test]
    fn only_what_is_committed_is_not_sealed_again_and_only_in_its_epoch() {
        let mut sealer = sealer(7);
        let mut first = Seals::default();
        let row = seal(&mut sealer, &mut first, U, &[(9, "x")]);
        let again = |sealer: &mut Sealer, subject| {
            let mut seals = Seals::default();
            seal(sealer, &mut seals, subject, &[(9, "x")]);
            !seals.is_empty()
        };
        assert!(again(&mut sealer, U), "nothing is committed yet");
        sealer.remember(&first, &row);
        assert!(!again(&mut sealer, U));
        assert!(again(&mut sealer, V), "another person's copy is another");
        sealer.start(EpochKey::new(&secret(8), 0, Vec::new()));
        assert!(again(&mut sealer, U));
    }
}
