//! Step 5: delete from the queue exactly what is [`Loaded`], and give back the rest.
//!
//! A message that could not be deleted comes again and is recognised by the ledger, so failing here costs work and
//! never exactness.

use std::time::Duration;

use crate::{
    backoff::Backoff,
    metrics::Metrics,
    pipeline::load::{Loaded, Tally, Unsettled},
    queue::{Queue, QueueError, Receipt, lease::Lease},
};

/// How often a delete is tried. Each try doubles the delay; after the last the message is left to redelivery.
const TRIES: u32 = 4;

/// The longest time for which a message that is given back stays hidden.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// The end of a batch.
pub struct Settled {
    /// What became of its messages.
    pub tally: Tally,
    /// Why what is settled could not be deleted, if nothing could.
    pub undeletable: Option<QueueError>,
}

/// Deletes what is settled and gives back what is not. The lease ends here.
pub async fn acknowledge<Q: Queue>(queue: &Q, loaded: Loaded, lease: Lease, metrics: &Metrics) -> Settled {
    let (settled, unsettled, tally) = loaded.into_parts();
    let undeletable = delete(queue, settled, metrics).await.err();
    give_back(queue, unsettled).await;
    drop(lease);
    Settled { tally, undeletable }
}

async fn delete<Q: Queue>(queue: &Q, mut receipts: Vec<Receipt>, metrics: &Metrics) -> Result<(), QueueError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    for attempt in 1.. {
        if receipts.is_empty() {
            break;
        }
        let before = receipts.len();
        let answer = queue.delete(&receipts).await;
        let last = attempt == TRIES;
        match answer {
            Ok(failed) => {
                receipts = failed.into_iter().map(|at| receipts[at].clone()).collect();
                metrics.deleted.inc_by((before - receipts.len()) as u64);
            }
            Err(error) if last || matches!(error, QueueError::Denied { .. }) => {
                metrics.delete_failures.inc_by(receipts.len() as u64);
                return Err(error);
            }
            Err(error) => tracing::debug!(%error, "delete failed, trying again"),
        }
        if last {
            metrics.delete_failures.inc_by(receipts.len() as u64);
            break;
        }
        if !receipts.is_empty() {
            tokio::time::sleep(backoff.next(fastrand::f64())).await;
        }
    }
    Ok(())
}

/// Gives messages back to be received again: the later, the more often that has happened. At once would be a hot loop.
async fn give_back<Q: Queue>(queue: &Q, unsettled: Vec<Unsettled>) {
    let mut by_attempt = std::collections::BTreeMap::<u32, Vec<Receipt>>::new();
    for Unsettled { receipt, attempt } in unsettled {
        by_attempt.entry(attempt.min(10)).or_default().push(receipt);
    }
    for (attempt, receipts) in by_attempt {
        let rest = Duration::from_secs(1 << attempt.saturating_sub(1).min(9)).min(LONGEST_REST);
        if let Err(error) = queue.extend(&receipts, rest).await {
            tracing::debug!(%error, "could not give messages back; they come again when their visibility ends");
        }
    }
}
