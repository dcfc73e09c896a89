//! `masq risk` on tables that the pipeline wrote: all is reversed where the mask has no key, nothing where it has one.
//!
//! The library's attack is tried on small ranges. The command knows none: what it is to reverse within seconds lies in
//! the first few thousand of a space, with which every attack begins.

use std::{
    ops::Range,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64},
    time::Duration,
};

use masq::risk::{
    self, Finding, Report,
    attack::{Effort, attack},
    space::Space,
    table,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    scene::Scene,
    support::{Database, config_of, finish, masq},
};

const SHA256: &str = r#"
accept_reversible_masks = true
[columns]
user_id          = { from = "user_id",     type = "varchar(128)", required = true, subject = true }
device_type      = { from = "device_type", type = "varchar(32)" }
masked_ip        = { from = "ip",          type = "varchar(256)", as = "ip", mask = "sha256" }
masked_device_id = { from = "device_id",   type = "bytea",        mask = "sha256" }
locale           = { from = "locale",      type = "varchar(32)" }
create_date      = { from = "create_date", type = "date", default = "sent_date" }
"#;

/// Sixty logins, each of somebody else with an address and a device of their own.
async fn filled(scene: &Scene, ip: &str, device: impl Fn(u32) -> String) {
    for number in 0..60 {
        let (locale, device) = (["DE", "FR", "NO"][number as usize % 3], device(number));
        let body = format!(
            r#"{{"user_id": "user-{number}", "device_type": "ios", "ip": "{ip}.{number}", "device_id": "{device}",
                 "locale": "{locale}", "app_version": "1.0.0"}}"#
        );
        scene.queue.inner.send(body.into_bytes());
    }
    scene.settle().await;
}

/// What the library finds with so much room to look in.
async fn assessed(scene: &Scene, spaces: &[Space], rows: u64) -> Report {
    let session = scene.database.session().await;
    let sample = table::read(&session, &scene.config, rows, &AtomicU64::new(0)).await.unwrap();
    let effort =
        Effort { time: Duration::from_secs(100), threads: 2, tried: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let outcome = attack(&risk::targets(&sample), sample.columns.len(), spaces, &effort);
    risk::assess(sample, outcome)
}

fn column<'a>(report: &'a Report, name: &str) -> &'a Finding {
    report.columns.iter().find(|column| column.name == name).unwrap()
}

fn device(number: u32) -> String {
    format!("593-47-{:04}", 5000 + number)
}

/// Values of this space with these numbers.
fn space(name: &str, range: Range<u64>) -> Space {
    Space::all().into_iter().find(|space| space.name == name).unwrap().within(range)
}

/// 10.0.0.0/20, and the half a million ids around those that are sent.
fn spaces() -> [Space; 2] {
    [space("IPv4 addresses", 0x0a00_0000..0x0a00_1000), space("ids like 000-00-0000", 593_000_000..593_500_000)]
}

#[tokio::test(flavor = "multi_thread")]
async fn sha256_hides_nothing() {
    let scene = Scene::with(config_of(SHA256)).await;
    filled(&scene, "10.0.3", device).await;
    let report = assessed(&scene, &spaces(), 1000).await;
    for name in ["masked_ip", "masked_device_id"] {
        let found = column(&report, name);
        assert_eq!((found.attacked, found.reversed), (Some(60), 60), "{name}");
        assert!(found.seconds.unwrap().graphics_card < found.seconds.unwrap().here);
    }
    let elsewhere = assessed(&scene, &[space("IPv4 addresses", 0x0a00_1000..0x0a00_2000)], 1000).await;
    assert_eq!(elsewhere.attack.reversed, [0; 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hmac_gives_nothing_away_but_who_is_alike() {
    let scene = Scene::new().await;
    filled(&scene, "10.0.3", device).await;
    let report = assessed(&scene, &spaces(), 1000).await;
    for name in ["masked_ip", "masked_device_id"] {
        let found = column(&report, name);
        assert_eq!((found.attacked, found.reversed, found.distinct), (Some(60), 0, 60), "{name}");
        assert!(found.seconds.is_none());
    }
    assert_eq!(report.attack.tried(), 0x1000 + 500_000, "everything was tried");
    assert_eq!(report.grouped_by, ["device_type", "locale", "app_version", "create_date"]);
    assert_eq!((report.groups.count, report.groups.smallest, report.groups.rows_in_small), (3, 20, 0));
    let letters: Vec<_> =
        report.columns.iter().filter_map(|column| Some((column.name.as_str(), column.identifier?.0.letter))).collect();
    assert_eq!(letters, [("user_id", 'R'), ("masked_ip", 'O'), ("masked_device_id", 'M'), ("create_date", 'C')]);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_stand_out_are_seen() {
    let scene = Scene::new().await;
    filled(&scene, "10.0.3", device).await;
    scene.database.execute("UPDATE user_logins SET locale = 'IS' WHERE user_id = 'user-7'").await;
    // Many rows of one person hide nobody.
    scene
        .database
        .execute("INSERT INTO user_logins SELECT l.* FROM user_logins l, generate_series(1, 9) WHERE locale = 'IS'")
        .await;
    let report = assessed(&scene, &spaces(), 1000).await;
    assert_eq!((report.groups.count, report.groups.smallest, report.groups.rows_in_small), (4, 1, 10));
    let found = column(&report, "masked_ip");
    assert!((found.top - 10.0 / 69.0).abs() < 1e-9, "{}", found.top);
    let said = risk::words::conclusions(&report).join("\n");
    assert!(said.contains("One value of masked_ip stands in 14 % of its rows"), "{said}");
    assert!(said.contains("fewer than 5 people for 14 % of the rows (the smallest has 1)"), "{said}");
    assert!(said.contains("not de-identified: user_id, create_date would have to go"), "{said}");
}

/// Runs the command for two seconds: exit code, stdout, stderr.
async fn command(url: &str, config: &str, more: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("masq.toml"), config).unwrap();
    let arguments = [&["risk", "--seconds", "2", "--database-url", url], more].concat();
    finish(masq(Path::new(home.path()), &arguments).into()).await
}

/// A login that may read the target table and nothing else.
async fn analyst(database: &Database, grant: &str) -> String {
    let role = format!("analyst_{}", Uuid::new_v4().simple());
    database.execute(&format!("CREATE ROLE {role} LOGIN; {}", grant.replace("analyst", &role))).await;
    database.url.replace("postgres@", &format!("{role}@"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analyst_needs_no_more_than_the_table() {
    let scene = Scene::with(config_of(SHA256)).await;
    filled(&scene, "0.0.0", |number| number.to_string()).await;
    let url = analyst(&scene.database, "GRANT SELECT ON user_logins TO analyst").await;
    let (exit, stdout, stderr) = command(&url, SHA256, &["--json"]).await;
    assert_eq!(exit, 3, "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    for column in report["columns"].as_array().unwrap() {
        let expected = if column["mask"] == "sha256" { 60 } else { 0 };
        assert_eq!(column["reversed"], expected, "{column}");
    }
    assert_eq!((&report["rows"], &report["all_rows"]), (&60.into(), &true.into()));

    let (exit, text, stderr) = command(&url, SHA256, &[]).await;
    assert_eq!(exit, 3, "{stderr}");
    assert!(text.contains("masked_ip hides nothing: 60 of 60 values were reversed"), "{text}");
    assert!(!text.contains("0.0.0.7") && !text.contains("user-7"), "no value is printed: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keyed_tokens_withstand_the_command() {
    let scene = Scene::new().await;
    filled(&scene, "0.0.0", |number| number.to_string()).await;
    let (exit, text, stderr) = command(&scene.database.url, "", &[]).await;
    assert_eq!(exit, 0, "{stderr}");
    assert!(text.contains("No value of masked_ip was reversed. Its tokens are keyed"), "{text}");
    assert!(text.contains("SHA-256 of IPv4 addresses"), "{text}");

    let plain = "UPDATE user_logins SET masked_ip = encode(sha256(user_id::bytea), 'hex')";
    if scene.database.version().await >= 11 {
        scene.database.execute(plain).await;
        let (exit, text, _) = command(&scene.database.url, "", &[]).await;
        assert!(exit == 0 && text.contains("not all of these are masq's tokens"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_that_masq_did_not_make_is_attacked_too() {
    let scene = Scene::new().await;
    filled(&scene, "0.0.0", |number| number.to_string()).await;
    scene
        .database
        .execute(
            "ALTER TABLE user_logins ADD COLUMN legacy text; UPDATE user_logins SET legacy = md5(substr(user_id, 6))",
        )
        .await;
    let (exit, text, _) = command(&scene.database.url, "", &[]).await;
    assert_eq!(exit, 3);
    assert!(text.contains("legacy hides nothing: 60 of 60 values"), "{text}");
    assert!(text.contains("No value of masked_device_id was reversed. Its tokens are keyed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_said() {
    let scene = Scene::new().await;
    let database = &scene.database;
    let (exit, _, stderr) = command(&database.url, "", &[]).await;
    assert!(exit == 78 && stderr.contains("there is no table \"user_logins\""), "{stderr}");
    scene.start().await.unwrap_or_else(|error| panic!("{error}"));
    let (exit, text, stderr) = command(&database.url, "", &[]).await;
    assert!(exit == 0 && text.contains("There are no rows, so this shows nothing."), "{text}{stderr}");
    let url = analyst(database, "GRANT SELECT ON pg_class TO analyst").await;
    let (exit, _, stderr) = command(&url, "", &[]).await;
    assert!(exit == 77 && stderr.contains("may not read \"public\".\"user_logins\": GRANT SELECT on it"), "{stderr}");
    let url = analyst(database, "GRANT SELECT (masked_ip, locale) ON user_logins TO analyst").await;
    let (exit, text, stderr) = command(&url, "", &[]).await;
    assert!(exit == 0 && text.contains("may not read user_id, device_type, masked_device_id"), "{text}{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_sampled_and_a_view_is_read() {
    let scene = Scene::new().await;
    filled(&scene, "10.0.3", device).await;
    let database = &scene.database;
    database
        .execute("INSERT INTO user_logins SELECT l.* FROM user_logins l, generate_series(1, 499); ANALYZE user_logins")
        .await;
    let report = assessed(&scene, &spaces(), 3000).await;
    assert_eq!((report.estimate, report.is_whole), (Some(30_000), false));
    assert!((1000..=3000).contains(&report.rows), "{}", report.rows);
    assert!(assessed(&scene, &spaces(), 30_001).await.is_whole);

    database.execute("ALTER TABLE user_logins RENAME TO base; CREATE VIEW user_logins AS SELECT * FROM base").await;
    let report = assessed(&scene, &spaces(), 3000).await;
    assert_eq!((report.estimate, report.is_whole, report.rows), (None, false, 3000));
}
