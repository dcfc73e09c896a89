//! One key in one file: how it is written, and under which conditions it is read.
//!
//! A header line that names kind and version, comments that say what the key is to whoever finds it, and the key in
//! base64 on one line. What the key is used for is not its business.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    num::NonZeroU8,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use thiserror::Error;
use zeroize::Zeroizing;

use super::audit::checkpoint::VerifierKey;

/// More than any key file has; a wrong path (a log, a device) is not read to its end.
const MAX_FILE: u64 = 16 * 1024;

/// What a key file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `token.key`: the token root, with its key id.
    Token,
    /// `subject.key`
    Subject,
    /// `recovery.pub`, which is no secret; but who can change it reads what is sealed from then on.
    RecoveryPublic,
    /// `recovery.key`, which no worker may have.
    Recovery,
    /// `audit.key`: signs checkpoints of the audit log. For those who reveal, erase and rotate; no worker needs it.
    Audit,
    /// `audit.pub`, which is no secret; but who can change it signs checkpoints that others then believe.
    AuditPublic,
}

impl Kind {
    /// Its file's name.
    pub fn file(self) -> &'static str {
        match self {
            Self::Token => "token.key",
            Self::Subject => "subject.key",
            Self::RecoveryPublic => "recovery.pub",
            Self::Recovery => "recovery.key",
            Self::Audit => "audit.key",
            Self::AuditPublic => "audit.pub",
        }
    }

    /// In words.
    pub fn what(self) -> &'static str {
        match self {
            Self::Token => "the token key",
            Self::Subject => "the subject key",
            Self::RecoveryPublic => "its public half, which only seals",
            Self::Recovery => "the recovery key",
            Self::Audit => "the key that signs the audit log",
            Self::AuditPublic => "the key that checks the audit log",
        }
    }

    /// What this text says it is, by its first line.
    pub fn of(text: &[u8]) -> Option<Self> {
        let kinds = [Self::Token, Self::Subject, Self::RecoveryPublic, Self::Recovery, Self::Audit, Self::AuditPublic];
        let text = std::str::from_utf8(text).ok()?;
        let header = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
        let word = header.split(' ').next();
        kinds.into_iter().find(|kind| word == Some(kind.header()))
    }

    fn header(self) -> &'static str {
        match self {
            Self::Token => "masq-token-key-v1",
            Self::Subject => "masq-subject-key-v1",
            Self::RecoveryPublic => "masq-recovery-public-key-v1",
            Self::Recovery => "masq-recovery-key-v1",
            Self::Audit => "masq-audit-key-v1",
            Self::AuditPublic => "masq-audit-public-key-v1",
        }
    }

    fn comment(self) -> &'static str {
        match self {
            Self::Token => {
                "# Makes the tokens that stand in masked columns.\n\
                 # Needed by every masq worker that writes this table.\n\
                 # Lost: equal values no longer get equal tokens; old tokens stay as they are.\n\
                 # Stolen: whoever has it and the table can try out values against the tokens.\n"
            }
            Self::Subject => {
                "# Names the persons of dead letters to whoever has this key, and to nobody else.\n\
                 # Needed by every masq worker. Never changed: another key finds nothing that is there already.\n\
                 # Lost: dead letters can no longer be found by person.\n\
                 # Stolen: whoever has it and the dead letters can try out names.\n"
            }
            Self::RecoveryPublic => {
                "# Seals what only the recovery key opens. No secret.\n\
                 # Needed by every masq worker.\n\
                 # Lost: the recovery key contains it.\n\
                 # Replaced by somebody else's: they read what is sealed from then on, and you do not.\n"
            }
            Self::Recovery => {
                "# Opens everything that masq has sealed.\n\
                 # Needed by people who look into dead letters. Keep it away from the workers, and keep two copies.\n\
                 # Lost: what was sealed can never be opened.\n\
                 # Stolen: whoever has it and the database reads what was sealed.\n"
            }
            Self::Audit => {
                "# Signs checkpoints of the audit log of one database.\n\
                 # Needed by people who reveal, erase and rotate; by no worker.\n\
                 # Lost: new checkpoints need a new pair of keys. Keep audit.pub for the old ones.\n\
                 # Stolen: whoever has it and owns the database can rewrite the log and sign that.\n"
            }
            Self::AuditPublic => {
                "# Checks checkpoints of the audit log. No secret. The last line is a verifier key as C2SP writes it.\n\
                 # Needed by whoever runs `masq audit verify`.\n\
                 # Lost: audit.key contains it.\n\
                 # Replaced by somebody else's: their checkpoints are believed, and yours are not.\n"
            }
        }
    }

    fn is_secret(self) -> bool {
        !matches!(self, Self::RecoveryPublic | Self::AuditPublic)
    }

    /// The permissions that it is made with, before the umask.
    fn mode(self) -> u32 {
        if self.is_secret() { 0o400 } else { 0o444 }
    }

    /// The permissions that it must not have. The group may read a secret, for Kubernetes mounts secrets with 0440.
    fn forbidden(self) -> u32 {
        if self.is_secret() { 0o026 } else { 0o022 }
    }
}

/// Why keys cannot be used or made, by what helps. Never a word of a file's content.
#[derive(Debug, Error)]
pub enum KeyError {
    /// Name another place, or make keys.
    #[error("there is no {}: name the directory of the keys, or make new ones with `masq keys new`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Restore it: new keys would not fit what the others have written.
    #[error("there is no {}, though other keys are there: restore it from where the keys were made", path.display())]
    Lost {
        /// The file.
        path: PathBuf,
    },
    /// Let this user read it.
    #[error("cannot read {}: it must be readable for the user that masq runs as", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Close it, and think about who has seen it.
    #[error("{} has mode {mode:04o}, which lets others {} it: run `chmod {fix:04o} {}`", path.display(),
        if mode & 0o004 != 0 && *fix == 0o400 { "read" } else { "change" }, path.display())]
    Exposed {
        /// The file, or what a symbolic link in its place leads to.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// The permissions it should have.
        fix: u32,
    },
    /// Restore it from a copy.
    #[error("{} is not the key file it should be ({problem}): restore it from a copy", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What about it.
        problem: &'static str,
    },
    /// Take another directory.
    #[error("{} exists, and keys are never overwritten: choose another directory, or move it away", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Make room, or let this user write.
    #[error("cannot write {}: the directory must be writable and have room", path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Say where KMS is asked for it.
    #[error("{} is opened by the KMS key {arn} alone, and this command does not ask KMS", path.display())]
    Wrapped {
        /// The file.
        path: PathBuf,
        /// The key that opens it.
        arn: String,
    },
    /// What KMS says.
    #[error(transparent)]
    Kms(#[from] super::kms::KmsError),
    /// Look at the system.
    #[error("the operating system gives no random bytes: look at its kernel and at what the container may do")]
    NoRandomness,
}

/// The text of a key file. Only [`Kind::Token`] has a key id.
pub fn render(kind: Kind, kid: NonZeroU8, key: &[u8]) -> Zeroizing<String> {
    let id = if kind == Kind::Token { format!(" kid={kid}") } else { String::new() };
    let key = Zeroizing::new(BASE64_STANDARD.encode(key));
    Zeroizing::new(format!("{}{id}\n{}{}\n", kind.header(), kind.comment(), *key))
}

/// The text of [`Kind::RecoveryPublic`] with these keys, one a line.
pub fn render_recipients(keys: &[Vec<u8>]) -> String {
    let kind = Kind::RecoveryPublic;
    let keys: String = keys.iter().map(|key| BASE64_STANDARD.encode(key) + "\n").collect();
    format!("{}\n{}{keys}", kind.header(), kind.comment())
}

/// The text of [`Kind::AuditPublic`], which is a verifier key and not base64.
pub fn render_verifier(key: &VerifierKey) -> Zeroizing<String> {
    let kind = Kind::AuditPublic;
    Zeroizing::new(format!("{}\n{}{key}\n", kind.header(), kind.comment()))
}

/// Reads that text, or the verifier key alone, as others write it.
pub fn parse_verifier(path: &Path, text: &[u8]) -> Result<VerifierKey, KeyError> {
    let problem = "it holds no verifier key, which is name+id+key in one line";
    let lines = std::str::from_utf8(text).unwrap_or_default().lines().map(str::trim);
    let mut keys =
        lines.filter(|line| !line.is_empty() && !line.starts_with('#') && *line != Kind::AuditPublic.header());
    let key = keys.next().and_then(VerifierKey::parse).filter(|_| keys.next().is_none());
    key.ok_or_else(|| KeyError::Malformed { path: path.to_owned(), problem })
}

/// Reads that text: the key id (1 for kinds that have none) and the key, of any length. `path` is for the complaint.
/// Blank lines and comments may be anywhere.
pub fn parse(kind: Kind, path: &Path, text: &[u8]) -> Result<(NonZeroU8, Zeroizing<Vec<u8>>), KeyError> {
    let (kid, mut keys) = parse_all(kind, path, text)?;
    match (keys.pop(), keys.is_empty()) {
        (Some(key), true) => Ok((kid, key)),
        _ => Err(KeyError::Malformed { path: path.to_owned(), problem: "something follows the key" }),
    }
}

/// Reads the text of [`Kind::RecoveryPublic`], which may hold several keys: one a line.
pub fn parse_recipients(path: &Path, text: &[u8]) -> Result<Vec<Zeroizing<Vec<u8>>>, KeyError> {
    parse_all(Kind::RecoveryPublic, path, text).map(|(_, keys)| keys)
}

/// A key of any length.
type Bytes = Zeroizing<Vec<u8>>;

/// The key id and the keys, one at least.
fn parse_all(kind: Kind, path: &Path, text: &[u8]) -> Result<(NonZeroU8, Vec<Bytes>), KeyError> {
    let malformed = |problem| KeyError::Malformed { path: path.to_owned(), problem };
    let text = std::str::from_utf8(text).map_err(|_| malformed("it is no text"))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let header = lines.next().ok_or_else(|| malformed("it is empty"))?;
    let id = header.strip_prefix(kind.header()).ok_or_else(|| malformed("its first line names another kind"))?;
    let kid = match (kind, id.strip_prefix(" kid=")) {
        (Kind::Token, Some(kid)) => kid.parse().map_err(|_| malformed("its key id is not between 1 and 255"))?,
        (Kind::Token, None) => return Err(malformed("its first line has no key id")),
        _ if id.is_empty() => NonZeroU8::MIN,
        _ => return Err(malformed("its first line names another kind")),
    };
    let key = |line| BASE64_STANDARD.decode(line).map(Zeroizing::new).map_err(|_| malformed("the key is not base64"));
    let keys = lines.map(key).collect::<Result<Vec<_>, KeyError>>()?;
    if keys.is_empty() { Err(malformed("the key is missing")) } else { Ok((kid, keys)) }
}

/// Reads the text of a kind whose key has 32 bytes, which are all secret ones.
pub fn parse_secret(kind: Kind, path: &Path, text: &[u8]) -> Result<(NonZeroU8, Zeroizing<[u8; 32]>), KeyError> {
    let (kid, bytes) = parse(kind, path, text)?;
    let bytes = bytes.as_slice().try_into();
    let malformed = |_| KeyError::Malformed { path: path.to_owned(), problem: "the key has not 32 bytes" };
    Ok((kid, Zeroizing::new(bytes.map_err(malformed)?)))
}

/// Reads a key file's bytes if its permissions keep others out.
///
/// Permissions are those of the file that was opened, so a symbolic link counts for what it leads to.
pub fn read(kind: Kind, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed = |source| failed_to_read(path, source);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(KeyError::Malformed { path: path.to_owned(), problem: "it is a directory" });
    }
    check_mode(kind, path, metadata.mode())?;
    read_all(file).map_err(failed)
}

/// What kind of key file that is, whoever may read it; `None`: none, or one that is protected.
pub fn kind_of(path: &Path) -> Option<Kind> {
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    Kind::of(&read_all(is_file.then(|| File::open(path).ok())??).ok()?)
}

fn read_all(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_FILE).unwrap_or(usize::MAX)));
    file.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

/// The permission bits of a key file, without opening it.
pub fn mode(path: &Path) -> Result<u32, KeyError> {
    fs::metadata(path).map(|metadata| metadata.mode() & 0o7777).map_err(|source| failed_to_read(path, source))
}

/// Refuses permissions that let others in.
pub fn check_mode(kind: Kind, path: &Path, mode: u32) -> Result<(), KeyError> {
    if mode & kind.forbidden() == 0 {
        return Ok(());
    }
    Err(KeyError::Exposed { path: path.to_owned(), mode: mode & 0o7777, fix: kind.mode() })
}

/// Writes a file that is not there yet and syncs it; after a failure it is not there.
pub fn write_new(kind: Kind, path: &Path, text: &str) -> Result<(), KeyError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(kind.mode()).open(path);
    let mut file = file.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
        _ => KeyError::Unwritable { path: path.to_owned(), source },
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| {
        drop(fs::remove_file(path)); // the failure to write is the one to report
        KeyError::Unwritable { path: path.to_owned(), source }
    })
}

fn failed_to_read(path: &Path, source: io::Error) -> KeyError {
    match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
        _ => KeyError::Unreadable { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests;
