//! Messages that have come so often that reading them may be what ends the process: they are read on the record.
//!
//! Before such messages are read, that is put on record, and once they have been read, the record is cleared. Whoever
//! finds a message on record already knows that a reader before did not live to clear it. Then the message is read
//! alone, and after three such readers it is read no more, but sealed as a dead letter as it is. So poison does not end
//! processes for ever, its neighbours go on, and nothing but its readers' ends makes poison of a message: no outage, no
//! slow database, no count alone. One end is not enough, for a process may be killed at any moment, and this is one.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hint::black_box,
};

use super::{Worker, decode::Decoder, retry::Retry};
use crate::{
    event::{Event, Reason, Reject},
    queue::{Key, Message, Queue},
    shutdown::Shutdown,
    sink::Sink,
};

/// So many readers in a row whom a message has outlived make it poison: one who read it among others, two who read it
/// alone.
const READERS: u32 = 3;

/// The messages of a batch that nobody is to read any more.
#[derive(Default)]
pub(super) struct Poison(HashSet<Key>);

impl Poison {
    /// What a message means, if it may be read.
    pub(super) fn read<'m>(&self, message: &'m Message, decoder: &Decoder) -> Result<Event<'m>, Reject> {
        if !self.0.is_empty() && self.0.contains(&message.key) {
            return Err(Reject { reason: Reason::PoisonReceiveCount, subject: None });
        }
        decoder.read(message)
    }
}

impl<Q: Queue, S: Sink> Worker<Q, S> {
    /// Reads those messages of a batch that have come often, to see whether it lives; all but the poison may then be
    /// read again without a record. `None`: it is time to stop, and some of the others may have to wait for the
    /// suspects, so that all of the batch has to go back.
    pub(super) async fn find_poison(&mut self, messages: &[Message], shutdown: &Shutdown) -> Option<Poison> {
        let is_suspect = |message: &&Message| message.attempt >= self.intake.suspect_from;
        let suspects: Vec<&Message> = messages.iter().filter(is_suspect).collect();
        if suspects.is_empty() {
            return Some(Poison::default());
        }
        // In order, so that two workers do not wait for each other's records.
        let keys: BTreeSet<Key> = suspects.iter().map(|message| message.key).collect();
        let keys: Vec<Key> = keys.into_iter().collect();
        let known = self.put_on_record(&keys, shutdown).await?;
        let (alone, together): (Vec<&Message>, Vec<&Message>) =
            suspects.into_iter().partition(|message| known.contains_key(&message.key));
        for message in together {
            self.survives(message);
        }
        let read: Vec<Key> = keys.into_iter().filter(|key| !known.contains_key(key)).collect();
        self.clear_record(&read, shutdown).await;

        let mut poison = Poison::default();
        for message in alone {
            let readers = known[&message.key];
            if readers >= READERS {
                poison.0.insert(message.key);
            } else if self.put_on_record_again(message.key, readers + 1, shutdown).await {
                self.survives(message);
                self.clear_record(&[message.key], shutdown).await;
            } else {
                return None;
            }
        }
        Some(poison)
    }

    /// Reads a message; whoever does not live to return has found poison.
    fn survives(&self, message: &Message) {
        black_box(self.decoder.read(message).is_ok());
    }

    /// Puts messages on record; answers those that were there, with the number of their readers. `None`: it is time to
    /// stop.
    async fn put_on_record(&mut self, keys: &[Key], shutdown: &Shutdown) -> Option<HashMap<Key, u32>> {
        let mut retry = Retry::new(&self.status, shutdown);
        loop {
            match self.sink.suspect(keys).await {
                Ok(known) => return Some(known.into_iter().collect()),
                Err(error) if retry.wait_out(&error).await => {}
                Err(_) => return None,
            }
        }
    }

    /// `false`: it is time to stop.
    async fn put_on_record_again(&mut self, key: Key, readers: u32, shutdown: &Shutdown) -> bool {
        let mut retry = Retry::new(&self.status, shutdown);
        while let Err(error) = self.sink.suspect_again(key, readers).await {
            if !retry.wait_out(&error).await {
                return false;
            }
        }
        true
    }

    /// Told to stop before that is done, it leaves the messages on record, as if this reader had not lived: that alone
    /// makes poison of none.
    async fn clear_record(&mut self, keys: &[Key], shutdown: &Shutdown) {
        let mut retry = Retry::new(&self.status, shutdown);
        while let Err(error) = self.sink.absolve(keys).await {
            if !retry.wait_out(&error).await {
                return;
            }
        }
    }
}
