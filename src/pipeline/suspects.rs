//! Messages that have come so often that reading them may be what ends the process: they are read on the record.
//!
//! Before such messages are read, that is put on record, and once they have been read, the record is cleared. Whoever
//! finds a message on record already knows that a reader before did not live to clear it. Then the message is read
//! alone, and after three such readers it is read no more, but sealed as a dead letter as it is. So poison does not end
//! processes for ever, its neighbours go on, and nothing but its readers' ends makes poison of a message: no outage, no
//! slow database, no count alone. One end is not enough, for a process may be killed at any moment, and this is one.

use std::collections::{BTreeSet, HashMap};

use super::{
    Worker,
    decode::{Decoded, decode},
    retry::Retry,
};
use crate::{
    event::{Reason, Reject},
    queue::{Key, Message, Queue},
    shutdown::Shutdown,
    sink::Sink,
};

/// So many readers in a row whom a message has outlived make it poison: one who read it among others, two who read it
/// alone.
const READERS: u32 = 3;

impl<Q: Queue, S: Sink> Worker<Q, S> {
    /// Decodes a batch in which some messages have come often. Told to stop before those can be put on record, it gives
    /// all of it back: some of the others may have to wait for them.
    pub(super) async fn decode_suspects(&mut self, messages: Vec<Message>, shutdown: &Shutdown) -> Vec<Decoded> {
        let is_suspect = |message: &Message| message.attempt >= self.intake.suspect_from;
        // In order, so that two workers do not wait for each other's records.
        let suspects: BTreeSet<Key> = messages.iter().filter(|m| is_suspect(m)).map(|message| message.key).collect();
        let new: Vec<Key> = suspects.iter().copied().collect();
        let Some(known) = self.put_on_record(&new, shutdown).await else {
            self.put_back(messages).await;
            return Vec::new();
        };
        let (alone, together): (Vec<Message>, Vec<Message>) =
            messages.into_iter().partition(|message| known.contains_key(&message.key));
        let mut decoded = decode(together, &self.decoder);
        let read: Vec<Key> = new.into_iter().filter(|key| !known.contains_key(key)).collect();
        self.clear_record(&read, shutdown).await;
        let mut alone = alone.into_iter();
        while let Some(message) = alone.next() {
            let readers = known[&message.key];
            match self.decode_alone(message, readers, shutdown).await {
                Ok(one) => decoded.extend(one),
                Err(message) => {
                    let read = decoded.into_iter().map(|decoded| decoded.message);
                    self.put_back(read.chain([message]).chain(alone).collect()).await;
                    return Vec::new();
                }
            }
        }
        decoded
    }

    /// Decodes a message that so many readers did not survive. Told to stop before that can be noted, it leaves it
    /// unread.
    async fn decode_alone(
        &mut self,
        message: Message,
        readers: u32,
        shutdown: &Shutdown,
    ) -> Result<Vec<Decoded>, Message> {
        if readers >= READERS {
            let reject = Reject { reason: Reason::PoisonReceiveCount, subject: None };
            return Ok(Vec::from([Decoded { message, meaning: Err(reject) }]));
        }
        let key = message.key;
        if !self.put_on_record_again(key, readers + 1, shutdown).await {
            return Err(message);
        }
        let decoded = decode(Vec::from([message]), &self.decoder);
        self.clear_record(&[key], shutdown).await;
        Ok(decoded)
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
