//! `masq demo` as somebody meets it who has just built it: nothing configured, nothing running.

use std::{io::Write, path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::support::{finish, masq, until};

fn demo(arguments: &[&str]) -> Command {
    let mut command = masq(Path::new("/"), &[&["demo"], arguments].concat());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_out_adds_up() {
    let (exit, stdout, stderr) = finish(demo(&["--messages", "3000"])).await;
    assert_eq!(exit, 0, "{stdout}{stderr}");
    for line in ["3,000  logins sent", "rows in user_logins", "bad_ip:ip", "masq run   --keys keys"] {
        assert!(stdout.contains(line), "{line:?} is not in\n{stdout}");
    }
    the_way_back_is_shown(&stdout);
    let widest = stdout.lines().max_by_key(|line| line.chars().count()).unwrap();
    assert!(widest.chars().count() <= 80, "wider than a terminal: {widest}");
}

/// The lines after the first one with these words.
fn after<'a>(stdout: &'a str, words: &'a str) -> impl Iterator<Item = &'a str> {
    assert!(stdout.contains(words), "{words:?} is not in\n{stdout}");
    stdout.lines().skip_while(move |line| !line.contains(words)).skip(1)
}

/// Found, revealed, forgotten by one of two, revealed again, and all of it on record.
fn the_way_back_is_shown(stdout: &str) {
    let after = |words| after(stdout, words);
    let ip = stdout.lines().find_map(|line| line.strip_prefix("$ echo ")?.strip_suffix(" -")).unwrap();
    let ip = ip.split(' ').next().unwrap();
    let token = after("masq find --field ip").next().unwrap();
    assert!(token.len() == 64 && token.starts_with("01"), "{token}");
    let reveals: Vec<&str> = stdout.lines().filter(|line| line.starts_with(&format!("{}…  ", &token[..16]))).collect();
    assert_eq!(reveals, vec![format!("{}…  {ip}", &token[..16]); 2]);
    assert!(after("| masq forget").nth(1).unwrap().contains("unlinked"));
    assert!(after("device of who is forgotten").any(|line| line.ends_with("…  (no value)")));
    let recorded = after("$ masq audit list").filter_map(|line| line.split_whitespace().nth(1));
    let actions: Vec<&str> = recorded.take_while(|action| *action != "with").collect();
    assert_eq!(actions, ["find", "reveal", "revealed", "forget", "forgotten", "reveal", "revealed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_running_it_can_be_looked_into_until_it_is_told_to_stop() {
    let mut child =
        demo(&["--messages", "500", "--keep", "--log-format", "text"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = async |words: &str| loop {
        let line = lines.next_line().await.unwrap().expect("it says how to look inside before it ends");
        if let Some(rest) = line.trim().strip_prefix(words) {
            break rest.trim_matches('\'').to_owned();
        }
    };
    let psql = said("export DATABASE_URL=").await;
    let keys = said("export MASQ_KEYS=").await;
    let queue_url = said("masq send --generate 1000 --queue-url ").await;
    let session = crate::support::connector(&psql).connect().await.unwrap();
    let rows = async || {
        let rows = session.texts("looking inside", "SELECT count(*) FROM user_logins").await.unwrap();
        rows[0][0].as_ref().unwrap().parse::<u64>().unwrap()
    };
    let before = rows().await;
    assert!(before > 400);
    let log = masq(Path::new("/"), &["audit", "list", "--database-url", &psql]).output().unwrap();
    assert!(String::from_utf8(log.stdout).unwrap().contains("  forgotten of "));
    let mut find = masq(Path::new("/"), &["find", "--field", "ip", "-", "--database-url", &psql, "--keys", &keys]);
    let mut find = find.stdin(Stdio::piped()).spawn().unwrap();
    find.stdin.take().unwrap().write_all(b"192.0.2.1\n").unwrap();
    assert_eq!(find.wait_with_output().unwrap().stdout.len(), 65);
    let sent = masq(Path::new("/"), &["send", "--generate", "7", "--queue-url", &queue_url]).status().unwrap();
    assert!(sent.success());
    until("what is sent later is loaded too", || async { rows().await == before + 7 }).await;
    session.close().await;

    let id = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().await.unwrap().success());
    assert!(crate::support::connector(&psql).connect().await.is_err(), "the database is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_it_leaves_no_server_and_no_file() {
    let place = tempfile::TempDir::new().unwrap();
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = demo(&["--messages", "100", "--keep", "--log-format", "text"]);
    let mut child = command.env("TMPDIR", place.path()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().unwrap().contains("Ctrl-C ends it") {}
    let left = || std::fs::read_dir(place.path()).unwrap().count();
    assert_ne!(left(), 0);
    child.kill().await.unwrap();
    until("its directory is gone", async || left() == 0).await;
}
