//! PostgreSQL as a sink, write by write: claims on events, suspects, what is forgotten and when.

use std::time::Duration;

use futures_util::future::join_all;
use masq::{
    pipeline::{Worker, mask::mask, now_ms},
    queue::{Key, Message, Receipt},
    sink::{Batch, Outcome, Sink, SinkError, Verdict, ledger::Retention, postgres::PostgresSink},
    start,
};
use uuid::Uuid;

use crate::{
    scene::Scene,
    scripted::ScriptedQueue,
    support::{login, until},
};

const DAY_MS: i64 = 86_400_000;

/// A worker that is told write by write what to do.
pub(crate) struct ByHand {
    pub(crate) scene: Scene,
    pub(crate) worker: Worker<ScriptedQueue, PostgresSink>,
}

/// A message of the test's: its key, how often it has come, who logs in, and which event that is.
pub(crate) struct Login<'a> {
    pub(crate) key: Key,
    attempt: u32,
    user: &'a str,
    event: Option<Uuid>,
}

impl<'a> Login<'a> {
    pub(crate) fn new(user: &'a str, event: Option<Uuid>) -> Self {
        Self { key: key(0), attempt: 1, user, event }
    }
}

/// A new key, sent so many days ago.
fn key(days: i64) -> Key {
    Key { sent_at: now_ms() - days * DAY_MS, id: Uuid::new_v4() }
}

/// The events of these tests are told apart by a number.
fn event(number: u128) -> Option<Uuid> {
    Some(Uuid::from_u128(number))
}

async fn worker(scene: &Scene, ready: &start::Ready) -> Worker<ScriptedQueue, PostgresSink> {
    let intake = start::intake(&scene.config, Some(scene.visibility), false);
    ready.workers(&scene.queue, &scene.config, &scene.shared, &intake).await.unwrap().remove(0)
}

impl ByHand {
    pub(crate) async fn new() -> Self {
        Self::on(Scene::new().await).await
    }

    pub(crate) async fn on(scene: Scene) -> Self {
        let ready = scene.start().await.unwrap_or_else(|error| panic!("{error}"));
        let worker = worker(&scene, &ready).await;
        Self { scene, worker }
    }

    pub(crate) fn batch(&mut self, logins: &[Login<'_>]) -> Batch {
        batch(&mut self.worker, logins)
    }

    /// Writes these in one transaction; the outcomes are in the order of their keys.
    pub(crate) async fn write(&mut self, logins: &[Login<'_>]) -> Result<Vec<Outcome>, SinkError> {
        let batch = self.batch(logins);
        let all = 0..batch.len();
        self.worker.sink.write(&batch, all).await
    }

    pub(crate) async fn written(&mut self, logins: &[Login<'_>]) -> Vec<Outcome> {
        self.write(logins).await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) async fn users(&self) -> Vec<String> {
        self.scene.database.query("SELECT user_id FROM user_logins ORDER BY 1").await
    }

    async fn outcomes(&self) -> Vec<String> {
        self.scene.database.query("SELECT outcome, count(*) FROM masq.ledger GROUP BY 1 ORDER BY 1").await
    }

    async fn claims(&self) -> Vec<String> {
        self.scene.database.query("SELECT count(*) FROM masq.dedupe").await
    }
}

/// As decode and mask make it, with the events' ids as claims. Nobody logs in as "": that is a dead letter.
fn batch(worker: &mut Worker<ScriptedQueue, PostgresSink>, logins: &[Login<'_>]) -> Batch {
    let message = |login_: &Login<'_>| {
        let body = login(login_.user, "199.172.111.135").into_bytes();
        Message::new(login_.key, login_.attempt, body, Receipt(login_.key.id.to_string().into()))
    };
    let mut batch =
        mask(logins.iter().map(message).collect(), |message| worker.decoder.read(message), &mut worker.masker);
    for entry in &mut batch.entries {
        if let Verdict::Row(row) = &mut entry.verdict {
            row.claim = logins.iter().find(|login| login.key == entry.message.key).and_then(|login| login.event);
        }
    }
    batch
}

#[tokio::test]
async fn of_messages_that_bring_one_event_the_first_is_the_row() {
    let mut sink = ByHand::new().await;
    let mut logins = [
        Login::new("first", event(1)),
        Login::new("again", event(1)),
        Login::new("other event", event(2)),
        Login::new("no event", None),
        Login::new("", event(3)),
    ];
    for (sent, login) in (now_ms() - 10..).zip(&mut logins) {
        login.key.sent_at = sent;
    }
    let (written, repeated) = (Outcome::Written, Outcome::Repeated);
    assert_eq!(sink.written(&logins).await, [written, repeated, written, written, written]);
    assert_eq!(sink.users().await, ["first", "no event", "other event"]);
    assert_eq!(sink.outcomes().await, ["1\t3", "2\t1", "4\t1"]);
    assert_eq!(sink.claims().await, ["2"], "a dead letter claims nothing");

    // The same deliveries once more, as after a COMMIT whose answer was lost, and then in another order of events.
    assert_eq!(sink.written(&logins).await, [Outcome::Duplicate; 5]);
    logins[0].event = event(2);
    logins[3].event = event(4);
    assert_eq!(sink.written(&logins).await, [Outcome::Duplicate; 5]);
    assert_eq!(sink.claims().await, ["2"], "what has its outcome claims nothing");

    // Of an event that came as a dead letter a corrected message is the row. Both ways: new, and delivered before.
    for attempt in [1, 2] {
        let user = format!("corrected {attempt}");
        let corrected = [Login { attempt, ..Login::new(&user, event(3)) }];
        assert_eq!(sink.written(&corrected).await, [if attempt == 1 { written } else { repeated }]);
    }
    assert_eq!(sink.users().await, ["corrected 1", "first", "no event", "other event"]);
    assert_eq!(sink.outcomes().await, ["1\t4", "2\t1", "4\t2"]);
}

#[tokio::test]
async fn a_row_that_is_refused_leaves_its_event_to_the_next() {
    let mut sink = ByHand::new().await;
    sink.scene.database.execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')").await;
    let refused = [Login::new("refused", event(1))];
    assert!(matches!(sink.write(&refused).await, Err(SinkError::Refused { .. })));
    assert_eq!(sink.written(&[Login::new("next", event(1))]).await, [Outcome::Written]);
    assert_eq!((sink.users().await, sink.claims().await), (vec!["next".to_owned()], vec!["1".to_owned()]));
}

#[tokio::test]
async fn a_message_that_gets_its_outcome_while_it_claims_claims_nothing() {
    let mut sink = ByHand::new().await;
    let login = Login { attempt: 2, ..Login::new("user", event(1)) };
    let Key { sent_at, id } = login.key;
    // Another worker of another version takes it for a dead letter, and has not committed yet.
    let other = sink.scene.database.session().await;
    let key = format!("BEGIN; INSERT INTO masq.ledger VALUES (to_timestamp({sent_at} / 1000.0), '{id}', 2)");
    other.batch_execute(&key).await.unwrap();
    let logins = [login];
    let batch = sink.batch(&logins);
    let committing = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND \
                       datname = current_database()";
        until("the sink waits for the key", async || sink.scene.database.query(waiting).await == ["1"]).await;
        other.batch_execute("COMMIT").await.unwrap();
    };
    let (written, ()) = tokio::join!(sink.worker.sink.write(&batch, 0..1), committing);
    assert!(matches!(written, Err(SinkError::Busy(_))), "{written:?}");
    assert_eq!(sink.claims().await, ["0"]);
    assert_eq!(sink.written(&logins).await, [Outcome::Duplicate]);
    assert_eq!((sink.claims().await, sink.users().await.len()), (vec!["0".to_owned()], 0));
}

#[tokio::test]
async fn workers_that_claim_the_same_events_at_once_never_wait_in_a_circle() {
    const EVENTS: u128 = 300;
    let scene = Scene::new().await;
    let ready = scene.start().await.unwrap_or_else(|error| panic!("{error}"));
    let write = async |number: u128| {
        let mut worker = worker(&scene, &ready).await;
        // Each worker has the events in another order of its messages' keys.
        let logins: Vec<Login<'_>> =
            (0..EVENTS).map(|at| Login::new("user", event((at * (2 * number + 1)) % EVENTS * 7919))).collect();
        let batch = batch(&mut worker, &logins);
        loop {
            match worker.sink.write(&batch, 0..batch.len()).await {
                Ok(outcomes) => return outcomes.iter().filter(|&&outcome| outcome == Outcome::Written).count(),
                Err(SinkError::Busy(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let written: usize = join_all((0..8).map(write)).await.into_iter().sum();
    assert_eq!(written as u128, EVENTS);
    let counts = "SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM masq.dedupe), \
                  (SELECT count(*) FROM masq.ledger), (SELECT count(*) FROM masq.ledger WHERE outcome = 1)";
    assert_eq!(scene.database.query(counts).await, [format!("{EVENTS}\t{EVENTS}\t{}\t{EVENTS}", 8 * EVENTS)]);
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(scene.database.query(deadlocks).await, ["0"]);
}

#[tokio::test]
async fn a_suspect_stays_on_record_until_it_is_absolved() {
    let mut sink = ByHand::new().await;
    let (one, two) = (key(0), key(0));
    let suspects = &mut sink.worker.sink;
    assert_eq!(suspects.suspect(&[one]).await.unwrap(), []);
    assert_eq!(suspects.suspect(&[one, two]).await.unwrap(), [(one, 1)]);
    // An answer that is lost is asked for again.
    suspects.suspect_again(two, 2).await.unwrap();
    suspects.suspect_again(two, 2).await.unwrap();
    // The record is there for the next process.
    suspects.reset();
    assert_eq!(suspects.suspect(&[two]).await.unwrap(), [(two, 2)]);
    suspects.absolve(&[one]).await.unwrap();
    suspects.absolve(&[one]).await.unwrap();
    assert_eq!(suspects.suspect(&[one]).await.unwrap(), []);
    assert_eq!(sink.scene.database.query("SELECT count(*) FROM masq.suspects").await, ["2"]);

    // While the table is locked it is asked for again, soon; without it somebody must look.
    let other = sink.scene.database.session().await;
    other.batch_execute("BEGIN; LOCK TABLE masq.suspects").await.unwrap();
    let busy = sink.worker.sink.suspect(&[key(0)]).await;
    assert!(matches!(busy, Err(SinkError::Busy(_))), "{busy:?}");
    other.batch_execute("DROP TABLE masq.suspects; COMMIT").await.unwrap();
    let missing = sink.worker.sink.suspect(&[key(0)]).await;
    assert!(matches!(missing, Err(SinkError::Misconfigured(_))), "{missing:?}");
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_deleted() {
    let mut sink = ByHand::new().await;
    let logins = [Login::new("old", event(1)), Login::new("new", event(2))];
    sink.written(&logins).await;
    let (old, new) = (key(3), key(0));
    sink.worker.sink.suspect(&[old, new]).await.unwrap();
    let age = format!(
        "UPDATE masq.dedupe SET seen_on = (now() AT TIME ZONE 'UTC')::date - 31 WHERE key = '{}'; \
         UPDATE masq.suspects SET since = now() - interval '20 days' WHERE message_id = '{}'",
        Uuid::from_u128(1),
        old.id
    );
    sink.scene.database.execute(&age).await;
    // Each new session looks after the ledger.
    sink.worker.sink.reset();
    assert_eq!(sink.written(&[Login::new("later", None)]).await, [Outcome::Written]);
    assert_eq!(sink.scene.database.query("SELECT key FROM masq.dedupe").await, [Uuid::from_u128(2).to_string()]);
    assert_eq!(sink.scene.database.query("SELECT message_id FROM masq.suspects").await, [new.id.to_string()]);
    let again = [Login::new("old again", event(1)), Login::new("new again", event(2))];
    let mut outcomes = sink.written(&again).await;
    outcomes.sort_by_key(|outcome| *outcome == Outcome::Repeated);
    assert_eq!(outcomes, [Outcome::Written, Outcome::Repeated]);
}

#[tokio::test]
async fn much_that_is_no_longer_wanted_is_deleted_bit_by_bit() {
    let mut sink = ByHand::new().await;
    sink.written(&[Login::new("user", None)]).await;
    let claims = "INSERT INTO masq.dedupe SELECT md5(n::text)::uuid, (now() AT TIME ZONE 'UTC')::date - 31 \
                  FROM generate_series(1, 25000) AS n";
    sink.scene.database.execute(claims).await;
    sink.worker.sink.reset();
    for left in ["15000", "5000", "0", "0"] {
        sink.written(&[Login::new("user", None)]).await;
        assert_eq!(sink.claims().await, [left]);
    }
}

#[tokio::test]
async fn the_ledgers_memory_only_grows_shorter_at_its_old_end_and_never_by_a_clock_alone() {
    let mut sink = ByHand::new().await;
    let horizon = "SELECT masq.ledger_oldest()::date - (now() AT TIME ZONE 'UTC')::date";
    let keep = async |database: &crate::support::Database, days: u32| {
        database.query(&format!("SELECT masq.keep_partitions('{days} days')")).await;
        database.query(horizon).await.remove(0)
    };
    // All messages are eight days old: what the server's clock says is no reason to forget them.
    sink.written(&[Login { key: key(8), ..Login::new("old", None) }]).await;
    assert_eq!(keep(&sink.scene.database, 4).await, "-12");
    sink.written(&[Login::new("new", None)]).await;
    assert_eq!(keep(&sink.scene.database, 4).await, "-4");
    // Longer again: what was forgotten stays forgotten.
    assert_eq!(keep(&sink.scene.database, 90).await, "-4");
    let (forgotten, Key { sent_at, id }) = (key(5), key(5));
    let late = [Login { key: forgotten, ..Login::new("forgotten", None) }];
    let busy = sink.write(&late).await;
    assert!(matches!(busy, Err(SinkError::Busy(_))), "{busy:?}");
    assert!(forgotten.sent_at < sink.worker.sink.oldest());
    let by_hand = format!("INSERT INTO masq.ledger VALUES (to_timestamp({sent_at} / 1000.0), '{id}', 1)");
    let refused = sink.scene.database.session().await.batch_execute(&by_hand).await.unwrap_err();
    assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("23514"));

    // As little as there may be kept: the days of the messages that are on their way stay.
    assert_eq!(keep(&sink.scene.database, 1).await, "-1");
    assert_eq!(sink.written(&[Login::new("newest", None)]).await, [Outcome::Written]);
}

#[tokio::test]
async fn keys_that_a_plain_ledger_has_forgotten_are_deleted() {
    let mut sink = ByHand::new().await;
    let old: Vec<Login<'_>> = (0..50).map(|_| Login { key: key(8), ..Login::new("old", None) }).collect();
    sink.written(&old).await;
    sink.written(&[Login::new("new", None)]).await;
    sink.scene.database.execute("SELECT masq.keep_partitions('4 days'); SELECT masq.prune('30 days', 100)").await;
    assert_eq!(sink.outcomes().await, ["1\t1"]);
    // A delivery of an old one is late: it may be a row, as it is here, which nobody can know any more.
    let busy = sink.write(&[Login { key: old[0].key, attempt: 2, ..Login::new("old", None) }]).await;
    assert!(matches!(busy, Err(SinkError::Busy(_))), "{busy:?}");
    assert!(old[0].key.sent_at < sink.worker.sink.oldest());
}

#[test]
fn a_retention_grows_and_never_shrinks() {
    let retention = Retention::new(Duration::from_secs(100));
    assert!(retention.extend(Duration::from_secs(200)));
    assert!(!retention.extend(Duration::from_secs(150)));
    assert_eq!(retention.get(), Duration::from_secs(200));
}
