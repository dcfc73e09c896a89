//! The queue's own process, `masq queue` with a script of faults and a history, and how one talks to it.

use std::{fs, path::Path, process::Stdio};

use masq::queue::{
    Depth, Queue as _,
    sqs::{SqsQueue, SqsSettings},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// The queue's own process.
pub(crate) struct Queue {
    process: Child,
    pub(crate) url: String,
    pub(crate) client: SqsQueue,
}

impl Queue {
    pub(crate) async fn start(program: &Path, directory: &Path, seed: u64) -> Self {
        let log = fs::File::create(directory.join("queue.log")).expect("a log can be made");
        let mut command = Command::new(program);
        command.args(["queue", "--listen", "127.0.0.1:0", "--create", "login-queue", "--history"]).env_clear();
        command.arg(directory.join("history.jsonl"));
        command.arg("--faults").arg(directory.join("faults.jsonl")).args(["--seed", &seed.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut process = command.spawn().expect("the queue starts");
        let stdout = process.stdout.take().expect("its output can be read");
        let mut url = String::new();
        BufReader::new(stdout).read_line(&mut url).await.expect("the queue says where it is");
        let url = url.trim().to_owned();
        let settings = SqsSettings { queue: url.clone(), ..SqsSettings::default() };
        let client = SqsQueue::connect(settings, &|name| lookup(name)).await.expect("the queue can be reached");
        Self { process, url, client }
    }

    pub(crate) async fn depth(&self) -> Depth {
        self.client.depth().await.expect("the queue says how much it holds")
    }

    pub(crate) async fn stop(mut self) {
        let pid = self.process.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let ended = self.process.wait().await;
        assert!(ended.is_ok_and(|status| status.success()), "the queue ends badly, and its history may not be whole");
    }
}

/// Credentials that the local queue takes, as it takes all.
pub(crate) fn environment() -> Vec<(String, String)> {
    let variables = [("AWS_SECRET_ACCESS_KEY", "any"), ("AWS_REGION", "us-east-1")];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn lookup(name: &str) -> Option<String> {
    let mut known = environment();
    known.push(("AWS_ACCESS_KEY_ID".to_owned(), "producer".to_owned()));
    known.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}
