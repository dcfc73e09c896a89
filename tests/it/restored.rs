//! What `masq forget` does where something came between: a restore of either database, a file that is another's, a crash
//! between two databases.

use masq::setup;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    forget::{
        IP, WHY, backup, count, fetched, forget, forgotten, journal, loaded, readable, receipt as receipt_of, restored,
    },
    scene::Scene,
    support::{Database, config_of, login},
};

fn replay(scene: &Scene, url: &str) -> (i32, String, String) {
    let why = ["--purpose", "OPERATIONS", "--ticket", "T-18", "--reason", "restored from the backup of 2 May"];
    forget(scene, url, &[&["--replay", "erasures.jsonl", "--json"], &why[..]].concat(), "")
}

#[tokio::test]
async fn a_restored_database_is_shut_until_erasures_are_replayed() {
    let scene = Scene::new().await;
    scene.queue.inner.send(login("w", IP).into_bytes());
    loaded(&scene).await;
    forgotten(&scene, "w", &[]);
    let old = backup(&scene.database);
    forgotten(&scene, "u", &["--delete-rows"]);
    let database = restored(&old).await;
    assert_eq!(readable(&scene, &database, &database).await, count(&[("u", 2), ("v", 2)]), "u is back");
    assert_eq!(fetched(&database).await, Err("MQ007".to_owned()));
    let (code, _, err) = forget(&scene, &database.url, &[&WHY[..], &["-"]].concat(), "v");
    assert!(code == 78 && err.contains("--replay"), "{err}");

    let file = scene.keys.directory.path().join("erasures.jsonl");
    let whole = journal(&scene);
    std::fs::write(&file, "").unwrap();
    let (code, _, err) = replay(&scene, &database.url);
    assert!(code == 78 && err.contains("lacks erasure 1"), "{err}");
    assert_eq!(
        (journal(&scene).as_str(), fetched(&database).await),
        ("", Err("MQ007".to_owned())),
        "and it stays shut"
    );
    std::fs::write(&file, whole).unwrap();

    let replayed = receipt_of(replay(&scene, &database.url));
    assert_eq!(
        (&replayed["erased_again"], &replayed["rows"], &replayed["was_shut"]),
        (&json!(1), &json!(2), &json!(true))
    );
    assert_eq!(readable(&scene, &database, &database).await, count(&[("v", 2)]));
    assert_eq!(fetched(&database).await, Ok(2));
    assert_eq!(
        database.query("SELECT coalesce(user_id, '-') FROM user_logins ORDER BY 1").await,
        ["-", "v"],
        "w, and v"
    );
    let replayed = receipt_of(replay(&scene, &database.url));
    assert_eq!((&replayed["erased_again"], &replayed["was_shut"]), (&json!(0), &json!(false)));
    let next = receipt_of(forget(&scene, &database.url, &[&WHY[..], &["--json", "-"]].concat(), "v"));
    assert_eq!(next["number"], json!(3), "numbers go on");
}

#[tokio::test]
async fn where_nobody_is_known_to_be_erased_somebody_has_to_say_so() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    let old = restored(&backup(&scene.database)).await;
    forgotten(&scene, "u", &[]);
    // The file is lost, and the backup is from before the first erasure.
    let file = scene.keys.directory.path().join("erasures.jsonl");
    std::fs::write(&file, "").unwrap();
    let (code, _, err) = replay(&scene, &old.url);
    assert!(code == 2 && err.contains("stays shut") && err.contains("--nobody-was-erased"), "{err}");
    assert_eq!(fetched(&old).await, Err("MQ007".to_owned()));
    assert_eq!(old.query("SELECT count(*) FROM masq.audit WHERE action = 'restore'").await, ["0"]);

    let insist = [&WHY[..], &["--replay", "erasures.jsonl", "--nobody-was-erased", "--json"]].concat();
    let replayed = receipt_of(forget(&scene, &old.url, &insist, ""));
    assert_eq!((&replayed["erased_again"], &replayed["was_shut"]), (&json!(0), &json!(true)));
    assert_eq!(fetched(&old).await, Ok(4));
    for (person, words) in [(&["-"][..], "cannot be used with"), (&[], "--replay")] {
        let args = [&WHY[..], &["--nobody-was-erased"], person].concat();
        let (code, _, err) = forget(&scene, &old.url, &args, "");
        assert!(code == 2 && err.contains(words), "{err}");
    }
}

#[tokio::test]
async fn a_file_of_another_database_or_with_a_gap_is_refused() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    let old = restored(&backup(&scene.database)).await;
    forgotten(&scene, "u", &[]);
    forgotten(&scene, "v", &[]);
    let file = scene.keys.directory.path().join("erasures.jsonl");
    let whole = journal(&scene);
    std::fs::write(&file, whole.lines().skip(2).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let (code, _, err) = replay(&scene, &old.url);
    assert!(code == 78 && err.contains("lacks erasure 1"), "{err}");
    let foreign: String = whole
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line["erasure"] = json!(
                Uuid::from_u128(line["subject"].as_str().map_or(0, |tag| u128::from_str_radix(tag, 16).unwrap()))
                    .to_string()
            );
            format!("{line}\n")
        })
        .collect();
    std::fs::write(&file, foreign).unwrap();
    let (code, _, err) = replay(&scene, &scene.database.url);
    assert!(code == 78 && err.contains("another database's"), "{err}");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(forgotten(&scene, "u", &[])["number"], json!(3));
    assert_eq!(journal(&scene).matches("\"done\"").count(), 3, "a new file gets what the database knows");
}

#[tokio::test]
async fn slots_elsewhere_go_first_and_the_same_command_finishes() {
    let slots = Database::create().await;
    let config = config_of(&format!("[vault]\nslots_url = \"{}\"\n", slots.url));
    let scene = Scene::on(Database::create().await, config);
    loaded(&scene).await;
    assert_eq!(setup::slots(&slots.session().await, &scene.config, true).await.unwrap(), []);
    let old_slots = backup(&slots);
    let before = restored(&backup(&scene.database)).await;
    scene
        .database
        .execute(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'; \
             CREATE TRIGGER no BEFORE UPDATE ON user_logins FOR EACH ROW EXECUTE PROCEDURE no()",
        )
        .await;
    let (code, _, err) = forget(&scene, &scene.database.url, &[&WHY[..], &["-"]].concat(), "u");
    assert!(code != 0, "{err}");
    assert_eq!(readable(&scene, &before, &slots).await, count(&[("v", 2)]), "the slots are gone");
    assert_eq!(scene.database.query("SELECT count(*) FROM user_logins WHERE user_id = 'u'").await, ["2"]);
    assert!(!journal(&scene).contains("withdrawn"), "something was done");
    scene.database.execute("DROP TRIGGER no ON user_logins").await;

    let receipt = forgotten(&scene, "u", &[]);
    assert!(receipt["slots"].as_u64().unwrap() >= 1, "what the first attempt deleted is accounted for: {receipt}");
    assert_eq!(receipt["backups_of"], json!("the database with the slots"));
    assert_eq!(journal(&scene).lines().count(), 2, "one erasure");
    assert_eq!(readable(&scene, &scene.database, &slots).await, count(&[("v", 2)]));

    // Slots restored by themselves.
    let back = restored(&old_slots).await;
    assert_eq!(readable(&scene, &before, &back).await, count(&[("u", 2), ("v", 2)]), "u is back");
    let fetch = "SELECT count(*) FROM masq_slots.fetch_slots('{}', '{}')";
    let refused = back.session().await.batch_execute(fetch).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "MQ007");
    let mut config = scene.config.clone();
    config.vault.slots_url = Some(back.url.clone());
    let scene = Scene { config, ..scene };
    assert_eq!(receipt_of(replay(&scene, &scene.database.url))["was_shut"], json!(true));
    back.session().await.batch_execute(fetch).await.unwrap();
    assert_eq!(readable(&scene, &before, &back).await, count(&[("v", 2)]));
}
