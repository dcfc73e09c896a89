//! `masq audit`: a log that was made by the real pipeline and commands, then changed in every way in which the owner of its
//! database can change it.

mod checkpoints;
mod unanswered;

use std::{path::PathBuf, process::Output};

use masq::vault::audit::{export, leaf::Entry};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    scene::Scene,
    support::{Database, Keys, config_of, finish, login, masq, python},
};

/// A database with a log, the keys it was written with, and a directory with what was taken out of it.
struct Log {
    database: Database,
    keys: Keys,
    here: TempDir,
}

impl Log {
    /// Rows, dead letters and their epoch from the pipeline, then what people asked for.
    async fn create() -> Self {
        let scene = Scene::new().await;
        scene.send_many(3);
        scene.queue.inner.send(br#"{"foo": "oops_wrong_msg_type"}"#.to_vec());
        scene.queue.inner.send(login("u9", "199.172.111").into_bytes());
        scene.settle().await;
        let log = Self { database: scene.database, keys: scene.keys, here: TempDir::new().unwrap() };
        log.ask().await;
        log
    }

    /// Every kind of entry that this needs no other command for, with all that a field can hold.
    async fn ask(&self) {
        self.database
            .execute(
                "SELECT masq.found('jané \"j\" doe', NULL, 'ip', ARRAY['\\x01'::bytea, NULL, ''::bytea]);
                 SELECT masq.request_reveal('TEST', 'T-1', E'why not\\nask twice', 'jane', ARRAY[decode(repeat('01', 32), 'hex')])",
            )
            .await;
        let request = self.database.query("SELECT max(seq) FROM masq.audit").await.remove(0);
        self.database
            .execute(&format!(
                "SELECT masq.revealed({request}, 'jane', 0, 1, 0); SELECT masq.found('jane', 'a reason', 'ip', '{{}}')"
            ))
            .await;
    }

    /// Runs `masq audit` and answers exit code, stdout and stderr.
    fn audit(&self, args: &[&str]) -> (i32, String, String) {
        let keys = self.keys.path();
        let mut command = masq(self.here.path(), &[&["audit"], args].concat());
        let Output { status, stdout, stderr } =
            command.env("DATABASE_URL", &self.database.url).env("MASQ_KEYS", &keys).output().unwrap();
        (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    /// Signs a checkpoint into the file that all these tests use.
    fn sign(&self) -> String {
        let (code, note, said) = self.audit(&["checkpoint", "--append", "checkpoints"]);
        assert_eq!(code, 0, "{said}");
        note
    }

    /// Verifies, and answers what was found: code and entry, without notes.
    fn findings(&self, args: &[&str]) -> Vec<(String, Option<i64>)> {
        let (code, out, said) = self.audit(&[&["verify", "--json"], args].concat());
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out} {said}"));
        let all = report["findings"].as_array().unwrap();
        let broken = all.iter().filter(|finding| finding["result"] == "broken");
        let broken: Vec<_> =
            broken.map(|finding| (finding["code"].as_str().unwrap().to_owned(), finding["entry"].as_i64())).collect();
        assert_eq!((code, report["whole"].as_bool().unwrap()), if broken.is_empty() { (0, true) } else { (3, false) });
        broken
    }

    async fn size(&self) -> i64 {
        self.database.query("SELECT size FROM masq.audit_head").await[0].parse().unwrap()
    }

    /// As the owner of the table: does this, and then makes all hashes, the head and the numbers anew.
    async fn rewrite(&self, sql: &str) {
        self.database
            .execute(&format!(
                "BEGIN; {sql}; CREATE TEMP TABLE kept AS SELECT * FROM masq.audit ORDER BY seq;
                 DELETE FROM masq.audit; UPDATE masq.audit_head SET size = 0, hash = decode(repeat('00', 32), 'hex'), peaks = '{{}}';
                 DO $$
                 DECLARE k kept; e masq.audit; head masq.audit_head; node bytea; bits bigint;
                 BEGIN
                   FOR k IN SELECT * FROM kept ORDER BY seq LOOP
                     e := k;
                     SELECT * INTO head FROM masq.audit_head;
                     e.seq := head.size + 1; e.prev := head.hash;
                     e.hash := masq.sha256('\\x00'::bytea || masq.leaf(e));
                     INSERT INTO masq.audit SELECT (e).*;
                     node := e.hash; bits := head.size;
                     WHILE bits & 1 = 1 LOOP
                       node := masq.sha256('\\x01'::bytea || head.peaks[cardinality(head.peaks)] || node);
                       head.peaks := head.peaks[1 : cardinality(head.peaks) - 1];
                       bits := bits >> 1;
                     END LOOP;
                     UPDATE masq.audit_head SET size = e.seq, hash = e.hash, peaks = head.peaks || node;
                   END LOOP;
                 END $$; COMMIT"
            ))
            .await;
    }
}

fn broken(code: &str, entry: i64) -> Vec<(String, Option<i64>)> {
    vec![(code.to_owned(), Some(entry))]
}

#[tokio::test]
async fn a_log_is_whole_here_and_in_a_file_and_its_hashes_are_those_of_sql() {
    let log = Log::create().await;
    let note = log.sign();
    assert!(note.starts_with("masq-audit/") && note.contains(&format!("\n{}\n", log.size().await)), "{note}");
    assert_eq!(std::fs::read_to_string(log.path("checkpoints")).unwrap().trim_start(), note);

    let (code, out, said) = log.audit(&["verify", "--checkpoint", "checkpoints"]);
    assert_eq!(code, 0, "{out}{said}");
    let size = log.size().await;
    assert!(out.contains(&format!("ok      {size} entries")), "{out}");
    assert!(out.contains(&format!("entries 1 to {size} are those that the latest of 1 checkpoints")), "{out}");
    let (_, out, _) = log.audit(&["verify"]);
    assert!(out.contains("note    there is no signed checkpoint"), "{out}");

    let (_, exported, _) = log.audit(&["list", "--json"]);
    std::fs::write(log.path("log.jsonl"), &exported).unwrap();
    let entries: Vec<Entry> = exported.lines().map(|line| export::read(line).unwrap()).collect();
    assert_eq!(entries.len() as i64, size);
    for entry in &entries {
        assert_eq!(entry.leaf_hash(), entry.hash, "{entry:?}");
    }
    let key = log.keys.path().join("audit.pub");
    let offline = ["--exported", "log.jsonl", "--checkpoint", "checkpoints", "--public-key", key.to_str().unwrap()];
    let mut elsewhere = masq(log.here.path(), &[&["audit", "verify"], &offline[..]].concat());
    let output = elsewhere.output().unwrap();
    assert!(
        output.status.success(),
        "neither database nor keys are needed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `tests/verify_log.py` shares no code with masq.
#[tokio::test]
async fn a_stranger_verifies_it_without_masq() {
    let log = Log::create().await;
    log.sign();
    log.ask().await;
    log.sign();
    let (_, exported, _) = log.audit(&["list", "--json"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify_log.py");
    let key = log.keys.path().join("audit.pub");
    let verify = async |exported: &str, checkpoints: &str| {
        std::fs::write(log.path("log.jsonl"), exported).unwrap();
        std::fs::write(log.path("signed"), checkpoints).unwrap();
        let mut command = tokio::process::Command::new(python());
        command.arg(script).arg(log.path("log.jsonl")).arg(&key).arg(log.path("signed"));
        let (code, out, said) = finish(command).await;
        (code, out + &said)
    };
    let checkpoints = std::fs::read_to_string(log.path("checkpoints")).unwrap();
    let cut_off = format!("{}{checkpoints}", &checkpoints[..60]);
    let size = log.size().await;
    for checkpoints in [&checkpoints, &cut_off] {
        assert_eq!(verify(&exported, checkpoints).await, (0, format!("whole: {size} entries, 2 checkpoints\n")));
    }
    let lines: Vec<&str> = exported.lines().collect();
    let last = lines.len() - 1;
    for (changed, word) in [
        (exported.replace(r#"shown\": 0"#, r#"shown\": 1"#), "was changed"),
        (exported.replace(r#"["01",null,""]"#, r#"["01","",""]"#), "was changed"),
        (exported.replace(lines[2], ""), "where entry 3 should be"),
        (lines[..last].join("\n"), "not the one of which a checkpoint"),
    ] {
        assert_ne!(changed, exported, "{word}");
        let (code, said) = verify(&changed, &checkpoints).await;
        assert!(code == 1 && said.contains(word), "{word}: {said}");
    }
    let (code, said) = verify(&exported, &checkpoints.replace(&format!("\n{size}\n"), "\n1\n")).await;
    assert!(code == 1 && said.contains("not what this key has signed"), "{said}");
}

#[tokio::test]
async fn an_edited_entry_is_found() {
    let log = Log::create().await;
    log.sign();
    for (seq, change) in [
        (1, "at = at + interval '1 microsecond'"),
        (2, "claimed = 'nobody'"),
        (2, "items = items[1:2]"),
        (3, "reason = NULL"),
        (3, "items = ARRAY[items, items]"),
        (3, "login = 'nobody', hash = '\\x00'"),
        (4, "request = 2"),
        (5, "detail = '{}'"),
    ] {
        let save = format!("CREATE TABLE saved AS SELECT * FROM masq.audit WHERE seq = {seq}");
        log.database.execute(&format!("{save}; UPDATE masq.audit SET {change} WHERE seq = {seq}")).await;
        assert_eq!(log.findings(&["--checkpoint", "checkpoints"]), broken("changed", seq), "{change}");
        let restore =
            format!("DELETE FROM masq.audit WHERE seq = {seq}; INSERT INTO masq.audit TABLE saved; DROP TABLE saved");
        log.database.execute(&restore).await;
    }
    assert_eq!(log.findings(&["--checkpoint", "checkpoints"]), []);
}

#[tokio::test]
async fn a_deleted_entry_is_found() {
    let log = Log::create().await;
    log.database.execute("DELETE FROM masq.audit WHERE seq = 3").await;
    assert_eq!(log.findings(&[]), broken("missing", 3));
    log.database.execute("DELETE FROM masq.audit WHERE seq < 3").await;
    assert_eq!(log.findings(&[]), broken("missing", 1));
}

#[tokio::test]
async fn a_reordered_entry_is_found() {
    let log = Log::create().await;
    log.database
        .execute(
            "UPDATE masq.audit SET seq = -seq WHERE seq IN (2, 3);
             UPDATE masq.audit SET seq = CASE seq WHEN -2 THEN 3 ELSE 2 END WHERE seq < 0",
        )
        .await;
    let found = log.findings(&[]);
    for entry in [2, 3] {
        assert!(found.contains(&("changed".to_owned(), Some(entry))), "{found:?}");
    }
}

#[tokio::test]
async fn a_truncated_log_is_found() {
    let log = Log::create().await;
    log.sign();
    let last = log.size().await;
    log.database.execute(&format!("DELETE FROM masq.audit WHERE seq = {last}")).await;
    assert_eq!(log.findings(&[]), broken("truncated", last));
    // The head cut off with it: only what was signed knows.
    log.rewrite("SELECT").await;
    assert_eq!(log.findings(&[]), []);
    assert_eq!(log.findings(&["--checkpoint", "checkpoints"]), broken("truncated", last));
}

#[tokio::test]
async fn what_was_changed_with_all_hashes_is_found_by_a_checkpoint_alone() {
    let log = Log::create().await;
    let first = log.size().await;
    log.sign();
    log.ask().await;
    log.sign();
    log.rewrite(&format!("UPDATE masq.audit SET reason = 'nothing of interest' WHERE seq = {}", first + 2)).await;
    assert_eq!(log.findings(&[]), []);
    assert_eq!(log.findings(&["--checkpoint", "checkpoints"]), broken("rewritten", first + 1));
    log.rewrite("DELETE FROM masq.audit WHERE seq = 2").await;
    assert_eq!(log.findings(&["--checkpoint", "checkpoints"])[0], ("rewritten".to_owned(), Some(1)));
}

#[tokio::test]
async fn rows_of_the_vault_that_vanish_are_found() {
    let log = Log::create().await;
    let closed = log.database.query("SELECT seq, detail FROM masq.audit WHERE action = 'epoch'").await;
    let [closed] = closed.as_slice() else { panic!("{closed:?}") };
    let (seq, detail) = closed.split_once('\t').unwrap();
    let seq: i64 = seq.parse().unwrap();
    assert_eq!(detail, r#"{"entries": 6, "slots": 3, "letters": 2}"#);
    assert_eq!(log.findings(&[]), []);

    let one = |table: &str| format!("DELETE FROM {table} WHERE ctid = (SELECT min(ctid::text)::tid FROM {table})");
    for table in ["masq.entries", "masq_slots.slots", "masq.dead_letters"] {
        let partition = log.database.query(&format!("SELECT tableoid::regclass FROM {table} LIMIT 1")).await.remove(0);
        log.database.execute(&format!("CREATE TABLE saved AS TABLE {partition}; {}", one(&partition))).await;
        assert_eq!(log.findings(&[]), broken("missing_rows", seq), "{table}");
        log.database
            .execute(&format!("TRUNCATE {partition}; INSERT INTO {partition} TABLE saved; DROP TABLE saved"))
            .await;
    }
    log.database
        .execute(
            "INSERT INTO masq.entries (month, token, subject_tag, field, epoch, sealed)
             SELECT month, '\\x00', subject_tag, field, epoch, sealed FROM masq.entries LIMIT 1",
        )
        .await;
    assert_eq!(log.findings(&[]), broken("extra_rows", seq));
    log.database.execute("DELETE FROM masq.entries WHERE token = '\\x00'").await;
    log.database
        .execute("ALTER TABLE masq.dead_letters DROP CONSTRAINT dead_letters_epoch_fkey; DELETE FROM masq.epochs")
        .await;
    assert_eq!(log.findings(&[]), broken("lost_epoch", seq));
}

#[tokio::test]
async fn a_purge_and_a_replay_are_on_record_and_the_epoch_adds_up() {
    let log = Log::create().await;
    let letters = "SELECT count(*) FROM masq.dead_letters";
    assert_eq!(log.database.query(letters).await, ["2"]);
    let purge = ["dead", "purge", "--older-than", "0s", "--code", "bad_ip", "--yes"];
    let purged = masq(log.here.path(), &purge).env("DATABASE_URL", &log.database.url).output().unwrap();
    assert!(purged.status.success(), "{}", String::from_utf8_lossy(&purged.stderr));
    let epoch = log.database.query("SELECT epoch FROM masq.dead_letters").await.remove(0);
    let entries = "SELECT detail FROM masq.audit WHERE action = 'purge'";
    let expected = format!(
        r#"{{"condition": "--older-than 0s --code bad_ip", "letters": 1, "deleted": {{"{epoch}": [0, 0, 1]}}}}"#
    );
    assert_eq!(log.database.query(entries).await, [expected]);
    assert_eq!(log.findings(&[]), []);

    // Nothing is deleted, and nothing said, where nothing was to be purged.
    let again = masq(log.here.path(), &purge).env("DATABASE_URL", &log.database.url).output().unwrap();
    assert!(again.status.success());
    assert_eq!(log.database.query(entries).await.len(), 1);
}

#[tokio::test]
async fn an_epoch_that_never_said_what_it_wrote_is_noted() {
    let log = Log::create().await;
    let open = "INSERT INTO masq.epochs (id, started_at, recorded_at) VALUES ";
    log.database
        .execute(&format!(
            "{open} ('11111111-2222-4333-8444-555555555555', now(), now() - interval '11 minutes'),
                    ('11111111-2222-4333-8444-666666666666', now(), now() - interval '9 minutes')"
        ))
        .await;
    let (code, out, _) = log.audit(&["verify"]);
    let note = "note    1 epochs never said what they wrote, such as 11111111-2222-4333-8444-555555555555";
    assert!(code == 0 && out.contains(note), "{out}");
}

#[tokio::test]
async fn the_list_is_a_line_an_entry_and_can_be_narrowed() {
    let log = Log::create().await;
    let lines = |args: &[&str]| {
        let (code, out, said) = log.audit(&[&["list"], args].concat());
        assert_eq!(code, 0, "{said}");
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = lines(&[]);
    assert_eq!(all.len() as i64, log.size().await);
    let reveal = lines(&["--action", "reveal"]);
    assert!(reveal[0].ends_with(r#"reveal  1 item  TEST T-1  "why not\nask twice""#), "{reveal:?}");
    let revealed = lines(&["--action", "revealed"]);
    assert!(revealed[0].contains("(jane)  revealed of 3  {\"shown\": 0, \"missing\": 1"), "{revealed:?}");
    assert_eq!(lines(&["--limit", "2"]), all[all.len() - 2..]);
    assert_eq!(lines(&["--since", "1h"]), all);
    assert_eq!(lines(&["--login", "nobody"]).len(), 0);
    assert_eq!(lines(&["--since", "2999-01-01"]).len(), 0);
    let (code, out, said) = log.audit(&["list", "--action", "revealt"]);
    assert_eq!((code, out.as_str()), (2, ""), "{said}");
    assert!(said.contains("'revealt'") && said.contains("similar value exists: 'reveal"), "{said}");
    let (code, _, said) = log.audit(&["list", "--action", "nosuch"]);
    assert!(code == 2 && said.contains("find, open, opened"), "{said}");
}

#[tokio::test]
async fn slots_are_counted_in_their_own_database() {
    let slots = Database::create().await;
    let file = format!("[vault]\nslots_url = \"{}\"\n", slots.url);
    let scene = Scene::on(Database::create().await, config_of(&file));
    scene.send_many(2);
    scene.settle().await;
    let log = Log { database: scene.database, keys: scene.keys, here: TempDir::new().unwrap() };
    std::fs::write(log.path("masq.toml"), file).unwrap();
    assert_eq!(log.findings(&[]), []);
    slots.execute("DELETE FROM masq_slots.slots").await;
    assert_eq!(log.findings(&[]), broken("missing_rows", 1));
}
