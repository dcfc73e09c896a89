//! What is wrong right now: the one place where workers say it and `/readyz` reads it.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Which part of the world is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The database and the queue are being examined; nothing is received yet.
    Starting,
    /// Messages cannot be received.
    Queue,
    /// Outcomes cannot be written.
    Database,
    /// The database does not answer, whether there is something to write or not.
    Reach,
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
            Self::Queue => "queue",
            Self::Database | Self::Reach => "database",
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

    /// Notes whether the table takes rows at all.
    pub fn rows_flow(&self, flow: bool) {
        self.rows_flow.store(flow, Ordering::Relaxed);
    }

    /// Whether the table has taken a row since that was last doubted or relied upon.
    pub fn do_rows_flow(&self) -> bool {
        self.rows_flow.load(Ordering::Relaxed)
    }
}
