//! The environment: the one place where it is read. A variable that is set but empty counts as unset, since `FOO=` is
//! how people and container files take a variable away.

use std::ffi::OsStr;

use clap::Command;

/// The value of a variable, for code that knows more names than the command line shows (`AWS_*`, `PG*`).
/// One that is no UTF-8 counts as unset too.
pub(super) fn lookup(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the place in cli/ that reads the environment")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The command line without the variables that are empty.
pub(super) fn without_empty(command: Command) -> Command {
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(None) } else { arg })
        .mut_subcommands(without_empty)
}

fn is_empty(name: &OsStr) -> bool {
    #[expect(clippy::disallowed_methods, reason = "this is the place in cli/ that reads the environment")]
    let value = std::env::var_os(name);
    value.is_some_and(|value| value.is_empty())
}
