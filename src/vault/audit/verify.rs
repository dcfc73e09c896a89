//! Is an audit log whole: a judgement over its entries, one after the other, its head, signed checkpoints, and the rows of
//! the vault. Pure, and of constant memory for each entry: only requests without an answer and epochs are remembered.
//!
//! Each entry hashes itself and the one before, so what is changed, left out or moved shows in place. Whoever owns the
//! database can make all hashes anew: that shows only against a checkpoint that was signed before, and kept elsewhere.

use std::collections::BTreeSet;

use super::{
    checkpoint::Checkpoint,
    epochs::Epochs,
    findings::{Code, Findings},
    leaf::Entry,
    merkle::{Hash, Tree},
};

/// Requests that must be answered, and by what. Whatever else is asked for leaves no second entry.
const ANSWERED_BY: [(&str, &str); 5] = [
    ("reveal", "revealed"),
    ("forget", "forgotten"),
    ("forget", "planned"), // a dry run
    ("restore", "restored"),
    ("rotate", "rotated"),
];

/// How many unanswered requests a note names.
const EXAMPLES: usize = 10;

/// What the database says of the log's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many entries there are.
    pub size: i64,
    /// The hash of the last.
    pub hash: Vec<u8>,
    /// The roots of the perfect subtrees.
    pub peaks: Vec<Vec<u8>>,
}

/// What is read of a log.
pub enum Seen {
    /// An entry.
    Entry(Box<Entry>),
    /// What stands under this number is none: a hash of it has another length, or a column is NULL that never is.
    Unreadable(i64),
}

/// A log that is being looked at.
pub struct Audit {
    tree: Tree,
    /// The number that comes next.
    next: i64,
    /// The hash of the entry before; `None` where that is missing.
    before: Option<Hash>,
    /// Whether entries were left out, so that no root can be made any more.
    has_holes: bool,
    /// Whether a checkpoint did not fit, so that no later one can.
    is_rewritten: bool,
    /// Not reached yet, the longest first.
    checkpoints: Vec<Checkpoint>,
    /// The longest of those that fit.
    agreed: Option<u64>,
    unanswered: BTreeSet<i64>,
    /// What its entries say of epochs.
    pub epochs: Epochs,
    /// What was found so far.
    pub findings: Findings,
}

impl Audit {
    /// Begins, with checkpoints whose signatures are good, and what was found of the others.
    pub fn new(mut checkpoints: Vec<Checkpoint>, findings: Findings) -> Self {
        checkpoints.sort_unstable_by_key(|checkpoint| std::cmp::Reverse(checkpoint.size));
        let mut audit = Self {
            tree: Tree::default(),
            next: 1,
            before: Some([0; 32]),
            has_holes: false,
            is_rewritten: false,
            checkpoints,
            agreed: None,
            unanswered: BTreeSet::new(),
            epochs: Epochs::default(),
            findings,
        };
        audit.compare();
        audit
    }

    /// Takes the next entry, in the order of their numbers.
    pub fn see(&mut self, seen: &Seen) {
        let seq = match seen {
            Seen::Entry(entry) => entry.seq,
            Seen::Unreadable(seq) => *seq,
        };
        if seq < self.next {
            let last = self.next - 1;
            let text =
                format!("entry {seq} stands after entry {last}: a number stands twice, or the order was changed");
            self.findings.broken(Code::Disorder, Some(seq), text);
            return;
        }
        if seq > self.next {
            let text = match (self.next, seq - 1) {
                (first, last) if first == last => format!("entry {first} is missing"),
                (first, last) => format!("entries {first} to {last} are missing"),
            };
            self.findings.broken(Code::Missing, Some(self.next), text);
            (self.before, self.has_holes) = (None, true);
        }
        self.next = seq.saturating_add(1);
        match seen {
            Seen::Entry(entry) => self.entry(entry),
            Seen::Unreadable(_) => {
                let text = format!("entry {seq} was changed: it cannot be read as an entry any more");
                self.findings.broken(Code::Changed, Some(seq), text);
                (self.before, self.has_holes) = (None, true);
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let Entry { seq, hash, prev, action, request, .. } = entry;
        if entry.leaf_hash() != *hash {
            let text =
                format!("entry {seq} was changed, or stands in the place of another: its hash is of something else");
            self.findings.broken(Code::Changed, Some(*seq), text);
        }
        if self.before.is_some_and(|before| before != *prev) {
            let text = format!("entry {seq} does not follow the entry before it: one of them was changed or moved");
            self.findings.broken(Code::Unchained, Some(*seq), text);
        }
        if !self.epochs.entry(entry) {
            let text = format!("entry {seq} speaks of rows of the vault in a way that nobody understands");
            self.findings.broken(Code::BadDetail, Some(*seq), text);
        }
        if ANSWERED_BY.iter().any(|(asked, _)| asked == action) {
            self.unanswered.insert(*seq);
        }
        if let Some(request) = request.filter(|_| ANSWERED_BY.iter().any(|(_, answer)| answer == action)) {
            self.unanswered.remove(&request);
        }
        // What stands beside an entry, not what it should be: so an entry that was changed is named itself, and not every
        // checkpoint behind it. Both were compared above.
        self.before = Some(*hash);
        self.tree.push(*hash);
        self.compare();
    }

    /// Compares checkpoints of as many entries as have been seen.
    fn compare(&mut self) {
        while let Some(Checkpoint { size, root }) = self.checkpoints.pop_if(|next| next.size <= self.tree.size()) {
            if self.has_holes || self.is_rewritten {
                continue;
            }
            if root == self.tree.root() {
                self.agreed = Some(size);
                continue;
            }
            self.is_rewritten = true;
            let first = self.agreed.unwrap_or(0) + 1;
            let text = format!(
                "entries {first} to {size} are not those that a checkpoint was signed for: one of them was changed, and all \
                 hashes from there on were made anew"
            );
            self.findings.broken(Code::Rewritten, i64::try_from(first).ok(), text);
        }
    }

    /// How many entries were seen, and the root of their tree, if none is missing.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The longest checkpoint that fits: what it was signed for is as it was.
    pub fn agreed(&self) -> Option<u64> {
        self.agreed
    }

    /// There are no more entries. Compares what must come after them, and what was asked and never answered.
    pub fn end(&mut self) {
        let last = self.next - 1;
        let longest = self.checkpoints.iter().map(|checkpoint| checkpoint.size).max();
        if let Some(size) = longest.filter(|size| i64::try_from(*size).is_ok_and(|size| size > last)) {
            self.findings.broken(Code::Truncated, Some(self.next), format!(
                "entries {} to {size} are gone: a checkpoint was signed for them. Somebody cut them off, or the database was \
                 restored from a backup that is older",
                self.next
            ));
        }
        if !self.unanswered.is_empty() {
            let count = self.unanswered.len();
            let names: Vec<String> = self.unanswered.iter().take(EXAMPLES).map(i64::to_string).collect();
            let (entry, names) = (self.unanswered.first().copied(), names.join(", "));
            self.findings.note(Code::Unanswered, entry, format!(
                "{count} requests have no outcome on record, such as {names}: refused, given up, waiting, or values were fetched \
                 and nobody said how it went"
            ));
        }
    }

    /// Compares the database's own note of the end; `None`: it has none.
    pub fn head(&mut self, head: Option<&Head>) {
        let last = self.next - 1;
        let Some(head) = head else {
            self.findings.broken(Code::Head, None, "the head of the log is gone from masq.audit_head".to_owned());
            return;
        };
        if head.size > last {
            self.findings.broken(
                Code::Truncated,
                Some(self.next),
                format!("entries {} to {} are gone: the head of the log knows of them", self.next, head.size),
            );
            return;
        }
        let peaks = head.peaks.iter().map(|peak| peak.as_slice().try_into().ok()).collect::<Option<Vec<Hash>>>();
        let tree = peaks.and_then(|peaks| Tree::of(head.size.unsigned_abs(), peaks));
        let fits = self.has_holes || tree.as_ref() == Some(&self.tree);
        let ends_so = self.before.is_none_or(|before| before.as_slice() == head.hash);
        if head.size < last || !fits || !ends_so {
            let text = format!(
                "the head of the log in masq.audit_head does not fit its {last} entries: one of both was changed"
            );
            self.findings.broken(Code::Head, Some(last).filter(|last| *last > 0), text);
        }
    }
}
