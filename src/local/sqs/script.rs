//! What is to go wrong, by a script: JSON lines, one rule each, with a seed that decides in the cases that a rule leaves
//! open. It decides and counts; how each trouble looks is for whoever asks.
//!
//! `{"action":"DeleteMessageBatch","fault":"lose_answer","share":0.05,"from":10,"until":60,"times":7}`

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The operations that a rule may name; `*` stands for all in which its trouble can happen.
const ACTIONS: [&str; 14] = [
    "ReceiveMessage",
    DELETES[0],
    DELETES[1],
    "ChangeMessageVisibility",
    BATCHES[1],
    "SendMessage",
    BATCHES[2],
    "CreateQueue",
    "GetQueueUrl",
    "ListQueues",
    "DeleteQueue",
    "PurgeQueue",
    "GetQueueAttributes",
    "SetQueueAttributes",
];
const RECEIVE: [&str; 1] = ["ReceiveMessage"];
const DELETES: [&str; 2] = ["DeleteMessage", "DeleteMessageBatch"];
const BATCHES: [&str; 3] = ["DeleteMessageBatch", "ChangeMessageVisibilityBatch", "SendMessageBatch"];

/// What can go wrong, by its name in a script.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The request is refused with RequestThrottled.
    Throttle,
    /// The request is refused with status 503.
    Unavailable,
    /// The request is refused with AccessDenied.
    Denied,
    /// The request is refused with ExpiredToken.
    ExpiredToken,
    /// The request is refused with OverLimit: too many messages in flight.
    OverLimit,
    /// The request is done `seconds` late, if its sender is still there.
    Hang,
    /// The request is done, and the connection closed instead of an answer.
    LoseAnswer,
    /// Entries of a batch fail with InternalError while the batch succeeds.
    FailEntries,
    /// A delete succeeds and deletes nothing.
    Stale,
    /// A deleted message comes again after `seconds`.
    Ghost,
    /// A delivered message is delivered a second time: in the same answer, or where that is full to who asks next.
    Double,
    /// A delivered message is visible again at once.
    Early,
    /// A delivered body is not the one that its MD5 speaks of.
    Corrupt,
    /// A receive comes back empty after `seconds` although there are messages.
    Empty,
}

impl Trouble {
    /// The operations in which it can happen.
    fn actions(self) -> &'static [&'static str] {
        match self {
            Self::Throttle | Self::Unavailable | Self::Denied | Self::ExpiredToken | Self::Hang | Self::LoseAnswer => {
                &ACTIONS
            }
            Self::FailEntries => &BATCHES,
            Self::Stale | Self::Ghost => &DELETES,
            Self::OverLimit | Self::Double | Self::Early | Self::Corrupt | Self::Empty => &RECEIVE,
        }
    }

    /// How long it takes where the rule does not say. A hang outlasts any client's patience; the rest is quick.
    fn seconds(self) -> Option<f64> {
        match self {
            Self::Hang => Some(60.0),
            Self::Ghost => Some(1.0),
            Self::Empty => Some(0.0),
            _ => None,
        }
    }
}

impl fmt::Display for Trouble {
    /// As in a script.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    action: String,
    #[serde(rename = "fault")]
    trouble: Trouble,
    #[serde(default = "all")]
    share: f64,
    #[serde(default)]
    from: f64,
    until: Option<f64>,
    times: Option<u64>,
    seconds: Option<f64>,
}

fn all() -> f64 {
    1.0
}

/// A rule as it is applied.
struct Rule {
    /// None for all in which the trouble can happen.
    action: Option<String>,
    trouble: Trouble,
    share: f64,
    from: Duration,
    until: Duration,
    times: u64,
    seconds: Duration,
}

/// Why a script cannot be used: all its mistakes, each with its line.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{}", .0.join("\n"))]
pub struct ScriptError(Vec<String>);

/// What is to go wrong. The default is nothing.
#[derive(Default)]
pub struct Script {
    rules: Vec<Rule>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// None where there is no rule to decide in.
    random: Option<Rng>,
    /// How often each rule was followed.
    followed: Vec<u64>,
}

impl Script {
    /// Reads a script. Empty lines mean nothing.
    ///
    /// # Errors
    /// [`ScriptError`] with all lines that are no rules.
    pub fn parse(text: &str, seed: u64) -> Result<Self, ScriptError> {
        let (mut rules, mut mistakes) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            match Rule::parse(line) {
                Ok(rule) => rules.push(rule),
                Err(mistake) => mistakes.push(format!("line {number}: {mistake}")),
            }
        }
        if !mistakes.is_empty() {
            return Err(ScriptError(mistakes));
        }
        let state = State { random: Some(Rng::with_seed(seed)), followed: vec![0; rules.len()] };
        Ok(Self { rules, state: Mutex::new(state) })
    }

    /// Whether there is anything in it.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether one of these troubles happens now, `elapsed` after the start, in this operation: the first whose rule
    /// applies and is drawn, with the rule's `seconds`. What is answered counts as done.
    pub(super) fn draw(&self, action: &str, among: &[Trouble], elapsed: Duration) -> Option<(Trouble, Duration)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { random, followed } = &mut *state;
        let random = random.get_or_insert_with(Rng::new);
        for (rule, followed) in self.rules.iter().zip(followed) {
            let applies = among.contains(&rule.trouble) && rule.applies(action, elapsed) && *followed < rule.times;
            if applies && random.f64() < rule.share {
                *followed += 1;
                return Some((rule.trouble, rule.seconds));
            }
        }
        None
    }

    /// How often each trouble of the script has happened, by its name.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = BTreeMap::new();
        for (rule, followed) in self.rules.iter().zip(&state.followed) {
            *counts.entry(rule.trouble.to_string()).or_default() += followed;
        }
        counts
    }
}

impl Rule {
    fn parse(line: &str) -> Result<Self, String> {
        let Line { action, trouble, share, from, until, times, seconds } =
            serde_json::from_str(line).map_err(|error| error.to_string())?;
        let possible = trouble.actions();
        if action != "*" && !possible.contains(&action.as_str()) {
            let known = if ACTIONS.contains(&action.as_str()) { "cannot happen in" } else { "knows no operation" };
            return Err(format!("{trouble} {known} {action}: choose * or one of {}", possible.join(", ")));
        }
        if !(share > 0.0 && share <= 1.0) {
            return Err("share is above 0 and at most 1".to_owned());
        }
        if times == Some(0) {
            return Err("times is 1 or more".to_owned());
        }
        if seconds.is_some() && trouble.seconds().is_none() {
            return Err(format!("seconds mean nothing to {trouble}"));
        }
        let span = |name: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_out_of_range| format!("{name} is a number of seconds from 0"))
        };
        let (from, until) = (span("from", from)?, until.map_or(Ok(Duration::MAX), |until| span("until", until))?);
        if from >= until {
            return Err("until is later than from".to_owned());
        }
        let seconds = span("seconds", seconds.or(trouble.seconds()).unwrap_or_default())?;
        let action = (action != "*").then_some(action);
        Ok(Self { action, trouble, share, from, until, times: times.unwrap_or(u64::MAX), seconds })
    }

    fn applies(&self, action: &str, elapsed: Duration) -> bool {
        let is_meant = match &self.action {
            Some(one) => one == action,
            None => self.trouble.actions().contains(&action),
        };
        is_meant && (self.from..self.until).contains(&elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;

    #[test]
    fn a_rule_says_where_when_how_often_and_how_long() {
        let script = Script::parse(
            r#"
            {"action":"ReceiveMessage","fault":"hang","from":10,"until":20.5,"times":2,"seconds":0.25}
            {"action":"*","fault":"ghost"}"#,
            1,
        )
        .unwrap();
        let draw = |action, seconds: f64| {
            script.draw(action, &[Trouble::Hang, Trouble::Ghost], Duration::from_secs_f64(seconds))
        };
        let hang = Some((Trouble::Hang, Duration::from_millis(250)));
        assert_eq!([draw("ReceiveMessage", 9.9), draw("ReceiveMessage", 20.5)], [None, None]);
        assert_eq!(draw("SendMessage", 15.0), None);
        assert_eq!([draw("ReceiveMessage", 10.0), draw("ReceiveMessage", 20.4)], [hang, hang]);
        assert_eq!(draw("ReceiveMessage", 15.0), None, "twice and no more");
        assert_eq!(draw("DeleteMessage", 0.0), Some((Trouble::Ghost, Duration::from_secs(1))));
        assert_eq!(script.counts(), BTreeMap::from([("ghost".to_owned(), 1), ("hang".to_owned(), 2)]));
    }

    #[test]
    fn a_share_is_drawn_and_the_seed_decides() {
        let drawn = |seed| {
            let script = Script::parse(r#"{"action":"*","fault":"throttle","share":0.1}"#, seed).unwrap();
            (0..10_000)
                .filter(|_| script.draw("SendMessage", &[Trouble::Throttle], START).is_some())
                .collect::<Vec<_>>()
        };
        assert!((900..1100).contains(&drawn(1).len()), "{}", drawn(1).len());
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }

    #[test]
    fn the_first_rule_that_applies_is_followed() {
        let rules =
            "{\"action\":\"SendMessage\",\"fault\":\"denied\",\"times\":1}\n{\"action\":\"*\",\"fault\":\"throttle\"}";
        let script = Script::parse(rules, 1).unwrap();
        let draw = || script.draw("SendMessage", &[Trouble::Throttle, Trouble::Denied], START).map(|(it, _)| it);
        assert_eq!([draw(), draw()], [Some(Trouble::Denied), Some(Trouble::Throttle)]);
        assert_eq!(script.draw("SendMessage", &[Trouble::Stale], START), None);
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let cases = [
            ("{", "EOF while parsing"),
            (r#"{"action":"*","fault":"meteor"}"#, "unknown variant `meteor`, expected one of `throttle`"),
            (r#"{"action":"*"}"#, "missing field `fault`"),
            (r#"{"action":"*","fault":"hang","second":1}"#, "unknown field `second`"),
            (r#"{"action":"Receive","fault":"hang"}"#, "hang knows no operation Receive: choose * or one of"),
            (r#"{"action":"SendMessage","fault":"ghost"}"#, "choose * or one of DeleteMessage, DeleteMessageBatch"),
            (r#"{"action":"*","fault":"hang","share":0}"#, "share is above 0"),
            (r#"{"action":"*","fault":"hang","share":1.1}"#, "share is above 0"),
            (r#"{"action":"*","fault":"hang","times":0}"#, "times is 1 or more"),
            (r#"{"action":"*","fault":"hang","seconds":-1}"#, "seconds is a number of seconds from 0"),
            (r#"{"action":"*","fault":"throttle","seconds":1}"#, "seconds mean nothing to throttle"),
            (r#"{"action":"*","fault":"hang","from":5,"until":5}"#, "until is later than from"),
        ];
        let script: Vec<&str> = cases.iter().flat_map(|(line, _)| [*line, ""]).collect();
        let error = Script::parse(&script.join("\n"), 1).err().unwrap().to_string();
        let told: Vec<&str> = error.lines().collect();
        assert_eq!(told.len(), cases.len(), "{error}");
        for (at, (told, (_, expected))) in told.iter().zip(cases).enumerate() {
            assert!(told.starts_with(&format!("line {}: ", 2 * at + 1)) && told.contains(expected), "{told}");
        }
    }
}
