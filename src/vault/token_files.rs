//! The token keys of a directory: `token.key`, which `masq keys new` makes, and a `token-<key id>.key` for each rotation
//! since. A worker loads the one that makes tokens now; who finds, reveals or re-keys needs all of them.

use std::{
    collections::BTreeMap,
    num::NonZeroU8,
    path::{Path, PathBuf},
};

use super::{
    keyfile::{self, KeyError, Kind},
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

/// Reads one file: the key that its first line and, but for `token.key`, its name say.
///
/// # Errors
/// If it cannot be read, is open to others, or is another key's.
pub fn read(path: &Path) -> Result<TokenRoot, KeyError> {
    let (kid, root) = keyfile::parse_secret(Kind::Token, path, &keyfile::read(Kind::Token, path)?)?;
    let named = path.file_name().and_then(|name| name.to_str()?.strip_prefix("token-")?.strip_suffix(".key"));
    if named.is_some_and(|named| named != kid.to_string()) {
        return Err(malformed(path, "its first line has another key id than its name"));
    }
    Ok(TokenRoot::new(kid, &root))
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

fn malformed(path: &Path, problem: &'static str) -> KeyError {
    KeyError::Malformed { path: path.to_owned(), problem }
}
