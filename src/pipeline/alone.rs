//! Messages that have come so often that reading them may be what ends the process: each is read alone, on the record.
//!
//! Before such a message is read, that is put on record; once it has been read, the record is cleared. Whoever finds
//! records that it did not write itself knows that the readers before did not live to clear them. After two of those the
//! message is read no more, but sealed as a dead letter as it is. So poison does not end processes for ever, its
//! neighbours go on, and nothing but its readers' ends makes poison of a message: no outage, no slow database, no count
//! alone. One end is not enough, for a process may be killed at any moment, and this is one.

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

/// So many readers in a row whom a message has survived make it poison.
const READERS: u32 = 2;

impl<Q: Queue, S: Sink> Worker<Q, S> {
    /// Decodes a batch in which some messages have come often. Told to stop before one of those can be put on record,
    /// it gives that one back unread.
    pub(super) async fn decode_suspects(&mut self, messages: Vec<Message>, shutdown: &Shutdown) -> Vec<Decoded> {
        let (mut decoded, mut unread) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages {
            if message.attempt < self.intake.alone_from {
                decoded.append(&mut decode(Vec::from([message]), &self.decoder));
                continue;
            }
            match self.put_on_record(&message, shutdown).await {
                Some(readers) if readers < READERS => {
                    let key = message.key;
                    decoded.append(&mut decode(Vec::from([message]), &self.decoder));
                    self.clear_record(key, shutdown).await;
                }
                Some(_) => {
                    let reject = Reject { reason: Reason::PoisonReceiveCount, subject: None };
                    decoded.push(Decoded { message, meaning: Err(reject) });
                }
                None => unread.push(message),
            }
        }
        self.put_back(unread).await;
        decoded
    }

    /// Puts a message on record, and answers how many readers were there before. `None`: it is time to stop.
    async fn put_on_record(&mut self, message: &Message, shutdown: &Shutdown) -> Option<u32> {
        let mut patience = Patience::new(&self.status.database, shutdown, RETRY.0, RETRY.1);
        loop {
            match self.sink.suspect(message.key).await {
                Ok(readers) => {
                    patience.done();
                    return Some(readers);
                }
                Err(error) if wait_out(&error, &mut patience, &self.status).await => {}
                Err(_) => return None,
            }
        }
    }

    async fn clear_record(&mut self, key: Key, shutdown: &Shutdown) {
        let mut patience = Patience::new(&self.status.database, shutdown, RETRY.0, RETRY.1);
        while let Err(error) = self.sink.absolve(key).await {
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
