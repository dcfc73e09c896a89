//! `masq bench`: do its figures come from runs that were checked, does it find a run that is wrong, and does it leave
//! nothing behind. How fast anything is, is not tested here.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::support::{finish, masq, python, until};

fn bench(arguments: &[&str]) -> Command {
    let mut command = masq(Path::new("/"), &[&["bench", "--rounds", "1"], arguments].concat());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command
}

/// The figures, where no run of masq's was wrong.
async fn figures(arguments: &[&str]) -> Value {
    let (exit, stdout, stderr) = finish(bench(&[&["--json"], arguments].concat())).await;
    // 3: in a debug build, on a busy machine, goals are missed.
    assert!([0, 3].contains(&exit), "{exit} {stdout} {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn median(figures: &Value, arm: &str, figure: &str) -> f64 {
    let spread = &figures["arms"][arm]["figures"][figure];
    let [median, min, max] = ["median", "min", "max"].map(|of| spread[of].as_f64().unwrap());
    assert!(spread["n"] == 1 && min <= median && median <= max, "{arm} {figure} {spread}");
    median
}

#[tokio::test(flavor = "multi_thread")]
async fn every_arm_is_measured_and_every_goal_has_its_value() {
    let python = python().display().to_string();
    let all = ["--messages", "3000", "--vault", "--redelivered", "50", "--ledger-rows", "5000", "--latency"];
    let figures = figures(&[&all[..], &["--with-python", "--python", &python]].concat()).await;
    assert_eq!(figures["wrong"], Value::Array(Vec::new()));
    let messages = [
        ("drain", 3000),
        ("load", 3000),
        ("load_full_ledger", 3000),
        ("transform", 3000),
        ("pipeline", 3000),
        ("pipeline_tenth", 300),
        ("pipeline_vault", 3000),
        ("pipeline_redelivered", 3000),
        ("original", 100),
        ("tuned", 1000),
    ];
    for (arm, messages) in messages {
        assert_eq!(figures["arms"][arm]["messages"], messages, "{arm}");
        assert!(median(&figures, arm, "messages_per_second") > 1.0, "{arm}");
    }
    for arm in ["load", "load_full_ledger", "pipeline", "original", "tuned"] {
        let wal = median(&figures, arm, "wal_bytes_per_message");
        assert!((200.0..2000.0).contains(&wal), "{arm}: a row and its key are {wal} bytes of WAL");
    }
    // Ten messages in a request, and a request to delete them; workers that look whether there are more come on top.
    let most = [("drain", 0.21), ("pipeline", 0.4), ("pipeline_redelivered", 0.4), ("original", 0.21), ("tuned", 0.21)];
    for (arm, most) in most {
        let requests = median(&figures, arm, "requests_per_message");
        assert!((0.2..most).contains(&requests), "{arm}: {requests}");
    }
    let sealed = median(&figures, "pipeline_vault", "sealed_per_message");
    assert!((0.1..1.0).contains(&sealed), "{sealed}");
    assert!(median(&figures, "latency", "latency_ms") > 0.0 && median(&figures, "latency", "round_trips_ms") > 0.0);
    assert_eq!(figures["machine"]["build"], if cfg!(debug_assertions) { "debug" } else { "release" });
    the_goals_are_all_there(&figures);
}

fn the_goals_are_all_there(figures: &Value) {
    let gates = figures["gates"].as_array().unwrap();
    let names: Vec<&str> = gates.iter().map(|gate| gate["name"].as_str().unwrap()).collect();
    let expected = [
        "cpu_efficiency",
        "client_cpu_us",
        "requests_per_message",
        "resident_mib",
        "resident_growth",
        "times_original",
        "times_tuned",
        "full_ledger_rate",
        "full_ledger_wal",
        "vault",
        "redelivered",
        "latency",
    ];
    assert_eq!(names, expected);
    for gate in gates {
        let (value, bound) = (gate["value"].as_f64().unwrap(), gate["gate"].as_f64().unwrap());
        let reached = if gate["bound"] == "at least" { value >= bound } else { value <= bound };
        assert_eq!(gate["holds"], reached && gate["why"].is_null(), "{gate}");
    }
}

/// A stand-in for the interpreter, which has the packages and does this instead of running a program.
fn interpreter(directory: &TempDir, instead: &str) -> String {
    let path = directory.path().join("python");
    fs::write(&path, format!("#!/bin/sh\n[ \"$1\" = -c ] && exit 0\n{instead}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// Why the runs of an arm were wrong.
fn why<'a>(figures: &'a Value, arm: &str) -> &'a str {
    let wrong = figures["wrong"].as_array().unwrap().iter().find(|wrong| wrong["arm"] == arm);
    wrong.unwrap_or_else(|| panic!("{arm} is not wrong"))["why"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_that_it_is_done_and_has_done_nothing_scores_nothing() {
    let here = TempDir::new().unwrap();
    let idle = interpreter(&here, "echo ready; read -r _; echo \"{\\\"messages\\\": $4}\"; cat >/dev/null");
    let figures = figures(&["--messages", "1000", "--with-python", "--python", &idle]).await;
    assert_eq!(why(&figures, "original"), "0 rows instead of 100");
    assert_eq!(why(&figures, "tuned"), "0 rows instead of 1000");
    assert!(figures["arms"].get("original").is_none());
    let gate = figures["gates"].as_array().unwrap().iter().find(|gate| gate["name"] == "times_original").unwrap();
    assert!(gate["value"].is_null() && gate["holds"] == false, "{gate}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_that_differs_and_a_key_that_is_missing_are_found() {
    let here = TempDir::new().unwrap();
    let spoil = "sed -i 's/hashlib.sha256/hashlib.sha1/; s/copy.write_row((sent, message_id, 1))/pass/' \"$1\"";
    let spoilt = interpreter(&here, &format!("{spoil}; exec {} \"$@\"", python().display()));
    let figures = figures(&["--messages", "1000", "--with-python", "--python", &spoilt]).await;
    assert!(why(&figures, "original").ends_with("a masked value differs"), "{figures}");
    assert_eq!(why(&figures, "tuned"), "0 different keys in the ledger instead of 1000");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_python_lacks_is_said_with_the_remedy_before_anything_starts() {
    let here = TempDir::new().unwrap();
    let path = here.path().join("python");
    fs::write(&path, "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'psycopg'\" >&2\nexit 1\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let path = path.display().to_string();
    let (exit, stdout, stderr) = finish(bench(&["--with-python", "--python", &path])).await;
    assert_eq!((exit, stdout.as_str()), (69, ""), "{stderr}");
    assert!(stderr.contains("No module named 'psycopg'") && stderr.contains("-m pip install boto3 'psycopg[binary]'"));
}

/// The processes that work somewhere below a directory.
fn working_in(directory: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let places = processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
    places.filter(|place| place.starts_with(directory)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_leaves_no_process_and_no_file() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
        let place = TempDir::new().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = bench(&["--messages", "200000"]).env("TMPDIR", place.path()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        while !lines.next_line().await.unwrap().expect("it says what it will do").contains("arms in each") {}
        // What the benchmark starts itself works in its directory, PostgreSQL further below.
        let has_queue = || working_in(place.path()).iter().any(|at| at.parent() == Some(place.path()));
        until("the first arm has its queue", async || has_queue()).await;
        let id = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
        let status = child.wait().await.unwrap();
        let exit = if signal == rustix::process::Signal::INT { Some(75) } else { None };
        assert_eq!(status.code(), exit);
        until("no process of it is left", async || working_in(place.path()).is_empty()).await;
        until("its directory is gone", async || fs::read_dir(place.path()).unwrap().count() == 0).await;
    }
}
