//! Namespaces of the campaign's own, where root runs it: what is started and mounted in them is gone when the campaign
//! ends, however that happens, and nobody else sees the mounts.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
};

use tokio::sync::oneshot;

/// Says to the program that it runs in its own namespaces, and where it may write.
const MARK: &str = "MASQ_CHAOS_NAMESPACE";

const UNSHARE: [&str; 6] = ["--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Runs this program again in namespaces of its own, with a directory that outlives nobody, and answers how it ended.
/// `None`: that is not possible here, or done already.
pub(crate) fn enter(directory: &Path) -> Option<ExitCode> {
    let may = || Command::new("unshare").args(UNSHARE).arg("true").output().is_ok_and(|tried| tried.status.success());
    if is_own() || !rustix::process::geteuid().is_root() || !may() {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(UNSHARE).arg(env::current_exe().ok()?).args(env::args_os().skip(1));
    let mut child = command.env(MARK, directory).stdin(Stdio::piped()).spawn().ok()?;
    // A pipe that ends with this process, however that happens; to wait for the child would end it.
    let _leash = child.stdin.take();
    let status = child.wait().ok()?;
    Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns when the process that entered the namespace has ended; never where there is none.
pub(crate) async fn left_alone() {
    if !is_own() {
        return std::future::pending().await;
    }
    let (sender, ended) = oneshot::channel();
    // A thread of its own, since the runtime would wait for one that still reads.
    thread::spawn(move || {
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        let _nobody_waits = sender.send(());
    });
    drop(ended.await);
}

/// The directory that came along.
#[expect(clippy::disallowed_methods, reason = "a test reads its own environment")]
pub(crate) fn directory() -> Option<PathBuf> {
    env::var_os(MARK).map(PathBuf::from)
}

/// Whether this process runs in namespaces of its own.
pub(crate) fn is_own() -> bool {
    directory().is_some()
}
