//! What PostgreSQL may answer while masq runs, provoked on real servers: whatever it is, nobody's message becomes a dead
//! letter for it, and each is a row once it is over. Beside `db/tests.rs`, which asks for each answer's remedy alone.

use std::{collections::HashMap, path::PathBuf, process::Stdio, time::Duration};

use masq::{
    db::Timeouts,
    pipeline::{
        load::{Judge, load},
        mask::mask,
        now_ms,
    },
    queue::{Key, Message, Receipt},
    shutdown::Shutdown,
    sink::{Outcome, SinkError},
    start,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use uuid::Uuid;

use crate::{
    scene::Scene,
    sink::{ByHand, Login},
    support::{Database, TIMEOUTS, config, config_of, login, plain, until},
};

const WRONG: &[u8] = br#"{"foo": "oops_wrong_msg_type", "bar": "123"}"#;

/// Ends all sessions with this database but the one that asks.
const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
     WHERE datname = current_database() AND pid <> pg_backend_pid()";

#[tokio::test]
async fn one_refused_row_of_five_hundred_costs_twenty_transactions_at_most() {
    let scene = Scene::on(Database::alone().await, config());
    let database = &scene.database;
    let ready = scene.start().await.unwrap_or_else(|error| panic!("{error}"));
    database.execute("ALTER SYSTEM SET log_statement = 'all'").await;
    database.execute("SELECT pg_reload_conf()").await;
    database.execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')").await;
    let intake = start::intake(&scene.config, None, false);
    let mut worker = ready.workers(&scene.queue, &scene.config, &scene.shared, &intake).await.unwrap().remove(0);
    const NONE: i64 = -1;
    let mut most = 0;
    for refused in [NONE, 0, 1, 250, 498, 499] {
        let message = |at| {
            let body = login(if at == refused { "refused" } else { "user" }, "10.0.0.1").into_bytes();
            let key = Key { sent_at: now_ms() + at, id: Uuid::new_v4() };
            Message::new(key, 1, body, Receipt(key.id.to_string().into()))
        };
        let batch = mask((0..500).map(message).collect(), |message| worker.decoder.read(message), &mut worker.masker);
        let judge = Judge {
            decoder: &worker.decoder,
            masker: &mut worker.masker,
            status: &scene.shared.status,
            may_carry: false,
            doubted: &HashMap::new(),
        };
        let before = transactions(database);
        let loaded = load(&mut worker.sink, batch, judge, &Shutdown::new()).await;
        if refused == NONE {
            // What a session and an epoch need once is there from now on.
            assert_eq!(loaded.tally().rows, 500);
            continue;
        }
        most = most.max(transactions(database) - before);
        assert_eq!((loaded.tally().rows, loaded.tally().dead.len()), (499, 1));
    }
    assert!((10..=20).contains(&most), "{most} transactions");
    assert_eq!(database.query("SELECT count(*) FROM user_logins").await, ["2995"]);
    assert_eq!(scene.reasons().await, ["db_rejected:23514"; 5]);
}

/// How many were begun on this server, which logs all statements.
fn transactions(database: &Database) -> usize {
    database.log().matches("statement: BEGIN").count()
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_waited_for() {
    let scene = Scene::new().await;
    let running = scene.run().await;
    let mut keys = vec![scene.send("before")];
    scene.until_empty().await;
    let other = scene.database.session().await;
    let name = scene.database.query("SELECT current_database()").await.remove(0);
    // As after a failover: there is a server, new sessions are welcome, and nothing can be written.
    other.batch_execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await.unwrap();
    other.batch_execute(END_SESSIONS).await.unwrap();
    keys.extend(scene.send_many(40));
    scene.queue.inner.send(WRONG.to_vec());
    until("it says so", async || scene.trouble().is_some_and(|trouble| trouble.contains("25006"))).await;
    assert_eq!(
        scene.trouble().unwrap(),
        "SQLSTATE 25006 (read_only_sql_transaction): the server takes no writes, as a standby does: connect to the primary"
    );
    assert_eq!(scene.database.query("SELECT count(*) FROM masq.ledger").await, ["1"]);
    other
        .batch_execute(&format!("SET default_transaction_read_only = off; ALTER DATABASE {name} RESET ALL"))
        .await
        .unwrap();
    scene.until_empty().await;
    running.stop().await;
    assert_eq!((scene.counted(), scene.reasons().await), ((41, 1, 0, 0), vec!["unknown_message_type".to_owned()]));
    assert_eq!(scene.trouble(), None);
}

/// Its machine keeps the connection, so nothing but the time that passes tells.
#[tokio::test]
async fn a_server_process_that_is_frozen_is_given_up() {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts { connect: second, statement: second, ..TIMEOUTS };
    let mut sink = ByHand::on(Scene { timeouts, ..Scene::new().await }).await;
    sink.written(&[Login::new("first", None)]).await;
    let asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let [process] = &sink.scene.database.query(asked).await[..] else { panic!("one session") };
    let process = process.parse().ok().and_then(Pid::from_raw).unwrap();
    kill_process(process, Signal::STOP).unwrap();

    let next = [Login::new("next", None)];
    assert!(matches!(sink.write(&next).await, Err(SinkError::TooSlow(_))));
    assert_eq!(sink.written(&next).await, [Outcome::Written], "through another session");
    kill_process(process, Signal::CONT).unwrap();
    assert_eq!(sink.users().await, ["first", "next"]);
}

#[tokio::test]
async fn a_server_that_has_no_connection_left_is_waited_for() {
    let scene = Scene::new().await;
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    let role = format!("worker_{}", Uuid::new_v4().simple());
    scene.database.execute(&format!("CREATE ROLE {role} LOGIN; GRANT masq_writer TO {role}")).await;
    let running = scene.run_as(&scene.database.login(&role)).await;
    let mut keys = vec![scene.send("before")];
    scene.until_empty().await;
    let other = scene.database.session().await;
    other.batch_execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 0")).await.unwrap();
    other.batch_execute(END_SESSIONS).await.unwrap();
    keys.extend(scene.send_many(40));
    until("it says so", async || scene.trouble().is_some_and(|trouble| trouble.contains("53300"))).await;
    other.batch_execute(&format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await.unwrap();
    scene.until_empty().await;
    running.stop().await;
    scene.assert_rows(&keys).await;
    assert_eq!(scene.counted(), (41, 0, 0, 0));
}

#[tokio::test]
async fn a_deadlock_with_somebody_else_costs_a_second_try() {
    let timeouts = Timeouts { lock: Duration::from_secs(30), ..TIMEOUTS };
    let scene = Scene { timeouts, ..Scene::new().await };
    let name = scene.database.query("SELECT current_database()").await.remove(0);
    // Whoever looks for a deadlock finds it and is its victim: the worker looks, late enough that there is one.
    scene.database.execute(&format!("ALTER DATABASE {name} SET deadlock_timeout = '3s'")).await;
    let running = scene.run().await;
    let mut keys = vec![scene.send("before")];
    scene.until_empty().await;
    let other = plain(&scene.database.url).await;
    other.batch_execute("SET deadlock_timeout = '50s'; BEGIN; LOCK TABLE user_logins").await.unwrap();
    let key = scene.send("user");
    keys.push(key);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND \
                   datname = current_database()";
    until("it waits for the table", async || scene.database.query(waiting).await == ["1"]).await;
    let Key { sent_at, id } = key;
    let claim = format!("INSERT INTO masq.ledger VALUES (to_timestamp({sent_at} / 1000.0), '{id}', 1)");
    // The worker has the key and lets go of it: of the two it is the one whose transaction is undone.
    other.batch_execute(&claim).await.unwrap();
    other.batch_execute("ROLLBACK").await.unwrap();
    scene.until_empty().await;
    running.stop().await;
    scene.assert_rows(&keys).await;
    assert_eq!(scene.counted(), (2, 0, 0, 0));
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    until("PostgreSQL has counted it", async || scene.database.query(deadlocks).await == ["1"]).await;
}

#[tokio::test]
async fn a_plan_that_has_gone_stale_is_made_anew() {
    let scene = Scene::with(config_of("[database]\nconnections = 1\n")).await;
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    // What a trigger has prepared in the session was planned for a table that changes after that: 0A000.
    scene
        .database
        .execute(
            "CREATE TABLE sessions (pid int); CREATE TABLE other (n int); \
             GRANT INSERT ON sessions TO worker; GRANT SELECT ON other TO worker; \
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'look') THEN \
               EXECUTE 'PREPARE look AS SELECT * FROM other'; END IF; \
             EXECUTE 'EXECUTE look'; INSERT INTO sessions VALUES (pg_backend_pid()); RETURN NULL; END $$; \
             CREATE TRIGGER look BEFORE INSERT ON user_logins EXECUTE PROCEDURE look()",
        )
        .await;
    let running = scene.run().await;
    let mut keys = Vec::new();
    for column in ["a", "b", "c"] {
        keys.push(scene.send(column));
        scene.until_empty().await;
        scene.database.execute(&format!("ALTER TABLE other ADD {column} text")).await;
    }
    running.stop().await;
    scene.assert_rows(&keys).await;
    assert_eq!(scene.counted(), (3, 0, 0, 0));
    let sessions = "SELECT count(DISTINCT pid) FROM sessions";
    assert_eq!(scene.database.query(sessions).await, ["3"], "no session met a stale plan");
}

#[tokio::test]
async fn sessions_that_are_ended_again_and_again_cost_nothing() {
    let scene = Scene::new().await;
    let running = scene.run().await;
    let session = scene.database.session().await;
    let (mut keys, mut killed) = (Vec::new(), 0);
    for round in 0..20 {
        keys.extend((0..100).map(|at| scene.send(&format!("user-{round}-{at}"))));
        scene.queue.inner.send(WRONG.to_vec());
        killed += session.query(END_SESSIONS, &[]).await.unwrap().len();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    scene.until_empty().await;
    running.stop().await;
    assert!(killed > 10, "{killed} sessions were ended");
    scene.assert_adds_up();
    let counts = "SELECT (SELECT count(*) FROM user_logins), (SELECT count(DISTINCT user_id) FROM user_logins), \
                  (SELECT count(*) FROM masq.ledger), (SELECT count(*) FROM masq.dead_letters)";
    assert_eq!(scene.database.query(counts).await, [format!("{0}\t{0}\t{1}\t20", keys.len(), keys.len() + 20)]);
}

/// A file system of a few megabytes. It ends with its handle, and with this process however that ends.
struct SmallDisk {
    path: PathBuf,
    _child: Child,
}

impl SmallDisk {
    /// `None` where nothing may be mounted, which is said.
    #[allow(clippy::print_stderr)] // a test that is skipped says so
    async fn mount() -> Option<Self> {
        const MOUNT: &str = r#"mount -t tmpfs -o size=4m,mode=777 tmpfs "$0" 2>/dev/null && echo mounted && cat
                               umount -l "$0" 2>/dev/null; rmdir "$0""#;
        let path = tempfile::Builder::new().prefix("masq-disk-").tempdir_in("/tmp").unwrap().keep();
        let mut command = Command::new("sh");
        command.args(["-c", MOUNT]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if lines.next_line().await.unwrap().is_none() {
            eprintln!("skipped: mounting a small file system takes root");
            return None;
        }
        Some(Self { path, _child: child })
    }
}

#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let Some(disk) = SmallDisk::mount().await else { return };
    let scene = Scene::on(Database::alone().await, config());
    let database = &scene.database;
    let space = disk.path.join("space");
    std::fs::create_dir(&space).unwrap();
    if let Some(account) = masq::db::account::Account::named("postgres") {
        std::os::unix::fs::chown(&space, Some(account.uid), Some(account.gid)).unwrap();
    }
    database.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", space.display())).await;
    let running = scene.run().await;
    let mut keys = vec![scene.send("before")];
    scene.until_empty().await;
    database
        .execute("ALTER TABLE user_logins SET TABLESPACE small; CREATE TABLE filler (b text) TABLESPACE small")
        .await;
    let session = database.session().await;
    while session.batch_execute("INSERT INTO filler SELECT repeat('x', 1900) FROM generate_series(1, 4)").await.is_ok()
    {
    }

    keys.extend(scene.send_many(400));
    let trouble = scene.until_trouble().await;
    assert!(trouble.starts_with("SQLSTATE 53100 (disk_full)"), "{trouble}");
    database.execute("DROP TABLE filler").await;
    scene.until_empty().await;
    running.stop().await;
    assert_eq!((scene.counted(), scene.reasons().await.len()), ((401, 0, 0, 0), 0));
    let counts = "SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM masq.ledger WHERE outcome = 1)";
    assert_eq!(database.query(counts).await, ["401\t401"]);
}
