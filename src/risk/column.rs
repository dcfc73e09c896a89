//! What can be seen of a column without understanding it: how many different values, how often the most frequent ones
//! stand there, and whether they look like hashes or like something that names a person. Pure.
//!
//! Values are counted by a keyed hash and not kept; of those that look like digests the digest is, to be attacked.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::pattern::Pattern;

/// The part of a column's values that must have a form before the column is said to have it. Less would call a column
/// after a few strays; more would overlook one with a few strays.
const NEARLY_ALL: f64 = 0.9;

/// How many of the most frequent values are told together.
const FREQUENT: usize = 10;

/// What was seen of a column.
pub struct Column {
    counts: HashMap<u64, u64>,
    digests: HashSet<Box<[u8]>>,
    looks: [u64; Pattern::ALL.len()],
    values: u64,
    look_like_digests: u64,
}

impl Column {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            counts: HashMap::new(),
            digests: HashSet::new(),
            looks: [0; Pattern::ALL.len()],
            values: 0,
            look_like_digests: 0,
        }
    }

    /// Adds a value; `None` is NULL. Answers what stands for it among values of all columns.
    pub fn add(&mut self, value: Option<&str>, hasher: &RandomState) -> u64 {
        let hash = hasher.hash_one(value);
        let Some(value) = value else { return hash };
        self.values += 1;
        let count = self.counts.entry(hash).or_insert(0);
        *count += 1;
        if let Some(digest) = digest(value) {
            self.look_like_digests += 1;
            if *count == 1 {
                self.digests.insert(digest);
            }
        } else {
            for (looks, pattern) in self.looks.iter_mut().zip(Pattern::ALL) {
                *looks += u64::from(pattern.fits(value));
            }
        }
        hash
    }

    /// Values that are not NULL.
    pub fn values(&self) -> u64 {
        self.values
    }

    /// Different values.
    pub fn distinct(&self) -> u64 {
        self.counts.len() as u64
    }

    /// The part of its values that are the most frequent one, and the part that are among the ten most frequent.
    pub fn most_frequent(&self) -> (f64, f64) {
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let part = |most: usize| counts.iter().take(most).sum::<u64>() as f64 / self.values.max(1) as f64;
        (part(1), part(FREQUENT))
    }

    /// Whether its values look like digests.
    pub fn is_hashed(&self) -> bool {
        self.is_nearly_all(self.look_like_digests)
    }

    /// The digests, if they are what the column holds.
    pub fn digests(&self) -> impl Iterator<Item = &[u8]> {
        self.is_hashed().then_some(&self.digests).into_iter().flatten().map(AsRef::as_ref)
    }

    /// What its values look like.
    pub fn pattern(&self) -> Option<Pattern> {
        let seen = Pattern::ALL.into_iter().zip(self.looks);
        seen.filter(|(_, looks)| self.is_nearly_all(*looks)).map(|(pattern, _)| pattern).next()
    }

    fn is_nearly_all(&self, values: u64) -> bool {
        self.values > 0 && values as f64 >= self.values as f64 * NEARLY_ALL
    }
}

impl Default for Column {
    fn default() -> Self {
        Self::new()
    }
}

/// The bytes of a digest of 16, 20 or 32 bytes, as hexadecimal digits, as PostgreSQL writes bytea, or in base64.
fn digest(text: &str) -> Option<Box<[u8]>> {
    const LENGTHS: [usize; 3] = [16, 20, 32];
    let hex = text.strip_prefix("\\x").unwrap_or(text).as_bytes();
    let bytes = match hex.len() {
        32 | 40 | 64 => hex.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect(),
        24 | 28 | 44 if text.ends_with('=') => BASE64_STANDARD.decode(text).ok(),
        _ => None,
    };
    bytes.filter(|bytes: &Vec<u8>| LENGTHS.contains(&bytes.len())).map(Vec::into_boxed_slice)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[&str]) -> Column {
        let (mut column, hasher) = (Column::new(), RandomState::new());
        for value in values {
            column.add(Some(value), &hasher);
        }
        column
    }

    #[test]
    fn digests_in_their_spellings() {
        let expected: Option<Box<[u8]>> = Some((0..20).collect());
        for text in [
            "000102030405060708090a0b0c0d0e0f10111213",
            "000102030405060708090A0B0C0D0E0F10111213",
            "\\x000102030405060708090a0b0c0d0e0f10111213",
            "AAECAwQFBgcICQoLDA0ODxAREhM=",
        ] {
            assert_eq!(digest(text), expected, "{text}");
        }
        for text in
            ["", "00", "000102030405060708090a0b0c0d0e0f1011121g", "593-47-5928", &"é".repeat(16), &"x".repeat(64)]
        {
            assert_eq!(digest(text), None, "{text}");
        }
    }

    #[test]
    fn frequency_is_of_values_that_are_there() {
        let mut column = column(&["a", "a", "a", "b"]);
        column.add(None, &RandomState::new());
        assert_eq!((column.values(), column.distinct(), column.most_frequent()), (4, 2, (0.75, 1.0)));
        assert_eq!(Column::new().most_frequent(), (0.0, 0.0));
    }

    #[test]
    fn a_stray_changes_nothing_and_a_column_of_them_does() {
        let hex = "ab".repeat(32);
        let mut values = vec![hex.as_str(); 9];
        values.push("stray");
        assert!(column(&values).is_hashed());
        assert_eq!(column(&values).digests().count(), 1);
        values.push("stray");
        assert!(!column(&values).is_hashed());
        assert_eq!(column(&values).digests().count(), 0);
        assert!(!Column::new().is_hashed());
        assert_eq!(column(&["1.2.3.4", "::1"]).pattern(), Some(Pattern::Ip));
    }
}
