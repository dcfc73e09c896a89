//! A queue in memory whose faults a script says, for the tests of the pipeline.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use masq::{
    queue::{
        Cause, Depth, Key, Message, Queue, QueueError, Receipt,
        memory::{MemoryQueue, MemoryQueues, Settings},
        room::Room,
    },
    sink::memory::MemorySink,
};
use tokio::{sync::Notify, time::Instant};

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

/// A queue in memory whose faults are taken from scripts, one for each kind of call. It watches how much is held and,
/// if it may look into the sink, that nothing is deleted that has no outcome yet.
#[derive(Clone)]
pub(crate) struct ScriptedQueue {
    pub(crate) inner: MemoryQueue,
    sink: Option<MemorySink>,
    seen: Arc<Mutex<Seen>>,
    /// Told when there may be ghosts.
    appeared: Arc<Notify>,
}

#[derive(Default)]
struct Seen {
    receives: VecDeque<QueueFault>,
    extends: VecDeque<QueueFault>,
    deletes: VecDeque<QueueFault>,
    haunted: bool,
    /// What is delivered when nothing else is left.
    ghosts: Vec<Message>,
    polls: usize,
    deliveries: HashMap<Receipt, Key>,
    held: HashMap<Key, u64>,
    bytes_held: u64,
    most_held: u64,
}

impl ScriptedQueue {
    pub(crate) fn new(name: &str, sink: Option<MemorySink>) -> Self {
        let inner = MemoryQueues::new().create(name, Settings::default()).unwrap();
        Self { inner, sink, seen: Arc::default(), appeared: Arc::default() }
    }

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
        self.seen().haunted = true;
    }

    /// Delivers a message that was sent at another time, or once more.
    pub(crate) fn deliver(&self, key: Key, body: &[u8]) {
        self.seen().ghosts.push(ghost(key, body.to_vec()));
        self.appeared.notify_waiters();
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.count().is_empty() && self.seen().ghosts.is_empty() && self.seen().held.is_empty()
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
            if seen.haunted && !message.receipt.0.starts_with(GHOST) {
                seen.ghosts.push(ghost(message.key, message.body.expose().clone()));
            }
        }
        seen.most_held = seen.most_held.max(seen.bytes_held);
    }

    async fn take(&self, wait: Duration, visibility: Duration, room: &Room) -> Result<Vec<Message>, QueueError> {
        let end = Instant::now() + wait;
        loop {
            let appeared = self.appeared.notified();
            let ghosts = self.ghosts();
            if !ghosts.is_empty() {
                return Ok(ghosts);
            }
            tokio::select! {
                biased;
                // A poll of this queue that is dropped has taken nothing.
                messages = self.inner.receive(end - Instant::now(), visibility, room) => return messages,
                () = appeared => {}
            }
        }
    }

    /// Ghosts appear once their messages are gone.
    fn ghosts(&self) -> Vec<Message> {
        if !self.inner.count().is_empty() {
            return Vec::new();
        }
        let mut seen = self.seen();
        let count = seen.ghosts.len().min(10);
        seen.ghosts.drain(..count).collect()
    }
}

/// How the receipts of ghosts begin. They are not the inner queue's, and every change of one succeeds.
const GHOST: &str = "ghost";

fn ghost(key: Key, body: Vec<u8>) -> Message {
    Message::new(key, 1, body, Receipt(format!("{GHOST}-{}", uuid::Uuid::new_v4()).into()))
}

fn unavailable(action: &'static str) -> QueueError {
    QueueError::Unavailable { action, reason: "the queue is away".to_owned(), cause: Cause::Fault }
}

fn denied(action: &'static str) -> QueueError {
    QueueError::Denied { action, reason: "AccessDenied".to_owned() }
}

impl Queue for ScriptedQueue {
    async fn receive(&self, wait: Duration, visibility: Duration, room: &Room) -> Result<Vec<Message>, QueueError> {
        self.seen().polls += 1;
        let fault = self.seen().receives.pop_front().unwrap_or(QueueFault::None);
        match fault {
            QueueFault::Unavailable => return Err(unavailable("ReceiveMessage")),
            QueueFault::Denied => return Err(denied("ReceiveMessage")),
            QueueFault::Hang => return std::future::pending().await,
            QueueFault::Panic => panic!("a defect"),
            QueueFault::AnswerLost | QueueFault::Half | QueueFault::None => {}
        }
        let messages = self.take(wait, visibility, room).await?;
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
            async move { inner.extend(&some, visibility).await.map(|failed| without_ghosts(failed, &some)) }
        })
        .await
    }

    async fn delete(&self, receipts: &[Receipt]) -> Result<Vec<usize>, QueueError> {
        if let Some(sink) = &self.sink {
            let outcomes = sink.outcomes();
            let early = receipts.iter().find(|receipt| !outcomes.contains_key(&self.seen().deliveries[*receipt]));
            assert_eq!(early, None, "deleted before it has an outcome");
        }
        let fault = self.seen().deletes.pop_front().unwrap_or(QueueFault::None);
        let failed = faulty("DeleteMessageBatch", fault, receipts, |some| {
            let (inner, some) = (self.inner.clone(), some.to_vec());
            async move { inner.delete(&some).await.map(|failed| without_ghosts(failed, &some)) }
        })
        .await?;
        let mut seen = self.seen();
        for (_, receipt) in receipts.iter().enumerate().filter(|(at, _)| !failed.contains(at)) {
            let key = seen.deliveries[receipt];
            seen.bytes_held -= seen.held.remove(&key).unwrap_or(0);
        }
        drop(seen);
        self.appeared.notify_waiters();
        Ok(failed)
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let ghosts = self.seen().ghosts.len() as u64;
        self.inner.depth().await.map(|depth| Depth { visible: depth.visible + ghosts, ..depth })
    }
}

fn without_ghosts(failed: Vec<usize>, receipts: &[Receipt]) -> Vec<usize> {
    failed.into_iter().filter(|at| !receipts[*at].0.starts_with(GHOST)).collect()
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
