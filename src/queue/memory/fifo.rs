//! What a FIFO queue keeps besides the messages: which of them form a group, and which were sent before. A state machine
//! without clock or lock, as the backlog whose part it is.
//!
//! The rules: AWS, "FIFO queue delivery logic" and "Using the message deduplication ID".

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::backlog::Place;
use crate::queue::Key;

/// For how long the same deduplication id means the same message, in milliseconds.
const WINDOW: i64 = 5 * 60 * 1000;

/// The first sequence number: they have twenty digits, as the service's.
const FIRST_SEQUENCE: u64 = 10_000_000_000_000_000_000;

/// How a message of a FIFO queue is known besides its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// MessageGroupId: messages of one group are delivered in the order in which they were sent.
    pub group: Arc<str>,
    /// MessageDeduplicationId.
    pub deduplication_id: Arc<str>,
    /// SequenceNumber: grows with every message of the queue, and has twenty digits.
    pub sequence: u64,
}

/// The sequence number of the message that came to its queue after so many others.
pub(super) fn sequence(arrival: u64) -> u64 {
    FIRST_SEQUENCE.saturating_add(arrival)
}

/// The deduplication id of a message whose sender named none, by its content.
pub(super) fn content_id(body: &[u8]) -> Arc<str> {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// The messages of a queue by their groups.
#[derive(Default)]
pub(super) struct Groups(HashMap<Arc<str>, Group>);

#[derive(Default)]
struct Group {
    members: BTreeSet<Place>,
    /// How many of them are delivered and not visible again. While there is one, no other is delivered.
    in_flight: i64,
    /// Which of them a receive may find.
    offered: Option<Place>,
}

impl Groups {
    pub(super) fn add(&mut self, group: &Arc<str>, place: Place) {
        self.0.entry(Arc::clone(group)).or_default().members.insert(place);
    }

    pub(super) fn remove(&mut self, group: &str, place: Place) {
        if let Some(group) = self.0.get_mut(group) {
            group.members.remove(&place);
        }
    }

    pub(super) fn count_in_flight(&mut self, group: &str, more: i64) {
        if let Some(group) = self.0.get_mut(group) {
            group.in_flight += more;
        }
    }

    /// The message that is next in its group, if nothing of the group is in flight.
    pub(super) fn first(&self, group: &str) -> Option<Place> {
        self.0.get(group).filter(|group| group.in_flight == 0)?.members.first().copied()
    }

    /// The message behind this one.
    pub(super) fn behind(&self, group: &str, place: Place) -> Option<Place> {
        self.0.get(group)?.members.range(place..).find(|next| **next != place).copied()
    }

    /// Notes which message of a group a receive may find, and answers which it was before. An empty group is forgotten.
    pub(super) fn offer(&mut self, group: &str, place: Option<Place>) -> Option<Place> {
        let found = self.0.get_mut(group)?;
        let before = std::mem::replace(&mut found.offered, place);
        if found.members.is_empty() {
            self.0.remove(group);
        }
        before
    }
}

/// What was sent within the last five minutes, by deduplication id.
#[derive(Default)]
pub(super) struct Recent {
    seen: HashMap<Arc<str>, (Key, u64)>,
    /// When each was sent, oldest first.
    sent: VecDeque<(i64, Arc<str>)>,
}

impl Recent {
    /// The message that was sent first with this id, with its sequence number.
    pub(super) fn find(&mut self, id: &str, now: i64) -> Option<(Key, u64)> {
        while let Some((_, old)) = self.sent.pop_front_if(|(at, _)| *at <= now - WINDOW) {
            self.seen.remove(&old);
        }
        self.seen.get(id).copied()
    }

    pub(super) fn keep(&mut self, id: Arc<str>, key: Key, sequence: u64) {
        self.sent.push_back((key.sent_at, Arc::clone(&id)));
        self.seen.insert(id, (key, sequence));
    }
}

#[cfg(test)]
mod tests {
    //! The promises of a FIFO queue, on a paused clock; what it has in common with others is in `memory::tests`.

    use std::time::Duration;

    use tokio::time::advance;

    use super::super::{Accepted, Delivery, MemoryQueue, MemoryQueues, Outgoing, Redrive, Settings};
    use crate::queue::{Place, Queue, room::Room};

    const NOW: Duration = Duration::ZERO;
    const SECOND: Duration = Duration::from_secs(1);
    const HIDDEN: Duration = Duration::from_secs(30);

    fn queue_with(settings: Settings) -> MemoryQueue {
        MemoryQueues::new().create("orders.fifo", settings).unwrap()
    }

    fn queue() -> MemoryQueue {
        queue_with(Settings::default())
    }

    /// Sends bodies of one letter, each to the group of that name: `Aa` are two groups.
    fn send(queue: &MemoryQueue, groups: &str) {
        for group in groups.chars() {
            queue.send(Outgoing { group: Some(group.to_string().into()), ..Outgoing::from(*b"body") });
        }
    }

    fn names(deliveries: &[Delivery]) -> String {
        deliveries.iter().map(|it| it.order.as_ref().unwrap().group.to_string()).collect()
    }

    async fn take(queue: &MemoryQueue, max: usize) -> Vec<Delivery> {
        queue.take(max, NOW, HIDDEN).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_with_a_message_in_flight_waits_and_others_go_on() {
        let queue = queue();
        send(&queue, "aabaac");
        let first = take(&queue, 3).await;
        assert_eq!(names(&first), "aaa", "as many of a group as there are");
        assert_eq!(names(&take(&queue, 10).await), "bc");
        assert_eq!(queue.count().visible, 1);

        for delivery in &first[..2] {
            queue.remove(&delivery.receipt).unwrap();
            assert_eq!(names(&take(&queue, 10).await), "", "one is still in flight");
        }
        queue.remove(&first[2].receipt).unwrap();
        assert_eq!(names(&take(&queue, 10).await), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_back_comes_before_what_was_behind_it() {
        let queue = queue();
        send(&queue, "aaa");
        let first = take(&queue, 2).await;
        queue.hide(&first[0].receipt, NOW).unwrap();
        assert_eq!(names(&take(&queue, 10).await), "", "the second is still in flight");
        queue.hide(&first[1].receipt, SECOND).unwrap();
        advance(SECOND).await;
        let again = take(&queue, 10).await;
        let sequences: Vec<u64> = again.iter().map(|it| it.order.as_ref().unwrap().sequence).collect();
        assert!(sequences.is_sorted() && sequences.len() == 3, "{sequences:?}");
        assert_eq!([&again[0].id, &again[1].id], [&first[0].id, &first[1].id]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_wakes_when_a_group_is_free_again() {
        let queue = queue();
        send(&queue, "aa");
        let first = take(&queue, 1).await;
        let waiter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.take(10, HIDDEN, HIDDEN).await.len() }
        });
        advance(SECOND).await;
        queue.remove(&first[0].receipt).unwrap();
        assert_eq!(waiter.await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_message_holds_up_those_behind_it() {
        let queue = queue();
        let delayed = Outgoing { group: Some("a".into()), delay: Some(SECOND), ..Outgoing::from(*b"1") };
        queue.send(delayed);
        send(&queue, "ab");
        assert_eq!(names(&take(&queue, 10).await), "b");
        advance(SECOND).await;
        assert_eq!(names(&take(&queue, 10).await), "aa");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_deduplication_id_is_the_same_message_for_five_minutes() {
        let queue = queue();
        let send = |body: &[u8], id: &str| {
            let ids = (Some("a".into()), Some(id.into()));
            queue.accept(Outgoing { group: ids.0, deduplication_id: ids.1, ..Outgoing::from(body) })
        };
        let first = send(b"1", "x");
        assert_eq!(first.sequence.unwrap().to_string().len(), 20);
        let other = send(b"1", "y");
        assert!(other.sequence > first.sequence && other.key != first.key);
        for delivery in take(&queue, 10).await {
            queue.remove(&delivery.receipt).unwrap();
        }
        advance(299 * SECOND).await;
        assert_eq!(send(b"2", "x"), first, "also when it is deleted");
        assert!(queue.count().is_empty());
        advance(SECOND).await;
        assert_ne!(send(b"2", "x").key, first.key);
        assert_eq!(queue.count().visible, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_may_tell_messages_apart_by_their_content() {
        let queue = queue_with(Settings { content_based_deduplication: true, ..Settings::default() });
        let send = |body: &'static [u8], id: Option<&str>| {
            queue.accept(Outgoing { deduplication_id: id.map(Into::into), ..Outgoing::from(body) })
        };
        let first = send(b"a", None);
        assert_eq!(send(b"a", None), first);
        assert_ne!(send(b"b", None), first);
        assert_ne!(send(b"a", Some("its own")), first);
        let ids = take(&queue, 1).await.remove(0).order.unwrap().deduplication_id;
        assert_eq!(&*ids, "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "SHA-256 of the body");
    }

    #[tokio::test(start_paused = true)]
    async fn a_move_to_the_dead_letter_queue_begins_a_new_life_in_the_same_group() {
        let queues = MemoryQueues::new();
        let dead = queues.create("dead.fifo", Settings::default()).unwrap();
        let redrive = Some(Redrive { target: "dead.fifo".into(), max_receive_count: 1 });
        let queue = queues.create("orders.fifo", Settings { redrive, ..Settings::default() }).unwrap();
        send(&queue, "aab");
        let first = take(&queue, 1).await.remove(0);
        advance(HIDDEN).await;
        assert_eq!(names(&take(&queue, 10).await), "ab", "the next of the group takes its place");
        let moved = take(&dead, 10).await.remove(0);
        assert_eq!((moved.id, moved.count, moved.source.as_deref()), (first.id, 2, Some("orders.fifo")));
        assert_eq!(moved.sent_at, first.sent_at + 30_000);
        let order = moved.order.unwrap();
        assert_eq!((&*order.group, &*order.deduplication_id), ("a", first.id.to_string().as_str()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_standard_queue_is_no_dead_letter_queue_of_a_fifo_queue() {
        let queues = MemoryQueues::new();
        queues.create("dead", Settings::default()).unwrap();
        let redrive = Some(Redrive { target: "dead".into(), max_receive_count: 1 });
        let queue = queues.create("orders.fifo", Settings { redrive, ..Settings::default() }).unwrap();
        send(&queue, "a");
        for count in 1..=3 {
            assert_eq!(take(&queue, 1).await[0].count, count);
            advance(HIDDEN).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_pipeline_sees_the_place_of_a_message() {
        let queue = queue();
        let Accepted { sequence, .. } = queue.accept(Outgoing { group: Some("g".into()), ..Outgoing::from(*b"a") });
        let received = queue.receive(NOW, HIDDEN, &Room::new(1 << 20)).await.unwrap();
        assert_eq!(received[0].place, Some(Place::new("g", sequence.unwrap().into())));
    }

    /// A message as a list of them would hold it.
    struct Listed {
        group: u8,
        sequence: u64,
        due: u64,
        in_flight: bool,
        receipt: String,
    }

    /// What a receive brings, looked for from the beginning each time.
    fn expected(list: &[Listed], max: usize, now: u64) -> Vec<u64> {
        let mut taken = Vec::new();
        let mut begun = Vec::new();
        let is_free = |group| !list.iter().any(|it| it.group == group && it.in_flight && it.due > now);
        for at in 0..list.len() {
            let group = list[at].group;
            if begun.contains(&group) || !is_free(group) {
                continue;
            }
            begun.push(group);
            let members = list.iter().filter(|it| it.group == group).take_while(|it| it.due <= now);
            taken.extend(members.map(|it| it.sequence).take(max - taken.len()));
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn any_mix_of_steps_delivers_as_a_plain_list_would() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (queue, mut list, mut now) = (queue(), Vec::<Listed>::new(), 0);
            for _ in 0..100 {
                match random.u8(0..10) {
                    0..4 => {
                        let (group, delay) = (random.u8(0..4), if random.u8(0..8) == 0 { random.u64(1..9) } else { 0 });
                        let outgoing = Outgoing {
                            group: Some(group.to_string().into()),
                            delay: Some(Duration::from_secs(delay)),
                            ..Outgoing::from(*b"a")
                        };
                        let sequence = queue.accept(outgoing).sequence.unwrap();
                        list.push(Listed {
                            group,
                            sequence,
                            due: now + delay,
                            in_flight: false,
                            receipt: String::new(),
                        });
                    }
                    4..7 => {
                        let (max, hidden) = (random.usize(1..11), random.u64(1..9));
                        let wanted = expected(&list, max, now);
                        let deliveries = queue.take(max, NOW, Duration::from_secs(hidden)).await;
                        let sequences: Vec<u64> =
                            deliveries.iter().map(|it| it.order.as_ref().unwrap().sequence).collect();
                        assert_eq!(sequences, wanted, "seed {seed}");
                        for delivery in deliveries {
                            let sequence = delivery.order.unwrap().sequence;
                            let listed = list.iter_mut().find(|it| it.sequence == sequence).unwrap();
                            (listed.due, listed.in_flight, listed.receipt) = (now + hidden, true, delivery.receipt);
                        }
                    }
                    7 => {
                        let seconds = random.u64(0..5);
                        now += seconds;
                        advance(Duration::from_secs(seconds)).await;
                    }
                    _ if list.iter().all(|it| it.receipt.is_empty()) => {}
                    step => {
                        let received: Vec<usize> = (0..list.len()).filter(|at| !list[*at].receipt.is_empty()).collect();
                        let at = *random.choice(&received).unwrap();
                        if step == 8 {
                            let seconds = random.u64(0..9);
                            queue.hide(&list[at].receipt, Duration::from_secs(seconds)).unwrap();
                            list[at].due = now + seconds;
                        } else {
                            queue.remove(&list.remove(at).receipt).unwrap();
                        }
                    }
                }
                let visible = list.iter().filter(|it| it.due <= now).count();
                assert_eq!(queue.count().visible, visible as u64, "seed {seed}");
            }
        }
    }
}
