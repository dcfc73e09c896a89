//! `masq dead replay` and `masq dead purge` as an operator starts them: what becomes a row, what stays a dead letter, and
//! that each message counts once whoever does what at the same time and whatever ends in the middle.

use std::{collections::HashSet, fs, num::NonZeroU8, time::Duration};

use masq::{
    config::Config,
    event::Reason,
    local::{
        postgres::{Options, PrivatePostgres},
        scratch::Scratch,
        sqs::SqsServer,
    },
    pipeline::{
        decode::{Decoder, decode},
        mask::{Masker, mask},
        now_ms,
    },
    queue::{
        Key, Message, Receipt,
        memory::{MemoryQueue, MemoryQueues, Redrive, Settings},
    },
    sink::{Batch, Entry, Outcome, Sink, Verdict, postgres::PostgresSink},
    start,
    vault::sealer::Seals,
};
use serde_json::Value;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::{
    scene::options,
    stage::WRONG,
    support::{Database, Keys, config, connector, finish, login, service, until},
};

/// What an address that is none becomes in the mended configuration: NULL.
const MENDED: &str = r#"
[columns]
user_id          = { from = "user_id",     type = "varchar(128)", required = true, subject = true }
device_type      = { from = "device_type", type = "varchar(32)" }
masked_ip        = { from = "ip",          type = "varchar(256)", as = "ip", mask = "hmac", on_invalid = "null" }
masked_device_id = { from = "device_id",   type = "varchar(256)", mask = "hmac" }
locale           = { from = "locale",      type = "varchar(32)" }
app_version      = { from = "app_version", type = "varchar(32)",  as = "version" }
create_date      = { from = "create_date", type = "date", default = "sent_date" }
"#;

const MINUTE: i64 = 60_000;

/// A database with dead letters, the keys that they were made with, and the mended configuration in a file.
pub(crate) struct Ward {
    pub(crate) database: Database,
    pub(crate) keys: Keys,
}

impl Ward {
    pub(crate) async fn new() -> Self {
        Self::with(&config()).await
    }

    pub(crate) async fn with(config: &Config) -> Self {
        let ward = Self { database: Database::ready().await, keys: Keys::create() };
        fs::write(ward.file(), MENDED).unwrap();
        ward.admit(config, &[]).await;
        ward
    }

    fn file(&self) -> String {
        self.keys.directory.path().join("masq.toml").display().to_string()
    }

    /// Writes what becomes of these messages, as a worker with the unmended configuration does.
    pub(crate) async fn write(&self, messages: &[(Key, Vec<u8>)]) {
        self.admit(&config(), messages).await;
    }

    /// Writes a letter `older_than_ledger` with this key.
    async fn write_late(&self, key: Key) {
        let (_, mut masker, mut sink) = self.reader(&config()).await;
        let message = Message::new(key, 1, login("late", "1.1.1.1").into_bytes(), Receipt(String::new()));
        let dead = masker.dead_letter(&message, Reason::OlderThanLedger, None);
        let entries = vec![Entry { message, verdict: Verdict::Dead(dead) }];
        let (epoch, seals) = (masker.epoch().header().clone(), Seals::default());
        let batch = Batch { entries, doubles: 0, rows: Vec::new(), epoch, seals, kid: NonZeroU8::MIN };
        assert_eq!(sink.write(&batch, 0..1).await.unwrap(), [Outcome::Written]);
    }

    async fn admit(&self, config: &Config, messages: &[(Key, Vec<u8>)]) {
        let (decoder, mut masker, mut sink) = self.reader(config).await;
        let messages =
            messages.iter().map(|(key, body)| Message::new(*key, 1, body.clone(), Receipt(String::new()))).collect();
        let batch = mask(decode(messages, &decoder), &mut masker);
        sink.write(&batch, 0..batch.len()).await.unwrap();
    }

    async fn reader(&self, config: &Config) -> (Decoder, Masker, PostgresSink) {
        let keys = self.keys.load();
        self.database.prepare(config).await;
        let worker = connector(&self.database.login("worker"));
        let made = start::database(worker, config, &keys, "login-queue", options()).await;
        made.unwrap_or_else(|error| panic!("{error}")).reader(config, &keys).await.unwrap()
    }

    /// So many letters `bad_ip:ip`, sent so many minutes ago, each of another user.
    pub(crate) async fn bad_ips(&self, count: usize, minutes_ago: i64) -> Vec<Key> {
        let messages: Vec<_> = (0..count)
            .map(|number| (key(minutes_ago), login(&format!("user-{number}"), "199.172.111").into_bytes()))
            .collect();
        for messages in messages.chunks(2_000) {
            self.write(messages).await;
        }
        messages.into_iter().map(|(key, _)| key).collect()
    }

    /// Makes each transaction of a replay last, so that what happens happens in the middle of one.
    async fn slow(&self) {
        let trigger = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$; \
             CREATE TRIGGER slow AFTER UPDATE ON masq.dead_letters EXECUTE FUNCTION slow()";
        self.database.execute(trigger).await;
    }

    /// A letter that no configuration mends.
    async fn wrong(&self) -> Key {
        let key = key(1);
        self.write(&[(key, WRONG.to_vec())]).await;
        key
    }

    /// `masq` against this database with the mended configuration, as an operator.
    pub(crate) fn masq(&self, arguments: &[&str]) -> Command {
        self.masq_as("operator", arguments)
    }

    fn masq_as(&self, login: &str, arguments: &[&str]) -> Command {
        let (file, keys) = (self.file(), self.keys.path().display().to_string());
        let database = self.database.login(login);
        let place = ["--config", &file, "--database-url", &database];
        let mut command = service(&[arguments, &place].concat());
        command.env("MASQ_KEYS", keys);
        command
    }

    fn replay(&self, more: &[&str]) -> Command {
        let identity = self.keys.path().join("recovery.key").display().to_string();
        let why = ["dead", "replay", "--identity", &identity, "--reason", "ticket 4711"];
        self.masq(&[&why, more].concat())
    }

    /// Replays to the end: exit code, what stands on stdout, and the summary.
    pub(crate) async fn replayed(&self, more: &[&str]) -> (i32, String, String) {
        let (exit, stdout, stderr) = finish(self.replay(more)).await;
        (exit, stdout, stderr.lines().last().unwrap_or_default().to_owned())
    }

    async fn query(&self, sql: &str) -> Vec<String> {
        self.database.query(sql).await
    }

    /// Rows, users among them, and how often the ledger has each outcome.
    async fn counts(&self) -> String {
        let counts = "SELECT count(*), count(DISTINCT user_id), (SELECT string_agg(outcome || 'x' || n, ' ') \
                      FROM (SELECT outcome, count(*) AS n FROM masq.ledger GROUP BY outcome ORDER BY outcome) AS o), \
                      (SELECT count(*) FROM masq.dead_letters WHERE resolved_at IS NULL) FROM user_logins";
        self.query(counts).await.remove(0)
    }

    /// The numbers add up, by the program that an operator would ask.
    pub(crate) async fn assert_reconciled(&self) {
        let (exit, stdout, stderr) = finish(self.masq(&["reconcile", "--strict"])).await;
        assert_eq!(exit, 0, "{stdout}{stderr}");
    }
}

pub(crate) fn key(minutes_ago: i64) -> Key {
    Key { sent_at: now_ms() - minutes_ago * MINUTE, id: Uuid::new_v4() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_has_learnt_becomes_rows_and_the_rest_stays() {
    let ward = Ward::new().await;
    ward.write(&[(key(5), login("u0", "1.1.1.1").into_bytes())]).await;
    let three_days = 3 * 24 * 60;
    ward.bad_ips(3, three_days).await;
    let wrong = ward.wrong().await;
    assert_eq!(ward.counts().await, "1\t1\t1x1 2x4\t4");

    let dry = ward.replayed(&["--all", "--dry-run"]).await;
    let expected = "3 would become rows, 1 would stay dead letters. Nothing but the openings was written.";
    assert_eq!((dry.0, dry.2.as_str()), (3, expected));
    assert_eq!(ward.counts().await, "1\t1\t1x1 2x4\t4");

    let (exit, stdout, said) = ward.replayed(&["--all"]).await;
    assert_eq!((exit, said.as_str()), (3, "3 became rows, 1 stay dead letters."));
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    assert!(stdout.starts_with(&wrong.id.to_string()), "{stdout}");
    assert!(stdout.contains("unknown_message_type: unknown_message_type"), "{stdout}");
    assert_eq!(ward.counts().await, "4\t4\t1x1 2x1 3x3\t1");
    // The day on which SQS got the message, not that of the replay.
    let days = "SELECT count(*) FROM user_logins WHERE masked_ip IS NULL AND create_date = \
                (SELECT min(sent_at AT TIME ZONE 'UTC')::date FROM masq.dead_letters)";
    assert_eq!(ward.query(days).await, ["3"]);
    let openings =
        "SELECT count(*), count(DISTINCT key), min(reason) FROM masq.audit, unnest(items) AS key WHERE action = 'open'";
    assert_eq!(ward.query(openings).await, ["8\t4\tticket 4711"]);
    let record = "SELECT letters, keyless, reason, login = 'operator', claimed <> '' FROM masq.replays";
    assert_eq!(ward.query(record).await, ["3\t0\tticket 4711\tt\tt"]);

    let again = ward.replayed(&["--code", "bad_ip"]).await;
    assert_eq!((again.0, again.2.as_str()), (0, "0 became rows, 0 stay dead letters."));
    let (_, listed, _) = finish(ward.masq(&["dead", "list", "--resolved", "--json"])).await;
    assert!(listed.contains("bad_ip:ip") && listed.contains("\"letters\": 3"), "{listed}");
    ward.assert_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_chosen_by_id_by_code_and_up_to_a_number() {
    let ward = Ward::new().await;
    let letters = ward.bad_ips(5, 10).await;
    ward.wrong().await;
    let id = letters[3].id.to_string();
    let (exit, stdout, said) = ward.replayed(&[&id, "--json"]).await;
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((exit, &shown["outcome"], &shown["message_id"]), (0, &"row".into(), &id.as_str().into()), "{said}");
    assert_eq!(ward.query("SELECT user_id FROM user_logins").await, ["user-3"]);
    let again = ward.replayed(&[&id]).await;
    assert_eq!((again.0, again.2.as_str()), (0, "0 became rows, 0 stay dead letters."));

    let (exit, _, said) = ward.replayed(&["--code", "bad_ip:ip", "--limit", "3"]).await;
    assert_eq!((exit, said.as_str()), (0, "3 became rows, 0 stay dead letters."));
    assert_eq!(ward.counts().await, "4\t4\t2x2 3x4\t2");

    let nobody = "11111111-2222-3333-4444-555555555555";
    for (arguments, word) in [
        (&[nobody][..], "no dead letter of a message"),
        (&[], "--all"),
        (&["--all", "--code", "bad_ip"], "cannot be used with"),
    ] {
        let (exit, _, stderr) = finish(ward.replay(arguments)).await;
        assert!(exit == 2 && stderr.contains(word), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_table_refuses_stays_a_letter_and_its_neighbours_do_not() {
    let ward = Ward::new().await;
    let letters = ward.bad_ips(500, 10).await;
    ward.database.execute("ALTER TABLE user_logins ADD CONSTRAINT dull CHECK (user_id <> 'user-321')").await;
    let (exit, stdout, said) = ward.replayed(&["--all"]).await;
    assert_eq!((exit, said.as_str()), (3, "499 became rows, 1 stay dead letters."));
    assert!(stdout.contains(&letters[321].id.to_string()) && stdout.contains("db_rejected:23514"), "{stdout}");
    assert_eq!(ward.counts().await, "499\t499\t2x1 3x499\t1");
    // A transaction for each half that went through.
    let transactions: i64 = ward.query("SELECT count(*) FROM masq.replays").await[0].parse().unwrap();
    assert!((1..=10).contains(&transactions), "{transactions}");

    ward.database.execute("ALTER TABLE user_logins DROP CONSTRAINT dull").await;
    assert_eq!(ward.replayed(&["--all"]).await.0, 0);
    assert_eq!(ward.counts().await, "500\t500\t3x500\t0");
    ward.assert_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_may_be_a_row_already_needs_force() {
    let ward = Ward::new().await;
    ward.bad_ips(1, 10).await;
    // One became a letter while the ledger knew it, which has forgotten it since; one came when it was too late for that.
    let forgotten = ward.bad_ips(1, 14 * 24 * 60).await.remove(0);
    ward.database
        .execute(
            "UPDATE masq.horizon SET oldest = oldest + interval '3 days'; \
             DELETE FROM masq.ledger WHERE sent_at < masq.ledger_oldest()",
        )
        .await;
    let late = key(40 * 24 * 60);
    ward.write_late(late).await;
    assert_eq!(ward.counts().await, "0\t0\t2x1\t3");

    let (exit, stdout, said) = ward.replayed(&["--all"]).await;
    assert_eq!((exit, said.as_str()), (3, "2 became rows, 1 stay dead letters."));
    assert!(stdout.starts_with(&late.id.to_string()) && stdout.contains("may be a row already; --force"), "{stdout}");
    let opened = ward
        .query("SELECT encode(substr(key, 9), 'hex')::uuid FROM masq.audit, unnest(items) AS key WHERE action = 'open'")
        .await;
    assert!(opened.contains(&forgotten.id.to_string()));
    assert!(!opened.contains(&late.id.to_string()), "what is not replayed is not opened");
    ward.assert_reconciled().await;

    let (exit, _, said) = ward.replayed(&["--all", "--force"]).await;
    assert_eq!((exit, said.as_str()), (0, "1 became rows, 0 stay dead letters."));
    assert_eq!(ward.query("SELECT letters, keyless FROM masq.replays ORDER BY id").await, ["2\t1", "1\t1"]);
    assert_eq!(ward.counts().await, "3\t2\t3x1\t0");
    assert_eq!(ward.replayed(&["--all", "--force"]).await.2, "0 became rows, 0 stay dead letters.");
    ward.assert_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_ledger_or_seal_was_changed_is_left_alone() {
    let ward = Ward::new().await;
    let letters = ward.bad_ips(4, 10).await;
    let [row, gone, changed, sound] = letters[..] else { panic!() };
    ward.database
        .execute(&format!(
            "UPDATE masq.ledger SET outcome = 1 WHERE message_id = '{}'; DELETE FROM masq.ledger WHERE message_id = '{}'; \
             UPDATE masq.dead_letters SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE message_id = '{}'",
            row.id, gone.id, changed.id
        ))
        .await;
    let (exit, stdout, said) = ward.replayed(&["--all", "--force"]).await;
    assert_eq!((exit, said.as_str()), (3, "1 became rows, 3 stay dead letters."));
    let lines: Vec<&str> = stdout.lines().collect();
    for (key, why) in [(row, "masq reconcile"), (gone, "masq reconcile"), (changed, "were changed")] {
        assert!(lines.iter().any(|line| line.starts_with(&key.id.to_string()) && line.contains(why)), "{stdout}");
    }
    assert!(!stdout.contains(&sound.id.to_string()));
    assert_eq!(ward.query("SELECT user_id FROM user_logins").await, ["user-3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_at_once_make_each_letter_one_row() {
    const LETTERS: usize = 3_000;
    let ward = Ward::new().await;
    ward.bad_ips(LETTERS, 10).await;
    // One waits for the table, the other for the one's letters: both have the same ones in hand.
    let session = ward.database.session().await;
    session.batch_execute("BEGIN; LOCK TABLE user_logins IN SHARE MODE").await.unwrap();
    let release = async {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        until("both wait", async || ward.query(waiting).await == ["2"]).await;
        session.batch_execute("COMMIT").await.unwrap();
    };
    let replayed = || ward.replayed(&["--all", "--json"]);
    let (one, two, ()) = tokio::join!(replayed(), replayed(), release);
    assert_eq!((one.0, two.0), (0, 0), "{} {}", one.2, two.2);
    let met = [&one, &two].iter().any(|(_, _, said)| said.contains("were replayed or purged by then"));
    assert!(met, "{} {}", one.2, two.2);
    let rows = |stdout: &str| -> Vec<String> {
        let letters = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        letters.filter(|letter| letter["outcome"] == "row").map(|letter| letter["message_id"].to_string()).collect()
    };
    let (ours, theirs) = (rows(&one.1), rows(&two.1));
    let both: HashSet<&String> = ours.iter().chain(&theirs).collect();
    assert_eq!((both.len(), ours.len() + theirs.len()), (LETTERS, LETTERS));
    assert_eq!(ward.counts().await, format!("{LETTERS}\t{LETTERS}\t3x{LETTERS}\t0"));
    ward.assert_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_the_middle_leaves_what_the_next_one_finishes() {
    const LETTERS: usize = 6_000;
    let ward = Ward::new().await;
    ward.bad_ips(LETTERS, 10).await;
    ward.slow().await;
    let rows = async || ward.query("SELECT count(*) FROM user_logins").await[0].parse::<usize>().unwrap();
    let mut killed_in_the_middle = 0;
    for _ in 0..4 {
        let before = rows().await;
        let mut child: Child = ward.replay(&["--all"]).spawn().unwrap();
        until("some more rows", async || rows().await > before || before == LETTERS).await;
        // SIGKILL: no destructor, no goodbye.
        child.kill().await.unwrap();
        killed_in_the_middle += usize::from(rows().await < LETTERS);
    }
    assert!(killed_in_the_middle > 0, "all was replayed before the first kill");
    let (exit, _, said) = ward.replayed(&["--all"]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(ward.counts().await, format!("{LETTERS}\t{LETTERS}\t3x{LETTERS}\t0"));
    ward.assert_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_stopped_in_the_middle_is_waited_for() {
    const LETTERS: usize = 6_000;
    let scratch = Scratch::new("masq-test-").unwrap();
    let options =
        Options { directory: scratch.path().join("cluster"), path: std::env::var("PATH").ok(), ..Options::default() };
    let server = PrivatePostgres::start(&options).await.unwrap();
    let ward = Ward { database: Database::of(&server.conninfo()), keys: Keys::create() };
    fs::write(ward.file(), MENDED).unwrap();
    ward.bad_ips(LETTERS, 10).await;
    ward.slow().await;
    let child = ward.replay(&["--all"]).spawn().unwrap();
    until("some rows", async || ward.counts().await.starts_with(|first: char| first != '0')).await;
    drop(server); // an immediate shutdown, as a crash is
    let server = PrivatePostgres::start(&options).await.unwrap();
    assert_ne!(ward.query("SELECT count(*) FROM user_logins").await, [LETTERS.to_string()]);
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(ward.counts().await, format!("{LETTERS}\t{LETTERS}\t3x{LETTERS}\t0"));
    ward.assert_reconciled().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_which_nobody_knows_is_asked_about_and_not_repeated() {
    let ward = Ward { database: Database::alone().await, keys: Keys::create() };
    fs::write(ward.file(), MENDED).unwrap();
    ward.bad_ips(3, 10).await;
    ward.database.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    ward.database.execute("SELECT pg_reload_conf()").await;
    let child = ward.replay(&["--all"]).spawn().unwrap();
    // Every COMMIT goes through here, and is cut off where it waits for a standby that there is not.
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let resolved = "SELECT count(*) FROM masq.dead_letters WHERE resolved_at IS NOT NULL";
    until("the rows are there", async || {
        ward.query(cancel).await;
        ward.query(resolved).await == ["3"]
    })
    .await;
    until("it asks again", async || ward.query(cancel).await != ["0"]).await;
    ward.database.execute("ALTER SYSTEM RESET synchronous_standby_names").await;
    ward.database.execute("SELECT pg_reload_conf()").await;
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("not confirmed by the synchronous standby"), "{stderr}");
    assert!(stderr.contains("0 became rows, 0 stay dead letters, 3 were replayed or purged by then."), "{stderr}");
    assert_eq!(ward.counts().await, "3\t3\t3x3\t0");
    ward.assert_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_letters_are_gone_and_the_ledger_still_knows_their_messages() {
    let ward = Ward::new().await;
    let letters = ward.bad_ips(5, 10).await;
    for letter in &letters[..2] {
        ward.replayed(&[&letter.id.to_string()]).await;
    }
    let purge = async |more: &[&str]| finish(ward.masq(&[&["dead", "purge"], more].concat())).await;
    let (exit, _, stderr) = purge(&["--older-than", "1h", "--yes"]).await;
    assert!(exit == 0 && stderr.contains("0 dead letters would be deleted"), "{stderr}");
    let (exit, _, stderr) = purge(&["--older-than", "0s"]).await;
    assert!(exit == 2 && stderr.contains("say --yes") && stderr.contains("3 of them were never replayed"), "{stderr}");
    let (exit, _, stderr) = purge(&["--older-than", "0s", "--dry-run"]).await;
    assert!(exit == 0 && stderr.contains("5 dead letters would be deleted, 3 of them never"), "{stderr}");
    assert_eq!(ward.counts().await, "2\t2\t2x3 3x2\t3");

    let (exit, _, stderr) = purge(&["--older-than", "0s", "--resolved", "--yes"]).await;
    assert!(exit == 0 && stderr.contains("2 dead letters were deleted"), "{stderr}");
    assert_eq!(ward.counts().await, "2\t2\t1x2 2x3\t3");
    ward.assert_reconciled().await;
    assert_eq!(purge(&["--older-than", "0s", "--code", "bad_ip", "--yes"]).await.0, 0);
    assert_eq!(ward.counts().await, "2\t2\t1x2 5x3\t0");
    ward.assert_reconciled().await;
    let record = "SELECT condition, letters, login = 'operator', claimed <> '' FROM masq.purges ORDER BY id";
    let expected = ["--older-than 0s --resolved\t2\tt\tt", "--older-than 0s --code bad_ip\t3\tt\tt"];
    assert_eq!(ward.query(record).await, expected);

    // A purged message that comes again is known, and changes nothing.
    ward.write(&[(letters[4], login("user-4", "1.1.1.1").into_bytes())]).await;
    assert_eq!(ward.counts().await, "2\t2\t1x2 5x3\t0");
}

/// Beyond what a worker needs: as SECURITY.md says it.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_an_operators_once_it_is_a_member_of_masq_operator() {
    let ward = Ward::new().await;
    ward.bad_ips(2, 10).await;
    let login = format!("operator_{}", Uuid::new_v4().simple());
    ward.database.execute(&format!("CREATE ROLE {login} LOGIN")).await;
    let masq = |arguments: &[&str]| finish(ward.masq_as(&login, arguments));
    let identity = ward.keys.path().join("recovery.key").display().to_string();
    let replay = ["dead", "replay", "--identity", &identity, "--reason", "ticket 4711", "--all"];
    let (purge, reconcile) =
        (["dead", "purge", "--older-than", "0s", "--yes"], ["reconcile", "--strict", "--baseline"]);
    for refused in [&replay[..], &purge, &reconcile] {
        let (exit, _, stderr) = masq(refused).await;
        assert!(exit == 77 && stderr.contains("42501") && stderr.contains("masq_operator"), "{refused:?}: {stderr}");
    }
    ward.database.execute(&format!("GRANT masq_operator TO {login}")).await;
    for allowed in [&replay[..], &purge, &reconcile] {
        let (exit, stdout, stderr) = masq(allowed).await;
        assert_eq!(exit, 0, "{allowed:?}: {stdout}{stderr}");
    }
    ward.assert_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_and_purge_at_once_leave_nothing_between() {
    const LETTERS: usize = 3_000;
    let ward = Ward::new().await;
    ward.bad_ips(LETTERS, 10).await;
    let purge = finish(ward.masq(&["dead", "purge", "--older-than", "0s", "--resolved", "--yes"]));
    let (replayed, purged) = tokio::join!(ward.replayed(&["--all"]), purge);
    assert_eq!((replayed.0, purged.0), (0, 0), "{} {}", replayed.2, purged.2);
    let all = finish(ward.masq(&["dead", "purge", "--older-than", "0s", "--yes"])).await;
    assert_eq!(all.0, 0, "{}", all.2);
    assert_eq!(ward.counts().await, format!("{LETTERS}\t{LETTERS}\t1x{LETTERS}\t0"));
    ward.assert_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_event_is_a_row_already_stays_one() {
    let ward = Ward::new().await;
    let (server, ..) = queues().await;
    let url = server.queue_url("login-queue");
    fs::write(ward.file(), format!("[queue]\ndedupe = \"body:device_id\"\nurl = \"{url}\"\n{MENDED}")).unwrap();
    // All have one device: of three letters one becomes a row and claims it.
    ward.bad_ips(3, 10).await;
    let (exit, stdout, said) = ward.replayed(&["--all"]).await;
    assert_eq!((exit, said.as_str()), (3, "1 became rows, 2 stay dead letters."));
    assert_eq!(stdout.matches("another message brought the same event, and is a row").count(), 2, "{stdout}");
    assert_eq!(ward.counts().await, "1\t1\t2x2 3x1\t2");
    assert_eq!(ward.query("SELECT count(*) FROM masq.dedupe").await, ["1"]);
    ward.assert_reconciled().await;

    fs::write(ward.file(), format!("[queue]\ndedupe = \"attribute:id\"\nurl = \"{url}\"\n{MENDED}")).unwrap();
    let (exit, _, stderr) = finish(ward.replay(&["--all"])).await;
    assert!(exit == 78 && stderr.contains("which letters do not keep"), "{stderr}");
    assert_eq!(ward.replayed(&["--all", "--force"]).await.2, "2 became rows, 0 stay dead letters.");
}

/// A queue with its dead-letter queue: a message goes there after its first delivery.
async fn queues() -> (SqsServer, MemoryQueue, MemoryQueue) {
    let queues = MemoryQueues::new();
    let dead = queues.create("login-queue-dead", Settings::default()).unwrap();
    let redrive = Some(Redrive { target: "login-queue-dead".into(), max_receive_count: 1 });
    let queue = queues.create("login-queue", Settings { redrive, ..Settings::default() }).unwrap();
    let server = SqsServer::start(([127, 0, 0, 1], 0).into(), queues).await.unwrap();
    (server, queue, dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_queue_is_drained_and_what_is_known_is_not_written_again() {
    let ward = Ward::new().await;
    let (server, _, dead) = queues().await;
    let send = |user: &str, ip: &str| dead.send(login(user, ip).into_bytes());
    // One is a row under this very key, one is a row that was sent an hour earlier by the ledger, as when a FIFO queue's
    // message has moved; of one there is a letter under another time.
    let row = send("row", "1.1.1.1");
    ward.write(&[(row, login("row", "1.1.1.1").into_bytes())]).await;
    for user in ["moved", "letter"] {
        let Key { sent_at, id } = send(user, "1.1.1.1");
        let body = login(user, if user == "moved" { "1.1.1.1" } else { "1.1.1" }).into_bytes();
        ward.write(&[(Key { sent_at: sent_at - 60 * MINUTE, id }, body)]).await;
    }
    send("new", "1.1.1.1");
    dead.send(WRONG.to_vec());
    assert_eq!(ward.counts().await, "2\t2\t1x2 2x1\t1");

    let url = server.queue_url("login-queue-dead");
    let (exit, _, stderr) = finish(ward.masq(&["dead", "replay", "--queue", &url])).await;
    assert_eq!(exit, 3, "{stderr}");
    let said = "5 messages received: 1 became rows, 1 dead letters, 3 had their outcome already.";
    assert!(stderr.contains(said), "{stderr}");
    assert!(dead.count().is_empty());
    assert_eq!(ward.counts().await, "3\t3\t1x3 2x2\t2");
    let users = ward.query("SELECT user_id FROM user_logins ORDER BY 1").await;
    assert_eq!(users, ["moved", "new", "row"]);
    ward.assert_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_queue_of_large_messages_is_drained_through_a_small_room() {
    let ward = Ward::new().await;
    fs::write(ward.file(), "[queue]\nmax_in_flight_bytes = \"1MiB\"\nvisibility = \"2s\"\n").unwrap();
    let (server, _, dead) = queues().await;
    let body = |user: usize, padding: usize| {
        let login = login(&format!("user-{user}"), "1.1.1.1");
        login.replacen('{', &format!("{{\"padding\": \"{}\", ", "x".repeat(padding)), 1).into_bytes()
    };
    // The first ones give no idea of those that follow.
    for user in 0..60 {
        dead.send(body(user, if user < 20 { 1 } else { 300_000 }));
    }
    let url = server.queue_url("login-queue-dead");
    let (exit, _, stderr) = finish(ward.masq(&["dead", "replay", "--queue", &url])).await;
    assert_eq!(exit, 0, "{stderr}");
    assert_eq!(ward.query("SELECT count(DISTINCT user_id), count(*) FROM user_logins").await, ["60\t60"]);
    assert!(dead.count().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_drain_a_dead_letter_queue_beside_a_worker() {
    const MESSAGES: usize = 2_000;
    let ward = Ward::new().await;
    let (server, queue, dead) = queues().await;
    for number in 0..MESSAGES {
        queue.send(login(&format!("user-{number}"), "1.1.1.1").into_bytes());
    }
    // Delivered once and never settled: half of them go to the dead-letter queue, while the worker takes the others.
    for _ in 0..MESSAGES / 20 {
        queue.take(10, Duration::ZERO, Duration::from_secs(2)).await;
    }
    let (main, url) = (server.queue_url("login-queue"), server.queue_url("login-queue-dead"));
    let mut worker = ward.masq(&["run", "--queue-url", &main]).spawn().unwrap();
    let there = async || (dead.count().visible + dead.count().in_flight) as usize;
    until("some moved", async || there().await > 0).await;
    let drain = || finish(ward.masq(&["dead", "replay", "--queue", &url]));
    while !(queue.count().is_empty() && dead.count().is_empty()) {
        let (one, two) = tokio::join!(drain(), drain());
        assert_eq!((one.0, two.0), (0, 0), "{}{}", one.2, two.2);
    }
    worker.kill().await.unwrap();
    assert_eq!(ward.counts().await, format!("{MESSAGES}\t{MESSAGES}\t1x{MESSAGES}\t0"));
    ward.assert_reconciled().await;
}
