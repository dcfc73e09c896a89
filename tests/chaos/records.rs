//! The files that a campaign leaves behind for the checker, one JSON object a line.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

/// Where everything is written.
pub(crate) struct Records {
    directory: PathBuf,
    files: Mutex<BTreeMap<String, File>>,
}

impl Records {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), files: Mutex::default() }
    }

    /// Appends a line to `NAME.jsonl`, an object, with the time `at` in milliseconds since 1970-01-01 UTC.
    pub(crate) fn write(&self, name: &str, mut line: Value) {
        line["at"] = masq::pipeline::now_ms().into();
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.entry(name.to_owned()).or_insert_with(|| self.open(name).expect("a record can be opened"));
        file.write_all(format!("{line}\n").as_bytes()).expect("a record can be written");
    }

    /// Appends lines to `NAME.jsonl` and waits until they are on disk.
    pub(crate) fn write_durably(&self, name: &str, lines: &str) -> io::Result<()> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.entry(name.to_owned()).or_insert_with(|| self.open(name).expect("a record can be opened"));
        file.write_all(lines.as_bytes())?;
        file.sync_data()
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.directory.join(format!("{name}.jsonl")))
    }
}
