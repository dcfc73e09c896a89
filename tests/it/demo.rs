//! `masq demo` as somebody meets it who has just built it: nothing configured, nothing running.

use std::{path::Path, process::Stdio};

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
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_running_it_can_be_looked_into_until_it_is_told_to_stop() {
    let mut child =
        demo(&["--messages", "500", "--keep", "--log-format", "text"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut after = async |words: &str| loop {
        let line = lines.next_line().await.unwrap().expect("it says how to look inside before it ends");
        if let Some(rest) = line.trim().strip_prefix(words) {
            break rest.trim_matches('\'').to_owned();
        }
    };
    let psql = after("psql ").await;
    let queue_url = after("masq send --generate 1000 --queue-url ").await;
    let session = crate::support::connector(&psql).connect().await.unwrap();
    let rows = async || {
        let rows = session.texts("looking inside", "SELECT count(*) FROM user_logins").await.unwrap();
        rows[0][0].as_ref().unwrap().parse::<u64>().unwrap()
    };
    let before = rows().await;
    assert!(before > 400);
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
