//! The passphrase for a new recovery key: typed twice, from a file, or none on purpose.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use zeroize::Zeroizing;

use super::{exit::Exit, report::Failure};

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
    /// Nobody can be asked, or what was given is none.
    pub(super) fn get(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        let passphrase = match &self.passphrase_file {
            _ if self.no_passphrase => return Ok(None),
            Some(path) => first_line(path)?,
            None => ask_twice()?,
        };
        if passphrase.is_empty() {
            return Err(Failure::new(Exit::Usage, "the passphrase is empty")
                .hint("to leave the recovery key unprotected, say --no-passphrase"));
        }
        Ok(Some(passphrase))
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

fn ask_twice() -> Result<Zeroizing<String>, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "the recovery key needs a passphrase, and there is no terminal to ask on",
        )
        .hint("name a file with --passphrase-file, or leave the key unprotected with --no-passphrase"));
    }
    let first = ask("Passphrase for the recovery key: ")?;
    let again = if first.is_empty() { Zeroizing::default() } else { ask("The same again: ")? };
    if first != again {
        return Err(Failure::new(Exit::Usage, "the two passphrases differ, so no keys were made"));
    }
    Ok(first)
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let answer = rpassword::prompt_password(prompt).map(Zeroizing::new);
    answer.map_err(|error| Failure::new(Exit::Usage, "cannot read from the terminal").because(&error))
}
