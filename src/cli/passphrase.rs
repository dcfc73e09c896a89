//! The passphrase of a recovery key. For a new one: typed twice, from a file, or none on purpose; for one that is there:
//! typed, or from a file.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::{exit::Exit, report::Failure, signals};
use crate::vault::{
    identity::{self, IdentityError},
    recovery::RecoveryKey,
};

/// The longest passphrase, in bytes. Longer than anybody types; a wrong path is not read to its end.
const MAX: u64 = 4096;

/// Where the passphrase comes from; if nothing is said, it is asked for.
#[derive(Args)]
pub(super) struct NewPassphrase {
    /// Leave the recovery key unprotected, so that whoever has the file can use it
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
    /// Protect the recovery key with the passphrase in the first line of this file, instead of asking for one
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl NewPassphrase {
    /// The passphrase; `None` if none is wanted.
    ///
    /// # Errors
    /// Nobody can be asked, what was given is none, or a signal came instead.
    pub(super) async fn get(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        let passphrase = match &self.passphrase_file {
            _ if self.no_passphrase => return Ok(None),
            Some(path) => first_line(path)?,
            None => ask_twice().await?,
        };
        if passphrase.is_empty() {
            return Err(Failure::new(Exit::Usage, "the passphrase is empty")
                .hint("to leave the recovery key unprotected, say --no-passphrase"));
        }
        Ok(Some(passphrase))
    }
}

/// Where the passphrase of a recovery key comes from; if nothing is said and the key has one, it is asked for.
#[derive(Args)]
pub(super) struct Passphrase {
    /// Take the recovery key's passphrase from the first line of this file, instead of asking for it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Passphrase {
    /// For a new recovery key, from the same file; or none, if that is wanted.
    pub(super) fn for_new(&self, no_passphrase: bool) -> NewPassphrase {
        NewPassphrase { no_passphrase, passphrase_file: self.passphrase_file.clone() }
    }

    /// The recovery key in this file.
    ///
    /// # Errors
    /// The file cannot be used, the passphrase is wrong, there is nobody to be asked for it, or a signal came instead.
    pub(super) async fn unlock(&self, identity: &Path) -> Result<RecoveryKey, Failure> {
        match identity::load(identity, None) {
            Err(IdentityError::PassphraseNeeded) => Ok(identity::load(identity, Some(&self.get().await?))?),
            loaded => Ok(loaded?),
        }
    }

    async fn get(&self) -> Result<Zeroizing<String>, Failure> {
        match &self.passphrase_file {
            Some(path) => first_line(path),
            // Also while something is read from stdin: the prompt has the terminal for itself.
            None if io::stdin().is_terminal() || io::stderr().is_terminal() => {
                ask("Passphrase of the recovery key: ").await
            }
            None => Err(Failure::from(IdentityError::PassphraseNeeded).hint("or name a file with --passphrase-file")),
        }
    }
}

fn first_line(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(MAX).read_to_string(&mut text));
    read.map_err(|error| {
        let what = format!("cannot read the passphrase from {}", path.display());
        Failure::new(Exit::of_file(&error), what).because(&error)
    })?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

async fn ask_twice() -> Result<Zeroizing<String>, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "the recovery key needs a passphrase, and there is no terminal to ask on",
        )
        .hint("name a file with --passphrase-file, or leave the key unprotected with --no-passphrase"));
    }
    let first = ask("Passphrase for the recovery key: ").await?;
    let again = if first.is_empty() { Zeroizing::default() } else { ask("The same again: ").await? };
    if first != again {
        return Err(Failure::new(Exit::Usage, "the two passphrases differ, so no keys were made"));
    }
    Ok(first)
}

/// What somebody types, unseen.
///
/// # Errors
/// There is no terminal, or a signal came instead.
pub(super) async fn ask(prompt: &'static str) -> Result<Zeroizing<String>, Failure> {
    let failure = |error: &io::Error| Failure::new(Exit::Usage, "cannot read from the terminal").because(error);
    let _echo = Echo::keep().map_err(|error| failure(&error))?;
    let answer = spawn_blocking(move || rpassword::prompt_password(prompt).map(Zeroizing::new));
    signals::unless_stopped(async {
        match answer.await.map_err(io::Error::from).flatten() {
            Ok(answer) => Ok(answer),
            // Ctrl-C is a character to it, of which it makes this error and a signal.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(signals::stopped()),
            Err(error) => Err(failure(&error)),
        }
    })
    .await
}

/// The terminal as it was: dropped, it is so again. A prompt that is left waiting in its thread cannot see to that.
struct Echo {
    terminal: File,
    before: Termios,
}

impl Echo {
    fn keep() -> io::Result<Self> {
        // The one on which the prompt asks, whatever stdin is.
        let terminal = File::open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _gone = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
