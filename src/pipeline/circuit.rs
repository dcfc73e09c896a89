//! What all workers need fails for all of them: the database is away, deletes are denied. Then the circuit is open:
//! nothing more is received, one worker at a time finds out whether it works again, and the others wait for that.
//!
//! [`Circuit`] is shared, [`Patience`] is how one worker waits with what it has in its hands. Neither knows what failed.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};

use crate::{backoff::Backoff, shutdown::Shutdown};

/// Open while something that every worker needs does not work.
pub struct Circuit {
    open: watch::Sender<bool>,
    /// Held by the one worker that tries.
    probe: Mutex<()>,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { open: watch::Sender::new(false), probe: Mutex::new(()) }
    }
}

impl Circuit {
    /// Returns once it is closed.
    pub async fn closed(&self) {
        let mut open = self.open.subscribe();
        // The sender is ours, so this cannot fail.
        drop(open.wait_for(|open| !open).await);
    }

    fn set(&self, open: bool) {
        self.open.send_if_modified(|now| std::mem::replace(now, open) != open);
    }

    /// The turn to try, or nothing once it works again.
    async fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        tokio::select! {
            biased;
            () = self.closed() => None,
            probe = self.probe.lock() => Some(probe),
        }
    }
}

/// One worker's patience with something that fails.
pub(super) struct Patience<'a> {
    circuit: &'a Circuit,
    shutdown: &'a Shutdown,
    backoff: Backoff,
    probe: Option<MutexGuard<'a, ()>>,
    is_waiting: bool,
}

impl<'a> Patience<'a> {
    /// Patience for one batch; a try follows the one before after `first` at most, and later ones after `cap` at most.
    pub(super) fn new(circuit: &'a Circuit, shutdown: &'a Shutdown, first: Duration, cap: Duration) -> Self {
        Self { circuit, shutdown, backoff: Backoff::new(first, cap), probe: None, is_waiting: false }
    }

    /// It fails for everybody. Waits until this worker may try again; `false`: it is time to stop instead.
    pub(super) async fn outage(&mut self) -> bool {
        // Whoever tried in vain lets the next one try.
        self.probe = None;
        self.is_waiting = true;
        self.circuit.set(true);
        let turn = async {
            let probe = self.circuit.turn().await;
            // Also where another worker found out that it works: not all at once.
            tokio::time::sleep(self.backoff.next(fastrand::f64())).await;
            probe
        };
        tokio::select! {
            biased;
            () = self.shutdown.started() => false,
            probe = turn => {
                self.probe = probe;
                true
            }
        }
    }

    /// Something is in this worker's way alone. Waits a little; `false`: it is time to stop instead.
    pub(super) async fn busy(&mut self) -> bool {
        self.works();
        let delay = self.backoff.next(fastrand::f64());
        self.shutdown.sleep(delay).await
    }

    /// It answered: the others need not wait any longer.
    pub(super) fn works(&mut self) {
        self.is_waiting = false;
        self.circuit.set(false);
        self.probe = None;
    }

    /// It did what it was asked to.
    pub(super) fn done(&mut self) {
        self.works();
        self.backoff.reset();
    }
}

impl Drop for Patience<'_> {
    /// A worker that gives up or dies leaves nobody waiting for what it would have found out.
    fn drop(&mut self) {
        if self.is_waiting {
            self.circuit.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use futures_util::{FutureExt, future::join_all};
    use tokio::time::{Instant, sleep};

    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const CAP: Duration = Duration::from_secs(1);

    /// Workers that try until it works, which it does after `outage`. Answers how often it was tried, and after what
    /// time the last of them was through.
    async fn tries(workers: usize, outage: Duration) -> (usize, Duration) {
        let (circuit, shutdown) = (Arc::new(Circuit::default()), Shutdown::new());
        let (tries, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let worker = || {
            let (circuit, shutdown, tries) = (Arc::clone(&circuit), shutdown.clone(), Arc::clone(&tries));
            async move {
                let mut patience = Patience::new(&circuit, &shutdown, FIRST, CAP);
                loop {
                    tries.fetch_add(1, Ordering::Relaxed);
                    if start.elapsed() >= outage {
                        return patience.done();
                    }
                    assert!(patience.outage().await);
                }
            }
        };
        join_all((0..workers).map(|_| worker())).await;
        (tries.load(Ordering::Relaxed), start.elapsed() - outage)
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_tries_and_all_go_on_when_it_works() {
        let (one, _) = tries(1, Duration::from_secs(600)).await;
        let (many, late) = tries(50, Duration::from_secs(600)).await;
        // Each of them has a few short waits before the long ones.
        assert!(many < one + 600, "50 workers try {many} times, one of them {one} times");
        assert!(late <= CAP * 2, "the last goes on {late:?} after the end");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_begun_while_it_is_open() {
        let (circuit, shutdown) = (Circuit::default(), Shutdown::new());
        assert!(circuit.closed().now_or_never().is_some());
        let mut patience = Patience::new(&circuit, &shutdown, FIRST, CAP);
        assert!(patience.outage().await);
        assert!(circuit.closed().now_or_never().is_none());
        patience.done();
        assert!(circuit.closed().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_dies_while_it_tries_leaves_nobody_waiting() {
        let (circuit, shutdown) = (Circuit::default(), Shutdown::new());
        let mut patience = Patience::new(&circuit, &shutdown, FIRST, CAP);
        assert!(patience.outage().await);
        drop(patience);
        assert!(circuit.closed().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_every_wait() {
        let (circuit, shutdown) = (Circuit::default(), Shutdown::new());
        let stopped = AtomicBool::new(false);
        let wait = async {
            let mut patience = Patience::new(&circuit, &shutdown, CAP, CAP);
            while patience.outage().await {}
            stopped.store(true, Ordering::Relaxed);
        };
        let stop = async {
            sleep(Duration::from_secs(10)).await;
            shutdown.start();
        };
        tokio::join!(wait, stop);
        assert!(stopped.into_inner());
    }
}
