//! Where revealed values may go: to a terminal; sealed to a person, as a file or into a pipe; and in clear into a pipe only
//! if somebody insists. A pipe ends in files and logs that nobody erases.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use zeroize::Zeroizing;

use crate::cli::{
    exit::Exit,
    report::{self, Failure},
};
use crate::vault::age_recipient::{FileRandom, Recipient};

/// Whether what was sealed may be shown on stdout, in clear.
pub(in crate::cli) fn may_show(insisted: bool) -> bool {
    insisted || io::stdout().is_terminal()
}

/// Where the values go; if nothing is said, to the terminal.
#[derive(clap::Args)]
pub(super) struct DestinationArgs {
    /// Seal the values to this person, an age recipient such as age1…, instead of showing them
    #[arg(long, value_name = "RECIPIENT")]
    recipient: Option<Recipient>,
    /// Write what is sealed to this file, which must not be there yet, instead of stdout
    #[arg(long, value_name = "FILE", requires = "recipient")]
    output: Option<PathBuf>,
    /// Write the values in clear to stdout though it is no terminal: whoever reads it keeps them
    #[arg(long, conflicts_with = "recipient")]
    plain_output_i_know: bool,
}

/// Where values may go.
pub(super) enum Destination {
    /// To stdout, in clear.
    Stdout,
    /// To a person: into a file, or to stdout.
    Sealed(Recipient, Option<PathBuf>),
}

impl DestinationArgs {
    /// # Errors
    /// They would go in clear to where nobody asked for them, or over a file that is there.
    pub(super) fn decide(self) -> Result<Destination, Failure> {
        match (self.recipient, self.output) {
            (Some(_), Some(path)) if path.exists() => Err(exists(&path)),
            (Some(recipient), output) => Ok(Destination::Sealed(recipient, output)),
            (None, _) if may_show(self.plain_output_i_know) => Ok(Destination::Stdout),
            (None, _) => Err(Failure::new(Exit::Usage, "stdout is no terminal, so the values would be kept in clear")
                .hint("seal them to a person with --recipient age1…, or insist with --plain-output-i-know")),
        }
    }
}

fn exists(path: &std::path::Path) -> Failure {
    Failure::new(Exit::Usage, format!("{} exists already", path.display())).hint("name another file with --output")
}

impl Destination {
    /// Writes the values there.
    ///
    /// # Errors
    /// They cannot be written; then no part of them is.
    pub(super) fn write(&self, text: &Zeroizing<String>) -> Result<(), Failure> {
        let Self::Sealed(recipient, output) = self else { return report::print_bytes(text.as_bytes()) };
        let mut random: FileRandom = Zeroizing::new([0; 64]);
        aws_lc_rs::rand::fill(random.as_mut_slice())
            .map_err(|_| Failure::from(crate::vault::keyring::KeyError::NoRandomness))?;
        let sealed = recipient.seal(text.as_bytes(), &random);
        let Some(path) = output else { return report::print(sealed) };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| file.write_all(sealed.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(path),
            _ => Failure::new(Exit::of_file(&error), format!("cannot write {}", path.display())).because(&error),
        })
    }
}
