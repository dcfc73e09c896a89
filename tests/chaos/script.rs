//! The queue's own faults: what `masq queue --faults` is told to have go wrong, and by what it is known afterwards that
//! a worker felt it. Sending is left alone, since a producer that cannot know what it has sent proves nothing.

use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

/// By what it is known that a fault was felt.
pub(crate) enum Sign {
    /// A worker logs these words.
    Said(&'static str),
    /// A worker logs these words another time than at its start.
    SaidAgain(&'static str),
    /// The history shows that the worker gets a message later that was there when it got none.
    CameLater,
    /// The history shows it otherwise.
    Seen(&'static str),
}

/// A fault of the queue: its name in the script, in which operations, in which share of the cases, how often at most
/// for each fifty thousand messages, and for how long where that matters.
pub(crate) struct QueueFault {
    pub(crate) name: &'static str,
    actions: &'static [&'static str],
    share: f64,
    times: u64,
    seconds: Option<f64>,
    pub(crate) sign: Sign,
}

const RECEIVE: &str = "ReceiveMessage";
const DELETE: &str = "DeleteMessageBatch";
const EXTEND: &str = "ChangeMessageVisibilityBatch";

impl QueueFault {
    const fn new(name: &'static str, actions: &'static [&'static str], (share, times): (f64, u64), sign: Sign) -> Self {
        Self { name, actions, share, times, seconds: None, sign }
    }

    const fn lasting(self, seconds: f64) -> Self {
        Self { seconds: Some(seconds), ..self }
    }
}

const CAME_AGAIN: Sign = Sign::Seen("the message came again");

pub(crate) const FAULTS: [QueueFault; 14] = [
    QueueFault::new("throttle", &[RECEIVE, DELETE, EXTEND], (0.005, 20), Sign::Said("RequestThrottled")),
    QueueFault::new("unavailable", &[RECEIVE, DELETE, EXTEND], (0.005, 20), Sign::Said("ServiceUnavailable")),
    QueueFault::new("denied", &[RECEIVE, DELETE], (0.002, 5), Sign::Said("AccessDenied")),
    QueueFault::new("expired_token", &[RECEIVE, DELETE], (0.002, 5), Sign::SaidAgain("AWS credentials fetched")),
    QueueFault::new("over_limit", &[RECEIVE], (0.003, 20), Sign::Said("OverLimit")),
    QueueFault::new("hang", &[DELETE, EXTEND], (0.004, 15), Sign::Said("no answer from")),
    QueueFault::new("lose_answer", &[RECEIVE, DELETE, EXTEND], (0.004, 15), Sign::Said("cannot reach")),
    QueueFault::new("fail_entries", &[DELETE, EXTEND], (0.003, 100), Sign::Said("\"code\":\"InternalError\"")),
    QueueFault::new("stale", &[DELETE], (0.003, 100), CAME_AGAIN),
    QueueFault::new("ghost", &[DELETE], (0.003, 100), CAME_AGAIN).lasting(2.0),
    QueueFault::new("double", &[RECEIVE], (0.003, 100), Sign::Seen("two deliveries within 0.9 s")),
    QueueFault::new("early", &[RECEIVE], (0.003, 100), Sign::Seen("two deliveries within 0.9 s")),
    QueueFault::new("corrupt", &[RECEIVE], (0.001, 30), Sign::Said("does not fit its MD5")),
    QueueFault::new("empty", &[RECEIVE], (0.01, 50), Sign::CameLater),
];

/// The script: each fault from some moment in the first tenth on, until `end` after the queue's start. The shares are
/// such that it lasts about as long.
pub(crate) fn script(random: &mut Rng, messages: u64, end: Duration) -> String {
    let end = end.as_secs_f64();
    let rule = |fault: &QueueFault, action: &str, random: &mut Rng| {
        let mut rule = json!({
            "action": action,
            "fault": fault.name,
            "share": fault.share,
            "from": random.f64() * end / 10.0,
            "until": end,
            "times": fault.times.max(fault.times * messages / 50_000),
        });
        if let Some(seconds) = fault.seconds {
            rule["seconds"] = seconds.into();
        }
        format!("{rule}\n")
    };
    FAULTS
        .iter()
        .flat_map(|fault| fault.actions.iter().map(move |action| (fault, action)))
        .map(|(fault, action)| rule(fault, action, random))
        .collect()
}
