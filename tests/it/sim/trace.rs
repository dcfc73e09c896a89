//! What happened, in order: a hash of it always, and its text where somebody asked for that.
//!
//! Messages have numbers and times begin at zero, so that two runs of one seed have the same trace.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use masq::sink::Outcome;

use super::fault::{Call, Fault};

/// Something that happened. Messages are numbered as they were sent.
#[derive(Hash)]
pub enum Event {
    Sent(usize),
    /// Messages, and how often each was delivered.
    Received(usize, Vec<(usize, u32)>),
    Deleted(usize, usize),
    Extended(usize, Vec<usize>, Duration),
    Moved(usize),
    Failed(usize, Call, Fault),
    Happened(Fault),
    HappenedTo(usize, Fault),
    Claimed(usize, Vec<(usize, u8)>),
    Committed(u64, Vec<(usize, u8)>),
    RolledBack(u64),
    Answered(usize, Vec<(usize, u8)>),
    Refused(usize),
    Started(usize),
    Ended(usize),
    Calm,
    Settled,
}

/// A letter for an outcome.
pub fn code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Written => b'w',
        Outcome::Duplicate => b'd',
        Outcome::Repeated => b'r',
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = |f: &mut fmt::Formatter<'_>, numbers: &[(usize, u8)]| {
            numbers.iter().try_for_each(|(number, code)| write!(f, " {number}{}", char::from(*code)))
        };
        match self {
            Self::Sent(number) => write!(f, "message {number} is sent"),
            Self::Received(process, messages) => {
                write!(f, "process {process} receives (message x delivery)")?;
                messages.iter().try_for_each(|(number, attempt)| write!(f, " {number}x{attempt}"))
            }
            Self::Deleted(process, number) => write!(f, "process {process} deletes {number}"),
            Self::Extended(process, messages, visibility) => {
                write!(f, "process {process} hides for {visibility:?}: {messages:?}")
            }
            Self::Moved(number) => write!(f, "message {number} is moved to the dead-letter queue"),
            Self::Failed(process, call, fault) => write!(f, "process {process}: {call:?} fails: {fault:?}"),
            Self::Happened(fault) => write!(f, "{fault:?}"),
            Self::HappenedTo(process, fault) => write!(f, "process {process}: {fault:?}"),
            Self::Claimed(process, messages) => {
                write!(f, "process {process} claims (w new, d there already)")?;
                numbers(f, messages)
            }
            Self::Committed(transaction, messages) => {
                write!(f, "transaction {transaction} is committed (1 row, 2 dead letter, 4 repeated, l late letter)")?;
                numbers(f, messages)
            }
            Self::RolledBack(transaction) => write!(f, "transaction {transaction} is rolled back"),
            Self::Answered(process, messages) => {
                write!(f, "process {process} is answered")?;
                numbers(f, messages)
            }
            Self::Refused(process) => write!(f, "process {process}: the table refuses a row"),
            Self::Started(process) => write!(f, "process {process} starts"),
            Self::Ended(process) => write!(f, "process {process} has ended in good order"),
            Self::Calm => write!(f, "no more faults from here on"),
            Self::Settled => write!(f, "all is settled"),
        }
    }
}

/// The order of events.
pub struct Trace {
    hash: DefaultHasher,
    text: Option<String>,
}

impl Trace {
    /// With `text`, the events are kept and not only hashed.
    pub fn new(text: bool) -> Self {
        Self { hash: DefaultHasher::new(), text: text.then(String::new) }
    }

    pub fn note(&mut self, at: Duration, event: &Event) {
        at.hash(&mut self.hash);
        event.hash(&mut self.hash);
        if let Some(text) = &mut self.text {
            use fmt::Write;
            writeln!(text, "{:>12.3} s  {event}", at.as_secs_f64()).unwrap();
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub fn text(&mut self) -> String {
        self.text.take().unwrap_or_default()
    }
}
