//! What each epoch has written, and saying so in the audit log when it is over: entries that vanish are noticed by that.
//!
//! Not in the batch's transaction, which would make all workers queue for the log. An epoch of which nobody can know what
//! it wrote, since its worker died or a COMMIT had no answer, says nothing, and `masq audit verify` calls it open.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use crate::{
    db::{Session, sqlstate},
    sink::transaction::WriteError,
};

/// Epochs that wait for their word in the log. More would only be told later; the oldest are left open then.
const WAITING: usize = 1_000;

/// What the transaction under way has written into the vault. Atomic, because its future may move between threads.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) entries: AtomicU64,
    pub(super) slots: AtomicU64,
    pub(super) letters: AtomicU64,
}

/// What an epoch has written.
struct Written {
    epoch: Uuid,
    entries: u64,
    slots: u64,
    letters: u64,
    /// Whether it is known how each of its transactions ended.
    exact: bool,
}

/// The epoch that is being written, and those that are over.
#[derive(Default)]
pub(super) struct Epochs {
    current: Option<Written>,
    /// Whether a transaction of the current one is under way, or was and nobody came back to say how it ended.
    under_way: bool,
    kept: Arc<Kept>,
    over: Vec<Written>,
}

impl Epochs {
    /// A transaction of this epoch begins. Answers where it notes what it writes.
    pub(super) fn begin(&mut self, epoch: Uuid) -> Arc<Kept> {
        self.enter(epoch);
        self.under_way = true;
        self.kept = Arc::default();
        Arc::clone(&self.kept)
    }

    /// This epoch is the current one from now on; the one before is over.
    pub(super) fn enter(&mut self, epoch: Uuid) {
        if let (true, Some(current)) = (mem::take(&mut self.under_way), &mut self.current) {
            current.exact = false;
        }
        if self.current.as_ref().is_none_or(|current| current.epoch != epoch) {
            self.end();
            self.current = Some(Written { epoch, entries: 0, slots: 0, letters: 0, exact: true });
        }
    }

    /// So many slots are in a database of their own; `None`: nobody knows how that transaction ended.
    pub(super) fn wrote_slots(&mut self, slots: Option<u64>) {
        let Some(current) = &mut self.current else { return };
        match slots {
            Some(slots) => current.slots += slots,
            None => current.exact = false,
        }
    }

    /// The transaction has ended so.
    pub(super) fn ended<T>(&mut self, written: &Result<T, WriteError>) {
        let is_known = match written {
            Ok(_) => true,
            Err(WriteError::Database(error) | WriteError::Rows(error)) => error.as_db_error().is_some(),
            Err(WriteError::NotReplicated) => false,
            Err(_) => true,
        };
        self.under_way = false;
        let Some(current) = &mut self.current else { return };
        current.exact &= is_known;
        if written.is_ok() {
            current.entries += self.kept.entries.load(Ordering::Relaxed);
            current.slots += self.kept.slots.load(Ordering::Relaxed);
            current.letters += self.kept.letters.load(Ordering::Relaxed);
        }
    }

    /// The current epoch is over.
    pub(super) fn end(&mut self) {
        let written = self.current.take().filter(|written| written.exact && !mem::take(&mut self.under_way));
        self.over.extend(written.filter(|written| written.entries + written.slots + written.letters > 0));
        if self.over.len() > WAITING {
            self.over.remove(0);
        }
    }

    /// Says in the log what the epochs that are over have written. What cannot be said now is said later.
    pub(super) async fn tell(&mut self, session: &Session) {
        while let Some(written) = self.over.last() {
            let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            let (entries, slots, letters) = (count(written.entries), count(written.slots), count(written.letters));
            let parameters: [(&(dyn ToSql + Sync), Type); 4] =
                [(&written.epoch, Type::UUID), (&entries, Type::INT8), (&slots, Type::INT8), (&letters, Type::INT8)];
            let told =
                session.within(session.query_typed("SELECT masq.close_epoch($1, $2, $3, $4)", &parameters)).await;
            match told {
                Err(error) if error.as_db_error().is_none_or(|error| error.code().code() != "23505") => {
                    let error = sqlstate::describe(&error);
                    tracing::debug!(error, "cannot record in the audit log what an epoch wrote; tried again later");
                    return;
                }
                // Told now, or by a call whose answer was lost.
                _ => drop(self.over.pop()),
            }
        }
    }
}
