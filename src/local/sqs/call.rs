//! One request on its way: since when, and what the script has go wrong in it. The operations on messages see queues
//! through it, and so need not know of scripts and histories.

use std::time::Duration;

use tokio::time::sleep;

use super::{Service, fault::Fault, history::Moment, script::Trouble};
use crate::queue::memory::{Accepted, Delivery, Lapse, MemoryQueue, Outgoing, ReceiptError, Settings};

/// What can happen to a request before it is looked at.
const BEFORE: [Trouble; 6] = [
    Trouble::Throttle,
    Trouble::Unavailable,
    Trouble::Denied,
    Trouble::ExpiredToken,
    Trouble::OverLimit,
    Trouble::Hang,
];

/// One request.
pub(super) struct Call<'a> {
    pub(super) service: &'a Service,
    /// The operation's name.
    pub(super) action: &'a str,
    /// The access key id with which it is signed.
    pub(super) by: &'a str,
    pub(super) requested_at: Moment,
}

/// A queue as one request sees it.
pub(super) struct CalledQueue<'a> {
    call: &'a Call<'a>,
    /// What is done to its messages is written down.
    queue: MemoryQueue,
}

impl Call<'_> {
    /// Refuses the request or holds it up, if the script has that happen.
    pub(super) async fn begin(&self) -> Result<(), Fault> {
        match self.trouble(&BEFORE) {
            None => Ok(()),
            Some((Trouble::Hang, late)) => {
                tokio::select! {
                    () = sleep(late) => Ok(()),
                    () = self.service.stopping.cancelled() => Err(Fault::ServiceUnavailable),
                }
            }
            Some((Trouble::Throttle, _)) => Err(Fault::RequestThrottled),
            Some((Trouble::Denied, _)) => Err(Fault::AccessDenied),
            Some((Trouble::ExpiredToken, _)) => Err(Fault::ExpiredToken),
            Some((Trouble::OverLimit, _)) => Err(Fault::OverLimit),
            Some(_) => Err(Fault::ServiceUnavailable),
        }
    }

    /// Refuses an entry of a batch, if the script has that happen.
    pub(super) fn begin_entry(&self) -> Result<(), Fault> {
        if self.has(Trouble::FailEntries) { Err(Fault::InternalError) } else { Ok(()) }
    }

    /// Whether the script has this happen now.
    pub(super) fn has(&self, trouble: Trouble) -> bool {
        self.trouble(&[trouble]).is_some()
    }

    /// The queue that a URL names.
    pub(super) fn queue(&self, url: &str) -> Result<CalledQueue<'_>, Fault> {
        let queue = self.service.queue(url)?;
        let watch = self.service.history.watch(queue.name(), self.by, self.requested_at);
        Ok(CalledQueue { call: self, queue: queue.watched(watch) })
    }

    fn trouble(&self, among: &[Trouble]) -> Option<(Trouble, Duration)> {
        let Service { script, history, started, .. } = self.service;
        if script.is_empty() {
            return None;
        }
        let drawn = script.draw(self.action, among, started.elapsed());
        drawn.inspect(|(trouble, _)| history.trouble(self.action, self.by, *trouble))
    }
}

impl CalledQueue<'_> {
    pub(super) fn settings(&self) -> Settings {
        self.queue.settings()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.is_full()
    }

    pub(super) fn is_fifo(&self) -> bool {
        self.queue.is_fifo()
    }

    pub(super) fn send(&self, message: Outgoing) -> Accepted {
        self.queue.accept(message)
    }

    pub(super) async fn take(&self, max: usize, wait: Duration, visibility: Duration) -> Vec<Delivery> {
        if self.queue.count().visible > 0
            && let Some((_, after)) = self.call.trouble(&[Trouble::Empty])
        {
            sleep(after.min(wait)).await;
            return Vec::new();
        }
        let mut deliveries = self.queue.take(max, wait, visibility).await;
        let doubles = deliveries.iter().filter(|delivery| self.reappears(&delivery.receipt)).count();
        let more = doubles.min(max - deliveries.len());
        if more > 0 {
            deliveries.extend(self.queue.take(more, Duration::ZERO, visibility).await);
        }
        deliveries
    }

    /// Whether the script has a message that was just delivered come a second time. Either way it may have become
    /// visible to others again.
    fn reappears(&self, receipt: &str) -> bool {
        let trouble = self.call.trouble(&[Trouble::Double, Trouble::Early]);
        if trouble.is_some() {
            // That is no doing of the client's, so it is not written down.
            let shown = self.queue.clone().watched(None).hide(receipt, Duration::ZERO);
            debug_assert_eq!(shown, Ok(()), "the handle is the newest");
        }
        matches!(trouble, Some((Trouble::Double, _)))
    }

    pub(super) fn hide(&self, receipt: &str, visibility: Duration) -> Result<(), ReceiptError> {
        self.queue.hide(receipt, visibility)
    }

    pub(super) fn remove(&self, receipt: &str) -> Result<(), ReceiptError> {
        // Asked only where the message would be deleted, so only then does the script count it.
        let lapse = || {
            let (trouble, absence) = self.call.trouble(&[Trouble::Stale, Trouble::Ghost])?;
            Some(if trouble == Trouble::Ghost { Lapse::Ghost(absence) } else { Lapse::Ignored })
        };
        self.queue.remove_with(receipt, lapse).map(drop)
    }
}
