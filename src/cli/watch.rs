//! What `masq run` looks at now and then while its workers work: how far they are, how much there is left, whether the
//! database is there, and whether messages may live longer than the ledger was told.
//!
//! It only looks and says; of what it finds the ledger's retention alone has an effect on the workers.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    check,
    db::{Connector, Session},
    metrics::Metrics,
    pipeline::{Status, Trouble},
    queue::{Depth, Queue, sqs::SqsQueue},
    sink::{ledger::Retention, postgres::Target},
    start::Shared,
};

/// How often a log line says how far the work is, where it goes on at all, and the database is asked whether it is
/// there. An outage on a quiet queue is noticed within this time.
const ROUND: Duration = Duration::from_secs(5);

/// How long the database may take to say that it is there. A server that is frozen keeps its connections, so nothing
/// else notices; a shorter wait would call one away that is only busy.
const ANSWER: Duration = Duration::from_secs(10);

/// Of so many rounds one asks the queue how much it holds, which is a request of SQS's.
const ASK_DEPTH: u32 = 6;

/// Of so many rounds one, which is one an hour, asks how long the queue keeps messages. The ledger remembers a day more
/// than it must, so nothing is forgotten too early within that hour.
const ASK_RETENTION: u32 = 720;

/// From so many messages in flight on nothing may come any more: SQS allows about 120,000 (AWS, "Amazon SQS message
/// quotas"). Fewer would cry wolf; its figures lag by some thousands.
const CROWD: u64 = 115_000;

/// Goes on until it is aborted.
pub(super) async fn watch(queue: SqsQueue, target: Arc<Target>, shared: Shared) {
    let mut before = 0;
    let mut session = None;
    for round in 0.. {
        sleep(ROUND).await;
        let received = shared.metrics.received.get();
        if received != before {
            before = received;
            log_totals(&shared.metrics, "working");
        }
        if round % ASK_DEPTH == 0
            && let Ok(depth) = queue.depth().await
        {
            shared.metrics.depth(depth);
            look_for_crowd(depth, &shared.status);
        }
        if round % ASK_RETENTION == 0 {
            remember_longer(&queue, &target.retention).await;
        }
        session = is_there(&target.connector, session, &shared.status).await;
    }
}

/// A retention that its owner raises while masq runs must not find the ledger forgetting what can still come. A queue
/// that does not answer is asked again in an hour.
async fn remember_longer(queue: &SqsQueue, retention: &Retention) {
    let Ok(attributes) = queue.attributes().await else { return };
    if let Some(needed) = check::needed_retention(&attributes)
        && retention.extend(needed)
    {
        tracing::warn!(
            part = "queue",
            remedy = check::set_retention(needed),
            "messages can now live longer on the queue than the ledger was to remember them; until masq is stopped it \
             remembers them long enough"
        );
    }
}

/// Where SQS has as many messages in flight as it allows, long polls come back empty and nobody is told why. Its figures
/// are approximate.
fn look_for_crowd(depth: Depth, status: &Status) {
    let Depth { visible, in_flight, .. } = depth;
    if visible > 0 && in_flight >= CROWD {
        let what = format!(
            "{in_flight} messages are in flight, about as many as SQS allows, so it hands out none of the {visible} that \
             wait: find out which consumer receives messages and does not delete them, or wait for their visibility to end"
        );
        status.set(Trouble::Crowd, &what);
    } else {
        status.clear(Trouble::Crowd);
    }
}

/// Asks the database whether it is there, in a session that is kept: while nothing is received no worker would notice.
async fn is_there(connector: &Connector, session: Option<Session>, status: &Status) -> Option<Session> {
    let asked = async {
        let session = match session {
            Some(session) => session,
            None => connector.connect().await.map_err(|error| error.to_string())?,
        };
        let answer = timeout(ANSWER, session.texts("asking whether the database is there", "SELECT")).await;
        answer.map_err(|_too_slow| silent())?.map_err(|error| error.to_string())?;
        Ok::<_, String>(session)
    };
    match asked.await {
        Ok(session) => {
            status.clear(Trouble::Reach);
            Some(session)
        }
        Err(what) => {
            status.set(Trouble::Reach, &what);
            None
        }
    }
}

fn silent() -> String {
    format!(
        "the database takes connections and has not answered within {ANSWER:?}: is its server frozen, its disk hung or \
         its machine overloaded?"
    )
}

pub(super) fn log_totals(metrics: &Metrics, what: &str) {
    tracing::info!(
        received = metrics.received.get(),
        rows = metrics.rows.get(),
        dead_letters = metrics.dead_lettered(),
        duplicates = metrics.duplicates.get(),
        returned = metrics.returned.get(),
        "{what}"
    );
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        aws::stub::environment,
        local::sqs::SqsServer,
        queue::{
            memory::{MemoryQueues, Settings},
            sqs::SqsSettings,
        },
    };

    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test]
    async fn the_ledger_remembers_longer_when_messages_live_longer() {
        let queues = MemoryQueues::new();
        let kept = |days| Settings { retention: days * DAY, ..Settings::default() };
        let owned = queues.create("logins", kept(4)).unwrap();
        let server = SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), queues).await.unwrap();
        let settings = SqsSettings { queue: server.queue_url("logins"), ..SqsSettings::default() };
        let queue = SqsQueue::connect(settings, &environment).await.unwrap();
        let retention = Retention::new(5 * DAY);
        // Raised, lowered, raised: messages of the longest time may still be there.
        for (days, remembered) in [(4, 5), (10, 11), (2, 11), (14, 15)] {
            owned.set(kept(days));
            remember_longer(&queue, &retention).await;
            assert_eq!(retention.get(), remembered * DAY, "{days} days");
        }
    }

    #[test]
    fn a_queue_that_hands_out_nothing_for_a_crowd_is_recognised() {
        for (visible, in_flight, crowded) in [(1, 120_000, true), (0, 120_000, false), (1_000_000, 5_000, false)] {
            let status = Status::default();
            look_for_crowd(Depth { visible, in_flight, delayed: 0 }, &status);
            assert_eq!(status.is_in(Trouble::Crowd), crowded, "{visible} visible, {in_flight} in flight");
            look_for_crowd(Depth::default(), &status);
            assert!(status.troubles().is_empty());
        }
    }
}
