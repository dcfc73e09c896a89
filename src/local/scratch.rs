//! A directory for the time being: gone with its handle, and gone too if the process is killed.

use std::{
    io::{self, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use tempfile::TempDir;

/// A temporary directory that outlives nobody.
pub struct Scratch {
    directory: TempDir,
    shell: Child,
    leash: Option<ChildStdin>,
}

impl Scratch {
    /// A shell waits on a pipe whose other end only this process holds. If the process vanishes, even by `kill -9`, the
    /// pipe ends, and the shell removes the directory: after some seconds, in which a server that lives there may end.
    const SCRIPT: &str = r#"read -r _ && exit; sleep 7; rm -rf "$1""#;

    /// A new, empty directory, which only this user can enter, among the system's temporary files.
    ///
    /// # Errors
    /// It cannot be made, or there is no shell.
    pub fn new(prefix: &str) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix(prefix).tempdir()?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", Self::SCRIPT, "scratch"]).arg(directory.path());
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let leash = shell.stdin.take();
        Ok(Self { directory, shell, leash })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The directory itself is removed after this, by its own drop.
        if let Some(mut leash) = self.leash.take() {
            let _gone = leash.write_all(b"home\n");
        }
        let _reaped = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_its_handle() {
        let scratch = Scratch::new("masq-scratch-").unwrap();
        std::fs::write(scratch.path().join("file"), "content").unwrap();
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}
