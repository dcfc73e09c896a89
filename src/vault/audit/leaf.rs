//! An entry of the audit log, and the bytes of it that are hashed: exactly those that `masq.leaf` makes in
//! migrations/0005_audit.sql. Pure.
//!
//! ```text
//! leaf   masq/audit/v1 | seq | at | prev, 32 bytes | action | login | claimed | purpose | ticket | reason
//!        | request, 0 if there is none | detail | number of items, 4 bytes | the items
//! ```
//! Numbers are 8 bytes, big-endian; a text or an item is its length in 4 bytes and its bytes, or 4 bytes 0xff for NULL.

use super::merkle::{self, Hash};

/// What somebody did, as it stands in `masq.audit`. An entry carries no value, but it names persons: those who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counts from 1.
    pub seq: i64,
    /// When: microseconds since 2000-01-01 UTC, PostgreSQL's own count.
    pub at: i64,
    /// What, as in `reveal`.
    pub action: String,
    /// Who: the login.
    pub login: String,
    /// The user at the terminal, as that machine says.
    pub claimed: String,
    /// What for, as in `SAR`.
    pub purpose: Option<String>,
    /// The ticket.
    pub ticket: Option<String>,
    /// In somebody's words.
    pub reason: Option<String>,
    /// What was asked for: tokens, keys of messages, subject tags, an epoch.
    pub items: Vec<Option<Vec<u8>>>,
    /// The entry that this one answers.
    pub request: Option<i64>,
    /// The outcome, as JSON.
    pub detail: String,
    /// The hash of the entry before; of the first, zeros.
    pub prev: Hash,
    /// The hash that stands beside the entry. Whether it is the entry's [`Entry::leaf_hash`] is to be seen.
    pub hash: Hash,
}

impl Entry {
    /// The hash that it should have.
    pub fn leaf_hash(&self) -> Hash {
        merkle::leaf(&self.leaf())
    }

    fn leaf(&self) -> Vec<u8> {
        let mut out = b"masq/audit/v1".to_vec();
        out.extend(self.seq.to_be_bytes());
        out.extend(self.at.to_be_bytes());
        out.extend(self.prev);
        for field in [Some(&self.action), Some(&self.login), Some(&self.claimed)] {
            framed(&mut out, field.map(String::as_bytes));
        }
        for field in [&self.purpose, &self.ticket, &self.reason] {
            framed(&mut out, field.as_deref().map(str::as_bytes));
        }
        out.extend(self.request.unwrap_or(0).to_be_bytes());
        framed(&mut out, Some(self.detail.as_bytes()));
        out.extend(length(self.items.len()));
        self.items.iter().for_each(|item| framed(&mut out, item.as_deref()));
        out
    }
}

fn framed(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(bytes) => {
            out.extend(length(bytes.len()));
            out.extend(bytes);
        }
        None => out.extend([0xff; 4]),
    }
}

/// No field of PostgreSQL's is longer than 1 GiB.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An entry that follows one with this hash, with the hash that it should have.
    pub(crate) fn entry(seq: i64, prev: Hash, action: &str, detail: &str) -> Entry {
        let mut entry = Entry {
            seq,
            at: 845_000_000_123_456 + seq,
            action: action.to_owned(),
            login: "jane".to_owned(),
            claimed: "jane doe".to_owned(),
            purpose: Some("SAR".to_owned()),
            ticket: Some(String::new()),
            reason: None,
            items: vec![Some(vec![1, 2, 3]), None, Some(Vec::new())],
            request: None,
            detail: detail.to_owned(),
            prev,
            hash: [0; 32],
        };
        entry.hash = entry.leaf_hash();
        entry
    }

    #[test]
    fn no_two_entries_have_the_same_bytes() {
        let base = entry(7, [9; 32], "reveal", "{}");
        let changes: [fn(&mut Entry); 11] = [
            |e| e.seq += 1,
            |e| e.at += 1,
            |e| e.prev[0] ^= 1,
            |e| (e.action, e.login) = (String::new(), "revealjane".to_owned()),
            |e| e.purpose = None,
            |e| e.ticket = None,
            |e| e.reason = Some(String::new()),
            |e| e.request = Some(1),
            |e| e.detail.push(' '),
            |e| drop(e.items.pop()),
            |e| e.items[2] = None,
        ];
        for change in changes {
            let mut changed = base.clone();
            change(&mut changed);
            assert_ne!(changed.leaf_hash(), base.hash);
        }
    }
}
