//! `masq send`: messages onto a queue, from a file of JSON lines, from stdin, or made up.
//!
//! A message that cannot be sent is named by its line's number; what is in it is not shown. A request whose answer is
//! lost is sent again, so a message may be on a standard queue twice, as its messages always may.

use std::{path::PathBuf, pin::pin, thread, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use uuid::Uuid;

use super::{
    connect,
    context::Context,
    exit::Exit,
    lines::{self, Line, Lines, Unfit},
    progress::Progress,
    report::Failure,
    signals,
    sources::{QueueSource, Sources},
};
use crate::{
    backoff::Backoff,
    local::logins::{Logins, Share},
    pipeline::decode::MAX_BODY,
    queue::{
        Cause, QueueError,
        sqs::{Group, Outgoing, Sent, SqsQueue},
    },
};

/// Requests under way at the same time. SQS answers in some 10 ms: sixteen tens are thousands a second. More would
/// only queue up in a local server.
const AT_ONCE: usize = 16;

/// Messages of one request: SQS's quota.
const BATCH: usize = 10;

/// How long a batch is tried again while the queue is away. Longer hides that nothing happens, shorter gives up on a
/// restart.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many refused messages are named. The rest is counted: a wrong file would name all its lines.
const NAMED: usize = 20;

/// Put messages on a queue, one for each line of a file
#[derive(clap::Args)]
#[command(after_help = "Examples:
  masq send logins.jsonl --queue-url http://127.0.0.1:9324/000000000000/login-queue
  zcat logins.jsonl.gz | masq send -
  masq send --generate 1000 --bad 5")]
pub(super) struct Args {
    /// Read messages from this file, one a line; - is stdin
    #[arg(value_name = "FILE", required_unless_present = "generate", conflicts_with = "generate")]
    file: Option<PathBuf>,
    /// Send so many sample logins instead
    #[arg(long, value_name = "N")]
    generate: Option<u64>,
    /// Make the sample logins of this seed; the same seed makes the same ones
    #[arg(long, value_name = "S", default_value_t = 1, conflicts_with = "file")]
    seed: u64,
    /// Make so many percent of the sample logins wrong
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = share, conflicts_with = "file")]
    bad: Share,
    /// On a FIFO queue: put them all into this message group, in their order
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    #[command(flatten)]
    queue: QueueSource,
}

fn share(text: &str) -> Result<Share, String> {
    text.parse().ok().and_then(Share::percent).ok_or_else(|| "expected a number from 0 to 100".to_owned())
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let config = Sources { queue: args.queue.clone(), ..Sources::default() }.config(context)?;
    let sender = Sender::new(connect::queue(&config).await?, args.group.clone())?;
    let lines = lines(&args)?;
    let stop = signals::listen()?;
    let mut progress = Progress::new(context, "sending", args.generate);
    let mut tally = Tally::default();
    let batches = stream::unfold(lines, async |mut lines| {
        let mut batch = Vec::with_capacity(BATCH);
        (lines.recv_many(&mut batch, BATCH).await > 0).then_some((batch, lines))
    });
    let batches = batches.take_until(stop.gently.started());
    let mut answers = pin!(batches.map(|batch| sender.send(batch)).buffer_unordered(sender.at_once()));
    while let Some(answer) = tokio::select! {
        answer = answers.next() => answer,
        () = stop.now.started() => None,
    } {
        progress.add(answer.sent);
        if answer.failure.is_some() {
            stop.gently.start(); // and count those under way
        }
        tally.add(answer);
    }
    tally.say(context, progress.finish());
    match tally.failure {
        Some(failure) => Err(failure),
        None if stop.gently.has_started() => Err(Failure::new(Exit::Unfinished, "stopped before everything was sent")),
        None if tally.unsent > 0 => Ok(Exit::Rejects),
        None => Ok(Exit::Done),
    }
}

/// The messages, read or made in a thread of its own, since reading a terminal or a pipe may wait for ever. It ends
/// when the receiver is dropped, or with the program.
fn lines(args: &Args) -> Result<mpsc::Receiver<Line>, Failure> {
    let source: Box<dyn Iterator<Item = Line> + Send> = match (&args.file, args.generate) {
        (Some(path), _) => Box::new(Lines::new(lines::open(path)?)),
        (None, count) => {
            let logins = Logins::new(args.seed, args.bad).map(|login| Ok(login.body.into_bytes()));
            Box::new((1..=count.unwrap_or(0)).zip(logins).map(|(number, body)| Line { number, body }))
        }
    };
    let (sender, receiver) = mpsc::channel(AT_ONCE * BATCH);
    thread::spawn(move || {
        for line in source {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// What became of some lines.
#[derive(Default)]
struct Answer {
    sent: u64,
    /// Lines that will never be accepted: their numbers, and why.
    unsent: Vec<(u64, String)>,
    /// Why the rest was not tried.
    failure: Option<Failure>,
}

/// Where lines go.
struct Sender {
    queue: SqsQueue,
    group: Option<String>,
    /// What tells this run's messages from those of others.
    run: Uuid,
}

impl Sender {
    fn new(queue: SqsQueue, group: Option<String>) -> Result<Self, Failure> {
        let wrong = |error: &str| Failure::new(Exit::Usage, error);
        match (queue.is_fifo(), &group) {
            (true, None) => {
                let failure = wrong("messages on a FIFO queue belong to a group, and none is named");
                Err(failure
                    .hint("name one with --group; messages of one group are delivered in the order of their lines"))
            }
            (false, Some(_)) => Err(wrong("--group is for FIFO queues, whose names end in .fifo")),
            _ => Ok(Self { queue, group, run: Uuid::new_v4() }),
        }
    }

    /// How many batches go at the same time: one where their order counts.
    fn at_once(&self) -> usize {
        if self.group.is_some() { 1 } else { AT_ONCE }
    }

    /// Sends at most [`BATCH`] lines, in as few requests as their size allows.
    async fn send(&self, lines: Vec<Line>) -> Answer {
        let mut answer = Answer::default();
        let mut fit = Vec::with_capacity(lines.len());
        for line in lines {
            match line.body.and_then(lines::text) {
                Ok(body) => fit.push((line.number, body)),
                Err(Unfit::Unreadable(error)) => {
                    let failure = Failure::new(Exit::of_file(&error), format!("cannot read line {}", line.number));
                    answer.failure = Some(failure.because(&error));
                }
                Err(unfit) => answer.unsent.push((line.number, unfit.to_string())),
            }
        }
        let mut rest = fit.as_slice();
        while !rest.is_empty() {
            let (request, later) = rest.split_at(fitting(rest));
            rest = later;
            match self.send_patiently(request).await {
                Ok(results) => {
                    for ((number, _), result) in request.iter().zip(results) {
                        match result {
                            Sent::Accepted(_) => answer.sent += 1,
                            Sent::Refused(code) => {
                                answer.unsent.push((*number, format!("the queue refuses it ({code})")));
                            }
                        }
                    }
                }
                Err(error) => {
                    answer.failure = Some(error.into());
                    break;
                }
            }
        }
        answer
    }

    async fn send_patiently(&self, lines: &[(u64, String)]) -> Result<Vec<Sent>, QueueError> {
        // By its line a message is known again: on a FIFO queue, what is sent a second time is there once.
        let ids: Vec<String> = lines.iter().map(|(number, _)| format!("{}-{number}", self.run)).collect();
        let messages = lines.iter().zip(&ids).map(|((_, body), deduplication_id)| Outgoing {
            body,
            group: self.group.as_ref().map(|id| Group { id, deduplication_id }),
        });
        let messages: Vec<_> = messages.collect();
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            match self.queue.send(&messages).await {
                Err(error @ QueueError::Unavailable { cause, .. })
                    if cause != Cause::Missing && Instant::now() < deadline =>
                {
                    tracing::warn!(%error, "sending again");
                    sleep(backoff.next(fastrand::f64())).await;
                }
                answer => return answer,
            }
        }
    }
}

/// How many of these go into one request, which may be as large as one message. At least one.
fn fitting(messages: &[(u64, String)]) -> usize {
    let mut size = 0;
    let fits = |(_, body): &&(u64, String)| {
        size += body.len();
        size <= MAX_BODY
    };
    messages.iter().take_while(fits).count().max(1)
}

/// What became of all.
#[derive(Default)]
struct Tally {
    sent: u64,
    unsent: u64,
    named: Vec<(u64, String)>,
    failure: Option<Failure>,
}

impl Tally {
    fn add(&mut self, answer: Answer) {
        self.sent += answer.sent;
        self.unsent += answer.unsent.len() as u64;
        self.named.extend(answer.unsent);
        self.named.sort_unstable();
        self.named.truncate(NAMED);
        self.failure = self.failure.take().or(answer.failure);
    }

    fn say(&self, context: &Context, took: Duration) {
        for (number, why) in &self.named {
            context.say(format_args!("line {number} not sent: {why}"));
        }
        let unnamed = self.unsent - self.named.len() as u64;
        if unnamed > 0 {
            context.say(format_args!("and {unnamed} more lines"));
        }
        let (sent, unsent, seconds) = (self.sent, self.unsent, took.as_secs_f64());
        let rate = sent as f64 / seconds.max(0.001);
        context.say(format_args!("{sent} sent, {unsent} refused, in {seconds:.1} s ({rate:.0} a second)"));
    }
}
