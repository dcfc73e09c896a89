//! SIGINT and SIGTERM: the first asks to end in good order, the second to end now.

use std::{future::Future, io};

use tokio::signal::unix::{SignalKind, signal};

use super::{exit::Exit, report::Failure};
use crate::shutdown::Shutdown;

/// What the signals have asked for.
#[derive(Clone, Default)]
pub(super) struct Stop {
    /// Given by the first: finish what was begun.
    pub(super) gently: Shutdown,
    /// Given by the second: leave it.
    pub(super) now: Shutdown,
}

/// Listens from now on, until the program ends. Within a runtime only.
///
/// # Errors
/// The system does not let us.
pub(super) fn listen() -> Result<Stop, Failure> {
    let failure = |error: io::Error| Failure::new(Exit::Absent, "cannot listen for signals").because(&error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failure)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failure)?;
    let stop = Stop::default();
    let given = stop.clone();
    tokio::spawn(async move {
        for which in [given.gently, given.now] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            which.start();
        }
    });
    Ok(stop)
}

/// Does the work, unless a signal comes first: then it is dropped where it waits. From here on a signal ends nothing by
/// itself, so what may still wait afterwards belongs into the work.
///
/// # Errors
/// Those of the work, or it was [`stopped`].
pub(super) async fn unless_stopped<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let stop = listen()?;
    tokio::select! {
        outcome = work => outcome,
        () = stop.gently.started() => Err(stopped()),
    }
}

/// What a command that a signal has ended says.
pub(super) fn stopped() -> Failure {
    Failure::new(Exit::Unfinished, "stopped")
}
