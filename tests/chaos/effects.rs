//! Effects that are read off afterwards, from the queue's history and the workers' logs: which worker had which messages
//! in its hands when it was hurt, and how often each of the queue's own faults was felt.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    campaign::VISIBILITY,
    faults::{Fault, Tally},
    script::{FAULTS, QueueFault, Sign},
};

/// A delivery that nobody settled, and the next one of the same message; times in milliseconds since 1970-01-01 UTC.
pub(crate) struct Again {
    pub(crate) by: String,
    pub(crate) first: f64,
    /// Until when it was to be hidden.
    pub(crate) hidden_until: f64,
    /// Whether it was given back.
    pub(crate) given_back: bool,
    pub(crate) second: f64,
}

/// How long after it was due a message may come again: somebody has to ask for it.
const SLACK: Duration = Duration::from_secs(5);

/// Deliveries of one message that are closer than this, in milliseconds, come from a fault of the queue: nobody gives a
/// message back for so short a time.
const AT_ONCE: f64 = 900.0;

/// What the history has to say.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) again: Vec<Again>,
    /// Whose requests were touched by a fault of the queue, and when.
    pub(crate) touched: Vec<(String, f64)>,
    /// How often each fault of the queue's script fired, and was felt.
    queue: BTreeMap<&'static str, (u64, u64)>,
}

#[derive(Deserialize)]
struct Line {
    at: f64,
    #[serde(default)]
    by: String,
    event: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    fault: String,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    seconds: f64,
}

/// Where a message is, as far as the history is read.
#[derive(Default)]
struct Course {
    /// Its last delivery, unless that was settled; when it comes again is not known yet.
    held: Option<Again>,
    /// A fault that another delivery will show to have been felt.
    awaits: Option<&'static str>,
    sent_at: f64,
    received_at: f64,
}

impl Again {
    fn begins(by: String, first: f64) -> Self {
        let hidden_until = first + VISIBILITY.as_secs_f64() * 1000.0;
        Self { by, first, hidden_until, given_back: false, second: first }
    }
}

impl Effects {
    /// Reads what a campaign left in `directory`.
    pub(crate) fn read(directory: &Path) -> Self {
        let mut effects = Self::default();
        effects.read_history(&directory.join("history.jsonl"));
        effects.read_logs(&directory.join("logs"));
        effects
    }

    fn read_history(&mut self, path: &Path) {
        let mut courses: HashMap<String, Course> = HashMap::new();
        // Who got nothing although there was something, and when.
        let mut got_nothing: HashMap<String, Vec<f64>> = HashMap::new();
        for line in lines(path) {
            let Ok(line) = serde_json::from_str::<Line>(&line) else { continue };
            match line.event.as_str() {
                "fault" => {
                    let known = FAULTS.iter().find(|fault| fault.name == line.fault);
                    if let Some(fault) = known {
                        self.queue.entry(fault.name).or_default().0 += 1;
                    }
                    if let Some(QueueFault { sign: Sign::CameLater, .. }) = known {
                        got_nothing.entry(line.by.clone()).or_default().push(line.at);
                    }
                    self.touched.push((line.by, line.at));
                }
                "receive" => {
                    let course = courses.entry(line.id).or_default();
                    if let Some(empty) = got_nothing.get_mut(&line.by) {
                        let came = empty.extract_if(.., |at| course.sent_at < *at).count();
                        self.queue.entry("empty").or_default().1 += came as u64;
                    }
                    let held = Again::begins(line.by, line.at);
                    if let Some(again) = course.held.replace(held) {
                        self.again.push(Again { second: line.at, ..again });
                    }
                    if let Some(fault) = course.awaits.take() {
                        self.queue.entry(fault).or_default().1 += 1;
                    } else if line.at - course.received_at < AT_ONCE {
                        // Which of the two it was cannot be told from here.
                        self.queue.entry("double").or_default().1 += 1;
                        self.queue.entry("early").or_default().1 += 1;
                    }
                    course.received_at = line.at;
                }
                "delete" => {
                    let course = courses.entry(line.id).or_default();
                    course.held = None;
                    if line.outcome == "stale" {
                        course.awaits = Some("stale");
                    }
                }
                "extend" => {
                    if let Some(held) = courses.entry(line.id).or_default().held.as_mut().filter(|it| it.by == line.by)
                    {
                        held.hidden_until = line.at + line.seconds * 1000.0;
                        // A lease hides for as long as a delivery does; who gives back says another time.
                        held.given_back = line.seconds != VISIBILITY.as_secs_f64();
                    }
                }
                "send" => courses.entry(line.id).or_default().sent_at = line.at,
                "ghost" => courses.entry(line.id).or_default().awaits = Some("ghost"),
                _ => {}
            }
        }
    }

    /// The workers' words about what the queue did to them.
    fn read_logs(&mut self, directory: &Path) {
        for log in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let text: Vec<String> = lines(&log.path()).collect();
            for fault in &FAULTS {
                let said = |words| text.iter().filter(|line| line.contains(words)).count() as u64;
                let felt = match fault.sign {
                    Sign::Said(words) => said(words),
                    Sign::SaidAgain(words) => said(words).saturating_sub(1),
                    Sign::Seen(_) | Sign::CameLater => 0,
                };
                self.queue.entry(fault.name).or_default().1 += felt;
            }
        }
    }

    /// Counts those kills and freezes after which messages that the worker held came again.
    pub(crate) fn count(&self, directory: &Path, tally: &Tally) {
        let reach = (VISIBILITY + SLACK).as_secs_f64() * 1000.0;
        for End { at, worker, how, ms } in ends(directory) {
            let (fault, from) = match how.as_str() {
                "killed" => (Fault::KillWorker, at),
                "paused" if ms > VISIBILITY.as_secs_f64() * 1000.0 => (Fault::FreezeWorker, at - ms),
                _ => continue,
            };
            let came_again = |again: &Again| {
                again.by == worker && again.first <= at && again.second > from && again.second < from + reach
            };
            if self.again.iter().any(came_again) {
                tally.observed(fault);
            }
        }
    }

    /// A table of the queue's faults, and what is wrong with it.
    pub(crate) fn judge(&self, required: u64) -> (String, Vec<String>) {
        let mut table = String::from("| fault of the queue | fired | felt | how that was seen |\n|---|---|---|---|\n");
        let mut complaints = Vec::new();
        for fault in &FAULTS {
            let (fired, felt) = self.queue.get(fault.name).copied().unwrap_or_default();
            let seen = match fault.sign {
                Sign::Said(words) | Sign::SaidAgain(words) => format!("a worker's log: {words}"),
                Sign::Seen(what) => what.to_owned(),
                Sign::CameLater => "what was there then came to the same worker later".to_owned(),
            };
            let _infallible = writeln!(table, "| {} | {fired} | {felt} | {seen} |", fault.name);
            if fired < required {
                complaints.push(format!("{} fired {fired} times instead of {required}", fault.name));
            }
            if felt == 0 && required > 0 {
                complaints.push(format!("{} was never felt", fault.name));
            }
        }
        (table, complaints)
    }
}

/// How a process of a worker ended, or was paused.
#[derive(Deserialize)]
pub(crate) struct End {
    pub(crate) at: f64,
    pub(crate) worker: String,
    pub(crate) how: String,
    /// How long that took.
    #[serde(default)]
    pub(crate) ms: f64,
}

/// All of them, each by its worker's name: `worker-1.7` is the seventh process of worker-1.
pub(crate) fn ends(directory: &Path) -> impl Iterator<Item = End> + use<> {
    lines(&directory.join("ends.jsonl")).filter_map(|line| {
        let end: End = serde_json::from_str(&line).ok()?;
        let worker = end.worker.split('.').next().unwrap_or_default().to_owned();
        Some(End { worker, ..end })
    })
}

fn lines(path: &Path) -> impl Iterator<Item = String> + use<> {
    let file = File::open(path).ok().map(BufReader::new);
    file.into_iter().flat_map(|file| file.lines().map_while(Result::ok))
}
