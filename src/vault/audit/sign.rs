//! Signed checkpoints: made of the log as it is now, and appended to a file that the owner of the database cannot change.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{checkpoint::Signer, read};
use crate::{
    config::Config,
    db::{DbError, Session},
    vault::keyring::{self, KeyError},
};

/// Why there is no new checkpoint.
#[derive(Debug, Error)]
pub enum SignError {
    /// `audit.key` cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The log cannot be read.
    #[error(transparent)]
    Database(#[from] DbError),
    /// Make room, or let this user write.
    #[error("cannot append the checkpoint to {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The checkpoint of the log as it is now, as text.
///
/// # Errors
/// If the end of the log cannot be read, or is none.
pub async fn checkpoint(session: &Session, signer: &Signer) -> Result<String, DbError> {
    Ok(signer.checkpoint(&read::tree(session).await?))
}

/// Appends a checkpoint to a file of them, which is made if need be, and syncs it.
///
/// # Errors
/// If it cannot be written.
pub fn append(path: &Path, checkpoint: &str) -> Result<(), SignError> {
    let write = |mut file: File| {
        // Apart from the one before, which may have been cut off when a disk was full. In one piece, for another masq may
        // append at the same time.
        file.write_all(format!("\n{checkpoint}").as_bytes())?;
        file.sync_all()
    };
    let appended = OpenOptions::new().append(true).create(true).open(path).and_then(write);
    appended.map_err(|source| SignError::File { path: path.to_owned(), source })
}

/// Takes what was just put on record out of the reach of the database's owner: appends a checkpoint, if `[audit]
/// checkpoints` names a file and `audit.key` lies in the directory of the keys. To be called after every reveal, erasure
/// and rotation, when its last entry is committed.
///
/// What fails is only logged: the work is done and on record, and the next checkpoint covers it too.
pub async fn checkpoint_after(session: &Session, config: &Config) {
    let (Some(path), Some(keys)) = (&config.audit.checkpoints, &config.keys.dir) else { return };
    match signed(session, keys, path).await {
        Ok(()) | Err(SignError::Key(KeyError::Missing { .. } | KeyError::Lost { .. })) => {}
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(part = "audit", cause, "{error}; `masq audit checkpoint` signs one later");
        }
    }
}

async fn signed(session: &Session, keys: &Path, path: &Path) -> Result<(), SignError> {
    let signer = keyring::audit_key(keys)?;
    append(path, &checkpoint(session, &signer).await?)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{checkpoint, merkle::Tree},
        *,
    };

    #[test]
    fn a_cut_off_checkpoint_spoils_no_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints");
        let signer = Signer::new(&[7; 32]);
        let note = signer.checkpoint(&Tree::default());
        std::fs::write(&path, &note[..note.len() - 20]).unwrap();
        append(&path, &note).unwrap();
        append(&path, &note).unwrap();
        let file = std::fs::read_to_string(&path).unwrap();
        let opened: Vec<_> = checkpoint::notes(&file)
            .into_iter()
            .map(|(_, note)| checkpoint::open(note, signer.public()).is_ok())
            .collect();
        assert_eq!(opened, [false, true, true]);
        let said = append(dir.path(), &note).unwrap_err().to_string();
        assert!(said.contains("cannot append the checkpoint to /"), "{said}");
    }
}
