//! `masq reconcile` on a live database: what adds up, what somebody changed, and what nobody can tell.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    replay::{Ward, key},
    support::{finish, login},
};

const LETTERS: &str = "each dead letter of the ledger is there";
const LEDGER: &str = "each dead letter is one in the ledger";
const RESOLVED: &str = "resolved letters are those replayed";
const ONCE: &str = "each message has one key";
const ROWS: &str = "rows are those of the ledger";

/// Exit code, and of each check its result and what was found.
async fn reconcile(ward: &Ward, more: &[&str]) -> (i32, BTreeMap<String, (String, String)>) {
    let (exit, stdout, stderr) = finish(ward.masq(&[&["reconcile", "--json"], more].concat())).await;
    let checks: Vec<Value> = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stderr}"));
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    (exit, checks.iter().map(|c| (text(c, "check"), (text(c, "result"), text(c, "found")))).collect())
}

/// A database with rows, unresolved letters and replayed ones.
async fn mixed() -> Ward {
    let ward = Ward::new().await;
    let rows: Vec<_> =
        (0..10).map(|number| (key(number), login(&format!("u{number}"), "1.1.1.1").into_bytes())).collect();
    ward.write(&rows).await;
    let letters = ward.bad_ips(4, 3 * 24 * 60).await;
    for letter in &letters[..2] {
        assert_eq!(ward.replayed(&[&letter.id.to_string()]).await.0, 0);
    }
    ward
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_masq_made_adds_up_from_the_first_row_on() {
    let ward = mixed().await;
    let (exit, checks) = reconcile(&ward, &["--strict"]).await;
    assert_eq!(exit, 0, "{checks:?}");
    assert_eq!(checks[ROWS], ("ok".into(), "12 more than at the baseline".into()));
    assert_eq!(checks[LETTERS], ("ok".into(), "4 dead letters".into()));
    assert_eq!(checks.len(), 5, "{checks:?}");
    assert_eq!(ward.database.query("SELECT claimed, rows, ledger FROM masq.baselines").await, ["masq\t{}\t{}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_is_found() {
    for (tampered, check, found) in [
        (
            "DELETE FROM masq.dead_letters WHERE resolved_at IS NULL",
            LETTERS,
            "2 dead letters without a letter, such as ",
        ),
        ("DELETE FROM masq.ledger WHERE outcome = 2", LEDGER, "2 letters that the ledger does not call dead letters"),
        ("UPDATE masq.ledger SET outcome = 1 WHERE outcome = 2", LEDGER, "2 letters that the ledger does not call"),
        ("UPDATE masq.dead_letters SET resolved_at = now()", RESOLVED, "2 letters whose resolved_at does not fit"),
        ("UPDATE masq.ledger SET outcome = 3 WHERE outcome = 2", RESOLVED, "2 letters whose resolved_at does not"),
        (
            "INSERT INTO masq.ledger SELECT sent_at - interval '1 day', message_id, 1 FROM masq.ledger WHERE outcome = 1",
            ONCE,
            "10 messages under two sent times",
        ),
        ("INSERT INTO user_logins (user_id) VALUES ('forged')", ROWS, "1 more rows than messages that became one"),
        ("CREATE TABLE kept AS TABLE user_logins; TRUNCATE user_logins", ROWS, "12 rows are gone"),
    ] {
        let ward = mixed().await;
        ward.database.execute(tampered).await;
        let (exit, checks) = reconcile(&ward, &[]).await;
        assert_eq!(exit, 70, "{tampered}: {checks:?}");
        let (result, said) = &checks[check];
        assert!(result == "broken" && said.starts_with(found), "{tampered}: {checks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_is_what_later_times_are_compared_with() {
    let ward = mixed().await;
    ward.database.execute("INSERT INTO user_logins (user_id) VALUES ('by hand')").await;
    assert_eq!(reconcile(&ward, &[]).await.0, 70);
    let (exit, checks) = reconcile(&ward, &["--other-writers"]).await;
    assert_eq!((exit, checks[ROWS].0.as_str()), (0, "not_checkable"));
    assert_eq!(reconcile(&ward, &["--other-writers", "--strict"]).await.0, 3);

    assert_eq!(reconcile(&ward, &["--baseline"]).await.0, 70, "compares first, then records");
    let (exit, checks) = reconcile(&ward, &["--strict"]).await;
    assert_eq!((exit, checks[ROWS].1.as_str()), (0, "0 more than at the baseline"));
    ward.write(&[(key(1), login("more", "1.1.1.1").into_bytes())]).await;
    assert_eq!(reconcile(&ward, &["--strict"]).await.1[ROWS].1, "1 more than at the baseline");
    let record = "SELECT login = 'operator', claimed <> 'masq', rows FROM masq.baselines ORDER BY id DESC LIMIT 1";
    assert_eq!(ward.database.query(record).await, [r#"t	t	{"\"public\".\"user_logins\"": 13}"#]);

    ward.database.execute("DELETE FROM masq.baselines").await;
    let (exit, checks) = reconcile(&ward, &[]).await;
    assert_eq!((exit, checks[ROWS].1.as_str()), (0, "no baseline was recorded"));
    ward.database.execute("ALTER TABLE user_logins RENAME TO elsewhere").await;
    reconcile(&ward, &["--baseline"]).await;
    let (exit, checks) = reconcile(&ward, &[]).await;
    assert!(exit == 0 && checks[ROWS].1.contains("is gone, or this login may not read it"), "{checks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_deleted_leave_it_open_and_suspects_are_told() {
    let ward = mixed().await;
    ward.database.execute("DELETE FROM user_logins WHERE user_id = 'u1'").await;
    ward.database
        .execute(
            "INSERT INTO masq.suspects SELECT sent_at, message_id, now() - interval '2 hours' FROM masq.ledger LIMIT 3",
        )
        .await;
    // PostgreSQL's statistics come late.
    crate::support::until("the deletion is counted", async || {
        ward.database.query("SELECT pg_stat_get_tuples_deleted('user_logins'::regclass)").await == ["1"]
    })
    .await;
    let (exit, checks) = reconcile(&ward, &[]).await;
    assert_eq!((exit, checks[ROWS].0.as_str()), (0, "not_checkable"), "{checks:?}");
    assert_eq!(checks[ROWS].1, "1 rows are gone, and PostgreSQL counts 1 deleted ones");
    assert!(checks["messages read alone"].1.starts_with("3 that nobody came back from"), "{checks:?}");

    let (_, text, _) = finish(ward.masq(&["reconcile"])).await;
    assert!(
        text.lines().next().unwrap().starts_with("ok             each dead letter of the ledger is there"),
        "{text}"
    );
    assert!(text.contains("not checkable  rows are those of the ledger"), "{text}");
}
