//! Step 5: delete from the queue exactly what is [`Loaded`], and give back the rest.
//!
//! A message that could not be deleted comes again and is recognised by the ledger, so failing here costs work and
//! never exactness. Only where deleting is denied nothing more is received until it is allowed: nothing could be
//! settled for good.

use std::time::Duration;

use crate::{
    backoff::Backoff,
    metrics::Metrics,
    pipeline::{
        Surroundings, Trouble,
        circuit::Patience,
        load::{Loaded, Unsettled},
    },
    queue::{Queue, QueueError, Receipt},
    sink::Batch,
};

/// How often a delete is tried. Each try doubles the delay; after the last the message is left to redelivery.
const TRIES: u32 = 4;

/// How long until a delete that is denied is tried again: at first, and at most. Somebody has to change a policy.
const DENIED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The longest time for which a message that is given back stays hidden. It is given back at a stop only, so that what
/// comes next may take it soon.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// How long deletes, and then giving back, may take once it is time to stop. Who waits for the end should not wait for a
/// queue that does not answer; what is left comes again, and changes nothing.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Deletes what is settled and gives back what is not.
pub async fn acknowledge<Q: Queue>(queue: &Q, loaded: Loaded, surroundings: Surroundings<'_>) {
    let (settled, unsettled) = loaded.into_parts();
    let last_moment = async {
        surroundings.shutdown.started().await;
        tokio::time::sleep(LAST_MOMENT).await;
    };
    tokio::select! {
        biased;
        () = delete_all(queue, settled, surroundings) => {}
        () = last_moment => {}
    }
    give_back(queue, unsettled).await;
}

/// Deletes these, and waits for as long as that is denied.
async fn delete_all<Q: Queue>(queue: &Q, mut settled: Vec<Receipt>, surroundings: Surroundings<'_>) {
    let Surroundings { metrics, status, shutdown } = surroundings;
    let mut patience = Patience::new(&status.deletes, shutdown, DENIED.0, DENIED.1);
    while let Err(denied) = delete(queue, &mut settled, metrics).await {
        status.set(Trouble::Delete, &denied);
        if !patience.outage().await {
            // Told to stop, it tries once more: what it leaves comes again.
            drop(delete(queue, &mut settled, metrics).await);
            return;
        }
    }
    patience.done();
    status.clear(Trouble::Delete);
}

/// Deletes these, and leaves in `receipts` what could not be deleted. An error: it is denied.
async fn delete<Q: Queue>(queue: &Q, receipts: &mut Vec<Receipt>, metrics: &Metrics) -> Result<(), QueueError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    for attempt in 1..=TRIES {
        if receipts.is_empty() {
            return Ok(());
        }
        match queue.delete(receipts).await {
            Ok(failed) => {
                metrics.deleted.inc_by((receipts.len() - failed.len()) as u64);
                *receipts = failed.into_iter().map(|at| receipts[at].clone()).collect();
            }
            Err(denied @ QueueError::Denied { .. }) => {
                metrics.delete_failures.inc_by(receipts.len() as u64);
                return Err(denied);
            }
            Err(error) => tracing::debug!(%error, "delete failed, trying again"),
        }
        if !receipts.is_empty() && attempt < TRIES {
            tokio::time::sleep(backoff.next(fastrand::f64())).await;
        }
    }
    metrics.delete_failures.inc_by(receipts.len() as u64);
    Ok(())
}

/// Gives messages back to be received again: the later, the more often that has happened. At once would be a hot loop.
pub(super) async fn give_back<Q: Queue>(queue: &Q, unsettled: Vec<Unsettled>) {
    let mut by_attempt = std::collections::BTreeMap::<u32, Vec<Receipt>>::new();
    for Unsettled { receipt, attempt } in unsettled {
        by_attempt.entry(attempt.min(10)).or_default().push(receipt);
    }
    let give = async {
        for (attempt, receipts) in by_attempt {
            let rest = Duration::from_secs(1 << attempt.saturating_sub(1).min(9)).min(LONGEST_REST);
            if let Err(error) = queue.extend(&receipts, rest).await {
                tracing::debug!(%error, "could not give messages back; they come again when their visibility ends");
            }
        }
    };
    if tokio::time::timeout(LAST_MOMENT, give).await.is_err() {
        tracing::debug!("messages are not given back in time; they come again when their visibility ends");
    }
}

/// The mistake of a mutant: deletes a batch that nobody has written yet.
pub(super) async fn delete_too_early<Q: Queue>(queue: &Q, batch: &Batch) {
    let receipts: Vec<Receipt> = batch.entries.iter().map(|entry| entry.message.receipt.clone()).collect();
    drop(queue.delete(&receipts).await);
}
