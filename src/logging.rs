//! Logs as lines: text for people, JSON for machines. It builds a subscriber; `cli/` installs it.
//!
//! Values that come from outside (an answer of a server, a file's name) cannot forge a line or move a terminal's
//! cursor: control characters in them are escaped. Nothing here decides what is logged.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use thiserror::Error;
use tracing::Dispatch;
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::{MakeWriter, format},
    layer::SubscriberExt,
};

/// The target of everything that this program itself logs.
const OURS: &str = "masq";

/// The most that other crates may log. Below it, HTTP and AWS crates log headers and bodies, and bodies hold what is to
/// be masked; above it, their warnings would be lost.
const OTHERS_AT_MOST: LevelFilter = LevelFilter::INFO;

/// The AWS crates warn in pages of their internals about what our own errors then say in a line.
const AWS: [&str; 5] = ["aws_config", "aws_runtime", "aws_smithy_runtime", "aws_smithy_runtime_api", "aws_sdk_sts"];

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Time, level, target, message and `key=value` pairs.
    Text {
        /// Whether with ANSI colours.
        color: bool,
    },
    /// One object a line: `timestamp`, `level`, `target`, `message`, and a key for each field.
    Json,
}

/// What is logged: a level for all, levels for some targets, or both, as in `info,masq::queue=debug`.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Targets);

/// Why a filter was not understood.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("expected a level (off, error, warn, info, debug, trace) or target=level, separated by commas")]
pub struct FilterError;

impl Filter {
    /// Everything up to `level`, for other crates no more than info.
    pub fn level(level: LevelFilter) -> Self {
        let aws = AWS.map(|target| (target, level.min(LevelFilter::ERROR)));
        Self(Targets::new().with_default(level.min(OTHERS_AT_MOST)).with_targets(aws).with_target(OURS, level))
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self(Targets::new());
        for directive in text.split(',').map(str::trim) {
            let (target, level) = directive.rsplit_once('=').map_or((None, directive), |(t, l)| (Some(t), l));
            // A number is a level too for tracing, but says nothing to whoever reads it.
            let word = level.starts_with(|first: char| first.is_ascii_alphabetic());
            let level: LevelFilter = level.parse().ok().filter(|_| word).ok_or(FilterError)?;
            filter.0 = match target {
                None => filter.0.with_targets(Self::level(level).0).with_default(level.min(OTHERS_AT_MOST)),
                Some("") => return Err(FilterError),
                Some(target) if is_ours(target) => filter.0.with_target(target, level),
                Some(target) => filter.0.with_target(target, level.min(OTHERS_AT_MOST)),
            };
        }
        Ok(filter)
    }
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A subscriber that writes each event as one line, in one call of the writer.
pub fn subscriber<W>(format: Format, filter: Filter, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        Format::Text { color } => {
            let fields = format::debug_fn(|writer, field, value| match field.name() {
                "message" => write!(Escaping(writer), "{value:?} "),
                name => write!(Escaping(writer), "{name}={value:?} "),
            });
            layer.with_ansi(color).fmt_fields(fields).boxed()
        }
        Format::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    Dispatch::new(Registry::default().with(filter.0).with(lines))
}

/// Writes on with every control character as Rust writes it in a literal: `\n`, `\u{1b}`.
pub struct Escaping<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(position) = rest.find(char::is_control) {
            let (plain, from) = rest.split_at(position);
            self.0.write_str(plain)?;
            let mut characters = from.chars();
            characters.next().into_iter().try_for_each(|control| write!(self.0, "{}", control.escape_default()))?;
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::dispatcher::with_default;

    use super::*;

    /// What `log` writes.
    fn written(format: Format, filter: &str, log: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        with_default(&subscriber(format, filter.parse().unwrap(), Lines(lines.clone())), log);
        let bytes = lines.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Clone)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    const FORGED: &str = "gone\r\n2026-01-01T00:00:00Z  INFO masq: all is well\u{1b}[2J\u{9b}";

    #[test]
    fn a_value_cannot_forge_a_line() {
        for format in [Format::Text { color: false }, Format::Text { color: true }, Format::Json] {
            let log = || tracing::warn!(target: OURS, error = %FORGED, plain = FORGED, "{FORGED}");
            let line = written(format, "info", log);
            let body = line.strip_suffix('\n').unwrap();
            assert!(!body.contains(['\r', '\n']) && !body.contains("\u{1b}[2J"), "{line:?}");
            assert!(body.contains("all is well"));
        }
    }

    #[test]
    fn text_reads_as_it_was_said() {
        let log = || tracing::info!(target: OURS, sent = 3, queue = %"login-queue", "done");
        let line = written(Format::Text { color: false }, "info", log);
        assert!(line.trim_end().ends_with("INFO masq: done sent=3 queue=login-queue"), "{line:?}");
    }

    #[test]
    fn json_has_a_key_for_each_field() {
        let line = written(Format::Json, "info", || tracing::info!(target: OURS, sent = 3, "done"));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["message"], &line["sent"], &line["level"]), (&"done".into(), &3.into(), &"INFO".into()));
        assert_eq!(line["target"], "masq");
    }

    /// The targets whose debug lines come through.
    fn debugging(filter: &str) -> String {
        let log = || {
            tracing::debug!(target: "masq::queue", "ours");
            tracing::debug!(target: "hyper::client", "others");
            tracing::info!(target: "hyper::client", "loud");
        };
        let lines = written(Format::Json, filter, log);
        let word =
            |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].as_str().unwrap().to_owned();
        lines.lines().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn other_crates_log_no_more_than_info_whatever_is_asked_for() {
        assert_eq!(debugging("trace"), "ours loud");
        assert_eq!(debugging("trace,hyper=trace"), "ours loud");
        assert_eq!(debugging("masq=debug"), "ours");
        assert_eq!(debugging("warn,masq::queue=debug"), "ours");
        assert_eq!(debugging("info"), "loud");
        assert_eq!(debugging("debug,hyper=off"), "ours");
        assert_eq!(debugging("off"), "");
    }

    #[test]
    fn a_slip_of_the_hand_is_no_filter() {
        for slip in ["", "inf", "verbose", "masq=", "=info", "masq=loud", "info,", "3", "masq=3"] {
            assert_eq!(slip.parse::<Filter>(), Err(FilterError), "{slip}");
        }
    }
}
