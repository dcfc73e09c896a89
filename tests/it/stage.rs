//! What the tests of the pipeline are played on: workers between a scripted queue and a sink in memory, on tokio's
//! clock, which the tests run paused.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use masq::{
    config::ColumnType,
    pipeline::{
        self, PipelineError, Trouble, Worker, decode::Decoder, mask::Masker, now_ms, receive::Intake, value::Limits,
    },
    queue::{Key, room::Room},
    shutdown::Shutdown,
    sink::memory::{MemorySink, Stored},
    start::Shared,
};
use tokio::task::JoinHandle;

use crate::{
    scripted::ScriptedQueue,
    support::{Keys, config, login, shared},
};

/// Workers, what they stand between, and how they are set.
pub(crate) struct Stage {
    pub(crate) queue: ScriptedQueue,
    pub(crate) sink: MemorySink,
    pub(crate) shared: Shared,
    pub(crate) shutdown: Shutdown,
    pub(crate) workers: usize,
    pub(crate) room: Room,
    _keys: Keys,
}

/// A message that no configured column is in.
pub(crate) const WRONG: &[u8] = br#"{"foo": "oops_wrong_msg_type", "bar": "123"}"#;

/// For how long a message is hidden at a time.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(30);

impl Stage {
    pub(crate) fn new(workers: usize) -> Self {
        Self::on("login-queue", workers)
    }

    /// With a queue of this name, which makes it a FIFO queue or not.
    pub(crate) fn on(queue: &str, workers: usize) -> Self {
        let (sink, keys) = (MemorySink::new(), Keys::create());
        Self {
            queue: ScriptedQueue::new(queue, Some(sink.clone())),
            sink,
            shared: shared(&keys),
            shutdown: Shutdown::new(),
            workers,
            room: Room::new(64 << 20),
            _keys: keys,
        }
    }

    /// Another process on the same queue and sink.
    pub(crate) fn beside(other: &Self) -> Self {
        Self { queue: other.queue.clone(), sink: other.sink.clone(), ..Self::new(1) }
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
        let epoch = keys.new_epoch(now_ms()).now_or_never().unwrap().unwrap();
        Worker {
            queue: self.queue.clone(),
            sink: self.sink.clone(),
            intake: Intake::new(VISIBILITY, self.room.clone(), drain),
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
        self.drain_in_vain(limit).await;
        assert!(self.queue.inner.count().is_empty());
    }

    /// Runs as long as that would drain the queue, whatever stays on it.
    pub(crate) async fn drain_in_vain(&self, limit: Duration) {
        let ended = tokio::time::timeout(limit, self.spawn(true)).await;
        ended.expect("the workers do not end in time").unwrap().unwrap();
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
