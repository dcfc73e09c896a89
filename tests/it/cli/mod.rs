//! The command line as the person at the terminal meets it: what is said, where, and with which exit code.

mod queue;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::masq;

/// What one call came to.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn run(directory: &TempDir, args: &[&str]) -> Said {
    said(&mut masq(directory.path(), args))
}

fn directory() -> TempDir {
    TempDir::new().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn help_is_data_and_a_slip_is_an_error_with_a_suggestion() {
    let here = directory();
    let help = run(&here, &["--help"]);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    assert!(help.out.contains("Usage: masq") && help.out.contains("schema"), "{}", help.out);
    assert!(run(&here, &["--version"]).out.starts_with("masq 0."));

    let nothing = run(&here, &[]);
    assert_eq!((nothing.code, nothing.out.as_str()), (2, ""));
    let slip = run(&here, &["shema"]);
    assert_eq!(slip.code, 2);
    assert!(slip.err.contains("'shema'") && slip.err.contains("'schema'"), "{}", slip.err);
    let level = run(&here, &["--log", "inf", "schema"]);
    assert_eq!(level.code, 2);
    assert!(level.err.contains("error, warn, info"), "{}", level.err);
}

#[test]
fn every_mistake_in_the_configuration_is_named_with_file_and_line() {
    let here = directory();
    fs::write(here.path().join("masq.toml"), "[queue]\nurll = \"http://q\"\n\n[database]\nconnections = 0\n").unwrap();
    let wrong = run(&here, &["keys", "status", "--keys", "k"]);
    assert_eq!((wrong.code, wrong.out.as_str()), (78, ""));
    let lines: Vec<_> = wrong.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", wrong.err);
    assert!(lines[0].starts_with("error: masq.toml:2: unknown key \"urll\" in [queue]; did you mean \"url\"?"));
    assert!(lines[1].starts_with("error: masq.toml:5: [database] connections"));
}

#[test]
fn a_file_that_was_named_must_be_there_and_readable() {
    let here = directory();
    let flag = run(&here, &["keys", "status", "-c", "other.toml"]);
    assert_eq!(flag.code, 78);
    assert!(flag.err.contains("cannot read other.toml") && flag.err.contains("hint: name another file with --config"));
    let variable = said(masq(here.path(), &["keys", "status"]).env("MASQ_CONFIG", "other.toml"));
    assert!(variable.err.contains("with MASQ_CONFIG"), "{}", variable.err);
}

#[test]
fn flag_beats_variable_beats_file_and_an_empty_variable_is_none() {
    let here = directory();
    let asked = |args: &[&str], variable: Option<&str>| {
        let mut command = masq(here.path(), &[&["keys", "status", "--json"], args].concat());
        said(command.envs(variable.map(|value| ("MASQ_KEYS", value))))
    };
    let used = |args: &[&str], variable: Option<&str>| {
        let files: Value = serde_json::from_str(&asked(args, variable).out).unwrap();
        files[0]["path"].as_str().unwrap().to_owned()
    };
    let nothing = asked(&[], None);
    assert_eq!(nothing.code, 78);
    assert!(nothing.err.contains("MASQ_KEYS"), "{}", nothing.err);

    fs::write(here.path().join("masq.toml"), "[keys]\ndir = \"of-file\"\n").unwrap();
    assert_eq!(used(&[], None), "of-file/token.key");
    assert_eq!(used(&[], Some("")), "of-file/token.key");
    assert_eq!(used(&[], Some("of-variable")), "of-variable/token.key");
    assert_eq!(used(&["--keys", "of-flag"], Some("of-variable")), "of-flag/token.key");
}

#[test]
fn a_relative_path_starts_at_the_file_that_says_so() {
    let here = directory();
    fs::create_dir(here.path().join("etc")).unwrap();
    for (config, keys) in [("etc/a.toml", None), ("etc/b.toml", Some("elsewhere")), ("c.toml", Some("of-c"))] {
        let keys: Vec<_> = keys.into_iter().flat_map(|keys| ["--keys", keys]).collect();
        let made = run(&here, &[&["-c", config, "init", "--no-passphrase"], &keys[..]].concat());
        assert_eq!(made.code, 0, "{}", made.err);
        let shown = run(&here, &["-c", config, "keys", "status"]);
        assert_eq!(shown.code, 0, "{config}: {}", shown.out);
    }
    let made = ["etc/keys", "elsewhere", "of-c"].map(|keys| here.path().join(keys).join("token.key").exists());
    assert_eq!(made, [true; 3]);
}

#[test]
fn a_mistake_outside_of_the_file_is_named_by_flag_or_variable() {
    let here = directory();
    let variable = said(masq(here.path(), &["send", "--generate", "1"]).env("MASQ_QUEUE_URL", "ftp://q"));
    assert_eq!(variable.code, 78);
    assert!(variable.err.starts_with("error: MASQ_QUEUE_URL: [queue] url must be"), "{}", variable.err);
    let flag = run(&here, &["send", "--generate", "1", "--queue-url", "q"]);
    assert!(flag.err.starts_with("error: --queue-url: [queue] url must be"), "{}", flag.err);
}

#[test]
fn everything_that_is_not_named_is_missed_at_once() {
    let here = directory();
    let parts = ["no queue is named", "no database is named", "no keys are named"];
    let nothing = run(&here, &["run"]);
    assert_eq!((nothing.code, nothing.err.lines().count()), (78, 4), "{}", nothing.err);
    assert!(parts.iter().all(|part| nothing.err.contains(&format!("error: {part}\n"))), "{}", nothing.err);
    assert!(nothing.err.contains("--queue-url and --database-url and --keys"), "{}", nothing.err);
    let checked = run(&here, &["check"]);
    assert!(checked.code == 78 && parts.iter().all(|part| checked.out.contains(part)), "{}", checked.out);

    let keys_only = run(&here, &["run", "--queue-url", "http://127.0.0.1:9/0/q", "--database-url", "postgres://db"]);
    assert_eq!((keys_only.code, keys_only.err.lines().count()), (78, 2), "{}", keys_only.err);
    assert!(keys_only.err.contains("masq keys new keys"), "{}", keys_only.err);
}

#[test]
fn keys_are_made_once_and_shown_without_their_secrets() {
    let here = directory();
    let made = run(&here, &["keys", "new", "keys", "--no-passphrase"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.err.contains("keys/recovery.key opens everything") && made.err.contains("Move it away"));
    let dir = here.path().join("keys");
    let modes = ["token.key", "subject.key", "recovery.pub", "recovery.key"].map(|name| mode(&dir.join(name)));
    assert_eq!(modes, [0o400, 0o400, 0o444, 0o400]);

    let shown = run(&here, &["keys", "status", "--keys", "keys"]);
    assert_eq!((shown.code, &shown.out), (0, &made.out));
    assert!(shown.out.contains("key id 1") && shown.out.contains("fingerprint "), "{}", shown.out);
    assert!(shown.err.contains("move it away"), "{}", shown.err);
    let json = run(&here, &["keys", "status", "--keys", "keys", "--json"]);
    let files: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&files[0]["key_id"], &files[0]["mode"], &files[0]["problem"]),
        (&1.into(), &"0400".into(), &Value::Null)
    );
    assert!(shown.out.contains(files[2]["fingerprints"][0].as_str().unwrap()));

    let before = fs::read(dir.join("token.key")).unwrap();
    let again = run(&here, &["keys", "new", "keys", "--no-passphrase"]);
    assert_eq!(again.code, 78);
    assert!(again.err.contains("never overwritten"), "{}", again.err);
    assert_eq!(fs::read(dir.join("token.key")).unwrap(), before);

    let secrets: Vec<String> = ["token.key", "subject.key", "recovery.key"]
        .iter()
        .map(|name| fs::read_to_string(dir.join(name)).unwrap().lines().last().unwrap().to_owned())
        .collect();
    for said in [&made, &shown, &json, &again] {
        assert!(secrets.iter().all(|secret| !said.out.contains(secret) && !said.err.contains(secret)));
    }
}

#[test]
fn keys_open_to_others_are_a_problem() {
    let here = directory();
    run(&here, &["keys", "new", "keys", "--no-passphrase"]);
    let token = here.path().join("keys/token.key");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let shown = run(&here, &["keys", "status", "--keys", "keys"]);
    assert_eq!(shown.code, 78);
    assert!(shown.out.contains("0644") && shown.out.contains("chmod 0400"), "{}", shown.out);
}

#[test]
fn a_key_lost_among_others_is_to_be_restored_and_not_replaced() {
    let here = directory();
    run(&here, &["keys", "new", "keys", "--no-passphrase"]);
    fs::remove_file(here.path().join("keys/recovery.pub")).unwrap();
    let shown = run(&here, &["keys", "status", "--keys", "keys"]);
    assert_eq!(shown.code, 78);
    assert!(shown.out.contains("restore it") && !shown.out.contains("keys new"), "{}", shown.out);
}

#[test]
fn a_passphrase_comes_from_a_terminal_or_a_file() {
    let here = directory();
    let unasked = run(&here, &["keys", "new", "keys"]);
    assert_eq!(unasked.code, 2);
    assert!(unasked.err.contains("--passphrase-file") && unasked.err.contains("--no-passphrase"), "{}", unasked.err);
    fs::write(here.path().join("phrase"), "\n").unwrap();
    assert_eq!(run(&here, &["keys", "new", "keys", "--passphrase-file", "phrase"]).code, 2);
    assert!(!here.path().join("keys").exists(), "nothing is made without a passphrase");

    fs::write(here.path().join("phrase"), "correct horse battery staple\n").unwrap();
    let made = run(&here, &["keys", "new", "keys", "--passphrase-file", "phrase"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(!made.err.contains("horse") && !made.out.contains("horse"));
    assert!(
        fs::read(here.path().join("keys/recovery.key")).unwrap().starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n")
    );
}

#[test]
fn init_writes_what_was_said_and_overwrites_nothing() {
    let here = directory();
    let init = ["init", "--no-passphrase", "--queue-url", "http://localhost:9324/000000000000/q"];
    let database = "postgres://masq:hunter2@db/app";
    let first = said(masq(here.path(), &init).env("DATABASE_URL", database));
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.err.contains("masq check"), "{}", first.err);
    let file = here.path().join("masq.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\nurl = \"http://localhost:9324/000000000000/q\"\n") && text.contains("\ndir = \"keys\"\n"));
    assert!(!text.contains("hunter2"), "a variable's value is not written down");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(run(&here, &["keys", "status"]).code, 0, "what init wrote is a configuration");

    let second = run(&here, &init);
    assert_eq!(second.code, 78);
    assert!(second.err.contains("masq.toml exists already") && second.err.contains("--config"), "{}", second.err);
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    fs::remove_file(&file).unwrap();
    let keys_exist = run(&here, &init);
    assert_eq!(keys_exist.code, 78);
    assert!(keys_exist.err.contains("--no-keys") && !file.exists(), "{}", keys_exist.err);
    let all = [&init[..], &["--no-keys", "--database-url", database]].concat();
    let third = run(&here, &all);
    assert_eq!(third.code, 0, "{}", third.err);
    assert!(fs::read_to_string(&file).unwrap().contains(database) && !third.err.contains("hunter2"));
}

#[test]
fn a_password_in_a_mistake_is_not_repeated() {
    let here = directory();
    let secret = "postgres://masq:hunter2@db:port/app?sslmod=require";
    for args in [
        &["run", "--queue-url", "http://127.0.0.1:9/0/q", "--database-url", secret][..],
        &["migrate", "--database-url", secret],
        &["check", "--queue-url", "http://127.0.0.1:9/0/q", "--database-url", secret],
        &["schema", &format!("--database-url={secret}")],
    ] {
        let wrong = run(&here, args);
        assert_ne!(wrong.code, 0, "{args:?}");
        assert!(!wrong.err.contains("hunter2") && !wrong.out.contains("hunter2"), "{args:?}\n{}", wrong.err);
    }
}

#[test]
fn the_schema_is_json_and_a_reader_may_leave_early() {
    let here = directory();
    let schema = run(&here, &["schema"]);
    let json: Value = serde_json::from_str(&schema.out).unwrap();
    assert_eq!(json["title"], "masq.toml");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = said(masq(here.path(), &["schema"]).stdout(Stdio::from(writer)));
    assert_eq!((unread.code, unread.err.as_str()), (0, ""));
}
