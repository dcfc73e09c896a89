//! The canary test: marked values go in, all that can be forced to fail fails, every command works on what came of it,
//! and then the marks are looked for wherever something is left: PostgreSQL's files, write-ahead log and log, what the
//! programs printed at trace level, metrics, readiness, the files they wrote, core dumps, arguments that others can see.

mod bodies;
mod marks;
mod stage;

use std::{collections::BTreeSet, fs, os::unix::process::ExitStatusExt, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use masq::event::Reason;
use rustix::process::{Pid, Signal, kill_process};

use self::{
    bodies::{ADDRESS, ADDRESS_6, DEVICE, bad_ones, good, good_ones},
    marks::{Hit, Hunt, Mark, proven},
    stage::{Stage, abort},
};
use crate::support::until;

const REASON: [&str; 2] = ["--reason", "the canary test, ticket 4711"];
const WHY: [&str; 6] = ["--purpose", "FRAUD", "--ticket", "T-17", "--reason", "many accounts, one device"];
/// The age project's own test recipient.
const RECIPIENT: &str = "age1xmwwc06ly3ee5rytxm9mflaz2u56jjj36s0mypdrwsvlul66mv4q47ryef";

#[tokio::test(flavor = "multi_thread")]
async fn no_mark_is_left_anywhere() {
    let mut stage = Stage::build().await;
    let hunt = hunt(&stage);
    load(&mut stage).await;
    look_up(&mut stage).await;
    erase_and_rotate(&mut stage).await;
    tables(&stage, "said/tables").await;
    stage.stop().await;
    let hits = proven(searched(&stage, &hunt));
    assert!(hits.is_empty(), "{} marks are left: {:#?}", hits.len(), &hits[..hits.len().min(10)]);

    // Where it would be found.
    stage.start().await;
    plant(&stage).await;
    stage.stop().await;
    let hits = searched(&stage, &hunt);
    let places: BTreeSet<&str> = hits.iter().filter(|hit| hit.mark == ADDRESS).map(|hit| hit.place.as_str()).collect();
    for planted in ["cluster/data/base", "cluster/data/pg_wal", "cluster/log", "here/core", "said/planted"] {
        assert!(places.iter().any(|place| place.starts_with(planted)), "{planted}: {places:?}");
    }
    let forms: BTreeSet<&str> = hits.iter().filter(|hit| hit.mark == ADDRESS).map(|hit| hit.form).collect();
    assert!(forms.is_superset(&["text", "octets", "hex", "base64", "UTF-16LE"].into()), "{forms:?}");
}

/// The marked values, and the keys.
fn hunt(stage: &Stage) -> Hunt {
    let mut all = bodies::marks();
    for file in ["token.key", "subject.key"] {
        let text = fs::read_to_string(stage.key_file(file)).unwrap();
        all.push(Mark::key(file, &BASE64_STANDARD.decode(text.lines().last().unwrap()).unwrap()));
    }
    let text = fs::read_to_string(stage.key_file("recovery.key")).unwrap();
    all.push(Mark::text(&text.lines().last().unwrap().to_lowercase()));
    Hunt::new(&all)
}

/// Messages of every kind, past a crash of PostgreSQL, an abort of the worker, and a table that is taken away.
async fn load(stage: &mut Stage) {
    for body in good_ones() {
        stage.queue.send(body.into_bytes());
    }
    let worker = stage.worker(&[]);
    stage.until_settled().await;
    drop(stage.hold_up(&good("while-postgres-crashed")).await);
    let held = stage.hold_up(&good("while-postgres-crashed")).await;
    stage.crash().await;
    drop(held);
    stage.until_settled().await;
    let held = stage.hold_up(&good("while-the-worker-died")).await;
    let status = abort(worker).await;
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::ABORT.as_raw()), false));
    drop(held);

    let (reasons, bodies): (Vec<_>, Vec<_>) = bad_ones().into_iter().unzip();
    // Between good ones, since a table that takes nothing is no reason to refuse a message.
    for body in bodies {
        stage.queue.send(body);
        stage.queue.send(good("beside-bad-ones").into_bytes());
    }
    let mut worker = stage.worker(&[]);
    stage.until_settled().await;
    stage.database.execute("ALTER TABLE user_logins RENAME COLUMN device_type TO gone").await;
    stage.queue.send(good("while-a-column-was-gone").into_bytes());
    until("it is not ready", async || stage.ask("/readyz").await.contains("42703")).await;
    stage.database.execute("ALTER TABLE user_logins RENAME COLUMN gone TO device_type").await;
    stage.until_settled().await;
    assert!(stage.ask("/metrics").await.contains("masq_messages_dead_lettered_total"));
    kill_process(Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert!(worker.wait().await.unwrap().success());

    let dead = "SELECT DISTINCT split_part(reason, ':', 1) FROM masq.dead_letters";
    let dead: BTreeSet<String> = stage.database.query(dead).await.into_iter().collect();
    let expected: BTreeSet<String> =
        reasons.iter().filter(|&&reason| reason != "row").map(|&reason| reason.to_owned()).collect();
    assert_eq!(dead, expected);
    // empty_body, poison_receive_count and older_than_ledger say nothing about what a message holds.
    assert_eq!(dead.len() + 3, Reason::KINDS.len());
}

/// Values to tokens, tokens to values, dead letters to bodies; and what must be refused without repeating it.
async fn look_up(stage: &mut Stage) {
    let identity = stage.key_file("recovery.key");
    let identity = ["--identity", identity.as_str()];
    let find = ["find", "--field", "ip", "-"];
    let (code, token) = stage.masq("revealer", &find, ADDRESS, "said");
    assert_eq!(code, 0, "{}", stage.complaint());
    let token = token.trim();
    for (field, values, expected) in
        [("ip", ADDRESS_6, 0), ("device_id", DEVICE, 0), ("ip", "203.0.113.77.canary-body", 2)]
    {
        let (code, _) = stage.masq("revealer", &["find", "--field", field, "-"], values, "said");
        assert_eq!(code, expected, "{}", stage.complaint());
    }
    let reveal = [&["reveal", token][..], &identity, &WHY].concat();
    let (code, value) = stage.masq("revealer", &[&reveal[..], &["--plain-output-i-know"]].concat(), "", "revealed");
    assert!(code == 0 && value.contains(ADDRESS), "{}", stage.complaint());
    let sealed = [&reveal[..], &["--recipient", RECIPIENT, "--output", "values.age"]].concat();
    let (code, _) = stage.masq("revealer", &sealed, "", "said");
    assert_eq!(code, 0, "{}", stage.complaint());

    let id = "SELECT message_id FROM masq.dead_letters WHERE reason LIKE 'bad_ip%'";
    let id = stage.database.query(id).await.remove(0);
    let (code, body) = stage.masq(
        "operator",
        &[&["dead", "show", &id, "--plain-output-i-know"][..], &identity, &REASON].concat(),
        "",
        "revealed",
    );
    assert!(code == 0 && body.contains(ADDRESS), "{}", stage.complaint());
    let replay = [&["dead", "replay", "--all"][..], &identity, &REASON].concat();
    let again = format!("{}\n{}\n{}\n", good("sent"), r#"{"canary-body": "canary-user"}"#, "canary-body");
    for (login, args, stdin, expected) in [
        ("operator", &["dead", "list"][..], "", 0),
        ("operator", &["dead", "list", "--all", "--json"], "", 0),
        ("operator", &replay, "", 3),
        ("operator", &["dead", "purge", "--older-than", "1d", "--yes"], "", 0),
        ("operator", &["reconcile"], "", 0),
        ("worker", &["preview", "-"], &again, 0),
        ("worker", &["preview", "-", "--json"], &again, 0),
        ("worker", &["send", "-"], &again, 0),
        ("analyst", &["risk", "--seconds", "2"], "", 0),
    ] {
        let (code, out) = stage.masq(login, args, stdin, "said");
        assert_eq!(code, expected, "{args:?}: {out}{}", stage.complaint());
    }

    // A value that is not the one that was sealed is an alarm.
    let first = format!(
        "token = '\\x{token}' AND subject_tag = (SELECT subject_tag FROM masq.entries WHERE token = '\\x{token}' ORDER BY 1 LIMIT 1)"
    );
    let forge =
        format!("UPDATE masq.entries SET sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) WHERE {first}");
    stage.database.execute(&forge).await;
    let (code, _) = stage.masq("revealer", &[&reveal[..], &["--plain-output-i-know"]].concat(), "", "revealed");
    assert!(code == 3 && stage.complaint().contains("ALARM"), "{}", stage.complaint());
}

async fn erase_and_rotate(stage: &mut Stage) {
    let identity = stage.key_file("recovery.key");
    let forget = ["--purpose", "ERASURE", "--ticket", "T-18", "--reason", "asked by letter of 3 May", "-"];
    for more in [&["forget", "--dry-run"][..], &["forget", "--json"], &["forget", "--delete-rows"]] {
        let (code, _) = stage.masq("eraser", &[more, &forget].concat(), "good-1\n", "said");
        assert_eq!(code, 0, "{}", stage.complaint());
    }
    // What workers still write is left for later.
    stage.database.execute("UPDATE masq.epochs SET recorded_at = recorded_at - interval '1 hour'").await;
    let rotate = ["keys", "rotate", "--token"];
    for more in [&[][..], &[], &["--identity", identity.as_str()]] {
        let (code, _) = stage.masq("operator", &[&rotate, more, &REASON].concat(), "", "said");
        assert!([0, 3].contains(&code), "{}", stage.complaint());
    }
    for args in [&["audit", "list", "--json"][..], &["audit", "checkpoint"], &["audit", "verify"]] {
        let (code, _) = stage.masq("auditor", args, "", "said");
        assert_eq!(code, 0, "{args:?} {}", stage.complaint());
    }
}

/// What PostgreSQL answers of all tables: in its files a long value may be compressed.
async fn tables(stage: &Stage, file: &str) {
    let all = "SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p') AND (n.nspname LIKE 'masq%' OR n.nspname = 'public')";
    let mut text = String::new();
    for table in stage.database.query(all).await {
        text += &stage.database.query(&format!("SELECT row_to_json(t)::text FROM {table} t")).await.join("\n");
    }
    assert!(text.contains("masked_device_id"));
    fs::write(stage.path(file), text).unwrap();
}

/// All files but those in which a value was asked for.
fn searched(stage: &Stage, hunt: &Hunt) -> Vec<Hit> {
    let root = stage.directory.path();
    let files = ["cluster", "here", "said"].into_iter().flat_map(|name| files(&root.join(name)));
    let place = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    files.flat_map(|path| hunt.hits(&place(&path), &fs::read(&path).unwrap())).collect()
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let each = |entry: fs::DirEntry| {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() { files(&entry.path()) } else { kind.is_file().then(|| entry.path()).into_iter().collect() }
    };
    entries.flat_map(each).collect()
}

/// One address, in a column, in a statement, in a file beside a program and in what it printed.
async fn plant(stage: &Stage) {
    let sql = format!(
        "INSERT INTO user_logins (user_id, network) VALUES ('{}', '{ADDRESS}')",
        BASE64_STANDARD.encode(ADDRESS)
    );
    stage.database.execute(&sql).await;
    fs::write(stage.path("here/core"), [&[0; 5000][..], &[203, 0, 113, 77]].concat()).unwrap();
    let hex: String = ADDRESS.bytes().map(|byte| format!("{byte:02x}")).collect();
    fs::write(stage.path("said/planted.hex"), hex).unwrap();
    let wide: Vec<u8> = ADDRESS.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(stage.path("said/planted.utf16"), wide).unwrap();
}
