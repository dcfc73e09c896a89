//! What is wrong with a configuration and where: one [`Complaint`] a mistake, all [`Complaints`] at once.
//!
//! A complaint quotes keys and words of the configuration, never an address or a password.

use std::{error, fmt};

use serde::Serialize;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// A file's name, a flag (`--queue-url`) or a variable (`MASQ_QUEUE_URL`).
    pub source: String,
    /// Of a file, from 1.
    pub line: Option<usize>,
    /// In characters, from 1; only where the line could not be read as TOML.
    pub column: Option<usize>,
}

impl Place {
    /// A flag or a variable.
    pub fn outside(source: &str) -> Self {
        Self { source: source.to_owned(), line: None, column: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))?;
        self.column.map_or(Ok(()), |column| write!(f, ":{column}"))
    }
}

/// One mistake, with its remedy where there is one to name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Complaint {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What, and what to do.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Every mistake of a configuration: those of the file by line, then those of flags and variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// One more.
    pub(super) fn add(&mut self, place: &Place, message: String) {
        self.0.push(Complaint { place: place.clone(), message });
    }

    /// Those of one layer after those of another.
    pub(super) fn append(&mut self, mut later: Self) {
        self.0.append(&mut later.0);
    }

    /// Whether there is nothing to complain of.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order in which a reader meets them.
    pub(super) fn sorted(mut self) -> Self {
        self.0.sort_by_key(|complaint| (complaint.place.line.is_none(), complaint.place.line));
        self
    }

    /// One by one, for `--json`.
    pub fn into_vec(self) -> Vec<Complaint> {
        self.0
    }
}

impl fmt::Display for Complaints {
    /// One a line, without a line end after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, complaint) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            complaint.fmt(f)?;
        }
        Ok(())
    }
}

impl error::Error for Complaints {}

/// How much of a word may be wrong for another to be what was meant: 1 is nothing. Lower finds more slips of the hand,
/// and proposes words that share little more than a few letters.
const LIKENESS: f64 = 0.6;

/// `; did you mean "…"?`, or nothing where no word is near.
pub(crate) fn suggestion<'a>(written: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    let written = written.to_lowercase();
    words
        .into_iter()
        .map(|word| (strsim::normalized_damerau_levenshtein(&written, word), word))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, word)| format!("; did you mean \"{word}\"?"))
}
