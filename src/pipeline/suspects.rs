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
    circuit::Patience,
    decode::{Decoded, decode},
    load::RETRY,
    status::{Status, Trouble},
};
use crate::{
    event::{Reason, Reject},
    queue::{Key, Message, Queue},
    shutdown::Shutdown,
    sink::{Sink, SinkError},
};

/// So many readers in a row whom a message has outlived make it poison: one who read it among others, two who read it
/// alone.
const READERS: u32 = 3;

impl<Q: Queue, S: Sink> Worker<Q, S> {
    /// Decodes a batch in which some messages have come often. Told to stop before those can be put on record, it gives
    /// them back unread.
    pub(super) async fn decode_suspects(&mut self, messages: Vec<Message>, shutdown: &Shutdown) -> Vec<Decoded> {
        let is_suspect = |message: &Message| message.attempt >= self.intake.suspect_from;
        // In order, so that two workers do not wait for each other's records.
        let suspects: BTreeSet<Key> = messages.iter().filter(|m| is_suspect(m)).map(|message| message.key).collect();
        let new: Vec<Key> = suspects.iter().copied().collect();
        let Some(known) = self.put_on_record(&new, shutdown).await else {
            let (unread, harmless) = messages.into_iter().partition(|message| suspects.contains(&message.key));
            self.put_back(unread).await;
            return decode(harmless, &self.decoder);
        };
        let (alone, together): (Vec<Message>, Vec<Message>) =
            messages.into_iter().partition(|message| known.contains_key(&message.key));
        let mut decoded = decode(together, &self.decoder);
        let read: Vec<Key> = new.into_iter().filter(|key| !known.contains_key(key)).collect();
        self.clear_record(&read, shutdown).await;
        for message in alone {
            let readers = known[&message.key];
            decoded.extend(self.decode_alone(message, readers, shutdown).await);
        }
        decoded
    }

    /// Decodes a message that so many readers did not survive.
    async fn decode_alone(&mut self, message: Message, readers: u32, shutdown: &Shutdown) -> Vec<Decoded> {
        if readers >= READERS {
            let reject = Reject { reason: Reason::PoisonReceiveCount, subject: None };
            return Vec::from([Decoded { message, meaning: Err(reject) }]);
        }
        let key = message.key;
        if !self.put_on_record_again(key, shutdown).await {
            self.put_back(Vec::from([message])).await;
            return Vec::new();
        }
        let decoded = decode(Vec::from([message]), &self.decoder);
        self.clear_record(&[key], shutdown).await;
        decoded
    }

    /// Puts messages on record; answers those that were there, with the number of their readers. `None`: it is time to
    /// stop.
    async fn put_on_record(&mut self, keys: &[Key], shutdown: &Shutdown) -> Option<HashMap<Key, u32>> {
        let mut patience = Patience::new(&self.status.database, shutdown, RETRY.0, RETRY.1);
        loop {
            match self.sink.suspect(keys).await {
                Ok(known) => {
                    patience.done();
                    return Some(known.into_iter().collect());
                }
                Err(error) if wait_out(&error, &mut patience, &self.status).await => {}
                Err(_) => return None,
            }
        }
    }

    /// `false`: it is time to stop.
    async fn put_on_record_again(&mut self, key: Key, shutdown: &Shutdown) -> bool {
        let mut patience = Patience::new(&self.status.database, shutdown, RETRY.0, RETRY.1);
        while let Err(error) = self.sink.suspect_again(key).await {
            if !wait_out(&error, &mut patience, &self.status).await {
                return false;
            }
        }
        patience.done();
        true
    }

    async fn clear_record(&mut self, keys: &[Key], shutdown: &Shutdown) {
        let mut patience = Patience::new(&self.status.database, shutdown, RETRY.0, RETRY.1);
        while let Err(error) = self.sink.absolve(keys).await {
            if !wait_out(&error, &mut patience, &self.status).await {
                return;
            }
        }
        patience.done();
    }
}

/// `false`: it is time to stop.
async fn wait_out(error: &SinkError, patience: &mut Patience<'_>, status: &Status) -> bool {
    status.set(Trouble::Database, error);
    patience.outage().await
}
