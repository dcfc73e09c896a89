//! Graceful stops: how long they take, and what becomes of the messages that a worker held when it was told to stop. One
//! that it neither deletes nor gives back comes again when its visibility ends: a redelivery that the stop has caused,
//! unless the queue's own faults kept the worker from knowing or settling it.

use std::{path::Path, time::Duration};

use crate::effects::{Again, Effects, End, ends};

/// What the stops of a campaign came to.
#[derive(Default)]
pub(crate) struct Stops {
    /// How long each took, sorted.
    pub(crate) times: Vec<Duration>,
    /// Messages that were given back at a stop, and came again for that.
    pub(crate) given_back: usize,
    /// Messages that came again because of a stop.
    pub(crate) caused: usize,
    /// The same while one of the queue's faults touched the worker's requests: it is not known which of the two it was.
    pub(crate) touched: usize,
}

/// How long before a stop a fault of the queue can have left a message that comes again after it, in milliseconds.
const REACH: f64 = 10_000.0;

/// The queue's clock and this program's are the same one, read at different moments, in milliseconds.
const SLACK: f64 = 50.0;

impl Stops {
    /// What the records of a campaign say of them.
    pub(crate) fn read(effects: &Effects, directory: &Path) -> Self {
        let mut stops = Self::default();
        for end in ends(directory).filter(|end| end.how == "stopped") {
            stops.times.push(Duration::from_secs_f64(end.ms / 1000.0));
            let told = end.at - end.ms;
            let touched =
                effects.touched.iter().any(|(by, at)| *by == end.worker && *at > told - REACH && *at < end.at + SLACK);
            let held = effects.again.iter().filter(|again| is_held(again, &end, told)).collect::<Vec<_>>();
            let given_back = held.iter().filter(|again| again.given_back).count();
            let left = held.len() - given_back;
            stops.given_back += given_back;
            *(if touched { &mut stops.touched } else { &mut stops.caused }) += left;
        }
        stops.times.sort();
        stops
    }
}

/// Whether the worker held this message when it was told to stop, and it came again when it was no longer hidden.
fn is_held(again: &Again, end: &End, told: f64) -> bool {
    let hidden = again.hidden_until > told && again.second > again.hidden_until - SLACK;
    again.by == end.worker && again.first < end.at && again.second > told && hidden
}
