//! `masq queue`: a local SQS-compatible queue, for development and tests.

use std::{
    fs::{self, OpenOptions},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    context::Context,
    exit::Exit,
    report::{self, Failure},
    signals,
};
use crate::{
    local::sqs::{History, Script, SqsServer},
    queue::memory::{MemoryQueues, Settings},
};

/// Serve a local SQS-compatible queue in memory, until Ctrl-C
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq queue --create login-queue
  masq send --generate 1000 --queue-url http://127.0.0.1:9324/000000000000/login-queue

  echo '{\"action\":\"DeleteMessageBatch\",\"fault\":\"lose_answer\",\"share\":0.05}' >faults.jsonl
  masq queue --faults faults.jsonl --history history.jsonl

A line of --faults says what goes wrong in which operation of SQS (action; * for all in which it can), in which share of
the requests (1), from and until how many seconds after the start, how many times at most, and how long it takes (seconds):
  throttle unavailable denied expired_token over_limit   the request is refused, as AWS does it
  hang lose_answer fail_entries        answered late; done without an answer; some entries of a batch fail
  empty corrupt double early           a receive brings nothing; another body; a message twice; is visible again at once
  stale ghost                          a delete deletes nothing; what was deleted comes again")]
pub(super) struct Args {
    /// Listen on this address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9324")]
    listen: SocketAddr,
    /// Create these queues; more can be created by any SQS client
    #[arg(long, value_name = "NAME", num_args = 1.., default_value = "login-queue")]
    create: Vec<String>,
    /// Have go wrong what this file says: JSON lines {"action","fault","share","from","until","times","seconds"}
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Draw the shares of --faults from this seed
    #[arg(long, value_name = "N", default_value_t = 1, requires = "faults")]
    seed: u64,
    /// Write what happens to messages into this file, as JSON lines of ids and times
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let stop = signals::listen()?;
    let queues = MemoryQueues::new();
    for name in &args.create {
        let failure = |error| Failure::new(Exit::Usage, format!("cannot create the queue {name}")).because(&error);
        queues.create(name, Settings::default()).map_err(failure)?;
    }
    let script = args.faults.as_deref().map_or(Ok(Script::default()), |path| script(path, args.seed))?;
    let history = args.history.as_deref().map_or(Ok(History::default()), history)?;
    let server = SqsServer::start_with(args.listen, queues, script, history.clone())
        .await
        .map_err(|error| cannot_listen(args.listen, &error))?;
    if !args.listen.ip().is_loopback() {
        tracing::warn!("this queue checks no signatures, and everybody who reaches {} can use it", server.addr());
    }
    let urls: Vec<String> = args.create.iter().map(|name| server.queue_url(name)).collect();
    context.say(format_args!(
        "A local queue, in memory. To see what it holds:\n  {}\nCtrl-C ends it.",
        look(&server.endpoint(), urls.first().map_or("", String::as_str)),
    ));
    report::print(urls.iter().map(|url| format!("{url}\n")).collect::<String>())?;
    stop.gently.started().await;
    for (action, requests) in server.requests() {
        context.say(format_args!("{action}: {requests} requests"));
    }
    for (trouble, times) in server.stop().await {
        context.say(format_args!("{trouble}: {times} times"));
    }
    history.check().map_err(|error| {
        let failure = Failure::new(Exit::of_file(&error), "the history is not whole");
        failure.because(&error)
    })?;
    Ok(Exit::Done)
}

fn script(path: &Path, seed: u64) -> Result<Script, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(Exit::of_file(&error), format!("cannot read {shown}")).because(&error))?;
    Script::parse(&text, seed)
        .map_err(|error| Failure::new(Exit::Usage, format!("{shown} is no script of faults")).because(&error))
}

/// A file that is there already is kept, and this history comes after it.
fn history(path: &Path) -> Result<History, Failure> {
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        Failure::new(Exit::of_file(&error), format!("cannot write {}", path.display())).because(&error)
    })?;
    Ok(History::to(file))
}

/// A line for the shell. The AWS CLI wants a region and keys, and this server takes any.
fn look(endpoint: &str, url: &str) -> String {
    format!(
        "AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any aws --region us-east-1 --endpoint-url {endpoint} \
         sqs get-queue-attributes --attribute-names All --queue-url {url}"
    )
}

fn cannot_listen(addr: SocketAddr, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::Denied,
        _ => Exit::Absent,
    };
    let failure = Failure::new(exit, format!("cannot listen on {addr}")).because(error);
    failure.hint("choose another address or port with --listen; port 0 takes a free one")
}
