//! The directory of a private cluster, and whose it is.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;
use tempfile::TempDir;

use super::PostgresError;
use crate::db::account::Account;

/// A socket's path with its closing NUL must fit into `sun_path`: 108 bytes on Linux, 104 on macOS.
const LONGEST_SOCKET_PATH: usize = 103;

/// Whom the server runs as when root starts it, since PostgreSQL refuses to be root.
pub(super) struct Owner(pub(super) Account);

impl Owner {
    pub(super) fn choose() -> Result<Option<Self>, PostgresError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let account = Account::named("postgres").or_else(|| Account::named("nobody"));
        account.map(|account| Some(Self(account))).ok_or(PostgresError::NoAccount)
    }

    fn own(&self, path: &Path) -> Result<(), PostgresError> {
        chown(path, Some(self.0.uid), Some(self.0.gid)).map_err(|source| PostgresError::Files {
            doing: "cannot give away",
            path: path.to_owned(),
            source,
        })
    }

    /// Whether it may enter all directories above this one; those are nobody's to change here.
    fn reaches(&self, directory: &Path) -> Result<(), PostgresError> {
        for above in directory.ancestors().skip(1) {
            let metadata = fs::metadata(above).map_err(|source| PostgresError::Files {
                doing: "cannot look at",
                path: above.to_owned(),
                source,
            })?;
            if metadata.permissions().mode() & 0o001 == 0 {
                return Err(PostgresError::OutOfReach { account: self.0.name.clone(), directory: above.to_owned() });
            }
        }
        Ok(())
    }
}

/// The cluster's directory: `data`, `log`, `password`, and the socket.
pub(super) struct Home(pub(super) PathBuf);

impl Home {
    pub(super) fn open(directory: &Path, owner: Option<&Owner>) -> Result<Self, PostgresError> {
        let failed = |source| PostgresError::Files { doing: "cannot make", path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let directory = directory.canonicalize().map_err(failed)?;
        // Before anything is changed: a home directory named by mistake must not be given away.
        let empty = fs::read_dir(&directory).map_err(failed)?.next().is_none();
        if !empty && !directory.join("password").exists() {
            return Err(PostgresError::Occupied(directory));
        }
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).map_err(failed)?;
        if let Some(owner) = owner {
            owner.reaches(&directory)?;
            owner.own(&directory)?;
        }
        Ok(Self(directory))
    }

    pub(super) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    pub(super) fn password(&self) -> Result<String, PostgresError> {
        let path = self.0.join("password");
        let text = fs::read_to_string(&path);
        text.map_err(|source| PostgresError::Files { doing: "cannot read", path, source })
    }

    pub(super) fn log(&self) -> Result<File, PostgresError> {
        let path = self.0.join("log");
        let file = File::options().create(true).append(true).mode(0o600).open(&path);
        file.map_err(|source| PostgresError::Files { doing: "cannot write", path, source })
    }

    /// Where the socket goes: here, or where the name is short enough.
    pub(super) fn sockets(
        &self,
        owner: Option<&Owner>,
        port: u16,
    ) -> Result<(PathBuf, Option<TempDir>), PostgresError> {
        if self.0.join(format!(".s.PGSQL.{port}")).as_os_str().len() <= LONGEST_SOCKET_PATH {
            return Ok((self.0.clone(), None));
        }
        let short =
            tempfile::Builder::new().prefix("masq-").permissions(Permissions::from_mode(0o700)).tempdir_in("/tmp");
        let path = PathBuf::from("/tmp");
        let short =
            short.map_err(|source| PostgresError::Files { doing: "cannot make a directory in", path, source })?;
        if let Some(owner) = owner {
            owner.own(short.path())?;
        }
        Ok((short.path().to_owned(), Some(short)))
    }

    /// Copies files so that the server, and nobody else, can read them; answers their paths.
    pub(super) fn adopt<const N: usize>(
        &self,
        owner: Option<&Owner>,
        files: [(&str, &PathBuf); N],
    ) -> Result<[String; N], PostgresError> {
        for (name, from) in files {
            let content = fs::read(from);
            let read = |source| PostgresError::Files { doing: "cannot read", path: from.clone(), source };
            self.keep(name, &content.map_err(read)?, owner)?;
        }
        Ok(files.map(|(name, _)| self.0.join(name).display().to_string()))
    }

    pub(super) fn keep(&self, name: &str, content: &[u8], owner: Option<&Owner>) -> Result<PathBuf, PostgresError> {
        let path = self.0.join(name);
        let failed = |source| PostgresError::Files { doing: "cannot write", path: path.clone(), source };
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        if let Some(owner) = owner {
            owner.own(&path)?;
        }
        Ok(path)
    }
}
