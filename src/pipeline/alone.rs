//! Messages that have come so often that reading them may be what ends the process: each is read and settled alone.
//!
//! Before it is read, that is put on record, and after it has been read, the record is cleared. Whoever finds a record
//! that it did not write itself knows that the reader before did not live to clear it: then the message is not read any
//! more, but sealed as a dead letter as it is. So poison ends neither the process for ever nor its neighbours, and an
//! outage of anything else makes no dead letter.

use super::{
    Worker,
    circuit::Patience,
    decode::{Decoded, decode},
    load::RETRY,
    mask::mask,
    receive::Taken,
    status::{Status, Trouble},
};
use crate::{
    event::{Reason, Reject},
    queue::{Message, Queue, lease::Lease},
    shutdown::Shutdown,
    sink::{Batch, Sink, SinkError},
};

impl<Q: Queue, S: Sink> Worker<Q, S> {
    /// Settles a batch some of whose messages have come often: what is left of it first, together, and then each of
    /// those alone. On a FIFO queue all go one by one, since their order counts.
    pub(super) async fn settle_suspects(&mut self, taken: Taken, shutdown: &Shutdown) {
        let Taken { messages, lease } = taken;
        let in_order = messages.iter().any(|message| message.place.is_some());
        let is_suspect = |message: &Message| message.attempt >= self.intake.alone_from;
        let (mut alone, together): (Vec<Message>, Vec<Message>) =
            messages.into_iter().partition(|message| in_order || is_suspect(message));
        alone.sort_by_key(Message::order);

        let lease_of_alone = Lease::new(&self.queue, self.intake.visibility, &self.metrics);
        lease_of_alone.take_over(&alone);
        self.settle(Taken { messages: together, lease }, shutdown).await;
        for message in alone {
            match self.read_alone(message, shutdown).await {
                Ok(batch) => {
                    let loaded = self.load(batch, shutdown).await;
                    self.acknowledge(loaded, shutdown).await;
                }
                Err(unread) => self.put_back(Vec::from([unread])).await,
            }
        }
    }

    /// Reads a message, on the record. Told to stop before that is possible, it gives the message back unread.
    async fn read_alone(&mut self, message: Message, shutdown: &Shutdown) -> Result<Batch, Message> {
        let key = message.key;
        let mut patience = Patience::new(&self.status.database, shutdown, RETRY.0, RETRY.1);
        let is_poison = loop {
            match self.sink.suspect(key).await {
                Ok(known) => break known,
                Err(error) if wait_out(&error, &mut patience, &self.status).await => {}
                Err(_) => return Err(message),
            }
        };
        patience.done();
        if is_poison {
            let reject = Reject { reason: Reason::PoisonReceiveCount, subject: None };
            return Ok(mask(Vec::from([Decoded { message, meaning: Err(reject) }]), &mut self.masker));
        }
        let batch = mask(decode(Vec::from([message]), &self.decoder), &mut self.masker);
        while let Err(error) = self.sink.absolve(key).await {
            if !wait_out(&error, &mut patience, &self.status).await {
                return Ok(batch);
            }
        }
        patience.done();
        Ok(batch)
    }
}

/// `false`: it is time to stop.
async fn wait_out(error: &SinkError, patience: &mut Patience<'_>, status: &Status) -> bool {
    status.set(Trouble::Database, error);
    patience.outage().await
}
