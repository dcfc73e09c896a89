//! Signed checkpoints: which prove something, where they are kept, and after which commands one is signed.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use super::Log;
use crate::support::{Keys, masq};

#[tokio::test]
async fn a_checkpoint_that_proves_nothing_is_found() {
    let log = Log::create().await;
    let note = log.sign();
    std::fs::write(log.path("changed"), note.replacen(&log.size().await.to_string(), "1", 1)).unwrap();
    std::fs::write(log.path("nonsense"), "hello\n\u{ff}").unwrap();
    for file in ["changed", "nonsense"] {
        assert_eq!(log.findings(&["--checkpoint", "checkpoints", file]), [("bad_checkpoint".to_owned(), None)]);
    }
    let others = Keys::create();
    let key = others.path().join("audit.pub");
    let (code, out, _) = log.audit(&["verify", "--checkpoint", "checkpoints", "--public-key", key.to_str().unwrap()]);
    assert!(code == 3 && out.contains("not signed with this key"), "{out}");

    let (code, _, said) = log.audit(&["verify", "--checkpoint", "nowhere"]);
    assert!(code == 78 && said.contains("cannot read nowhere"), "{said}");
    std::fs::write(log.path("log.jsonl"), "{}\n").unwrap();
    let (code, _, said) = log.audit(&["verify", "--exported", "log.jsonl"]);
    assert!(code == 78 && said.contains("line 1 of log.jsonl is no entry"), "{said}");
    std::fs::remove_file(log.keys.path().join("audit.key")).unwrap();
    let (code, _, said) = log.audit(&["checkpoint"]);
    assert!(code == 78 && said.contains("audit.key") && said.contains("masq keys new"), "{said}");
}

#[tokio::test]
async fn the_configured_file_of_checkpoints_lies_beside_the_configuration() {
    let log = Log::create().await;
    std::fs::create_dir(log.path("etc")).unwrap();
    std::fs::write(log.path("etc/masq.toml"), "[audit]\ncheckpoints = \"signed\"\n").unwrap();
    let (code, note, said) = log.audit(&["checkpoint", "--config", "etc/masq.toml"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(std::fs::read_to_string(log.path("etc/signed")).unwrap().trim_start(), note);
    let (_, out, _) = log.audit(&["verify", "--config", "etc/masq.toml"]);
    assert!(out.contains("1 checkpoints") && !out.contains("note"), "{out}");
}

#[tokio::test]
async fn a_checkpoint_follows_work_where_file_and_key_are_at_hand() {
    let log = Log::create().await;
    let work = |args: &[&str]| {
        let mut child = masq(log.here.path(), args)
            .env("DATABASE_URL", &log.database.url)
            .env("MASQ_KEYS", log.keys.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // It may not read what others do.
        drop(child.stdin.take().unwrap().write_all(b"199.172.111.135\n"));
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    };
    work(&["find", "--field", "ip"]);
    std::fs::write(log.path("masq.toml"), "[audit]\ncheckpoints = \"signed\"\n").unwrap();
    let id = log.database.query("SELECT message_id FROM masq.dead_letters LIMIT 1").await.remove(0);
    let identity = log.keys.path().join("recovery.key").display().to_string();
    let last = |signed: usize, size: i64| {
        let (_, out, _) = log.audit(&["verify"]);
        assert!(
            out.contains(&format!("entries 1 to {size} are those that the latest of {signed} checkpoints")),
            "{out}"
        );
    };
    let why = ["--purpose", "ERASURE", "--ticket", "T-1", "--reason", "asked for by letter", "--erasures", "erased"];
    let works: [&[&str]; 5] = [
        &["find", "--field", "ip"],
        &["dead", "show", &id, "--identity", &identity, "--plain-output-i-know", "--reason", "to see what was sent"],
        &["forget", "u1", why[0], why[1], why[2], why[3], why[4], why[5], why[6], why[7]],
        &["keys", "rotate", "--token", "--reason", "yearly rotation"],
        &["dead", "purge", "--older-than", "0s", "--yes"],
    ];
    for (nth, args) in works.iter().enumerate() {
        work(args);
        last(nth + 1, log.size().await);
    }
    std::fs::remove_file(log.keys.path().join("audit.key")).unwrap();
    let signed = log.size().await;
    work(&["find", "--field", "ip"]);
    last(works.len(), signed);
}
