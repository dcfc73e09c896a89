//! Recovery without masq: `tests/open_entry.py`, which shares no code with it, opens what the pipeline sealed, out of a
//! dump of the database and the key files.

use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use tokio::process::Command;

use crate::{
    scene::Scene,
    support::{Database, Keys, config_of, finish, login, python},
};

/// A pg_dump that is as new as the server, if one is installed: beside the server's programs, or on the path.
async fn pg_dump(version: u32) -> Option<PathBuf> {
    let beside = std::env::var_os("MASQ_TEST_POSTGRES").map(PathBuf::from);
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let places = beside.into_iter().chain(installed.map(|version| version.path().join("bin")));
    for program in places.map(|place| place.join("pg_dump")).chain([PathBuf::from("pg_dump")]) {
        let Ok(output) = Command::new(&program).arg("--version").output().await else { continue };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let major = said.split_whitespace().nth(2).and_then(|number| number.split('.').next()?.parse::<u32>().ok());
        if major.is_some_and(|major| major >= version) {
            return Some(program);
        }
    }
    None
}

/// What pg_dump writes of the tables that the opener reads. Where no pg_dump fits the server, COPY writes the same blocks.
async fn dump(database: &Database) -> String {
    if let Some(program) = pg_dump(database.version().await).await {
        let mut dump = Command::new(program);
        dump.arg(&database.url);
        let (exit, text, stderr) = finish(dump).await;
        assert_eq!(exit, 0, "{stderr}");
        return text;
    }
    let session = database.session().await;
    let mut text = String::new();
    for (table, columns) in [
        ("masq.epochs", "id, started_at"),
        ("masq.epoch_wraps", "epoch, recipient, wrapped"),
        ("masq.entries", "token, subject_tag, field, epoch, sealed"),
        ("masq_slots.slots", "subject_tag, epoch, salt"),
    ] {
        if database.query(&format!("SELECT to_regclass('{table}')")).await == ["NULL"] {
            continue;
        }
        let copy = format!("COPY (SELECT {columns} FROM {table}) TO STDOUT");
        let bytes: Vec<_> = session.copy_out(&copy).await.unwrap().try_collect().await.unwrap();
        text += &format!("COPY {table} ({columns}) FROM stdin;\n{}\\.\n", String::from_utf8(bytes.concat()).unwrap());
    }
    text
}

/// Runs the opener: exit code, stdout, stderr.
async fn opened(keys: &Keys, dump: &str, token: &str) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dump.sql");
    std::fs::write(&file, dump).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/open_entry.py");
    let mut command = Command::new(python());
    command.arg(script).arg(keys.path().join("recovery.key")).arg(file).arg(token).arg(keys.path().join("token.key"));
    finish(command).await
}

#[tokio::test]
async fn a_stranger_opens_every_value_with_the_recovery_key_and_a_dump() {
    let scene = Scene::new().await;
    scene.queue.inner.send(login("u", " ::ffff:199.172.111.135").into_bytes());
    scene.queue.inner.send(login("v", "199.172.111.135").into_bytes());
    scene.settle().await;
    let dump = dump(&scene.database).await;
    assert!(!dump.contains("199.172"), "the dump holds no value");

    let token = &scene.database.query("SELECT DISTINCT masked_ip FROM user_logins").await[0];
    let (exit, said, stderr) = opened(&scene.keys, &dump, token).await;
    assert_eq!(exit, 0, "{stderr}");
    let mut values: Vec<&str> = said.lines().map(|line| line.rsplit('\t').next().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, [" ::ffff:199.172.111.135", "199.172.111.135"]);

    let token = &scene.database.query("SELECT DISTINCT masked_device_id FROM user_logins").await[0];
    let (_, said, _) = opened(&scene.keys, &dump, token).await;
    assert!(said.starts_with("device_id\t") && said.ends_with("\t593-47-5928\n"), "{said}");

    let (exit, _, stderr) = opened(&scene.keys, &dump, &"01".repeat(32)).await;
    assert!(exit == 1 && stderr.contains("no entry of the dump has this token"), "{stderr}");
    let (exit, said, stderr) = opened(&Keys::create(), &dump, token).await;
    assert!(exit == 1 && said.is_empty(), "another recovery key opens nothing");
    assert!(stderr.contains("sealed to another recovery key"), "{stderr}");
    let shut = Keys::create();
    let key = shut.path().join("recovery.key");
    std::fs::remove_file(&key).unwrap();
    std::fs::write(&key, "-----BEGIN AGE ENCRYPTED FILE-----\n").unwrap();
    let (exit, _, stderr) = opened(&shut, &dump, token).await;
    assert!(exit == 1 && stderr.contains("is under a passphrase") && !stderr.contains("Traceback"), "{stderr}");
}

#[tokio::test]
async fn slots_of_another_database_are_a_second_dump() {
    let (rows, slots) = (Database::create().await, Database::create().await);
    let scene = Scene::on(rows, config_of(&format!("[vault]\nslots_url = \"{}\"\n", slots.url)));
    scene.send("u");
    scene.settle().await;
    let token = &scene.database.query("SELECT masked_ip FROM user_logins").await[0];
    let rows = dump(&scene.database).await;
    let (exit, said, _) = opened(&scene.keys, &(rows.clone() + &dump(&slots).await), token).await;
    assert!(exit == 0 && said.ends_with("\t199.172.111.135\n"), "{said}");
    let (exit, said, _) = opened(&scene.keys, &rows, token).await;
    assert!(exit == 1 && said.is_empty(), "without its slot nothing opens");
}
