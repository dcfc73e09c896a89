//! The left edge of a simulated world: the queue in memory, with everything that Amazon SQS may do to its users.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use masq::{
    mutant::Mutant,
    queue::{
        Cause, Depth, Key, Message, Place, Queue, QueueError, Receipt,
        memory::{self, MemoryQueue, MemoryQueues, Outgoing, Redrive, Settings, Watch},
        room::Room,
    },
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::{
    database::Database,
    fault::{Call, Fault, On},
    plan::{Kind, Plan},
    trace::Event,
    world::World,
};

/// How long a call takes that is never answered, beyond what it waits: `queue::sqs` ends it then.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What events are claimed for in every world.
pub const QUEUE: &str = "login-queue";

/// The names of a queue and its dead-letter queue, standard and FIFO.
const NAMES: [[&str; 2]; 2] = [[QUEUE, "dead-logins"], ["login-queue.fifo", "dead-logins.fifo"]];

/// One process's handle on the queue.
#[derive(Clone)]
pub struct SimQueue {
    process: usize,
    /// Which of the two it receives from.
    inner: MemoryQueue,
    shared: Arc<Shared>,
}

struct Shared {
    dead: MemoryQueue,
    world: World,
    database: Database,
    seen: Mutex<Seen>,
    /// Told when a ghost has been made.
    appeared: Notify,
}

#[derive(Default)]
struct Seen {
    /// Every delivery: its message.
    deliveries: BTreeMap<Arc<str>, Delivered>,
    /// Deleted messages that will come again, and when.
    ghosts: Vec<(Instant, Delivered)>,
    ghosts_delivered: usize,
}

#[derive(Clone)]
struct Delivered {
    key: Key,
    body: Vec<u8>,
    place: Option<Place>,
}

/// How the receipts of ghosts begin; they are not the inner queue's.
const GHOST: &str = "ghost";

impl SimQueue {
    pub fn new(world: &World, database: &Database, plan: &Plan) -> Self {
        let queues = MemoryQueues::new();
        let [name, target] = NAMES[usize::from(plan.groups.is_some())];
        let dead = queues.create(target, Settings::default()).unwrap();
        let redrive = plan.max_receive_count;
        let redrive = redrive.map(|max_receive_count| Redrive { target: target.to_owned(), max_receive_count });
        let inner =
            queues.create(name, Settings { redrive, ..Settings::default() }).unwrap().watched(Some(watch(world)));
        let (world, database) = (world.clone(), database.clone());
        let shared = Shared { dead, world, database, seen: Mutex::default(), appeared: Notify::new() };
        Self { process: 0, inner, shared: Arc::new(shared) }
    }

    pub fn of_process(&self, process: usize) -> Self {
        Self { process, ..self.clone() }
    }

    /// The dead-letter queue, where the same is done to its users.
    pub fn of_dead_letters(&self) -> Self {
        Self { inner: self.shared.dead.clone(), ..self.clone() }
    }

    pub fn send(&self, kind: Kind) {
        let group = self.shared.world.next_group();
        let named = group.map(|group| group.to_string().into());
        let key = self.inner.send(Outgoing { group: named, ..Outgoing::from(kind.body()) });
        self.shared.world.send(key, kind, group);
    }

    /// Whether nothing is left, neither hidden nor to come.
    pub fn is_empty(&self) -> bool {
        self.inner.count().is_empty() && self.shared.seen.lock().unwrap().ghosts.is_empty()
    }

    /// Whatever is still to come again comes now.
    pub fn calm(&self) {
        let mut seen = self.shared.seen.lock().unwrap();
        for (due, _) in &mut seen.ghosts {
            *due = Instant::now();
        }
        drop(seen);
        self.shared.appeared.notify_waiters();
    }

    /// A refusal that all calls share. `wait`: what a call that is never answered waits for anyway.
    async fn refuse(&self, call: Call, wait: Duration) -> Result<(), QueueError> {
        let world = &self.shared.world;
        world.feel(On::Call(self.process, call));
        let action = match call {
            Call::Receive => "ReceiveMessage",
            Call::Extend => "ChangeMessageVisibilityBatch",
            Call::Delete | Call::Write => "DeleteMessageBatch",
        };
        let (fault, cause) = if world.hit(Fault::Throttle) {
            (Fault::Throttle, Cause::Throttled)
        } else if world.hit(Fault::Unavailable) {
            (Fault::Unavailable, Cause::Fault)
        } else if world.hit(Fault::Hang) {
            world.endure(wait + ATTEMPT).await;
            (Fault::Hang, Cause::Fault)
        } else if call == Call::Receive && world.hit(Fault::Crowded) {
            (Fault::Crowded, Cause::Crowded)
        } else if call != Call::Extend && world.is_going_on(Fault::Denied) {
            world.fail(self.process, call, Fault::Denied);
            return Err(QueueError::Denied { action, reason: "AccessDenied".to_owned() });
        } else {
            return Ok(());
        };
        world.fail(self.process, call, fault);
        Err(QueueError::Unavailable { action, reason: format!("{fault:?}"), cause })
    }

    fn lost(&self, call: Call, fault: Fault, action: &'static str) -> QueueError {
        self.shared.world.note(&Event::Failed(self.process, call, fault));
        QueueError::Unavailable { action, reason: "the answer was lost".to_owned(), cause: Cause::Fault }
    }

    async fn latency(&self) {
        sleep(self.shared.world.between(1, 30)).await;
    }

    async fn take(&self, wait: Duration, visibility: Duration, room: &Room) -> Result<Vec<Message>, QueueError> {
        let end = Instant::now() + wait;
        loop {
            let appeared = self.shared.appeared.notified();
            let (ghosts, due) = self.ghosts();
            if !ghosts.is_empty() {
                return Ok(ghosts);
            }
            tokio::select! {
                biased;
                // A poll of this queue that is dropped has taken nothing.
                messages = self.inner.receive(end - Instant::now(), visibility, room) => return messages,
                () = appeared => {}
                () = sleep_until(due.unwrap_or(end)), if due.is_some_and(|due| due < end) => {}
            }
        }
    }

    /// The ghosts that are due, or when the next one is.
    fn ghosts(&self) -> (Vec<Message>, Option<Instant>) {
        let mut seen = self.shared.seen.lock().unwrap();
        let now = Instant::now();
        let mut due: Vec<_> = seen.ghosts.extract_if(.., |(due, _)| *due <= now).collect();
        let rest = due.split_off(due.len().min(10));
        seen.ghosts.extend(rest);
        let next = seen.ghosts.iter().map(|(due, _)| *due).min();
        let ghost = |(_, Delivered { key, body, place })| {
            seen.ghosts_delivered += 1;
            let receipt = Receipt(format!("{GHOST}-{}", seen.ghosts_delivered).into());
            Message { place, ..Message::new(key, 1, body, receipt) }
        };
        (due.into_iter().map(ghost).collect(), next)
    }

    /// Notes what is delivered, and spoils some of it.
    fn deliver(&self, messages: &[Message]) {
        let (inner, world) = (&self.inner, &self.shared.world);
        let numbered = messages.iter().map(|message| (world.number(message.key), message.attempt));
        world.note(&Event::Received(self.process, numbered.collect()));
        for message in messages {
            if message.attempt > 1 && world.only_database() {
                world.wrong(format!("message {} comes again because the database fails", world.number(message.key)));
            }
            world.feel(On::Delivery(message.key));
            world.feel(On::Extension(message.key));
            world.state().processes[self.process].held.insert(message.key);
            let mut seen = self.shared.seen.lock().unwrap();
            let delivered = Delivered { key: message.key, body: message.body.expose().clone(), place: message.place };
            seen.deliveries.insert(message.receipt.0.clone(), delivered);
            drop(seen);
            if message.receipt.0.starts_with(GHOST) {
                continue;
            }
            // An answer that has waited for room may tell of messages that are gone by now.
            let hide = |rest| _ = inner.hide(&message.receipt.0, rest);
            if world.is(Mutant::DeleteFirst) {
                _ = inner.remove(&message.receipt.0);
            } else if world.hit(Fault::Double) {
                hide(Duration::ZERO);
                world.mark(On::Delivery(message.key), Fault::Double);
            } else if world.hit(Fault::Early) {
                hide(world.between(1, 2000));
                world.mark(On::Delivery(message.key), Fault::Early);
            }
        }
    }

    /// The message that a receipt is for.
    fn delivery(&self, receipt: &Receipt) -> Delivered {
        self.shared.seen.lock().unwrap().deliveries[&receipt.0].clone()
    }

    /// One entry of a delete. `false`: it fails.
    fn delete_one(&self, receipt: &Receipt) -> bool {
        let Shared { world, database, .. } = &*self.shared;
        let delivered = self.delivery(receipt);
        let key = delivered.key;
        world.feel(On::Delete(key));
        if world.hit(Fault::FailedEntries) {
            world.mark(On::Delete(key), Fault::FailedEntries);
            world.mark(On::Delivery(key), Fault::FailedEntries);
            return false;
        }
        world.state().processes[self.process].held.remove(&key);
        world.note(&Event::Deleted(self.process, world.number(key)));
        if !database.has_outcome(key) {
            world.wrong(format!("message {} is deleted before its outcome is committed", world.number(key)));
        }
        let is_ghost = receipt.0.starts_with(GHOST);
        if !is_ghost && world.hit(Fault::StaleDelete) {
            world.mark(On::Delivery(key), Fault::StaleDelete);
            return true;
        }
        if !is_ghost {
            self.inner.remove(&receipt.0).unwrap();
        }
        if world.hit(Fault::Ghost) {
            let due = Instant::now() + world.between(0, 20_000);
            world.mark(On::Delivery(key), Fault::Ghost);
            self.shared.seen.lock().unwrap().ghosts.push((due, delivered));
            self.shared.appeared.notify_waiters();
        }
        true
    }
}

/// Tells the world what is moved to the dead-letter queue.
fn watch(world: &World) -> Watch {
    let world = world.clone();
    Arc::new(move |event| {
        if let memory::Event::Dead { key, .. } = event {
            world.fired(Fault::Redriven);
            world.mark(On::Delivery(*key), Fault::Redriven);
            world.note(&Event::Moved(world.number(*key)));
        }
    })
}

impl Queue for SimQueue {
    async fn receive(&self, wait: Duration, visibility: Duration, room: &Room) -> Result<Vec<Message>, QueueError> {
        let (inner, world) = (&self.inner, &self.shared.world);
        world.point(self.process).await;
        self.latency().await;
        self.refuse(Call::Receive, wait).await?;
        if inner.count().visible > 0 && world.hit(Fault::Empty) {
            world.mark(On::Call(self.process, Call::Receive), Fault::Empty);
            return Ok(Vec::new());
        }
        let messages = self.take(wait, visibility, room).await?;
        if messages.is_empty() {
            return Ok(messages);
        }
        self.deliver(&messages);
        if world.hit(Fault::LostReceive) {
            for message in &messages {
                world.mark(On::Delivery(message.key), Fault::LostReceive);
            }
            return Err(self.lost(Call::Receive, Fault::LostReceive, "ReceiveMessage"));
        }
        self.latency().await;
        world.point(self.process).await;
        Ok(messages)
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Result<Vec<usize>, QueueError> {
        let (inner, world) = (&self.inner, &self.shared.world);
        world.point(self.process).await;
        self.latency().await;
        self.refuse(Call::Extend, Duration::ZERO).await?;
        let keys: Vec<Key> = receipts.iter().map(|receipt| self.delivery(receipt).key).collect();
        let numbers = keys.iter().map(|key| world.number(*key)).collect();
        world.note(&Event::Extended(self.process, numbers, visibility));
        let mut failed = Vec::new();
        for (at, (receipt, &key)) in receipts.iter().zip(&keys).enumerate() {
            world.feel(On::Extension(key));
            if world.hit(Fault::FailedExtend) {
                world.mark(On::Extension(key), Fault::FailedExtend);
                failed.push(at);
            } else if !receipt.0.starts_with(GHOST) && inner.hide(&receipt.0, visibility).is_err() {
                failed.push(at);
            }
        }
        if world.hit(Fault::LostExtend) {
            keys.iter().for_each(|key| world.mark(On::Extension(*key), Fault::LostExtend));
            return Err(self.lost(Call::Extend, Fault::LostExtend, "ChangeMessageVisibilityBatch"));
        }
        Ok(failed)
    }

    async fn delete(&self, receipts: &[Receipt]) -> Result<Vec<usize>, QueueError> {
        let world = &self.shared.world;
        world.point(self.process).await;
        self.latency().await;
        self.refuse(Call::Delete, Duration::ZERO).await?;
        let deleted = receipts.iter().enumerate().filter(|(_, receipt)| !self.delete_one(receipt));
        let failed = deleted.map(|(at, _)| at).collect();
        if world.hit(Fault::LostDelete) {
            for receipt in receipts {
                world.mark(On::Delete(self.delivery(receipt).key), Fault::LostDelete);
            }
            return Err(self.lost(Call::Delete, Fault::LostDelete, "DeleteMessageBatch"));
        }
        self.latency().await;
        world.point(self.process).await;
        Ok(failed)
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        Ok(self.inner.count())
    }
}
