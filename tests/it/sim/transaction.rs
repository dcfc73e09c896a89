//! A transaction of a simulated sink: what it is to do, and what becomes of it when its client drops it.

use masq::{
    event::Reason,
    sink::{Batch, Entry, Outcome, Verdict},
};

use super::database::{Change, Database, Letter, Staged, Want};

/// Which part of the work one transaction does: all of it, unless it is broken in two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Whole,
    Ledger,
    Rows,
}

/// A transaction on the client's side. The server does not know at once when it is dropped.
pub(super) struct Transaction {
    database: Database,
    pub(super) id: u64,
    pub(super) ended: bool,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.ended {
            self.database.abandon(self.id);
        }
    }
}

impl Transaction {
    pub(super) fn begin(database: &Database) -> Self {
        Self { database: database.clone(), id: database.begin(), ended: false }
    }

    pub(super) fn roll_back(mut self) {
        self.ended = true;
        self.database.roll_back(self.id);
    }
}

pub(super) fn want(entry: &Entry, batch: &Batch) -> Want {
    let key = entry.message.key;
    let (claim, what) = match &entry.verdict {
        Verdict::Row(row) => (row.claim, Change::Row(batch.rows[row.bytes.clone()].to_vec())),
        Verdict::Dead(dead) => {
            let letter =
                Letter { key, reason: dead.reason.to_string(), sealed: dead.sealed.clone(), epoch: batch.epoch.id };
            (None, if dead.reason == Reason::OlderThanLedger { Change::Late(letter) } else { Change::Dead(letter) })
        }
    };
    let values = batch.seals.needed(entry.seals().into_iter());
    let values = values.iter().map(|value| (batch.seals.slot(value).subject.0, value.token.to_string())).collect();
    Want { key, claim, what, values }
}

pub(super) fn stage(want: &Want, outcome: Outcome, half: Half) -> Staged {
    let Want { key, claim, what, mut values } = want.clone();
    if outcome != Outcome::Written || half == Half::Ledger {
        values.clear();
    }
    let what = if outcome == Outcome::Repeated { Change::Repeated } else { what };
    let claim = claim.filter(|_| outcome == Outcome::Written);
    let in_ledger = !matches!(what, Change::Late(_));
    let ledger = (half != Half::Rows && in_ledger).then(|| what.code());
    Staged { key, ledger, claim, change: (half != Half::Ledger).then_some(what), values }
}
