//! What is wrong right now: the one place where workers say it and `/readyz` reads it. The circuits that they share
//! are here too.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::circuit::Circuit;
use crate::shutdown::Shutdown;

/// Which part of the world is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The database and the queue are being examined; nothing is received yet.
    Starting,
    /// Messages cannot be received.
    Queue,
    /// As many are in flight as may be, so none is received.
    Crowd,
    /// Outcomes cannot be written.
    Database,
    /// The table takes no row at all.
    Table,
    /// The database does not answer, whether there is something to write or not.
    Reach,
    /// No new epoch can be begun.
    Keys,
    /// What is settled cannot be deleted.
    Delete,
    /// The signal to stop has been given.
    Stopping,
}

impl Trouble {
    /// The word for it in logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Queue | Self::Crowd => "queue",
            Self::Database | Self::Reach => "database",
            Self::Table => "table",
            Self::Keys => "keys",
            Self::Delete => "delete",
            Self::Stopping => "stopping",
        }
    }
}

/// Shared by all workers of a process.
#[derive(Default)]
pub struct Status {
    troubles: Mutex<BTreeMap<Trouble, String>>,
    rows_flow: AtomicBool,
    rows_taken: AtomicU64,
    /// Open while outcomes cannot be written.
    pub database: Circuit,
    /// Open while the table takes no row at all.
    pub table: Circuit,
    /// Open while there is no epoch to seal in.
    pub keys: Circuit,
    /// Open while what is settled may not be deleted.
    pub deletes: Circuit,
}

impl Status {
    /// Says what is wrong. A new trouble is logged; one that goes on as it was is not.
    pub fn set(&self, trouble: Trouble, what: &dyn Display) {
        let what = what.to_string();
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.get(&trouble) != Some(&what) {
            if !matches!(trouble, Trouble::Starting | Trouble::Stopping) {
                tracing::warn!(part = trouble.name(), "{what}");
            }
            troubles.insert(trouble, what);
        }
    }

    /// Says that it works.
    pub fn clear(&self, trouble: Trouble) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.remove(&trouble).is_some() && trouble != Trouble::Starting {
            tracing::info!(part = trouble.name(), "works again");
        }
    }

    /// Whether this is wrong.
    pub fn is_in(&self, trouble: Trouble) -> bool {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&trouble)
    }

    /// All that is wrong, each part with its cause and remedy. Empty: ready.
    pub fn troubles(&self) -> Vec<(&'static str, String)> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.iter().map(|(trouble, what)| (trouble.name(), what.clone())).collect()
    }

    /// Returns once it makes sense to receive messages, or at the signal to stop.
    pub async fn may_receive(&self, shutdown: &Shutdown) {
        let closed = async {
            self.keys.closed().await;
            self.deletes.closed().await;
            self.table.closed().await;
            self.database.closed().await;
        };
        tokio::select! {
            biased;
            () = shutdown.started() => {}
            () = closed => {}
        }
    }

    /// Notes that the table has taken rows.
    pub fn row_taken(&self) {
        self.rows_flow.store(true, Ordering::Relaxed);
        self.rows_taken.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was noted: a later time is told by a larger number.
    pub fn rows_taken(&self) -> u64 {
        self.rows_taken.load(Ordering::Relaxed)
    }

    /// The same, and only once.
    pub fn stop_rows_flow(&self) -> bool {
        self.rows_flow.swap(false, Ordering::Relaxed)
    }

    /// Whether the table has taken a row since that was last doubted or relied upon.
    pub fn do_rows_flow(&self) -> bool {
        self.rows_flow.load(Ordering::Relaxed)
    }
}
