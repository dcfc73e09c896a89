//! How far long work is: a bar where people watch, a log line every few seconds where they do not.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::context::Context;

/// Between two log lines. Shorter fills logs, longer looks like standing still.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Work that is under way.
pub(super) struct Progress {
    what: &'static str,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    started: Instant,
    logged: Instant,
    done: u64,
}

impl Progress {
    /// Begins at zero. `what` is being done, as in `sending`; `total` is how much there is, if that is known.
    pub(super) fn new(context: &Context, what: &'static str, total: Option<u64>) -> Self {
        let bar = context.is_watched.then(|| {
            let template = match total {
                Some(_) => "{msg} [{wide_bar}] {human_pos}/{human_len} {rate} {eta}",
                None => "{spinner} {msg} {human_pos} {rate}",
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = context.show(total.map_or_else(ProgressBar::new_spinner, ProgressBar::new));
            // indicatif's own rate has four decimals.
            let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                write!(out, "{:.0}/s", state.per_sec()).unwrap_or_default();
            });
            bar.with_style(style.progress_chars("=> ")).with_message(what)
        });
        let now = Instant::now();
        Self { what, total, bar, started: now, logged: now, done: 0 }
    }

    /// So many more are done.
    pub(super) fn add(&mut self, more: u64) {
        self.set(self.done + more);
    }

    /// So many are done.
    pub(super) fn set(&mut self, done: u64) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.logged.elapsed() >= LOG_EVERY {
            self.logged = Instant::now();
            match self.total {
                Some(total) => tracing::info!(done, total, "{}", self.what),
                None => tracing::info!(done, "{}", self.what),
            }
        }
    }

    /// Takes the bar away. Answers how long it took.
    pub(super) fn finish(self) -> Duration {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed()
    }
}
