//! Dead letters deleted, by whom they may be, and while others replay them.

use uuid::Uuid;

use super::ward::Ward;
use crate::support::{finish, login};

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
