//! Namespaces of the campaign's own, where root runs it: what is started and mounted in them is gone when the campaign
//! ends, however that happens, and nobody else sees the mounts.

use std::{env, os::unix::process::CommandExt as _, process::Command};

/// Says to the program that it runs in its own namespaces.
const MARK: &str = "MASQ_CHAOS_NAMESPACE";

const UNSHARE: [&str; 6] = ["--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Starts this program again in namespaces of its own, if that is possible; returns if it is not, or done already.
pub(crate) fn enter() {
    let may = || Command::new("unshare").args(UNSHARE).arg("true").output().is_ok_and(|tried| tried.status.success());
    if is_own() || !rustix::process::geteuid().is_root() || !may() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut command = Command::new("unshare");
    command.args(UNSHARE).arg(program).args(env::args_os().skip(1)).env(MARK, "1");
    // Returns only if it fails, and then the campaign goes on without.
    drop(command.exec());
}

/// Whether this process runs in namespaces of its own.
#[expect(clippy::disallowed_methods, reason = "a test reads its own environment")]
pub(crate) fn is_own() -> bool {
    env::var_os(MARK).is_some()
}
