//! The file of erasures: what has to be known after a restore and is in no backup of the database. One line of JSON an
//! erasure before it is done and one after, each on disk before anything else happens. It names nobody: only tags.
//!
//! ```text
//! {"erasure": "<uuid>", "stage": "asked", "subject": "<tag, 32 hexadecimal digits>", "rows": "unlink", "at": "…Z"}
//! {"erasure": "<uuid>", "stage": "done", "number": 7, "subject": "…", "rows": "unlink", "at": "…Z"}
//! {"erasure": "<uuid>", "stage": "withdrawn", "at": "…Z"}       the database refused it, and nothing was deleted
//! ```
//! What is asked and nothing else may have been done or not: it is finished by the same command or, after a restore, by a
//! replay.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::vault::seal::SubjectTag;

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The system refuses.
    #[error("cannot use the file of erasures {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another erasure is under way.
    #[error("another `masq forget` is using {0}: wait for it")]
    Busy(PathBuf),
    /// It is not what was written.
    #[error("line {line} of {path} is none that `masq forget` writes: restore the file from a copy")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

/// An erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Random; the same here and in the database.
    pub key: Uuid,
    /// Whose.
    pub subject: SubjectTag,
    /// Whether rows are deleted, not unlinked.
    pub delete_rows: bool,
    /// Its place among all; `None`: it may not have been done yet.
    pub number: Option<i64>,
}

/// How every line begins.
const BEGINNING: &[u8] = b"{\"erasure\":\"";

/// The file, held so that nobody else writes there.
pub struct Journal {
    path: PathBuf,
    file: File,
    erasures: Vec<Erasure>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    erasure: String,
    stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<Rows>,
    at: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    Asked,
    Done,
    Withdrawn,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rows {
    Unlink,
    Delete,
}

impl Journal {
    /// Opens the file and reads it; `create`: makes it if it is not there.
    ///
    /// # Errors
    /// It cannot be used, somebody else uses it, or it is none.
    pub fn open(path: &Path, create: bool) -> Result<Self, JournalError> {
        let failed = |source| JournalError::File { path: path.to_owned(), source };
        // A pipe would never open, and a device never end.
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "that is no regular file")));
        }
        let opened = OpenOptions::new().read(true).append(true).create(create).mode(0o600).open(path);
        let mut file = opened.map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::Busy(path.to_owned()),
            TryLockError::Error(source) => failed(source),
        })?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut journal = Self { path: path.to_owned(), file, erasures: Vec::new() };
        let lines = text[..whole].split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        for (index, line) in lines {
            let malformed = || JournalError::Malformed { path: path.to_owned(), line: index + 1 };
            let line = serde_json::from_slice(line).map_err(|_| malformed())?;
            journal.read(&line).ok_or_else(malformed)?;
        }
        // A line without its end was being written when the machine stopped: nothing had been done for it. Anything else is
        // somebody's file, and stays as it is.
        let cut = &text[whole..];
        if !cut.is_empty() {
            let begun = cut.len().min(BEGINNING.len());
            if cut[..begun] != BEGINNING[..begun] {
                let line = text[..whole].split(|byte| *byte == b'\n').count();
                return Err(JournalError::Malformed { path: path.to_owned(), line });
            }
            journal.file.set_len(whole as u64).map_err(failed)?;
        }
        journal.sync_directory()?;
        Ok(journal)
    }

    /// The name of a new file is to survive, too.
    fn sync_directory(&self) -> Result<(), JournalError> {
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|source| JournalError::File { path: directory.to_owned(), source })
    }

    fn read(&mut self, line: &Line) -> Option<()> {
        let key = line.erasure.parse().ok()?;
        let known = self.erasures.iter_mut().find(|erasure| erasure.key == key);
        match (line.stage, known) {
            (Stage::Withdrawn, _) => self.erasures.retain(|erasure| erasure.key != key),
            (Stage::Done, Some(known)) => known.number = Some(line.number?),
            (_, None) => {
                let (subject, delete_rows) = (tag(line.subject.as_ref()?)?, line.rows? == Rows::Delete);
                self.erasures.push(Erasure { key, subject, delete_rows, number: line.number });
            }
            (Stage::Asked, Some(_)) => return None,
        }
        Some(())
    }

    /// All that are known here, in the order in which they were asked for.
    pub fn erasures(&self) -> &[Erasure] {
        &self.erasures
    }

    /// The one of this person that was begun and of which nobody knows how it ended.
    pub fn unfinished(&self, subject: SubjectTag) -> Option<&Erasure> {
        self.erasures.iter().find(|erasure| erasure.number.is_none() && erasure.subject == subject)
    }

    /// Writes down that an erasure begins, or with its number that it is done.
    ///
    /// # Errors
    /// It is not known to be on disk.
    pub fn write(&mut self, erasure: &Erasure) -> Result<(), JournalError> {
        let stage = if erasure.number.is_some() { Stage::Done } else { Stage::Asked };
        let rows = if erasure.delete_rows { Rows::Delete } else { Rows::Unlink };
        let subject = erasure.subject.0.iter().map(|byte| format!("{byte:02x}")).collect();
        self.append(&Line {
            number: erasure.number,
            subject: Some(subject),
            rows: Some(rows),
            ..Line::new(erasure.key, stage)
        })
    }

    /// Writes down that an erasure was refused before it changed anything.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn withdraw(&mut self, key: Uuid) -> Result<(), JournalError> {
        self.append(&Line::new(key, Stage::Withdrawn))
    }

    fn append(&mut self, line: &Line) -> Result<(), JournalError> {
        let failed = |source| JournalError::File { path: self.path.clone(), source };
        let mut text = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        self.file.write_all(&text).and_then(|()| self.file.sync_all()).map_err(failed)?;
        self.read(line);
        Ok(())
    }
}

impl Line {
    fn new(key: Uuid, stage: Stage) -> Self {
        let at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        Self { erasure: key.to_string(), stage, number: None, subject: None, rows: None, at }
    }
}

fn tag(hex: &str) -> Option<SubjectTag> {
    let digits = hex.as_bytes();
    let byte = |i: usize| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok();
    let mut tag = [0; 16];
    for (i, out) in tag.iter_mut().enumerate() {
        *out = byte(i)?;
    }
    (digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit)).then_some(SubjectTag(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erasure(key: u128, number: Option<i64>) -> Erasure {
        Erasure { key: Uuid::from_u128(key), subject: SubjectTag([7; 16]), delete_rows: key == 2, number }
    }

    #[test]
    fn what_was_written_is_read_again_and_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erasures");
        assert!(Journal::open(&path, false).is_err(), "a replay needs a file");
        let mut journal = Journal::open(&path, true).unwrap();
        for erasure in [erasure(1, None), erasure(1, Some(4)), erasure(2, None), erasure(3, None)] {
            journal.write(&erasure).unwrap();
        }
        journal.withdraw(Uuid::from_u128(3)).unwrap();
        assert!(matches!(Journal::open(&path, true), Err(JournalError::Busy(_))));
        drop(journal);
        let journal = Journal::open(&path, false).unwrap();
        assert_eq!(journal.erasures(), [erasure(1, Some(4)), erasure(2, None)]);
        assert_eq!(journal.unfinished(SubjectTag([7; 16])), Some(&erasure(2, None)));
        assert_eq!(journal.unfinished(SubjectTag([8; 16])), None);
    }

    #[test]
    fn a_line_that_was_cut_off_never_was_and_any_other_change_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erasures");
        Journal::open(&path, true).unwrap().write(&erasure(1, None)).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{}", &whole[..20])).unwrap();
        let mut journal = Journal::open(&path, true).unwrap();
        journal.write(&erasure(1, Some(1))).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path, true).unwrap().erasures(), [erasure(1, Some(1))]);
        for wrong in ["{}\n".to_owned(), whole.replace("07", "0x"), whole.replace("asked", "said"), whole.repeat(2)] {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(Journal::open(&path, true), Err(JournalError::Malformed { .. })));
        }
    }

    #[test]
    fn what_is_no_file_of_erasures_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        let mut journal = Journal::open(&path, true).unwrap();
        journal.write(&erasure(1, None)).unwrap();
        drop(journal);
        let whole = std::fs::read_to_string(&path).unwrap();
        let cases = [
            (String::new(), "notes, without an end", 1),
            (whole.clone(), "mine", 2),
            ("one\n".to_owned(), &whole[..20], 1),
        ];
        for (before, tail, at) in cases {
            let theirs = before + tail;
            std::fs::write(&path, &theirs).unwrap();
            assert!(
                matches!(Journal::open(&path, true), Err(JournalError::Malformed { line, .. }) if line == at),
                "{theirs}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), theirs);
        }
        for never_ends in [Path::new("/dev/full"), dir.path()] {
            assert!(matches!(Journal::open(never_ends, true), Err(JournalError::File { .. })));
        }
    }
}
