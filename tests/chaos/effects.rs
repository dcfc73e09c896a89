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
    faults::{Fault, Tally},
    script::{FAULTS, QueueFault, Sign},
};

/// A delivery that nobody settled, and the next one of the same message; times in milliseconds since 1970-01-01 UTC.
struct Again {
    by: String,
    first: f64,
    second: f64,
}

/// How long after it was due a message may come again: somebody has to ask for it.
const SLACK: Duration = Duration::from_secs(5);

/// Deliveries of one message that are closer than this, in milliseconds, come from a fault of the queue: nobody gives a
/// message back for so short a time.
const AT_ONCE: f64 = 900.0;

/// What the history has to say.
#[derive(Default)]
pub(crate) struct Effects {
    again: Vec<Again>,
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
    action: String,
    #[serde(default)]
    outcome: String,
}

/// Faults that wait for the same worker to do the same once more.
type Refused = HashMap<(String, String), Vec<&'static str>>;

/// Where a message is, as far as the history is read.
#[derive(Default)]
struct Course {
    /// Its last delivery, unless that was settled: by whom, when.
    held: Option<(String, f64)>,
    /// A fault that another delivery will show to have been felt.
    awaits: Option<&'static str>,
    received_at: f64,
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
        let mut refused = Refused::new();
        for line in lines(path) {
            let Ok(line) = serde_json::from_str::<Line>(&line) else { continue };
            match line.event.as_str() {
                "fault" => {
                    let known = FAULTS.iter().find(|fault| fault.name == line.fault);
                    if let Some(fault) = known {
                        self.queue.entry(fault.name).or_default().0 += 1;
                    }
                    if let Some(QueueFault { name, sign: Sign::AskedAgain, .. }) = known {
                        refused.entry((line.by, line.action)).or_default().push(*name);
                    }
                }
                "receive" => {
                    self.asked_again(&mut refused, (&line.by, "ReceiveMessage"));
                    let course = courses.entry(line.id).or_default();
                    if let Some((by, first)) = course.held.replace((line.by, line.at)) {
                        self.again.push(Again { by, first, second: line.at });
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
                    self.asked_again(&mut refused, (&line.by, "DeleteMessageBatch"));
                    let course = courses.entry(line.id).or_default();
                    course.held = None;
                    match line.outcome.as_str() {
                        "stale" => course.awaits = Some("stale"),
                        "gone" => self.queue.entry("lose_answer").or_default().1 += 1,
                        _ => {}
                    }
                }
                "extend" => self.asked_again(&mut refused, (&line.by, "ChangeMessageVisibilityBatch")),
                "ghost" => courses.entry(line.id).or_default().awaits = Some("ghost"),
                _ => {}
            }
        }
    }

    /// A worker does what it was refused before.
    fn asked_again(&mut self, refused: &mut Refused, (by, action): (&str, &str)) {
        for fault in refused.remove(&(by.to_owned(), action.to_owned())).unwrap_or_default() {
            self.queue.entry(fault).or_default().1 += 1;
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
                    Sign::Seen(_) | Sign::AskedAgain => 0,
                };
                self.queue.entry(fault.name).or_default().1 += felt;
            }
        }
    }

    /// Counts those kills and freezes after which messages that the worker held came again.
    pub(crate) fn count(&self, directory: &Path, tally: &Tally, visibility: Duration) {
        #[derive(Deserialize)]
        struct End {
            at: f64,
            worker: String,
            how: String,
            #[serde(default)]
            ms: f64,
        }
        let reach = (visibility + SLACK).as_secs_f64() * 1000.0;
        for line in lines(&directory.join("ends.jsonl")) {
            let Ok(End { at, worker, how, ms }) = serde_json::from_str(&line) else { continue };
            // `worker-1.7` is the seventh process of worker-1.
            let worker = worker.split('.').next().unwrap_or_default();
            let (fault, from) = match how.as_str() {
                "killed" => (Fault::KillWorker, at),
                "paused" if ms > visibility.as_secs_f64() * 1000.0 => (Fault::FreezeWorker, at - ms),
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
                Sign::AskedAgain => "the same worker did the same later".to_owned(),
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

fn lines(path: &Path) -> impl Iterator<Item = String> + use<> {
    let file = File::open(path).ok().map(BufReader::new);
    file.into_iter().flat_map(|file| file.lines().map_while(Result::ok))
}
