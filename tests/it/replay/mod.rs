//! `masq dead replay` and `masq dead purge` as an operator starts them: what becomes a row, what stays a dead letter, and
//! that each message counts once whoever does what at the same time and whatever ends in the middle.

mod drain;
mod purge;
mod ward;

use std::{collections::HashSet, fs, time::Duration};

use masq::local::{
    postgres::{Options, PrivatePostgres},
    scratch::Scratch,
};
use serde_json::Value;
use tokio::process::Child;

pub(crate) use self::ward::{Ward, key};
use self::{drain::queues, ward::MENDED};
use crate::support::{Database, Keys, finish, login, until};

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
