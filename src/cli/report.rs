//! How masq speaks: data to stdout, an error to stderr as error, causes and hint.
//!
//! What a failure means for the exit code stands in [`super::exit`].

use std::{
    error::Error,
    fmt::{self, Display, Write as _},
    io::{self, Write as _},
};

use super::exit::Exit;
use crate::logging::Escaping;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(super) struct Failure {
    /// What it means for whoever started masq.
    pub(super) exit: Exit,
    /// One mistake a line; empty if there is nothing to say.
    pub(super) error: String,
    /// What led to it, from the nearest to the first.
    pub(super) causes: Vec<String>,
    /// What to do.
    pub(super) hint: Option<String>,
}

impl Failure {
    /// An error that stands for itself.
    pub(super) fn new(exit: Exit, error: impl Display) -> Self {
        Self { exit, error: error.to_string(), causes: Vec::new(), hint: None }
    }

    /// An error with its causes.
    pub(super) fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, error).because_of(error.source())
    }

    /// The same, caused by this.
    pub(super) fn because(self, cause: &dyn Error) -> Self {
        self.because_of(Some(cause))
    }

    fn because_of(mut self, mut cause: Option<&dyn Error>) -> Self {
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors quote their source; said once is enough.
            if !self.causes.last().unwrap_or(&self.error).contains(&text) {
                self.causes.push(text);
            }
            cause = error.source();
        }
        self
    }

    /// The same, with advice.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Nobody reads our output any more, as after `masq schema | head`. No reason to complain.
    fn unread() -> Self {
        Self::new(Exit::Done, "")
    }

    /// Says it on stderr. If nobody listens there, the exit code still speaks.
    pub(super) fn print(&self, color: bool) {
        drop(io::stderr().write_all(Seen { failure: self, color }.to_string().as_bytes()));
    }
}

/// A failure as the person at the terminal sees it. What a server said cannot move the cursor: control characters are
/// escaped.
struct Seen<'a> {
    failure: &'a Failure,
    color: bool,
}

impl Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { error, causes, hint, .. } = self.failure;
        let (red, cyan, plain) = if self.color { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let errors = error.lines().map(|line| (red, "error", plain, line));
        let causes = causes.iter().map(|cause| ("", "  caused by", "", cause.as_str()));
        let hint = hint.iter().map(|hint| (cyan, "hint", plain, hint.as_str()));
        for (style, label, end, words) in errors.chain(causes).chain(hint) {
            write!(f, "{style}{label}:{end} ")?;
            Escaping(&mut *f).write_str(words)?;
            f.write_str("\n")?;
        }
        Ok(())
    }
}

/// Writes data to stdout.
///
/// # Errors
/// A pipe whose reader has gone ends the command quietly, as done.
pub(super) fn print(data: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match write!(out, "{data}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::unread()),
        Err(error) => Err(Failure::new(Exit::Absent, "cannot write to stdout").because(&error)),
    }
}

/// Writes a value as JSON to stdout, indented, with a line end.
///
/// # Errors
/// As [`print`].
pub(super) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(format_args!("{value:#}\n"))
}

/// Bytes in lower-case hexadecimal digits.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::keyring::KeyError;

    fn seen(failure: &Failure, color: bool) -> String {
        Seen { failure, color }.to_string()
    }

    #[test]
    fn error_causes_and_hint_each_have_their_line() {
        let cause = io::Error::other("disk on fire");
        let failure = Failure::new(Exit::Absent, "cannot write").because(&cause).hint("put it out");
        assert_eq!(seen(&failure, false), "error: cannot write\n  caused by: disk on fire\nhint: put it out\n");
        assert!(seen(&failure, true).starts_with("\x1b[1;31merror:\x1b[0m cannot write\n"));
    }

    #[test]
    fn a_cause_is_given_once() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let error = KeyError::Unreadable { path: "k".into(), source: denied() };
        let failure = Failure::from(error);
        assert_eq!((failure.exit, failure.causes.len()), (Exit::Denied, 1));
        let quoted = Failure::new(Exit::Absent, format!("no: {}", denied())).because(&denied());
        assert_eq!(quoted.causes, [""; 0]);
    }

    #[test]
    fn several_mistakes_are_several_errors_and_none_moves_the_cursor() {
        let failure = Failure::new(Exit::Config, "one\ntwo \x1b[2J\r");
        assert_eq!(seen(&failure, false), "error: one\nerror: two \\u{1b}[2J\\r\n");
    }

    #[test]
    fn nothing_to_say_says_nothing() {
        assert_eq!(seen(&Failure::unread(), true), "");
    }
}
