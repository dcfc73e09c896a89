//! The token keys of a directory: `token.key`, which `masq keys new` makes, and a `token-<key id>.key` for each rotation
//! since. A worker loads the one that makes tokens now; who finds, reveals or re-keys needs all of them.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    num::NonZeroU8,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    backend::random,
    keyfile::{self, KeyError, Kind},
    kms::token::WrappedRoot,
    token::TokenRoot,
};

/// Where the key with this id is kept, unless it is the first, which is in `token.key`.
pub fn path(dir: &Path, kid: NonZeroU8) -> PathBuf {
    dir.join(format!("token-{kid}.key"))
}

/// The files that there are, `token.key` first and then by key id.
pub fn paths(dir: &Path) -> Vec<PathBuf> {
    let first = dir.join(Kind::Token.file());
    let kids = (1..=u8::MAX).filter_map(NonZeroU8::new);
    std::iter::once(first).chain(kids.map(|kid| path(dir, kid))).filter(|path| path.exists()).collect()
}

/// What a file holds.
pub enum Held {
    /// The root.
    Plain(TokenRoot),
    /// The root as KMS wrapped it.
    Wrapped(WrappedRoot),
}

impl Held {
    /// Its key id.
    pub fn kid(&self) -> NonZeroU8 {
        match self {
            Self::Plain(root) => root.kid(),
            Self::Wrapped(wrapped) => wrapped.kid,
        }
    }
}

/// Reads one file that holds the root itself.
///
/// # Errors
/// As [`held`]; [`KeyError::Wrapped`] if only KMS opens it.
pub fn read(path: &Path) -> Result<TokenRoot, KeyError> {
    match held(path)? {
        Held::Plain(root) => Ok(root),
        Held::Wrapped(wrapped) => Err(KeyError::Wrapped { path: path.to_owned(), arn: wrapped.arn }),
    }
}

/// Reads one file: the key that its first line and, but for `token.key`, its name say.
///
/// # Errors
/// If it cannot be read, is open to others, or is another key's.
pub fn held(path: &Path) -> Result<Held, KeyError> {
    let text = keyfile::read(Kind::Token, path)?;
    let held = match WrappedRoot::parse(path, &text)? {
        Some(wrapped) => Held::Wrapped(wrapped),
        None => {
            let (kid, root) = keyfile::parse_secret(Kind::Token, path, &text)?;
            Held::Plain(TokenRoot::new(kid, &root))
        }
    };
    let named = path.file_name().and_then(|name| name.to_str()?.strip_prefix("token-")?.strip_suffix(".key"));
    if named.is_some_and(|named| named != held.kid().to_string()) {
        return Err(malformed(path, "its first line has another key id than its name"));
    }
    Ok(held)
}

/// All of them, by key id.
///
/// # Errors
/// If one cannot be read, or two of one key id differ.
pub fn all(dir: &Path) -> Result<BTreeMap<NonZeroU8, TokenRoot>, KeyError> {
    let mut roots: BTreeMap<NonZeroU8, TokenRoot> = BTreeMap::new();
    for path in paths(dir) {
        let root = read(&path)?;
        match roots.get(&root.kid()) {
            Some(other) if other.check_value() != root.check_value() => {
                return Err(malformed(&path, "another file has another key with its key id"));
            }
            _ => drop(roots.insert(root.kid(), root)),
        }
    }
    Ok(roots)
}

/// The file with this key.
///
/// # Errors
/// [`KeyError::Lost`] names the file if there is none.
pub fn find(dir: &Path, kid: NonZeroU8) -> Result<Held, KeyError> {
    for path in paths(dir) {
        let held = held(&path)?;
        if held.kid() == kid {
            return Ok(held);
        }
    }
    Err(KeyError::Lost { path: path(dir, kid) })
}

/// The key with this id.
///
/// # Errors
/// [`KeyError::Lost`] names the file if there is none.
pub fn load(dir: &Path, kid: NonZeroU8) -> Result<TokenRoot, KeyError> {
    all(dir)?.remove(&kid).ok_or_else(|| KeyError::Lost { path: path(dir, kid) })
}

/// Makes the key with this id. One that is there already, as after an interruption, is taken as it is.
///
/// # Errors
/// If it cannot be written, or what is there is no such key.
pub fn create(dir: &Path, kid: NonZeroU8) -> Result<TokenRoot, KeyError> {
    let path = path(dir, kid);
    if !path.exists() {
        let text = keyfile::render(Kind::Token, kid, random::<32>()?.as_slice());
        keyfile::write_new(Kind::Token, &path, &text)?;
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| unwritable(&path, source))?;
    }
    read(&path)
}

/// Overwrites the files of this key id with zeros and deletes them; answers which. What a journal, a snapshot or a backup
/// has of them is out of its reach.
///
/// # Errors
/// If one cannot be written or deleted.
pub fn destroy(dir: &Path, kid: NonZeroU8) -> Result<Vec<PathBuf>, KeyError> {
    let mut gone = Vec::new();
    for path in paths(dir) {
        if held(&path)?.kid() == kid {
            overwrite(&path).map_err(|source| unwritable(&path, source))?;
            gone.push(path);
        }
    }
    Ok(gone)
}

fn overwrite(path: &Path) -> std::io::Result<()> {
    let len = usize::try_from(fs::metadata(path)?.len()).unwrap_or(0);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(&vec![0; len])?;
    file.sync_all()?;
    fs::remove_file(path)
}

fn malformed(path: &Path, problem: &'static str) -> KeyError {
    KeyError::Malformed { path: path.to_owned(), problem }
}

fn unwritable(path: &Path, source: std::io::Error) -> KeyError {
    KeyError::Unwritable { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::keyring;

    fn kid(kid: u8) -> NonZeroU8 {
        NonZeroU8::new(kid).unwrap()
    }

    #[test]
    fn each_key_is_found_by_its_id() {
        let dir = tempfile::tempdir().unwrap();
        keyring::create(dir.path(), None).unwrap();
        let second = create(dir.path(), kid(2)).unwrap_or_else(|error| panic!("{error}"));
        let again = create(dir.path(), kid(2)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(second.check_value(), again.check_value());
        assert_eq!(all(dir.path()).map(|roots| roots.into_keys().collect::<Vec<_>>()).ok(), Some(vec![kid(1), kid(2)]));
        for id in [1, 2] {
            assert_eq!(load(dir.path(), kid(id)).map(|root| root.kid()).ok(), Some(kid(id)));
        }
        let said = load(dir.path(), kid(3)).err().unwrap().to_string();
        assert!(said.contains("token-3.key, though other keys are there"), "{said}");
    }

    #[test]
    fn a_key_under_the_name_of_another_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), kid(2)).unwrap_or_else(|error| panic!("{error}"));
        fs::rename(path(dir.path(), kid(2)), path(dir.path(), kid(3))).unwrap();
        assert!(all(dir.path()).err().unwrap().to_string().contains("another key id than its name"));
        let other = tempfile::tempdir().unwrap();
        keyring::create(other.path(), None).unwrap();
        create(other.path(), kid(1)).unwrap_or_else(|error| panic!("{error}"));
        assert!(all(other.path()).err().unwrap().to_string().contains("another key with its key id"));
    }

    #[test]
    fn a_destroyed_key_is_gone_and_the_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        keyring::create(dir.path(), None).unwrap();
        create(dir.path(), kid(2)).unwrap_or_else(|error| panic!("{error}"));
        let first = dir.path().join("token.key");
        // Another name of the same bytes shows that they were overwritten, not only unlinked.
        fs::hard_link(&first, dir.path().join("kept")).unwrap();
        assert_eq!(destroy(dir.path(), kid(1)).unwrap(), [first]);
        assert!(fs::read(dir.path().join("kept")).unwrap().iter().all(|byte| *byte == 0));
        assert_eq!(all(dir.path()).map(|roots| roots.into_keys().collect::<Vec<_>>()).ok(), Some(vec![kid(2)]));
    }
}
