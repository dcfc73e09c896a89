//! `masq queue` and `masq send` as the person at the terminal meets them.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::Child,
    time::Duration,
};

use masq::queue::{
    Queue,
    room::Room,
    sqs::{SqsQueue, SqsSettings},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Said, directory, run, said};
use crate::support::masq;

/// What an AWS client wants to have, and the local queue does not look at.
const CREDENTIALS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any"), ("AWS_REGION", "us-east-1")];

async fn connect(url: &str) -> SqsQueue {
    let settings = SqsSettings { queue: url.to_owned(), ..SqsSettings::default() };
    let variable = |name: &str| CREDENTIALS.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    SqsQueue::connect(settings, &variable).await.unwrap()
}

/// `masq queue` with one queue on a free port.
struct LocalQueue {
    child: Child,
    url: String,
}

impl LocalQueue {
    fn start(directory: &TempDir, args: &[&str]) -> Self {
        let queue = ["queue", "--listen", "127.0.0.1:0", "--create", "q"];
        let mut child = masq(directory.path(), &[&queue[..], args].concat()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim_end().to_owned() }
    }

    fn send(&self, directory: &TempDir, args: &[&str]) -> Said {
        let mut command = masq(directory.path(), &[&["send"], args].concat());
        said(command.envs(CREDENTIALS).env("MASQ_QUEUE_URL", &self.url))
    }

    async fn holds(&self) -> u64 {
        connect(&self.url).await.attributes().await.unwrap().depth.visible
    }

    /// Ends it in good order: its exit code and what it said.
    fn stop(mut self) -> (i32, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code().unwrap(), err)
    }
}

impl Drop for LocalQueue {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn a_fifo_queue_wants_a_group_and_keeps_the_order_of_the_lines() {
    let here = directory();
    let faults = "{\"action\":\"SendMessageBatch\",\"fault\":\"lose_answer\",\"times\":2}\n";
    fs::write(here.path().join("faults.jsonl"), faults).unwrap();
    let queue = LocalQueue::start(&here, &["q.fifo", "--faults", "faults.jsonl"]);
    let fifo = format!("{}.fifo", queue.url);
    let lines: String = (0..25).map(|number| format!("line {number}\n")).collect();
    fs::write(here.path().join("messages.txt"), lines).unwrap();

    let without = queue.send(&here, &["messages.txt", "--queue-url", &fifo]);
    assert_eq!(without.code, 2);
    assert!(without.err.contains("--group"), "{}", without.err);
    let standard = queue.send(&here, &["messages.txt", "--group", "g"]);
    assert_eq!(standard.code, 2);
    assert!(standard.err.contains("FIFO"), "{}", standard.err);

    let sent = queue.send(&here, &["messages.txt", "--queue-url", &fifo, "--group", "g"]);
    assert_eq!(sent.code, 0, "{}", sent.err);
    assert!(sent.err.contains("25 sent") && sent.err.contains("sending again"), "{}", sent.err);
    let fifo = connect(&fifo).await;
    let mut bodies = Vec::new();
    while bodies.len() < 25 {
        let received =
            fifo.receive(Duration::from_secs(1), Duration::from_secs(30), &Room::new(1 << 20)).await.unwrap();
        assert!(!received.is_empty() && received.iter().all(|it| it.place.is_some()));
        let receipts: Vec<_> = received.iter().map(|it| it.receipt.clone()).collect();
        assert!(fifo.delete(&receipts).await.unwrap().is_empty());
        bodies.extend(received.into_iter().map(|it| String::from_utf8(it.body.expose().clone()).unwrap()));
    }
    assert_eq!(bodies, (0..25).map(|number| format!("line {number}")).collect::<Vec<_>>());
    assert!(fifo.depth().await.unwrap().is_empty(), "what was sent again is there once");
}

#[tokio::test]
async fn a_queue_has_go_wrong_what_a_file_says_and_keeps_a_history() {
    let here = directory();
    let faults = here.path().join("faults.jsonl");
    fs::write(&faults, "{\"action\":\"SendMessageBatch\",\"fault\":\"throttle\",\"times\":2}\n").unwrap();
    let queue = LocalQueue::start(&here, &["--faults", "faults.jsonl", "--history", "history.jsonl", "--seed", "7"]);
    let sent = queue.send(&here, &["--generate", "30"]);
    assert_eq!(sent.code, 0, "{}", sent.err);
    assert!(sent.err.contains("30 sent, 0 refused") && sent.err.contains("RequestThrottled"), "{}", sent.err);
    let (code, err) = queue.stop();
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("throttle: 2 times"), "{err}");
    // Three tens and what was throttled; up to one for each line where they come slowly.
    let requests = err.split_once("SendMessageBatch: ").and_then(|(_, rest)| rest.split_once(" requests"));
    let requests: usize = requests.and_then(|(count, _)| count.parse().ok()).unwrap_or_else(|| panic!("{err}"));
    assert!((3 + 2..=30 + 2).contains(&requests), "{err}");
    let history = fs::read_to_string(here.path().join("history.jsonl")).unwrap();
    let events: Vec<Value> = history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.iter().filter(|it| it["event"] == "send" && it["queue"] == "q").count(), 30);
    assert_eq!(events.last().unwrap()["faults"]["throttle"], 2);

    fs::write(&faults, "\n{\"action\":\"*\",\"fault\":\"meteor\"}\n").unwrap();
    let wrong = run(&here, &["queue", "--listen", "127.0.0.1:0", "--faults", "faults.jsonl"]);
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.err.contains("faults.jsonl") && wrong.err.contains("line 2: unknown variant `meteor`"),
        "{}",
        wrong.err
    );
    assert_eq!(run(&here, &["queue", "--seed", "7"]).code, 2, "a seed decides in a script alone");
}

#[tokio::test]
async fn what_is_sent_is_on_the_queue_and_what_cannot_be_is_named_by_line() {
    let here = directory();
    let queue = LocalQueue::start(&here, &[]);
    let generated = queue.send(&here, &["--generate", "123", "--bad", "50"]);
    assert_eq!(generated.code, 0, "{}", generated.err);
    assert!(generated.err.contains("123 sent, 0 refused"), "{}", generated.err);
    assert_eq!(queue.holds().await, 123);

    let long = "x".repeat(1_048_577);
    let lines = format!("{{\"a\": 1}}\n\n{long}\nsecret\u{1b}[2J\n{}\n{}\n", "y".repeat(600_000), "z".repeat(600_000));
    fs::write(here.path().join("messages.jsonl"), lines).unwrap();
    let sent = queue.send(&here, &["messages.jsonl"]);
    assert_eq!(sent.code, 3, "{}", sent.err);
    assert!(sent.err.contains("line 3 not sent: it is longer") && sent.err.contains("line 4 not sent: it has the"));
    assert!(sent.err.contains("3 sent, 2 refused") && !sent.err.contains("secret") && !sent.err.contains('\u{1b}'));
    assert_eq!(queue.holds().await, 126);

    let missing = queue.send(&here, &["--generate", "1", "--queue-url", &queue.url.replace("/q", "/none")]);
    assert_eq!(missing.code, 69);
    assert!(missing.err.contains("does not exist"), "{}", missing.err);
    assert_eq!(queue.send(&here, &["no-such-file"]).code, 78);
    assert_eq!(queue.send(&here, &[]).code, 2);
}

#[test]
fn the_local_queue_ends_well_at_a_signal_and_leaves_no_core() {
    let here = directory();
    let mut queue = LocalQueue::start(&here, &[]);
    #[cfg(target_os = "linux")]
    {
        let limits = fs::read_to_string(format!("/proc/{}/limits", queue.child.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    }
    kill_process(Pid::from_child(&queue.child), Signal::TERM).unwrap();
    assert_eq!(queue.child.wait().unwrap().code(), Some(0));
    let mut err = String::new();
    queue.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(err.contains("aws ") && err.contains("--endpoint-url http://127.0.0.1:"), "{err}");
}
