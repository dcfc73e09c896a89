//! The pipeline against real PostgreSQL: each message has one outcome, whatever happens to the database meanwhile.

use std::time::Duration;

use masq::{
    queue::Key,
    vault::{
        identity,
        seal::{EpochHeader, SealedBody, Wrap, open},
    },
};
use uuid::Uuid;

use crate::{
    scene::Scene,
    scripted::QueueFault,
    support::{login, until},
};

const WRONG: &[u8] = br#"{"foo": "oops_wrong_msg_type", "bar": "123"}"#;

const DAY_MS: i64 = 86_400_000;

/// The first PostgreSQL on which the ledger has a partition a day.
const PARTITIONS: u32 = 11;

/// As masq numbers them: 1 row, 2 dead letter.
const OUTCOMES: &str = "SELECT outcome, count(*) FROM masq.ledger GROUP BY 1 ORDER BY 1";

#[tokio::test]
async fn a_login_is_a_masked_row_in_both_forms_of_the_table_and_coming_again_changes_nothing() {
    let columns = |version: &str| {
        format!(
            "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256), \
             masked_device_id varchar(256), locale varchar(32), app_version {version}, create_date date)"
        )
    };
    let bodies = [
        login("u1", " 199.172.111.135\\t"),
        login("u2", "::ffff:199.172.111.135"),
        login("u3", "224.0.0.1").replace("2.3.0", "0.96").replace("null", "\"RU\""),
        login("u4", "127.0.0.1").replace("\"593-47-5928\"", "null").replace("\"2.3.0\"", "7"),
    ];
    // The table that is there; the versions in it.
    let forms = [
        (Some(columns("integer")), ["20300", "20300", "9600", "70000"]),
        (Some(columns("varchar(32)")), ["2.3.0", "2.3.0", "0.96", "7"]),
        (None, ["2.3.0", "2.3.0", "0.96", "7"]),
    ];
    for (table, versions) in forms {
        let scene = Scene::new().await;
        if let Some(table) = table {
            scene.database.execute(&table).await;
        }
        let today = scene.database.query("SELECT (now() AT TIME ZONE 'UTC')::date").await.remove(0);
        scene.queue.haunt();
        for body in &bodies {
            scene.queue.inner.send(body.clone().into_bytes());
        }
        scene.queue.inner.send(WRONG.to_vec());
        scene.settle().await;

        let keys = &scene.shared.keys.token;
        let ip = |address: &str| keys.domain("ip").unwrap().ip(address.parse().unwrap()).to_string();
        let device = keys.domain("device_id").unwrap().text("593-47-5928").unwrap().to_string();
        let home = ip("199.172.111.135");
        let expected = [
            ["u1", &home, &device, "NULL"],
            ["u2", &home, &device, "NULL"],
            ["u3", &ip("224.0.0.1"), &device, "RU"],
            ["u4", &ip("127.0.0.1"), "NULL", "NULL"],
        ];
        let row = |([user, ip, device, locale], version): (&[&str; 4], &str)| {
            format!("{user}\tandroid\t{ip}\t{device}\t{locale}\t{version}\t{today}")
        };
        let expected: Vec<String> = expected.iter().zip(versions).map(row).collect();
        assert_eq!(scene.database.query("SELECT * FROM user_logins ORDER BY 1").await, expected);
        let dead = "SELECT reason, queue, body_bytes, receive_count, subject_tag FROM masq.dead_letters";
        assert_eq!(scene.database.query(dead).await, ["unknown_message_type\tlogin-queue\t44\t1\tNULL"]);
        assert_eq!(scene.database.query(OUTCOMES).await, ["1\t4", "2\t1"]);
        assert_eq!(scene.counted(), (4, 1, 5, 0));
    }
}

#[tokio::test]
async fn a_key_that_is_there_already_sends_the_batch_the_safe_way_and_the_others_are_rows() {
    let scene = Scene::new().await;
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    let keys = scene.send_many(300);
    for Key { sent_at, id } in [keys[0], keys[150], keys[299]] {
        let claim = format!("INSERT INTO masq.ledger VALUES (to_timestamp({sent_at} / 1000.0), '{id}', 1)");
        scene.database.execute(&claim).await;
    }
    scene.settle().await;
    assert_eq!(scene.counted(), (297, 0, 3, 0));
    assert_eq!(scene.database.query("SELECT count(*) FROM user_logins").await, ["297"]);
    assert_eq!(scene.database.query(OUTCOMES).await, ["1\t300"]);
    assert_eq!(scene.trouble(), None);
}

#[tokio::test]
async fn two_pipelines_whose_leases_run_out_write_each_message_once() {
    let mut scene = Scene::new().await;
    scene.visibility = Duration::from_secs(2);
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    scene
        .database
        .execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2.5); RETURN NULL; END'; \
             CREATE TRIGGER slow BEFORE INSERT ON user_logins EXECUTE PROCEDURE slow()",
        )
        .await;
    scene.queue.extends([QueueFault::Unavailable; 1000]);
    let keys = scene.send_many(80);
    let (one, two) = (scene.run().await, scene.run().await);
    scene.until_empty().await;
    one.stop().await;
    two.stop().await;
    scene.assert_rows(&keys).await;
    scene.assert_adds_up();
    let (rows, _, duplicates, _) = scene.counted();
    assert_eq!(rows, 80);
    assert!(duplicates > 0, "nobody received anything twice");
}

#[tokio::test]
async fn a_refused_row_among_hundreds_is_a_dead_letter_that_opens_to_the_exact_body() {
    let scene = Scene::new().await;
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    scene.database.execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')").await;
    scene.send_many(300);
    let body = login("refused", "10.1.2.3") + " \n";
    let key = scene.queue.inner.send(body.clone().into_bytes());
    scene.send_many(199);
    scene.settle().await;
    assert_eq!(scene.counted(), (499, 1, 0, 0));
    assert_eq!(scene.database.query("SELECT count(*) FROM user_logins").await, ["499"]);
    assert_eq!(scene.database.query(OUTCOMES).await, ["1\t499", "2\t1"]);
    assert_eq!(scene.reasons().await, ["db_rejected:23514"]);

    let session = scene.database.session().await;
    let row = session
        .query_one(
            "SELECT id, (extract(epoch FROM started_at) * 1000)::bigint, recipient, wrapped, message_id, \
                    (extract(epoch FROM sent_at) * 1000)::bigint, sealed, subject_tag \
             FROM masq.dead_letters JOIN masq.epochs ON id = epoch JOIN masq.epoch_wraps w ON w.epoch = id",
            &[],
        )
        .await
        .unwrap();
    let header = EpochHeader {
        id: row.get(0),
        started_at: row.get(1),
        wraps: vec![Wrap { recipient: row.get::<_, Vec<u8>>(2).try_into().unwrap(), wrapped: row.get(3) }],
    };
    assert_eq!(key, Key { sent_at: row.get(5), id: row.get(4) });
    let recovery = identity::load(&scene.keys.path().join("recovery.key"), None).unwrap_or_else(|e| panic!("{e}"));
    let opened = open(&recovery, &header, key, &SealedBody(row.get(6))).unwrap();
    assert_eq!(opened.as_slice(), body.as_bytes());
    assert_eq!(row.get::<_, Vec<u8>>(7), scene.shared.keys.subject.tag("refused").0);
}

#[tokio::test]
async fn rows_that_the_database_may_refuse_at_the_commit_are_found_too() {
    let scene = Scene::new().await;
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    scene
        .database
        .execute(
            "CREATE TABLE users (id varchar(128) PRIMARY KEY); INSERT INTO users SELECT 'user-' || generate_series(0, 9); \
             ALTER TABLE user_logins ADD FOREIGN KEY (user_id) REFERENCES users DEFERRABLE INITIALLY DEFERRED",
        )
        .await;
    scene.send_many(12);
    scene.settle().await;
    assert_eq!(scene.counted(), (10, 2, 0, 0));
    assert_eq!(scene.reasons().await, ["db_rejected:23503", "db_rejected:23503"]);
}

#[tokio::test]
async fn a_trigger_that_drops_rows_stops_the_line_and_nothing_is_settled() {
    let scene = Scene::new().await;
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    scene
        .database
        .execute(
            "CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN IF NEW.user_id = ''user-7'' THEN RETURN NULL; END IF; RETURN NEW; END'; \
             CREATE TRIGGER drop_row BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE PROCEDURE drop_row()",
        )
        .await;
    let keys = scene.send_many(10);
    let running = scene.run().await;
    let trouble = scene.until_trouble().await;
    assert_eq!(
        trouble,
        "a trigger or rule on user_logins drops rows that are written to it; masq cannot call them loaded"
    );
    assert_eq!(scene.database.query(OUTCOMES).await, [""; 0]);
    scene.database.execute("DROP TRIGGER drop_row ON user_logins").await;
    scene.until_empty().await;
    running.stop().await;
    scene.assert_rows(&keys).await;
    assert_eq!(scene.counted(), (10, 0, 0, 0));
}

#[tokio::test]
async fn troubles_of_masqs_own_tables_are_nobodys_fault_and_are_waited_for() {
    let scene = Scene::new().await;
    let running = scene.run().await;
    scene.queue.inner.send(WRONG.to_vec());
    scene.until_empty().await;
    // As after a failover to a standby that had not got it yet: the epoch goes on, its header is gone.
    scene.database.execute("DELETE FROM masq.dead_letters; DELETE FROM masq.epochs").await;
    scene.queue.inner.send(WRONG.to_vec());
    scene.until_empty().await;
    let headers = "SELECT count(*) FROM masq.dead_letters JOIN masq.epochs ON id = epoch";
    assert_eq!(scene.database.query(headers).await, ["1"]);

    scene
        .database
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'; \
             CREATE TRIGGER refuse BEFORE INSERT ON masq.dead_letters EXECUTE PROCEDURE refuse()",
        )
        .await;
    scene.queue.inner.send(WRONG.to_vec());
    assert_eq!(scene.until_trouble().await, "masq's own tables: SQLSTATE P0001 (raise_exception)");
    scene.database.execute("DROP TRIGGER refuse ON masq.dead_letters").await;
    scene.until_empty().await;
    running.stop().await;
    assert_eq!(scene.counted(), (0, 3, 0, 0));
    assert_eq!(scene.reasons().await, ["unknown_message_type"; 2]);
}

#[tokio::test]
async fn a_day_that_has_no_partition_is_made_and_one_before_the_ledger_is_late() {
    let scene = Scene::new().await;
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    let body = |user: &str| login(user, "10.0.0.1").into_bytes();
    let key = |sent_at: i64| Key::new("login-queue", &Uuid::new_v4().to_string(), sent_at);
    let sent = [
        ("last day", key(253_402_300_799_999)),
        ("in a century", key(4_102_444_800_000)),
        ("today", scene.send("today")),
        ("1970", key(0)),
        ("negative", key(-1)),
        ("the year 10000", key(253_402_300_800_000)),
        ("absurd", key(i64::MAX)),
    ];
    // Twice each, and then all of them once more: nothing depends on which delivery comes first.
    for (user, key) in sent.iter().chain(&sent) {
        scene.queue.deliver(*key, &body(user));
    }
    scene.settle().await;
    for (user, key) in &sent {
        scene.queue.deliver(*key, &body(user));
    }
    scene.settle().await;

    let today = scene.database.query("SELECT (now() AT TIME ZONE 'UTC')::date").await.remove(0);
    let rows = scene.database.query("SELECT user_id, create_date FROM user_logins ORDER BY 2, 1").await;
    assert_eq!(rows, [format!("today\t{today}"), "in a century\t2100-01-01".into(), "last day\t9999-12-31".into()]);
    assert_eq!(scene.reasons().await, ["older_than_ledger"; 4]);
    if scene.database.version().await >= PARTITIONS {
        let parts = "SELECT to_regclass('masq.ledger_21000101'), to_regclass('masq.ledger_99991231')";
        assert_eq!(scene.database.query(parts).await, ["masq.ledger_21000101\tmasq.ledger_99991231"]);
    }
    assert_eq!(scene.counted(), (3, 4, 22 - 7, 0));
    // The upkeep goes on with days like these.
    assert_eq!(scene.database.query("SELECT masq.keep_partitions('15 days') < now()").await, ["t"]);
}

#[tokio::test]
async fn what_is_older_than_a_pruned_ledger_is_a_late_dead_letter_once() {
    let mut scene = Scene::new().await;
    let now: i64 = scene.database.query("SELECT (extract(epoch FROM now()) * 1000)::bigint").await[0].parse().unwrap();
    let old = Key { sent_at: now - 10 * DAY_MS, id: Uuid::new_v4() };
    let never = Key { sent_at: now - 9 * DAY_MS, id: Uuid::new_v4() };
    let young = Key { sent_at: now - 2 * DAY_MS, id: Uuid::new_v4() };
    let body = |user: &str| login(user, "10.0.0.1").into_bytes();
    scene.queue.deliver(old, &body("old"));
    scene.send("now");
    scene.settle().await;
    assert_eq!(scene.counted(), (2, 0, 0, 0));

    // A worker that knows only the longer memory runs while the shorter one prunes.
    let running = scene.run().await;
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'masq.ledger'::regclass";
    let is_by_day = scene.database.version().await >= PARTITIONS;
    let days = |days: &'static str| [if is_by_day { days } else { "0" }];
    assert_eq!(scene.database.query(partitions).await, days("19"));
    scene.config.ledger.retention = Duration::from_secs(5 * 86_400);
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(scene.database.query(partitions).await, days("9"));
    for _ in 0..2 {
        for (key, user) in [(old, "old"), (never, "never"), (young, "young")] {
            scene.queue.deliver(key, &body(user));
        }
        scene.until_empty().await;
    }
    running.stop().await;
    scene.assert_adds_up();
    assert_eq!(scene.database.query("SELECT user_id FROM user_logins ORDER BY 1").await, ["now", "old", "young"]);
    assert_eq!(scene.reasons().await, ["older_than_ledger"; 2]);
    let (rows, dead, duplicates, _) = scene.counted();
    assert_eq!((rows, dead, duplicates), (3, 2, 3));
    assert_eq!(scene.database.query(partitions).await, days("9"), "a day that was dropped does not come back empty");
}

#[tokio::test]
async fn backends_that_are_killed_in_the_middle_cost_nothing() {
    let scene = Scene::new().await;
    let running = scene.run().await;
    let mut keys = scene.send_many(2000);
    let session = scene.database.session().await;
    let mut killed = 0;
    for number in 0..25 {
        keys.extend((0..40).map(|at| scene.send(&format!("late-{number}-{at}"))));
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE datname = current_database() AND pid <> pg_backend_pid()";
        killed += session.query_one(kill, &[]).await.unwrap().get::<_, i64>(0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.until_empty().await;
    running.stop().await;
    assert!(killed > 10, "{killed} sessions were killed");
    scene.assert_rows(&keys).await;
    scene.assert_adds_up();
}

#[tokio::test]
async fn a_table_that_is_locked_is_waited_for() {
    let scene = Scene::new().await;
    let running = scene.run().await;
    let session = scene.database.session().await;
    // It goes on for longer than a worker keeps quiet about it.
    let lock =
        "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE";
    session.batch_execute(lock).await.unwrap();
    let keys = scene.send_many(40);
    let trouble = scene.until_trouble().await;
    let expected = "SQLSTATE 55P03 (lock_not_available): somebody holds a lock on the table, such as ALTER TABLE or \
                    VACUUM FULL: wait for it, or end it (pg_stat_activity)";
    assert_eq!(trouble, expected);
    session.batch_execute("COMMIT").await.unwrap();
    scene.until_empty().await;
    running.stop().await;
    scene.assert_rows(&keys).await;
    assert_eq!(scene.counted(), (40, 0, 0, 0));
}

#[tokio::test]
async fn a_commit_that_no_standby_confirmed_is_not_settled() {
    let scene = Scene::on(crate::support::Database::alone().await, crate::support::config());
    let running = scene.run().await;
    scene.database.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    scene.database.execute("SELECT pg_reload_conf()").await;
    let session = scene.database.session().await;
    let waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()";
    let count = format!("SELECT count(*) {waiting}");
    until("synchronous replication is on", async || {
        session.query_one("SHOW synchronous_standby_names", &[]).await.unwrap().get::<_, String>(0) == "nobody"
    })
    .await;
    let key = scene.send("user");
    // Once for the rows; then for the same batch again, which finds its keys there and must still wait.
    for tries in 1..=3 {
        until("a COMMIT waits", async || session.query_one(&count, &[]).await.unwrap().get::<_, i64>(0) > 0).await;
        assert_eq!(scene.queue.inner.count().in_flight, 1, "settled without a standby");
        session.execute(&format!("SELECT pg_cancel_backend(pid) {waiting}"), &[]).await.unwrap();
        // The first time it is tried again at once.
        if tries > 1 {
            let trouble = scene.until_trouble().await;
            assert_eq!(trouble, "the commit was not confirmed by the synchronous standby");
        }
    }
    session.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    scene.until_empty().await;
    running.stop().await;
    scene.assert_rows(&[key]).await;
    assert_eq!(scene.counted(), (0, 0, 1, 0));
}
