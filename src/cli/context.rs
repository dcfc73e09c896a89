//! What every command has at hand: the global options, made into things that can be used.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use indicatif::{MultiProgress, ProgressBar};
use tracing_subscriber::fmt::MakeWriter;

use super::{
    environment::lookup,
    exit::Exit,
    report::{self, Failure},
};
use crate::{
    config::Override,
    logging::{self, Filter, Format},
};

/// Where the configuration is looked for if nobody says.
pub(super) const CONFIG_FILE: &str = "masq.toml";

/// The options of all commands.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Globals {
    /// Read the configuration from this file [default: masq.toml, if it exists]
    #[arg(short, long, global = true, value_name = "FILE", env = "MASQ_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Log up to this level (error, warn, info, debug, trace), or by target as in info,masq::queue=debug
    #[arg(long, global = true, value_name = "LEVEL", env = "MASQ_LOG", hide_env_values = true, default_value = "info")]
    log: Filter,
    /// Choose how log lines are written [default: text on a terminal, json elsewhere]
    #[arg(long, global = true, value_name = "FORMAT", env = "MASQ_LOG_FORMAT", hide_env_values = true)]
    log_format: Option<LogFormat>,
    /// Choose when to use colours on stderr; the variable NO_COLOR is heeded
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

/// What a command works with beside its own arguments.
pub(super) struct Context {
    /// The configuration's file, where one was named.
    pub(super) config: Option<PathBuf>,
    /// Whether stderr is a terminal: people watch.
    pub(super) is_watched: bool,
    /// Whether to colour stderr.
    pub(super) color: bool,
    log: Filter,
    log_format: Format,
    bars: MultiProgress,
    origins: BTreeMap<String, String>,
}

impl Context {
    /// `origins`: which flag or variable each argument came from.
    pub(super) fn new(globals: Globals, origins: BTreeMap<String, String>) -> Self {
        let is_watched = io::stderr().is_terminal();
        let color = match globals.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_watched && lookup("NO_COLOR").is_none() && lookup("TERM").is_none_or(|t| t != "dumb"),
        };
        let log_format = match globals.log_format {
            Some(LogFormat::Text) => Format::Text { color },
            None if is_watched => Format::Text { color },
            Some(LogFormat::Json) | None => Format::Json,
        };
        Self {
            config: globals.config,
            is_watched,
            color,
            log: globals.log,
            log_format,
            bars: MultiProgress::new(),
            origins,
        }
    }

    /// Log lines go to stderr from now on.
    pub(super) fn install_logging(&self) {
        let subscriber = logging::subscriber(self.log_format, self.log.clone(), Screen(self.bars.clone()));
        // It fails only if there is one already, and this is the only place that installs one.
        drop(tracing::dispatcher::set_global_default(subscriber));
    }

    /// Says something to the person at the terminal, on stderr.
    pub(super) fn say(&self, words: impl Display) {
        // If nobody listens there, the work is still to be done.
        drop(Screen(self.bars.clone()).write_all(format!("{words}\n").as_bytes()));
    }

    /// Writes data to stdout while a bar is shown on stderr, which may be the same terminal.
    ///
    /// # Errors
    /// As [`report::print`].
    pub(super) fn print(&self, data: impl Display) -> Result<(), Failure> {
        self.bars.suspend(|| report::print(data))
    }

    /// Shows a bar below whatever is said or logged.
    pub(super) fn show(&self, bar: ProgressBar) -> ProgressBar {
        self.bars.add(bar)
    }

    /// The value of an argument, with where it came from.
    pub(super) fn said(&self, argument: &str, value: Option<&String>) -> Option<Override> {
        let source = self.origins.get(argument).cloned().unwrap_or_else(|| argument.to_owned());
        value.map(|value| Override { value: value.clone(), source })
    }

    /// Name and text of the configuration's file; `None` if none was named and there is none in the usual place.
    ///
    /// # Errors
    /// It was named and does not exist, or it cannot be read.
    pub(super) fn config_file(&self) -> Result<Option<(String, String)>, Failure> {
        let path = self.config.clone().unwrap_or_else(|| PathBuf::from(CONFIG_FILE));
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path.display().to_string(), text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.config.is_none() => Ok(None),
            Err(error) => {
                let failure = Failure::new(Exit::of_file(&error), format!("cannot read {}", path.display()));
                let source = self.origins.get("config").map_or("--config", String::as_str);
                Err(failure.because(&error).hint(format!("name another file with {source}, or write one: masq init")))
            }
        }
    }
}

/// Stderr beside progress bars: a bar steps aside for what is written.
struct Screen(MultiProgress);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self(self.0.clone())
    }
}
