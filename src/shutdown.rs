//! One signal to stop, many listeners. It carries no deadline: whoever gives the signal keeps the time.

use tokio_util::sync::CancellationToken;

/// A handle on the signal to stop; all clones are the same signal.
#[derive(Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A signal that nobody has given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the signal. Giving it twice is the same as once.
    pub fn start(&self) {
        self.0.cancel();
    }

    /// Whether the signal has been given.
    pub fn has_started(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns once the signal has been given.
    pub async fn started(&self) {
        self.0.cancelled().await;
    }

    /// Sleeps, but not past the signal. Answers whether the sleep ran its whole length.
    pub async fn sleep(&self, duration: std::time::Duration) -> bool {
        tokio::select! {
            biased;
            () = self.started() => false,
            () = tokio::time::sleep(duration) => true,
        }
    }
}
