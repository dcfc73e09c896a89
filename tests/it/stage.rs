//! What the tests of the pipeline are played on: workers between a queue whose faults a script says and a sink in
//! memory, on tokio's clock, which the tests run paused.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use masq::{
    config::ColumnType,
    pii::Pii,
    pipeline::{
        self, PipelineError, Trouble, Worker, decode::Decoder, mask::Masker, now_ms, receive::Intake, value::Limits,
    },
    queue::{
        Depth, Key, Message, Queue, QueueError, Receipt,
        memory::{MemoryQueue, MemoryQueues, Settings},
    },
    shutdown::Shutdown,
    sink::memory::{MemorySink, Stored},
    start::Shared,
};
use tokio::task::JoinHandle;

use crate::support::{Keys, config, login, shared};

/// What the queue does instead of what it is asked to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum QueueFault {
    /// Nothing is done.
    Unavailable,
    /// Somebody must mend a permission first.
    Denied,
    /// It is done, and the answer is lost on its way. A receive strands what it took.
    AnswerLost,
    /// A receive: the messages are at once there for others too. Extend and delete: every second entry fails.
    Half,
    /// It never answers.
    Hang,
    /// It has a defect.
    Panic,
    /// It does what it should.
    None,
}

/// A queue in memory whose faults are taken from scripts, one for each kind of call. It watches that nothing is deleted
/// that has no outcome yet, and how much is held.
#[derive(Clone)]
pub(crate) struct ScriptedQueue {
    pub(crate) inner: MemoryQueue,
    sink: MemorySink,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    receives: VecDeque<QueueFault>,
    extends: VecDeque<QueueFault>,
    deletes: VecDeque<QueueFault>,
    /// Deliver what was deleted once more.
    ghosts: Option<Vec<Message>>,
    polls: usize,
    deliveries: HashMap<Receipt, Key>,
    held: HashMap<Key, u64>,
    bytes_held: u64,
    most_held: u64,
}

impl ScriptedQueue {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(crate) fn receives(&self, faults: impl IntoIterator<Item = QueueFault>) {
        self.seen().receives.extend(faults);
    }

    pub(crate) fn extends(&self, faults: impl IntoIterator<Item = QueueFault>) {
        self.seen().extends.extend(faults);
    }

    pub(crate) fn deletes(&self, faults: impl IntoIterator<Item = QueueFault>) {
        self.seen().deletes.extend(faults);
    }

    /// Delivers every message once more after it has been deleted, as SQS may.
    pub(crate) fn haunt(&self) {
        self.seen().ghosts = Some(Vec::new());
    }

    pub(crate) fn polls(&self) -> usize {
        self.seen().polls
    }

    /// The most bytes of bodies that were received and not yet deleted.
    pub(crate) fn most_held(&self) -> u64 {
        self.seen().most_held
    }

    fn note(&self, messages: &[Message]) {
        let mut seen = self.seen();
        for message in messages {
            seen.deliveries.insert(message.receipt.clone(), message.key);
            let known = seen.held.insert(message.key, message.body_len());
            seen.bytes_held += message.body_len() - known.unwrap_or(0);
            if let Some(ghosts) = seen.ghosts.as_mut().filter(|_| message.attempt == 1) {
                let Message { key, receipt, body, .. } = message;
                let body = Pii::new(body.expose().clone());
                ghosts.push(Message { key: *key, attempt: 2, body, receipt: receipt.clone() });
            }
        }
        seen.most_held = seen.most_held.max(seen.bytes_held);
    }

    /// Ghosts appear once their messages are gone.
    fn ghosts(&self) -> Vec<Message> {
        if !self.inner.count().is_empty() {
            return Vec::new();
        }
        let mut seen = self.seen();
        let Some(ghosts) = &mut seen.ghosts else { return Vec::new() };
        ghosts.drain(..ghosts.len().min(10)).collect()
    }
}

fn unavailable(action: &'static str) -> QueueError {
    QueueError::Unavailable { action, reason: "the queue is away".to_owned(), missing: false }
}

fn denied(action: &'static str) -> QueueError {
    QueueError::Denied { action, reason: "AccessDenied".to_owned() }
}

impl Queue for ScriptedQueue {
    async fn receive(&self, wait: Duration, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        self.seen().polls += 1;
        let fault = self.seen().receives.pop_front().unwrap_or(QueueFault::None);
        match fault {
            QueueFault::Unavailable => return Err(unavailable("ReceiveMessage")),
            QueueFault::Denied => return Err(denied("ReceiveMessage")),
            QueueFault::Hang => return std::future::pending().await,
            QueueFault::Panic => panic!("a defect"),
            QueueFault::AnswerLost | QueueFault::Half | QueueFault::None => {}
        }
        let ghosts = self.ghosts();
        if !ghosts.is_empty() {
            self.note(&ghosts);
            return Ok(ghosts);
        }
        let messages = self.inner.receive(wait, visibility).await?;
        self.note(&messages);
        match fault {
            QueueFault::AnswerLost => return Err(unavailable("ReceiveMessage")),
            QueueFault::Half => {
                let receipts: Vec<Receipt> = messages.iter().map(|message| message.receipt.clone()).collect();
                self.inner.extend(&receipts, Duration::ZERO).await?;
            }
            _ => {}
        }
        Ok(messages)
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Result<Vec<usize>, QueueError> {
        let fault = self.seen().extends.pop_front().unwrap_or(QueueFault::None);
        faulty("ChangeMessageVisibilityBatch", fault, receipts, |some| {
            let (inner, some) = (self.inner.clone(), some.to_vec());
            async move { inner.extend(&some, visibility).await }
        })
        .await
    }

    async fn delete(&self, receipts: &[Receipt]) -> Result<Vec<usize>, QueueError> {
        let outcomes = self.sink.outcomes();
        for receipt in receipts {
            let key = self.seen().deliveries[receipt];
            assert!(outcomes.contains_key(&key), "deleted before it has an outcome: {key:?}");
        }
        let fault = self.seen().deletes.pop_front().unwrap_or(QueueFault::None);
        let failed = faulty("DeleteMessageBatch", fault, receipts, |some| {
            let (inner, some) = (self.inner.clone(), some.to_vec());
            async move { inner.delete(&some).await }
        })
        .await?;
        let mut seen = self.seen();
        for (_, receipt) in receipts.iter().enumerate().filter(|(at, _)| !failed.contains(at)) {
            let key = seen.deliveries[receipt];
            seen.bytes_held -= seen.held.remove(&key).unwrap_or(0);
        }
        drop(seen);
        Ok(failed)
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let ghosts = self.seen().ghosts.as_ref().map_or(0, Vec::len) as u64;
        self.inner.depth().await.map(|depth| Depth { visible: depth.visible + ghosts, ..depth })
    }
}

/// One call on receipts with a fault.
async fn faulty<F: Future<Output = Result<Vec<usize>, QueueError>>>(
    action: &'static str,
    fault: QueueFault,
    receipts: &[Receipt],
    call: impl FnOnce(&[Receipt]) -> F,
) -> Result<Vec<usize>, QueueError> {
    match fault {
        QueueFault::Unavailable => Err(unavailable(action)),
        QueueFault::Denied => Err(denied(action)),
        QueueFault::Hang => std::future::pending().await,
        QueueFault::Panic => panic!("a defect"),
        QueueFault::AnswerLost => {
            call(receipts).await?;
            Err(unavailable(action))
        }
        QueueFault::Half => {
            let half: Vec<Receipt> = receipts.iter().step_by(2).cloned().collect();
            call(&half).await?;
            Ok((1..receipts.len()).step_by(2).collect())
        }
        QueueFault::None => call(receipts).await,
    }
}

/// Workers, what they stand between, and how they are set.
pub(crate) struct Stage {
    pub(crate) queue: ScriptedQueue,
    pub(crate) sink: MemorySink,
    pub(crate) shared: Shared,
    pub(crate) shutdown: Shutdown,
    pub(crate) workers: usize,
    pub(crate) max_bytes: u64,
    _keys: Keys,
}

/// A message that no configured column is in.
pub(crate) const WRONG: &[u8] = br#"{"foo": "oops_wrong_msg_type", "bar": "123"}"#;

/// For how long a message is hidden at a time.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(30);

impl Stage {
    pub(crate) fn new(workers: usize) -> Self {
        let inner = MemoryQueues::new().create("login-queue", Settings::default()).unwrap();
        let (sink, keys) = (MemorySink::new(), Keys::create());
        Self {
            queue: ScriptedQueue { inner, sink: sink.clone(), seen: Arc::default() },
            sink,
            shared: shared(&keys),
            shutdown: Shutdown::new(),
            workers,
            max_bytes: 64 << 20,
            _keys: keys,
        }
    }

    pub(crate) fn send(&self, user: &str) -> Key {
        self.queue.inner.send(login(user, "199.172.111.135").into_bytes())
    }

    pub(crate) fn send_many(&self, count: usize) -> Vec<Key> {
        (0..count).map(|number| self.send(&format!("user-{number}"))).collect()
    }

    pub(crate) fn send_wrong(&self) -> Key {
        self.queue.inner.send(WRONG.to_vec())
    }

    fn worker(&self, drain: bool) -> Worker<ScriptedQueue, MemorySink> {
        let config = config();
        let stored: Vec<ColumnType> = config.columns.iter().map(|column| column.column_type).collect();
        let limits = config.columns.iter().map(|column| Limits::of(column.column_type, column.mask.as_ref())).collect();
        let keys = &self.shared.keys;
        let epoch = keys.new_epoch(now_ms()).unwrap();
        Worker {
            queue: self.queue.clone(),
            sink: self.sink.clone(),
            intake: Intake::new(VISIBILITY, self.max_bytes, drain),
            masker: Masker::new(&config.columns, &stored, Arc::clone(keys), epoch).unwrap(),
            decoder: Arc::new(Decoder::new(config.columns, limits, config.unknown_fields)),
            status: Arc::clone(&self.shared.status),
            metrics: Arc::clone(&self.shared.metrics),
        }
    }

    fn spawn(&self, drain: bool) -> JoinHandle<Result<(), PipelineError>> {
        let workers = (0..self.workers).map(|_| self.worker(drain)).collect();
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move { pipeline::run(workers, &shutdown).await })
    }

    /// Runs until the queue is empty; everything is settled then.
    pub(crate) async fn drain(&self) {
        self.drain_within(Duration::from_secs(24 * 3600)).await;
    }

    pub(crate) async fn drain_within(&self, limit: Duration) {
        let ended = tokio::time::timeout(limit, self.spawn(true)).await;
        ended.expect("the queue is not drained in time").unwrap().unwrap();
        assert!(self.queue.inner.count().is_empty());
        self.assert_adds_up();
    }

    /// Runs until [`Stage::stop`].
    pub(crate) fn run(&self) -> Running<'_> {
        Running { stage: self, ended: self.spawn(false) }
    }

    /// Received is rows, dead letters, duplicates and what went back, together.
    pub(crate) fn assert_adds_up(&self) {
        let metrics = &self.shared.metrics;
        let ended = [metrics.rows.get(), metrics.dead_lettered(), metrics.duplicates.get(), metrics.returned.get()];
        assert_eq!(metrics.received.get(), ended.iter().sum::<u64>(), "rows, dead, duplicates, returned: {ended:?}");
    }

    /// Rows, dead letters, duplicates, returned.
    pub(crate) fn counted(&self) -> (u64, u64, u64, u64) {
        let metrics = &self.shared.metrics;
        (metrics.rows.get(), metrics.dead_lettered(), metrics.duplicates.get(), metrics.returned.get())
    }

    /// Every one of these is a row, and nothing else is anything.
    pub(crate) fn assert_rows(&self, keys: &[Key]) {
        let outcomes = self.sink.outcomes();
        assert_eq!(outcomes.len(), keys.len());
        let lost: Vec<&Key> = keys.iter().filter(|key| !matches!(outcomes.get(key), Some(Stored::Row(_)))).collect();
        assert!(lost.is_empty(), "no rows: {lost:?}");
    }

    /// The reasons of all dead letters.
    pub(crate) fn reasons(&self) -> Vec<(Key, String)> {
        let dead = |(key, stored)| match stored {
            Stored::Dead(reason) => Some((key, reason.to_string())),
            Stored::Row(_) => None,
        };
        self.sink.outcomes().into_iter().filter_map(dead).collect()
    }

    /// Waits, however long the paused clock has to be wound on for it.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if is_so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not come to this: {what}");
    }

    /// What is said to be wrong with this part.
    pub(crate) fn trouble(&self, trouble: Trouble) -> Option<String> {
        self.shared.status.troubles().into_iter().find(|(part, _)| *part == trouble.name()).map(|(_, what)| what)
    }
}

/// A pipeline that goes on until it is stopped.
pub(crate) struct Running<'a> {
    stage: &'a Stage,
    ended: JoinHandle<Result<(), PipelineError>>,
}

impl Running<'_> {
    /// Gives the signal to stop and waits for the end, of which it answers how long it took.
    pub(crate) async fn stop(self) -> Duration {
        let start = tokio::time::Instant::now();
        let stage = self.stage;
        stage.shutdown.start();
        self.end().await.unwrap();
        stage.assert_adds_up();
        start.elapsed()
    }

    pub(crate) async fn end(self) -> Result<(), PipelineError> {
        tokio::time::timeout(Duration::from_secs(3600), self.ended).await.expect("it does not end").unwrap()
    }
}
