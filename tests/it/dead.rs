//! `masq dead`: what is listed, what it takes to open a letter, and what stays on the record.

use std::process::Output;

use base64::{Engine, prelude::BASE64_STANDARD};
use masq::vault::keyring;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    scene::Scene,
    support::{Database, Keys, login, masq, shared},
};

/// No JSON, no UTF-8, an escape for terminals, and line ends that somebody might trim.
const ODD: &[u8] = b"\n {\"ip\": \x1b[2J\xff 199.172.111.135\r\n\n";

/// A database with the dead letters of these messages.
async fn loaded(keys: &Keys, bodies: &[&[u8]]) -> Database {
    let scene = Scene { shared: shared(keys), ..Scene::new().await };
    for body in bodies {
        scene.queue.inner.send(body.to_vec());
    }
    scene.settle().await;
    scene.database
}

/// Calls `masq dead` and answers exit code, stdout and stderr.
fn dead(database: &Database, args: &[&str]) -> (i32, Vec<u8>, String) {
    let here = TempDir::new().unwrap();
    let mut command = masq(here.path(), &[&["dead"], args].concat());
    let Output { status, stdout, stderr } = command.env("DATABASE_URL", database.login("operator")).output().unwrap();
    (status.code().unwrap(), stdout, String::from_utf8(stderr).unwrap())
}

fn text((code, out, err): (i32, Vec<u8>, String)) -> String {
    assert_eq!(code, 0, "{err}");
    String::from_utf8(out).unwrap()
}

fn json(answer: (i32, Vec<u8>, String)) -> Value {
    serde_json::from_str(&text(answer)).unwrap()
}

/// Opens the letter with this id and gives a reason.
fn show(database: &Database, keys: &Keys, id: &str, more: &[&str]) -> (i32, Vec<u8>, String) {
    let identity = keys.path().join("recovery.key");
    let args =
        ["show", id, "--identity", identity.to_str().unwrap(), "--reason", "ticket 4711", "--plain-output-i-know"];
    dead(database, &[&args, more].concat())
}

async fn openings(database: &Database) -> Vec<String> {
    database
        .query(
            "SELECT encode(substr(items[1], 9), 'hex')::uuid, reason, login = 'operator', claimed <> '' \
             FROM masq.audit WHERE action = 'open' ORDER BY seq",
        )
        .await
}

async fn only_id(database: &Database) -> String {
    database.query("SELECT message_id FROM masq.dead_letters").await.remove(0)
}

#[tokio::test]
async fn letters_are_counted_by_reason_and_listed_without_their_bodies() {
    let bad = login("u1", "199.172.111");
    let database = loaded(
        &Keys::create(),
        &[login("u0", "199.172.111.135").as_bytes(), bad.as_bytes(), bad.as_bytes(), br#"{"foo": "oops_wrong"}"#],
    )
    .await;

    let table = text(dead(&database, &["list"]));
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["newest", "oldest", "letters", "reason"]);
    let mut counts: Vec<_> = lines[1..].iter().map(|line| (line[2], line[3])).collect();
    counts.sort_unstable();
    assert_eq!(counts, [("1", "unknown_message_type"), ("2", "bad_ip:ip")]);
    let counted = json(dead(&database, &["list", "--json"]));
    assert_eq!(counted.as_array().unwrap().len(), 2);
    assert!(counted[0]["newest"].as_str().unwrap().ends_with('Z'), "{counted}");

    for code in ["bad_ip", "bad_ip:ip"] {
        let listed = json(dead(&database, &["list", "--code", code, "--json"]));
        assert_eq!(listed.as_array().unwrap().len(), 2);
        let (id, bytes) = (listed[0]["message_id"].as_str().unwrap(), listed[0]["body_bytes"].as_u64().unwrap());
        assert_eq!((bytes, &listed[0]["queue"]), (bad.len() as u64, &"login-queue".into()));
        assert!(text(dead(&database, &["list", "--code", code])).contains(id));
    }
    assert_eq!(json(dead(&database, &["list", "--code", "bad_ip:device_id", "--json"])), Value::Array(vec![]));
    let (_, _, said) = dead(&database, &["list", "--code", "not_json"]);
    assert_eq!(said, "No dead letters.\n");

    let (code, out, said) = dead(&database, &["list", "--all", "--limit", "2"]);
    assert_eq!((code, String::from_utf8(out).unwrap().lines().count()), (0, 3));
    assert!(said.contains("--limit lists more than 2"), "{said}");
    let everything = text(dead(&database, &["list", "--all"]));
    assert!(!everything.contains("199.172.111") && !everything.contains("oops"), "{everything}");
    assert_eq!(everything.lines().count(), 4);
    assert!(openings(&database).await.is_empty(), "a look from outside is no opening");

    let (code, _, said) = dead(&database, &["list", "--code", "bad_ipp"]);
    assert!(code == 2 && said.contains("bad_ip,"), "{said}");
}

#[tokio::test]
async fn a_letter_opens_byte_for_byte_and_leaves_one_record() {
    let keys = Keys::create();
    let database = loaded(&keys, &[ODD]).await;
    let id = only_id(&database).await;

    let identity = keys.path().join("recovery.key");
    let piped = ["show", &id, "--identity", identity.to_str().unwrap(), "--reason", "ticket 4711"];
    for more in [&[][..], &["--json"]] {
        let (code, body, said) = dead(&database, &[&piped[..], more].concat());
        assert!(code == 2 && body.is_empty() && said.contains("--plain-output-i-know"), "{said}");
    }
    assert!(openings(&database).await.is_empty(), "nothing was opened for a pipe");

    let (code, body, said) = show(&database, &keys, &id, &[]);
    assert_eq!((code, body.as_slice()), (0, ODD), "{said}");
    assert!(said.contains(&id) && said.contains("invalid_unicode") && said.contains("ticket 4711"), "{said}");
    assert!(!said.contains("199.172"), "{said}");
    assert_eq!(openings(&database).await, [format!("{id}\tticket 4711\tt\tt")]);

    let shown = json(show(&database, &keys, &id, &["--json"]));
    assert_eq!(BASE64_STANDARD.decode(shown["body_base64"].as_str().unwrap()).unwrap(), ODD);
    assert_eq!((&shown["message_id"], &shown["body_bytes"]), (&Value::from(id), &ODD.len().into()));
    assert_eq!(openings(&database).await.len(), 2);
}

#[tokio::test]
async fn another_recovery_key_opens_nothing_and_is_on_the_record() {
    let (keys, other) = (Keys::create(), Keys::create());
    let database = loaded(&keys, &[ODD]).await;
    let id = only_id(&database).await;
    let (code, out, said) = show(&database, &other, &id, &[]);
    assert_eq!((code, out.as_slice()), (78, &[][..]));
    for keys in [&keys, &other] {
        let fingerprint: String = keys.load().fingerprints()[0].iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(said.contains(&fingerprint), "{said}");
    }
    assert_eq!(openings(&database).await, [format!("{id}\tticket 4711\tt\tt")]);
}

#[tokio::test]
async fn changed_bytes_do_not_open_and_are_on_the_record() {
    let keys = Keys::create();
    let database = loaded(&keys, &[ODD]).await;
    let id = only_id(&database).await;
    database.execute("UPDATE masq.dead_letters SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)").await;
    let (code, out, said) = show(&database, &keys, &id, &[]);
    assert_eq!((code, out.as_slice()), (78, &[][..]));
    assert!(said.contains("were changed") && said.contains("backup"), "{said}");
    assert_eq!(openings(&database).await.len(), 1);
}

#[tokio::test]
async fn what_is_not_asked_for_rightly_leaves_no_record() {
    let keys = Keys::create();
    let database = loaded(&keys, &[ODD]).await;
    let id = only_id(&database).await;
    let identity = keys.path().join("recovery.key");
    for blank in ["", "  \t"] {
        let (code, _, said) =
            dead(&database, &["show", &id, "--identity", identity.to_str().unwrap(), "--reason", blank]);
        assert!(code == 2 && said.contains("say why"), "{said}");
    }
    let (code, _, said) = dead(&database, &["show", &id, "--identity", identity.to_str().unwrap()]);
    assert!(code == 2 && said.contains("--reason"), "{said}");
    let (code, _, said) = show(&database, &keys, "123", &[]);
    assert!(code == 2 && said.contains("expected a UUID") && said.contains("list --all"), "{said}");
    let (code, _, said) = show(&database, &keys, "11111111-2222-3333-4444-555555555555", &[]);
    assert!(code == 2 && said.contains("no dead letter of a message 11111111") && said.contains("list"), "{said}");
    for no_key in [keys.path().join("nokey"), keys.path(), keys.path().join("token.key")] {
        let (code, _, said) = dead(
            &database,
            &["show", &id, "--identity", no_key.to_str().unwrap(), "--reason", "ticket 4711", "--plain-output-i-know"],
        );
        assert_eq!(code, 78, "{said}");
    }
    assert!(openings(&database).await.is_empty());
}

#[tokio::test]
async fn two_letters_of_one_id_are_told_apart_by_when_they_were_sent() {
    let keys = Keys::create();
    let database = loaded(&keys, &[ODD]).await;
    let id = only_id(&database).await;
    database
        .execute(
            "INSERT INTO masq.dead_letters SELECT '1970-01-01Z', message_id, reason, queue, recorded_at, \
             receive_count, body_bytes, epoch, sealed, subject_tag FROM masq.dead_letters",
        )
        .await;
    let (code, _, said) = show(&database, &keys, &id, &[]);
    assert!(code == 2 && said.contains("--sent-at 1970-01-01T00:00:00.000Z or --sent-at 2"), "{said}");
    assert!(openings(&database).await.is_empty());

    let listed = json(dead(&database, &["list", "--all", "--json"]));
    let sent = listed.as_array().unwrap().iter().map(|letter| letter["sent_at"].as_str().unwrap()).max().unwrap();
    let (code, body, said) = show(&database, &keys, &id, &["--sent-at", sent]);
    assert_eq!((code, body.as_slice()), (0, ODD), "{said}");
}

#[tokio::test]
async fn a_passphrase_is_needed_where_there_is_one() {
    let directory = TempDir::new().unwrap();
    keyring::create(&directory.path().join("keys"), Some("correct horse")).unwrap();
    let keys = Keys { directory };
    let database = loaded(&keys, &[ODD]).await;
    let id = only_id(&database).await;

    let (code, _, said) = show(&database, &keys, &id, &[]);
    assert!(code == 2 && said.contains("--passphrase-file"), "{said}");
    let file = keys.directory.path().join("phrase");
    let with = ["--passphrase-file", file.to_str().unwrap()];
    std::fs::write(&file, "battery staple\n").unwrap();
    let (code, _, said) = show(&database, &keys, &id, &with);
    assert!(code == 77 && said.contains("the passphrase is not the one"), "{said}");
    std::fs::write(&file, "correct horse\n").unwrap();
    let (code, body, said) = show(&database, &keys, &id, &with);
    assert_eq!((code, body.as_slice()), (0, ODD), "{said}");
    assert_eq!(openings(&database).await.len(), 1, "what did not unlock the key was no attempt at the letter");
}

#[tokio::test]
async fn a_database_without_the_schema_has_no_dead_letters() {
    let database = Database::create().await;
    for (code, out, said) in
        [dead(&database, &["list"]), show(&database, &Keys::create(), "11111111-2222-3333-4444-555555555555", &[])]
    {
        assert_eq!((code, out.as_slice()), (78, &[][..]));
        assert!(said.contains("no schema masq") && said.contains("masq migrate"), "{said}");
    }
}
