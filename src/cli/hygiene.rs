//! What must not leave the process when something goes wrong: memory in a core dump, values in a panic's message.
//!
//! It is no protection against root, or against whoever can read the swap.

use std::panic;

use rustix::process::{Resource, Rlimit, setrlimit};

/// No core dumps, and on Linux no debugger of the same user and nothing in `/proc/PID/mem` for it. What the system
/// refuses is logged: a container's policy may forbid it, and the work is still to be done.
pub(super) fn keep_memory() {
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, nothing) {
        tracing::warn!(%error, "could not forbid core dumps");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "could not keep debuggers out");
    }
}

/// A panic says where it happened, but not what with: its message may quote what was being worked on.
pub(super) fn keep_panics_short() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "this is a bug in masq; please report the place. Its message is withheld, for data");
    }));
}
