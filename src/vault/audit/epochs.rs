//! What each epoch wrote against what is there of it now: rows of the vault that vanish are noticed. Pure.
//!
//! At its end an epoch puts on record how many entries, slots and dead letters it wrote. Whatever deletes some of them
//! says so in its own entry's `detail`, by epoch: `{"deleted": {"<epoch>": [entries, slots, letters], …}}`. The rest must
//! be there. An epoch without an entry is open: nobody knows what it wrote.

use std::collections::HashMap;

use serde::Deserialize;
use uuid::Uuid;

use super::{
    findings::{Code, Findings},
    leaf::Entry,
};

/// Entries, slots and dead letters, in this order.
pub type Rows = [i64; 3];

const NAMES: [&str; 3] = ["entries", "slots", "dead letters"];

/// How many open epochs a note names. They are told apart by nothing that helps.
const EXAMPLES: usize = 3;

/// What is known of an epoch.
#[derive(Clone, Copy, Default)]
struct Epoch {
    /// Written, less what was deleted, less what is there.
    balance: Rows,
    /// The number of its entry; 0: there is none.
    closed: i64,
    /// Whether `masq.epochs` has it.
    is_there: bool,
    /// Whether rows of it are there.
    has_rows: bool,
}

/// What an entry says of rows. Whatever else a `detail` holds is not for here.
#[derive(Deserialize)]
struct Deletions {
    #[serde(default)]
    deleted: HashMap<String, Rows>,
}

#[derive(Deserialize)]
struct Written {
    entries: i64,
    slots: i64,
    letters: i64,
}

/// All epochs of a log.
#[derive(Default)]
pub struct Epochs {
    epochs: HashMap<Uuid, Epoch>,
    open: Vec<Uuid>,
    open_count: u64,
}

impl Epochs {
    /// Takes in what an entry says that was written or deleted. Answers whether that can be understood.
    pub fn entry(&mut self, entry: &Entry) -> bool {
        if entry.action == "epoch" {
            let id = entry.items.first().and_then(|item| Uuid::from_slice(item.as_deref()?).ok());
            let written: Option<Written> = serde_json::from_str(&entry.detail).ok();
            let (Some(id), Some(Written { entries, slots, letters })) = (id, written) else { return false };
            let epoch = self.epochs.entry(id).or_default();
            epoch.closed = entry.seq;
            add(&mut epoch.balance, [entries, slots, letters]);
        } else if entry.detail.contains("\"deleted\"") {
            let Ok(Deletions { deleted }) = serde_json::from_str(&entry.detail) else { return false };
            for (id, rows) in deleted {
                let Ok(id) = id.parse() else { return false };
                add(&mut self.epochs.entry(id).or_default().balance, rows.map(i64::wrapping_neg));
            }
        }
        true
    }

    /// An epoch of `masq.epochs`. `is_old`: it should have ended, and been put on record, long ago.
    pub fn header(&mut self, id: Uuid, is_old: bool) {
        let epoch = self.epochs.entry(id).or_default();
        epoch.is_there = true;
        if is_old && epoch.closed == 0 {
            self.open_count += 1;
            if self.open.len() < EXAMPLES {
                self.open.push(id);
            }
        }
    }

    /// Rows of an epoch that are there.
    pub fn rows(&mut self, id: Uuid, rows: Rows) {
        let epoch = self.epochs.entry(id).or_default();
        epoch.has_rows = true;
        add(&mut epoch.balance, rows.map(i64::wrapping_neg));
    }

    /// What does not add up.
    pub fn judge(&self, findings: &mut Findings) {
        let mut epochs: Vec<_> = self.epochs.iter().collect();
        epochs.sort_unstable_by_key(|(id, epoch)| (epoch.closed, **id));
        for (id, epoch) in epochs {
            epoch.judge(*id, findings);
        }
        if self.open_count > 0 {
            let names: Vec<String> = self.open.iter().map(Uuid::to_string).collect();
            let (count, names) = (self.open_count, names.join(", "));
            findings.note(Code::OpenEpoch, None, format!(
                "{count} epochs never said what they wrote, such as {names}: their worker ended without notice or has had \
                 nothing to do since, so nobody would miss rows of theirs"
            ));
        }
    }
}

impl Epoch {
    fn judge(&self, id: Uuid, findings: &mut Findings) {
        let at = (self.closed > 0).then_some(self.closed);
        if self.has_rows && !self.is_there {
            findings.broken(Code::LostEpoch, at, format!(
                "epoch {id} is gone from masq.epochs, and without its keys what it sealed stays shut: restore it from a backup"
            ));
        }
        if at.is_none() {
            return;
        }
        for (balance, name) in self.balance.into_iter().zip(NAMES) {
            if balance > 0 {
                findings.broken(
                    Code::MissingRows,
                    at,
                    format!("epoch {id} wrote {balance} {name} more than are there or were deleted on record"),
                );
            }
            // A slot may be written in vain where slots have a database of their own.
            if balance < 0 && name == "slots" {
                findings.note(Code::ExtraRows, at, format!("epoch {id} has {} {name} more than it wrote", -balance));
            } else if balance < 0 {
                findings.broken(Code::ExtraRows, at, format!(
                    "epoch {id} has {} {name} more than it wrote: somebody else put them there, or the deletion of others \
                     is on record that still are there",
                    -balance
                ));
            }
        }
    }
}

/// Numbers that somebody made up may be of any size.
fn add(balance: &mut Rows, rows: Rows) {
    for (balance, rows) in balance.iter_mut().zip(rows) {
        *balance = balance.saturating_add(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::leaf::tests::entry, *};

    const ID: &str = "6f9619ff-8b86-4011-b42d-00c04fc964ff";

    fn closed(written: &str) -> Epochs {
        let mut close = entry(4, [0; 32], "epoch", written);
        close.items = vec![Some(ID.parse::<Uuid>().unwrap().as_bytes().to_vec())];
        let mut epochs = Epochs::default();
        assert!(epochs.entry(&close));
        epochs.header(ID.parse().unwrap(), true);
        epochs
    }

    fn found(epochs: &Epochs) -> Vec<(Code, bool)> {
        let mut findings = Findings::default();
        epochs.judge(&mut findings);
        findings.list.iter().map(|finding| (finding.code, finding.is_note)).collect()
    }

    const WRITTEN: &str = r#"{"entries": 5, "slots": 3, "letters": 1}"#;

    #[test]
    fn what_was_written_is_there_or_was_deleted_on_record() {
        let id: Uuid = ID.parse().unwrap();
        let mut epochs = closed(WRITTEN);
        assert_eq!(found(&epochs), [(Code::MissingRows, false); 3]);
        epochs.rows(id, [4, 0, 0]);
        epochs.rows(id, [0, 3, 1]);
        assert_eq!(found(&epochs), [(Code::MissingRows, false)]);
        let erased = format!(r#"{{"rows": 7, "deleted": {{"{ID}": [1, 0, 0]}}}}"#);
        assert!(epochs.entry(&entry(5, [0; 32], "forget", &erased)));
        assert_eq!(found(&epochs), []);
        epochs.rows(id, [1, 0, 0]);
        assert_eq!(found(&epochs), [(Code::ExtraRows, false)]);
        epochs.rows(id, [-1, 1, 0]);
        assert_eq!(found(&epochs), [(Code::ExtraRows, true)], "a slot in vain");
    }

    #[test]
    fn an_epoch_that_is_open_is_known_for_it_and_not_judged() {
        let mut epochs = Epochs::default();
        epochs.header(Uuid::from_u128(1), true);
        epochs.header(Uuid::from_u128(2), false);
        epochs.rows(Uuid::from_u128(1), [9, 9, 9]);
        assert_eq!(found(&epochs), [(Code::OpenEpoch, true)]);
        epochs.rows(Uuid::from_u128(3), [1, 0, 0]);
        assert_eq!(found(&epochs), [(Code::LostEpoch, false), (Code::OpenEpoch, true)]);
    }

    #[test]
    fn nonsense_is_not_understood_and_overflows_nothing() {
        let mut epochs = closed(&format!(r#"{{"entries": {}, "slots": 0, "letters": 0}}"#, i64::MAX));
        for detail in ["{\"deleted\": 1}", "{\"deleted\": {\"x\": [1, 2, 3]}}", "{\"deleted\""] {
            assert!(!epochs.entry(&entry(5, [0; 32], "purge", detail)), "{detail}");
        }
        let deleted = format!(r#"{{"deleted": {{"{ID}": [{}, {}, 0]}}}}"#, i64::MIN, i64::MAX);
        assert!(epochs.entry(&entry(5, [0; 32], "purge", &deleted)));
        assert!(!epochs.entry(&entry(5, [0; 32], "epoch", WRITTEN)), "its item is no epoch");
        assert!(!found(&epochs).is_empty());
    }
}
