//! Ends a private cluster whose owner has vanished.

use std::{
    io::{self, Write as _},
    path::Path,
    process::{Child, ChildStdin, Stdio},
};

use super::{
    command,
    home::{Home, Owner},
};

/// A shell that waits on a pipe whose other end only this process holds. When this process vanishes, even by
/// `kill -9`, the pipe ends and the shell shuts the server down; a line through the pipe sends it home instead.
pub(super) struct Watchdog {
    shell: Child,
    pub(super) leash: Option<ChildStdin>,
}

impl Watchdog {
    /// It kills only the server whose number stands in the cluster's own pid file, so never a stranger who was given
    /// that number later. A server that has just been started takes a moment to write that file.
    const SCRIPT: &str = r#"read -r _ && exit
        for _ in 1 2 3 4 5; do [ "$(head -n 1 "$2")" = "$1" ] && kill -QUIT "$1" && exit; sleep 1; done"#;

    pub(super) fn set(server: &Child, home: &Home, owner: Option<&Owner>) -> io::Result<Self> {
        let mut shell = command(Path::new("/bin/sh"), home, owner);
        shell.arg("-c").arg(Self::SCRIPT).arg("watchdog").arg(server.id().to_string());
        shell.arg(home.data().join("postmaster.pid"));
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let leash = shell.stdin.take();
        Ok(Self { shell, leash })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Fields drop after the cluster's own drop, so the server has ended by now and there is nothing left to kill.
        if let Some(mut leash) = self.leash.take() {
            let _gone = leash.write_all(b"home\n");
        }
        let _reaped = self.shell.wait();
    }
}
