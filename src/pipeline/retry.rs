//! How a worker goes on asking the sink for the same: how long it waits after which error, and when somebody is told.

use std::time::Duration;

use super::{
    Status, Trouble,
    circuit::{Circuit, Patience},
};
use crate::{shutdown::Shutdown, sink::SinkError};

/// A try follows the one before within a second: a database that is back should be noticed at once, and one small
/// transaction a second a process is no burden for one that is coming up.
const FIRST: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(1);

/// How often others may be in the way before somebody should know. Once happens, as in a deadlock.
const BUSY: u32 = 2;

/// Patience with this.
pub(super) fn patience<'a>(circuit: &'a Circuit, shutdown: &'a Shutdown) -> Patience<'a> {
    Patience::new(circuit, shutdown, FIRST, CAP)
}

/// One worker's tries of one thing after the other.
pub(super) struct Retry<'a> {
    status: &'a Status,
    patience: Patience<'a>,
    /// Tries in vain since something worked.
    tries: u32,
}

impl<'a> Retry<'a> {
    pub(super) fn new(status: &'a Status, shutdown: &'a Shutdown) -> Self {
        Self { status, patience: patience(&status.database, shutdown), tries: 0 }
    }

    /// Waits before the same is tried again. `false`: it is time to stop instead.
    pub(super) async fn wait_out(&mut self, error: &SinkError) -> bool {
        self.tries += 1;
        match error {
            SinkError::Busy(_) | SinkError::TooSlow(_) => {
                if self.tries >= BUSY {
                    self.status.set(Trouble::Database, error);
                }
                self.patience.busy().await
            }
            // Whether a COMMIT whose answer was lost came through is known by asking again, at once.
            SinkError::Unavailable(_) if self.tries == 1 => {
                self.status.set(Trouble::Database, error);
                true
            }
            _ => {
                self.status.set(Trouble::Database, error);
                self.patience.outage().await
            }
        }
    }

    /// It answered.
    pub(super) fn works(&mut self) {
        self.patience.works();
    }

    /// It did what it was asked to.
    pub(super) fn done(&mut self) {
        self.patience.done();
        self.tries = 0;
    }
}
