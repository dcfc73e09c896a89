//! The messages of a campaign: good logins, each recognisable in the table, and everything else that a queue brings.
//!
//! Every body carries its label, the verdict that is expected of it. Whoever made a body knows best what is wrong with
//! it, and the checker judges it a second time by a program of its own.

use std::{collections::VecDeque, fs, path::Path};

use fastrand::Rng;

/// Stands in every masked field and in every message that becomes a dead letter, so that a trace of one is found.
const CANARY: &str = "canary";

/// Bodies of the corpus that are longer than this stay out: they would only take time.
const LONGEST: usize = 16 * 1024;

/// How many bodies back an honest double repeats at most.
const REPEATABLE: usize = 500;

/// A body and what is expected of it: `row`, `refused` by the table, `either` a row or a dead letter, by the build that
/// judges it, `event`, of which one becomes a row, or the reason of a dead letter.
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) text: String,
    pub(crate) label: String,
}

/// Bodies without end, the same for the same seed.
pub(crate) struct Bodies {
    random: Rng,
    corpus: Vec<Body>,
    recent: VecDeque<Body>,
    made: u64,
}

impl Bodies {
    pub(crate) fn new(seed: u64) -> Self {
        let corpus = corpus(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/messages")));
        assert!(corpus.len() > 100, "the corpus of bad messages is there");
        Self { random: Rng::with_seed(seed), corpus, recent: VecDeque::new(), made: 0 }
    }

    /// A login with its number as user, and with values to be masked that no other has.
    fn login(&mut self, user: &str, extra: &str, device_type: &str) -> String {
        let number = self.made;
        let ip = match self.random.u8(..4) {
            0 => format!("203.0.113.{}", self.random.u8(..)),
            _ => format!("2001:db8:ca{:02x}:{:x}::{:x}", number >> 32 & 0xff, number >> 16 & 0xffff, number & 0xffff),
        };
        let locale = if self.random.u8(..4) == 0 { "null" } else { "\"RU\"" };
        let version = format!("{}.{}.{}", self.random.u8(..9), self.random.u8(..99), self.random.u8(..99));
        format!(
            r#"{{"user_id": "{user}", "app_version": "{version}", "device_type": "{device_type}", "ip": "{ip}", "locale": {locale}, "device_id": "{CANARY}-{number:x}"{extra}}}"#
        )
    }

    fn spoilt(&mut self) -> Body {
        let user = format!("{CANARY}-u{}", self.made);
        let good = self.login(&user, "", "ios");
        let (text, label) = match self.random.u8(..8) {
            0 => (good[..good.len() - 1].to_owned(), "truncated_json"),
            1 => (good.replace("\"ip\": \"", "\"ip\": \"x"), "bad_ip:ip"),
            2 => (good.replace("\"app_version\": \"", "\"app_version\": \"v"), "bad_version:app_version"),
            3 => (good.replace("user_id", "user"), "missing_field:user_id"),
            4 => (format!("{good} {good}"), "trailing_data"),
            5 => (good.replace("{\"", "{\"user_id\": \"x\", \""), "duplicate_key"),
            6 => (good.replace("canary-", "canary-\\u0000"), "nul_character"),
            _ => (format!("[{good}]"), "not_object"),
        };
        Body { text, label: label.to_owned() }
    }
}

impl Iterator for Bodies {
    type Item = Body;

    fn next(&mut self) -> Option<Body> {
        self.made += 1;
        let user = format!("u{:08}", self.made);
        let body = match self.random.u32(..1000) {
            ..60 => self.spoilt(),
            60..110 => self.corpus[self.random.usize(..self.corpus.len())].clone(),
            110..114 => Body { text: self.login(&user, "", "refused"), label: "refused".to_owned() },
            114..134 => {
                // Sent some two times on the average, in different words, and not at the same time.
                let event = format!(r#", "event_id": "e{}""#, self.made / 100 * 2 + u64::from(self.random.bool()));
                Body { text: self.login(&user, &event, "ios"), label: "event".to_owned() }
            }
            134..194 => Body { text: self.login(&user, r#", "beta": true"#, "ios"), label: "either".to_owned() },
            194..224 if !self.recent.is_empty() => self.recent[self.random.usize(..self.recent.len())].clone(),
            _ => Body { text: self.login(&user, "", "android"), label: "row".to_owned() },
        };
        self.recent.push_back(body.clone());
        if self.recent.len() > REPEATABLE {
            self.recent.pop_front();
        }
        Some(body)
    }
}

/// The labelled bodies that are no rows and that Amazon SQS takes.
fn corpus(directory: &Path) -> Vec<Body> {
    let entries = fs::read_dir(directory).expect("the corpus can be read");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry can be read").path()).collect();
    paths.sort();
    let bodies = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let labelled = bodies.filter_map(|path| {
        let text = String::from_utf8(fs::read(path).ok()?).ok()?;
        let expected = fs::read_to_string(path.with_extension("expected")).ok()?;
        let label = expected.lines().next()?.to_owned();
        (label != "row" && (1..=LONGEST).contains(&text.len()) && text.chars().all(is_sendable))
            .then_some(Body { text, label })
    });
    labelled.collect()
}

/// What Amazon SQS takes (API reference, SendMessage, "MessageBody").
fn is_sendable(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}
