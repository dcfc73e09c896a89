//! One thing that happens, a fault or not, and how it is told.

use std::fmt;

/// What happens, by which worker and to which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Receive(usize, usize),
    FindDuplicate(usize),
    FindForgotten(usize),
    Claim(usize),
    Commit(usize),
    Answer(usize),
    Delete(usize),
    DeleteStale(usize),
    End(bool),
    Expire(usize),
    Flush,
    // The faults.
    ExpireInHand(usize),
    Kill(usize),
    CutAnswer(usize),
    Cut(usize),
    DeleteFails(usize),
    Crash,
    Ghost(usize),
    Prune(usize),
    Resend,
    Redrive,
}

impl Step {
    pub fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::Receive(..)
                | Self::FindDuplicate(_)
                | Self::FindForgotten(_)
                | Self::Claim(_)
                | Self::Commit(_)
                | Self::Answer(_)
                | Self::Delete(_)
                | Self::DeleteStale(_)
                | Self::End(_)
                | Self::Expire(_)
                | Self::Flush
                // What the producer or an operator does is no fault of anything.
                | Self::Resend
                | Self::Redrive
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |message: &usize| ["the message", "the message sent anew"][*message];
        match self {
            Self::Receive(worker, message) => write!(f, "worker {worker} receives {}", name(message)),
            Self::FindDuplicate(worker) => write!(f, "worker {worker} finds that it has its outcome already"),
            Self::FindForgotten(worker) => write!(f, "worker {worker} finds that it is older than the ledger"),
            Self::Claim(worker) => write!(f, "worker {worker} begins a transaction and writes"),
            Self::Commit(worker) => write!(f, "worker {worker} sends COMMIT"),
            Self::Answer(worker) => write!(f, "PostgreSQL commits and answers worker {worker}"),
            Self::Delete(worker) => write!(f, "worker {worker} deletes it from the queue"),
            Self::DeleteStale(worker) => write!(f, "worker {worker} deletes with an old receipt, and nothing happens"),
            Self::End(true) => write!(f, "PostgreSQL commits a transaction whose client is gone"),
            Self::End(false) => write!(f, "PostgreSQL rolls back a transaction whose client is gone"),
            Self::Expire(message) => write!(f, "the visibility of {} ends", name(message)),
            Self::Flush => write!(f, "what was committed reaches the disk"),
            Self::ExpireInHand(message) => write!(f, "FAULT: {} is visible while it is in hand", name(message)),
            Self::Kill(worker) => write!(f, "FAULT: worker {worker} is killed and started anew"),
            Self::CutAnswer(worker) => write!(f, "FAULT: worker {worker} gets no answer to its COMMIT"),
            Self::Cut(worker) => write!(f, "FAULT: worker {worker} loses its session"),
            Self::DeleteFails(worker) => write!(f, "FAULT: worker {worker} cannot delete it"),
            Self::Crash => write!(f, "FAULT: PostgreSQL crashes and comes back"),
            Self::Ghost(message) => write!(f, "FAULT: {} comes again although it was deleted", name(message)),
            Self::Prune(message) => write!(f, "FAULT: the ledger forgets {}", name(message)),
            Self::Resend => write!(f, "the producer sends the event again, under another MessageId"),
            Self::Redrive => write!(f, "a redrive from the console gives the event another MessageId"),
        }
    }
}
