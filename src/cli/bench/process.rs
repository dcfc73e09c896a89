//! A process of the benchmark's: it ends with its handle, and also if the benchmark itself is killed.
//!
//! What it says on stdout and stderr comes line by line. The arms and the programs in Python all speak one protocol:
//! `ready` when all is prepared, then they wait for a line, work, say in a line of JSON what they did, and wait for the
//! end of stdin, so that their CPU time can be read while they still live.

use std::{
    io::{self, Write as _},
    os::unix::process::ExitStatusExt,
    process::{ChildStdin as Leash, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

/// How long a process may say nothing. The slowest start is an interpreter's, the longest work that of millions of
/// messages; a shorter limit would end a run on a busy machine, a longer one only delays bad news.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long one that was asked to end may take.
const GRACE: Duration = Duration::from_secs(30);

/// Ends the process if we vanish: as in `local::scratch`, a shell waits on a pipe whose other end only we hold.
const WATCH: &str = r#"read -r _ && exit; kill -KILL "$1""#;

/// A process, and what it says.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    id: u32,
    stdin: Option<ChildStdin>,
    out: UnboundedReceiver<String>,
    err: UnboundedReceiver<String>,
    /// What it said on stderr and nobody was waiting for; the last lines tell why it ended.
    said: Vec<String>,
    watch: std::process::Child,
    leash: Option<Leash>,
}

impl Process {
    /// Starts it, in a process group of its own, so that Ctrl-C at the terminal reaches it through us alone.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(name: &'static str, mut command: Command) -> io::Result<Self> {
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        let id = child.id().ok_or_else(|| io::Error::other("it has ended already"))?;
        let mut watch = Command::new("/bin/sh");
        watch.args(["-c", WATCH, "watch", &id.to_string()]).stdin(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut watch, 0);
        let mut watch = watch.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self {
            name,
            id,
            stdin: child.stdin.take(),
            out: lines(child.stdout.take()),
            err: lines(child.stderr.take()),
            said: Vec::new(),
            leash: watch.stdin.take(),
            child,
            watch,
        })
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The next line on stdout.
    ///
    /// # Errors
    /// There is none any more, or not for a long time; in words.
    pub(super) async fn line(&mut self) -> Result<String, String> {
        match timeout(PATIENCE, self.out.recv()).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(self.why().await),
            Err(_) => Err(format!("{} says nothing any more", self.name)),
        }
    }

    /// Waits for a line on stderr with these words.
    ///
    /// # Errors
    /// As [`Process::line`].
    pub(super) async fn says(&mut self, words: &str) -> Result<(), String> {
        loop {
            match timeout(PATIENCE, self.err.recv()).await {
                Ok(Some(line)) if line.contains(words) => return Ok(()),
                Ok(Some(line)) => self.said.push(line),
                Ok(None) => return Err(self.why().await),
                Err(_) => return Err(format!("{} says nothing any more", self.name)),
            }
        }
    }

    /// Tells it to begin.
    ///
    /// # Errors
    /// It has ended; in words.
    pub(super) async fn go(&mut self) -> Result<(), String> {
        let Some(stdin) = &mut self.stdin else { return Err(format!("{} listens no more", self.name)) };
        match stdin.write_all(b"go\n").await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.why().await),
        }
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not, or not as it should; in words.
    pub(super) async fn end(&mut self) -> Result<(), String> {
        self.stdin = None;
        match timeout(GRACE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(_) => Err(self.why().await),
            Err(_) => Err(format!("{} does not end", self.name)),
        }
    }

    /// Tells it to end in good order. Answers all that it said on stderr and nobody was waiting for.
    ///
    /// # Errors
    /// As [`Process::end`].
    pub(super) async fn stop(&mut self) -> Result<Vec<String>, String> {
        if let Some(pid) = i32::try_from(self.id).ok().and_then(Pid::from_raw)
            && self.has_ended().is_none()
        {
            let _ended = kill_process(pid, Signal::TERM);
        }
        self.end().await?;
        while let Some(line) = self.err.recv().await {
            self.said.push(line);
        }
        Ok(std::mem::take(&mut self.said))
    }

    /// How it ended, if it has.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Why it ended before its time: the last that it said.
    pub(super) async fn why(&mut self) -> String {
        let status = timeout(GRACE, self.child.wait()).await.ok().and_then(Result::ok);
        while let Ok(Some(line)) = timeout(GRACE, self.err.recv()).await {
            self.said.push(line);
        }
        let how = match status {
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with exit code {code}"),
                (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
            },
            None => "closed its output".to_owned(),
        };
        let last = self.said.iter().rev().find(|line| !line.trim().is_empty());
        format!("{} {how}: {}", self.name, last.map_or("it said nothing", |line| line.trim()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Before the watch goes home, so that at no moment nobody watches.
        drop(self.child.start_kill());
        if let Some(mut leash) = self.leash.take() {
            let _gone = leash.write_all(b"home\n");
        }
        let _reaped = self.watch.wait();
    }
}

/// The lines of a pipe, read as they come, so that the process never waits for its reader.
fn lines(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> UnboundedReceiver<String> {
    let (sender, receiver) = unbounded_channel();
    if let Some(pipe) = pipe {
        tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}
