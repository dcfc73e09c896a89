//! A mount namespace of the campaign's own, where root runs it: what is mounted there is gone when it ends, however that
//! happens, and nobody else sees it.

use std::{env, os::unix::process::CommandExt as _, process::Command};

/// Says to the program that it runs in its own namespace.
const MARK: &str = "MASQ_CHAOS_NAMESPACE";

/// Starts this program again in a namespace of its own, if that is possible; returns if it is not, or done already.
pub(crate) fn enter() {
    let may = Command::new("unshare").args(["--mount", "true"]).output().is_ok_and(|tried| tried.status.success());
    if is_own() || !may || !rustix::process::geteuid().is_root() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(program).args(env::args_os().skip(1)).env(MARK, "1");
    // Returns only if it fails, and then the campaign goes on without.
    drop(command.exec());
}

/// Whether this process runs in a namespace of its own.
#[expect(clippy::disallowed_methods, reason = "a test reads its own environment")]
pub(crate) fn is_own() -> bool {
    env::var_os(MARK).is_some()
}
