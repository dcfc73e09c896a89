//! `masq forget`: one person goes, with private key and old backups taken into account; whoever shares an address with
//! them stays; and a restore brings nobody back.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use masq::vault::{
    epochs::{self, Opener},
    erase::{RECENT, sweep},
    identity,
    seal::SubjectTag,
    token::Token,
};
use masq::{
    check::Severity,
    db::{catalog, targets},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    scene::Scene,
    support::{Database, Keys, config_of, connector, login, masq, until},
};

pub(crate) const WHY: [&str; 6] = ["--purpose", "ERASURE", "--ticket", "T-17", "--reason", "asked by letter of 3 May"];
pub(crate) const IP: &str = "199.172.111.135";

/// Runs `masq forget` with this on stdin. Answers exit code, stdout and stderr.
pub(crate) fn forget(scene: &Scene, url: &str, args: &[&str], stdin: &str) -> (i32, String, String) {
    let here = scene.keys.directory.path();
    let slots = scene.config.vault.slots_url.as_ref().map(|url| format!("slots_url = \"{}\"\n", as_eraser(url)));
    let slots = slots.unwrap_or_default();
    std::fs::write(here.join("masq.toml"), format!("[vault]\nerasures = \"erasures.jsonl\"\n{slots}")).unwrap();
    let mut command = masq(here, &[&["forget"], args].concat());
    command.env("DATABASE_URL", as_eraser(url)).env("MASQ_KEYS", scene.keys.path()).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Who erases is a member of masq_eraser and of nothing else.
fn as_eraser(url: &str) -> String {
    url.replace("postgres@", "eraser@")
}

/// Forgets this person, and answers the receipt.
pub(crate) fn forgotten(scene: &Scene, user: &str, more: &[&str]) -> Value {
    receipt(forget(scene, &scene.database.url, &[&WHY, more, &["--json", "-"]].concat(), &format!("{user}\n")))
}

pub(crate) fn receipt((code, out, err): (i32, String, String)) -> Value {
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

pub(crate) fn journal(scene: &Scene) -> String {
    std::fs::read_to_string(scene.keys.directory.path().join("erasures.jsonl")).unwrap()
}

/// What pg_dump writes of a database.
pub(crate) fn backup(database: &Database) -> Vec<u8> {
    let output = Command::new(program("pg_dump")).arg(&database.url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A new database out of a backup.
pub(crate) async fn restored(backup: &[u8]) -> Database {
    let database = Database::create().await;
    let mut psql = Command::new(program("psql"));
    psql.args(["-q", "-X", &database.url]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = psql.spawn().unwrap();
    child.stdin.take().unwrap().write_all(backup).unwrap();
    assert!(child.wait().unwrap().success());
    database
}

/// Beside the server that is tested, or on the PATH.
fn program(name: &str) -> PathBuf {
    let beside = std::env::var_os("MASQ_TEST_POSTGRES").map(|bin| PathBuf::from(bin).join(name));
    beside.filter(|program| program.exists()).unwrap_or_else(|| name.into())
}

/// Opens with the recovery key every entry of one database whose slot is in the other. Answers whose, and what.
async fn opened(keys: &Keys, vault: &Database, slots: &Database) -> Vec<(SubjectTag, String)> {
    let key = identity::load(&keys.path().join("recovery.key"), None).unwrap_or_else(|error| panic!("{error}"));
    let salts = "SELECT subject_tag, epoch, salt FROM masq_slots.slots";
    let salts = slots.session().await.query(salts, &[]).await.unwrap();
    let salts: HashMap<(Vec<u8>, Uuid), Vec<u8>> =
        salts.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
    let session = vault.session().await;
    let entries = "SELECT token, subject_tag, field, epoch, sealed FROM masq.entries";
    let entries = session.query(entries, &[]).await.unwrap();
    let ids: Vec<Uuid> = entries.iter().map(|row| row.get(3)).collect();
    let headers = epochs::headers(&session, &ids).await.unwrap();
    let mut opener = Opener::new(&key);
    let mut values = Vec::new();
    for row in &entries {
        let (token, subject, id): (Vec<u8>, Vec<u8>, Uuid) = (row.get(0), row.get(1), row.get(3));
        let header = headers.iter().find(|header| header.id == id).unwrap();
        let epoch = opener.epoch(header).unwrap_or_else(|error| panic!("{error}"));
        let Some(salt) = salts.get(&(subject.clone(), id)) else { continue };
        let (token, subject) = (Token(token.try_into().unwrap()), SubjectTag(subject.try_into().unwrap()));
        let slot = epoch.slot(subject, salt.as_slice().try_into().unwrap());
        let value = epoch.open_value(&slot, row.get(2), &token, row.get(4)).unwrap_or_else(|error| panic!("{error}"));
        values.push((subject, value.raw.to_string()));
    }
    values
}

/// How many values can be opened, by person.
pub(crate) async fn readable(scene: &Scene, vault: &Database, slots: &Database) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (subject, _) in opened(&scene.keys, vault, slots).await {
        let tag = |user: &&str| scene.shared.keys.subject.tag(user) == subject;
        let user = ["u", "v", "w"].into_iter().find(tag).unwrap();
        *counts.entry(user.to_owned()).or_default() += 1;
    }
    counts
}

pub(crate) fn count(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(user, count)| ((*user).to_owned(), *count)).collect()
}

/// Asks for the values of all tokens in the table as a revealer does, and answers how many entries are given.
pub(crate) async fn fetched(database: &Database) -> Result<usize, String> {
    const ASK: &str = "SELECT (masq.request_reveal('TEST', 'T-1', 'to see what is there', 'me', \
        (SELECT array_agg(DISTINCT token) FROM masq.entries))).request";
    let session = database.session().await;
    let request: i64 = session.query_one(ASK, &[]).await.unwrap().get(0);
    let entries = session.query("SELECT token FROM masq.fetch_entries($1)", &[&request]).await;
    entries.map(|rows| rows.len()).map_err(|error| error.code().unwrap().code().to_owned())
}

fn reconcile(scene: &Scene) -> (i32, String) {
    let mut command = masq(scene.keys.directory.path(), &["reconcile", "--strict"]);
    let output = command.env("DATABASE_URL", &scene.database.url).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// Two logins of u, one of v from the same address and device, and a bad one of each.
pub(crate) async fn loaded(scene: &Scene) {
    for user in ["u", "u", "v"] {
        scene.queue.inner.send(login(user, IP).into_bytes());
    }
    for user in ["u", "v"] {
        scene.queue.inner.send(login(user, "199.172.111").into_bytes());
    }
    scene.settle().await;
}

const ROWS: &str = "SELECT coalesce(user_id, '-'), left(masked_ip, 2), left(masked_device_id, 2), device_type \
                    FROM user_logins ORDER BY user_id NULLS FIRST, masked_ip";

#[tokio::test]
async fn one_person_goes_and_who_shares_the_address_stays() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    let before = restored(&backup(&scene.database)).await;
    assert_eq!(readable(&scene, &before, &before).await, count(&[("u", 2), ("v", 2)]), "the backup opens as it is");
    let v = "SELECT * FROM user_logins WHERE user_id = 'v'";
    let row_of_v = scene.database.query(v).await;

    let receipt = forgotten(&scene, "u", &[]);
    assert_eq!(receipt["rows"].as_object().unwrap().values().collect::<Vec<_>>(), [&json!(2)]);
    assert_eq!((&receipt["number"], &receipt["entries"], &receipt["letters"]), (&json!(1), &json!(2), &json!(1)));
    assert!(receipt["slots"].as_u64().unwrap() >= 1 && receipt["complete_by"].as_str().unwrap().ends_with('Z'));
    assert_eq!(receipt["not_reached"].as_array().unwrap().len(), 4);

    assert_eq!(scene.database.query(ROWS).await, ["-\t00\t00\tandroid", "-\t00\t00\tandroid", "v\t01\t01\tandroid"]);
    let tokens = "SELECT count(DISTINCT t), min(length(t)), max(length(t)) FROM user_logins, \
                  unnest(ARRAY[masked_ip, masked_device_id]) AS t WHERE t LIKE '00%'";
    assert_eq!(scene.database.query(tokens).await, ["4\t64\t64"], "no two tombstones are equal");
    assert_eq!(scene.database.query(v).await, row_of_v);
    assert_eq!(
        scene.database.query("SELECT outcome, count(*) FROM masq.ledger GROUP BY 1 ORDER BY 1").await,
        ["1\t3", "2\t1", "5\t1"]
    );
    assert_eq!(reconcile(&scene).0, 0);

    assert_eq!(readable(&scene, &scene.database, &scene.database).await, count(&[("v", 2)]));
    assert_eq!(readable(&scene, &before, &scene.database).await, count(&[("v", 2)]), "old entries, slots of now");
    assert_eq!(fetched(&scene.database).await, Ok(2));
    let again = forgotten(&scene, "u", &[]);
    assert_eq!((&again["number"], &again["entries"]), (&json!(2), &json!(0)), "nothing is left, which is no error");
}

#[tokio::test]
async fn what_was_done_is_on_the_record_and_in_the_file_and_names_nobody() {
    let scene = Scene::new().await;
    let person = "canary-7c1e";
    scene.queue.inner.send(login(person, IP).into_bytes());
    scene.settle().await;
    let tag: String = scene.shared.keys.subject.tag(person).0.iter().map(|byte| format!("{byte:02x}")).collect();
    let receipt = forgotten(&scene, person, &[]);

    let record = "SELECT action, purpose, ticket, reason, encode(items[1], 'hex') FROM masq.audit \
                  WHERE action <> 'epoch' ORDER BY seq";
    assert_eq!(
        scene.database.query(record).await,
        [
            format!("forget\tERASURE\tT-17\tasked by letter of 3 May\t{tag}"),
            format!("forgotten\tNULL\tNULL\tNULL\t{tag}"),
        ]
    );
    let deleted = "SELECT (SELECT sum((counts ->> 0)::int) || ' ' || sum((counts ->> 1)::int) \
                   FROM jsonb_each(detail::jsonb -> 'deleted') AS d (epoch, counts)) FROM masq.audit WHERE action = 'forgotten'";
    assert_eq!(scene.database.query(deleted).await, [format!("{} {}", receipt["entries"], receipt["slots"])]);

    let file = journal(&scene);
    let stages: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&stages[0]["stage"], &stages[1]["stage"], stages.len()), (&json!("asked"), &json!("done"), 2));
    assert_eq!((&stages[0]["subject"], &stages[1]["number"]), (&json!(tag), &json!(1)));
    let everything = String::from_utf8(backup(&scene.database)).unwrap() + &file;
    assert!(!everything.contains(person) && everything.contains(&tag));
}

#[tokio::test]
async fn a_dry_run_says_what_there_is_and_changes_nothing() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    scene.queue.inner.send(login("u", "203.0.113.9").into_bytes());
    scene.settle().await;
    let before = scene.database.query(ROWS).await;
    let plan = forgotten(&scene, "u", &["--dry-run"]);
    assert_eq!((&plan["tokens"], &plan["shared_tokens"]), (&json!(3), &json!(2)), "one address is theirs alone");
    assert_eq!((&plan["entries"], &plan["letters"], &plan["dry_run"]), (&json!(3), &json!(1), &json!(true)));
    assert_eq!(plan["rows"].as_object().unwrap().values().collect::<Vec<_>>(), [&json!(3)]);
    assert!(plan["slots"].as_u64().unwrap() >= 1);
    assert_eq!(scene.database.query(ROWS).await, before);
    assert!(!scene.keys.directory.path().join("erasures.jsonl").exists());
    let (code, out, _) = forget(&scene, &scene.database.url, &[&WHY[..], &["--dry-run", "u"]].concat(), "");
    assert!(code == 0 && out.contains("2 of them shared with others") && out.contains("backups"), "{out}");
}

#[tokio::test]
async fn what_is_not_asked_for_rightly_changes_nothing() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    let url = &scene.database.url;
    let refused = |args: &[&str], stdin: &str, expected: i32, words: &str| {
        let (code, _, err) = forget(&scene, url, args, stdin);
        assert!(code == expected && err.contains(words), "{code}: {err}");
    };
    let why = |purpose, reason| ["--purpose", purpose, "--ticket", "T-1", "--reason", reason, "-"];
    refused(&["-"], "u", 2, "--reason");
    refused(&why("FUN", "a long enough reason"), "u", 2, "the purpose is none of");
    refused(&why("ERASURE", "short"), "u", 2, "at least ten characters");
    refused(&[&WHY[..], &["-"]].concat(), "\n", 2, "the id of the person is empty");
    refused(&why("ERASURE", "Jane-17 asked by letter"), "jane-17", 2, "kept for good");
    refused(&[&WHY[..], &["--erasures", "/nowhere/file"]].concat(), "u", 78, "/nowhere/file");
    refused(&[&WHY[..], &["--replay", "nothing"]].concat(), "", 78, "nothing");
    let other = Keys::create();
    refused(&[&WHY[..], &["--keys", other.path().to_str().unwrap()]].concat(), "u", 78, "subject.key is not the key");
    let empty = Database::create().await;
    let (code, _, err) = forget(&scene, &empty.url, &[&WHY[..], &["-"]].concat(), "u");
    assert!(code == 78 && err.contains("no schema masq"), "{err}");
    let here = other.directory.path();
    let mut unnamed = masq(here, &[&["forget", "u"], &WHY[..]].concat());
    let output = unnamed.env("DATABASE_URL", as_eraser(url)).env("MASQ_KEYS", scene.keys.path()).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(78) && err.contains("--erasures"), "{err}");
    let kept = "SELECT count(*) FROM masq.audit WHERE reason ILIKE '%jane%'";
    assert_eq!(scene.database.query(kept).await, ["0"]);
    assert_eq!(scene.database.query("SELECT count(*) FROM masq.erasures").await, ["0"]);
    assert_eq!(scene.database.query("SELECT count(*) FROM user_logins WHERE user_id = 'u'").await, ["2"]);
}

#[tokio::test]
async fn rows_can_be_deleted_and_still_add_up() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    let receipt = forgotten(&scene, "u", &["--delete-rows"]);
    assert_eq!(receipt["rows_deleted"], json!(true));
    assert_eq!(receipt["not_reached"].as_array().unwrap().len(), 3, "no rows stay");
    let (code, out, err) = forget(&scene, &scene.database.url, &[&WHY[..], &["-"]].concat(), "nobody-17");
    assert!(code == 0 && out.contains("erasure    2") && err.contains("nothing of this person"), "{code}: {out}{err}");
    assert_eq!(scene.database.query(ROWS).await, ["v\t01\t01\tandroid"]);
    let (code, out) = reconcile(&scene);
    assert_eq!(code, 0, "{out}");
    scene.database.execute("DELETE FROM user_logins").await;
    assert_ne!(reconcile(&scene).0, 0, "what nobody accounts for is noticed");
}

#[tokio::test]
async fn markers_fit_columns_of_other_types() {
    let columns = "[columns]\nuser_id = { from = \"user_id\", type = \"char(4)\", required = true, subject = true }\n\
                   masked_ip = { from = \"ip\", type = \"bytea\", as = \"ip\", mask = \"hmac\", vault = true }\n\
                   masked_device_id = { from = \"device_id\", type = \"char(64)\", mask = \"hmac\" }\n";
    let scene = Scene::with(config_of(columns)).await;
    scene.prepare().await;
    scene.database.execute("ALTER TABLE user_logins ALTER user_id SET NOT NULL").await;
    loaded(&scene).await;
    forgotten(&scene, "u", &[]);
    let rows = "SELECT user_id, left(encode(masked_ip, 'hex'), 2), octet_length(masked_ip), left(masked_device_id, 2) \
                FROM user_logins ORDER BY user_id";
    assert_eq!(scene.database.query(rows).await, ["eras\t00\t32\t00", "eras\t00\t32\t00", "v   \t01\t32\t01"]);
}

#[tokio::test]
async fn rows_are_found_by_the_token_of_a_masked_person() {
    let columns = "[columns]\nwho = { from = \"user_id\", type = \"bytea\", mask = \"hmac\", required = true, subject = true }\n\
                   ip = { from = \"ip\", type = \"text\", mask = \"hmac\", vault = true }\n";
    let scene = Scene::with(config_of(columns)).await;
    for user in ["u", "u", "v"] {
        scene.queue.inner.send(login(user, IP).into_bytes());
    }
    scene.settle().await;
    let toml = scene.keys.directory.path().join("other.toml");
    std::fs::write(&toml, format!("[vault]\nerasures = \"erasures.jsonl\"\n{columns}")).unwrap();
    let args = [&["--config", toml.to_str().unwrap(), "--json"], &WHY[..], &["-"]].concat();
    let receipt = receipt(forget(&scene, &scene.database.url, &args, "u"));
    assert_eq!((&receipt["number"], &receipt["entries"]), (&json!(1), &json!(1)));
    let rows = "SELECT left(encode(who, 'hex'), 2), left(ip, 2) FROM user_logins ORDER BY 1";
    assert_eq!(scene.database.query(rows).await, ["00\t00", "00\t00", "01\t01"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_just_being_written_is_erased_too() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    let writer = scene.database.session().await;
    writer.batch_execute("BEGIN; INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', 'late')").await.unwrap();
    std::thread::scope(|threads| {
        let forgetting = threads.spawn(|| forgotten(&scene, "u", &[]));
        let waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'";
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                until("it waits for the writer", async || scene.database.query(waiting).await == ["t"]).await;
                writer.batch_execute("COMMIT").await.unwrap();
            });
        });
        let receipt = forgetting.join().unwrap();
        assert_eq!(receipt["rows"].as_object().unwrap().values().collect::<Vec<_>>(), [&json!(3)]);
    });
    assert_eq!(scene.database.query("SELECT count(*) FROM user_logins WHERE masked_ip = 'late'").await, ["0"]);
}

#[tokio::test]
async fn a_live_epoch_brings_nobody_back_and_a_new_one_may() {
    let scene = Scene::with(config_of("[database]\nconnections = 1\n")).await;
    let running = scene.run().await;
    for user in ["u", "v"] {
        scene.queue.inner.send(login(user, IP).into_bytes());
    }
    scene.until_empty().await;
    forgotten(&scene, "u", &[]);
    // The worker that goes on has its epoch from before. What it has sealed once it does not seal again, so: a new value.
    scene.queue.inner.send(login("u", "203.0.113.9").into_bytes());
    scene.until_empty().await;
    running.stop().await;
    assert_eq!(readable(&scene, &scene.database, &scene.database).await, count(&[("u", 1), ("v", 2)]), "it is back");
    assert_eq!(fetched(&scene.database).await, Ok(2), "and nobody gets it");
    let session = connector(&scene.database.login("worker")).connect().await.unwrap();
    assert_eq!(sweep(&session, None, RECENT).await.unwrap(), 2, "an entry and a slot");
    assert_eq!(sweep(&session, None, RECENT).await.unwrap(), 0);
    assert_eq!(readable(&scene, &scene.database, &scene.database).await, count(&[("v", 2)]));
    let recorded = "SELECT detail::jsonb -> 'deleted' <> '{}' FROM masq.audit WHERE action = 'sweep'";
    assert_eq!(scene.database.query(recorded).await, ["t"]);

    scene.queue.inner.send(login("u", IP).into_bytes());
    scene.settle().await;
    assert_eq!(sweep(&session, None, RECENT).await.unwrap(), 0, "who comes anew stays");
    assert_eq!(readable(&scene, &scene.database, &scene.database).await, count(&[("u", 2), ("v", 2)]));
    assert_eq!(fetched(&scene.database).await, Ok(4));
}

#[tokio::test]
async fn a_worker_that_may_not_describe_the_table_does_not_start_with_another_description() {
    let scene = Scene::new().await;
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    let said = "SELECT subject, masked FROM masq.targets";
    assert_eq!(
        scene.database.query(said).await,
        [
            "user_id\t[{\"field\": \"ip\", \"column\": \"masked_ip\"}, {\"field\": \"device_id\", \"column\": \"masked_device_id\"}]"
        ]
    );
    scene.database.execute("UPDATE masq.targets SET masked = '[]'").await;
    let worker = connector(&scene.database.login("worker")).connect().await.unwrap();
    let table = catalog::table(&worker, &scene.config.table).await.unwrap().unwrap();
    let findings = targets::describe(&worker, &table, &scene.config.columns).await.unwrap();
    assert!(findings.len() == 1 && findings[0].severity == Severity::Denied, "{findings:?}");
    assert!(findings[0].what.contains("masq forget") && findings[0].remedy.contains("masq migrate"), "{findings:?}");
    scene.database.prepare(&scene.config).await;
    assert!(scene.database.query(said).await[0].contains("masked_ip"), "whoever may mends it");
    assert!(targets::describe(&worker, &table, &scene.config.columns).await.unwrap().is_empty());
}
