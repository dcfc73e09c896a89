//! Where PostgreSQL's server programs are.
//!
//! Distributions keep several versions side by side and off the PATH; the newest wins.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::PostgresError;

/// Where packagers put the programs; `*` is part of one directory's name. Debian and Ubuntu, Homebrew on Apple and on
/// Intel, PostgreSQL's own RPMs.
const USUAL: [&str; 4] = [
    "/usr/lib/postgresql/*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/usr/pgsql-*/bin",
];

/// The directory that holds `initdb` and `postgres`: the one that was named, else on the PATH, else in the usual places.
pub(super) fn find(named: Option<&Path>, path: Option<&str>) -> Result<PathBuf, PostgresError> {
    if let Some(directory) = named {
        return if holds(directory) {
            Ok(directory.to_owned())
        } else {
            Err(PostgresError::NotThere(directory.to_owned()))
        };
    }
    let on_path = path.unwrap_or_default().split(':').filter(|directory| !directory.is_empty()).map(PathBuf::from);
    let mut found = on_path.chain(USUAL.iter().flat_map(|pattern| newest_first(pattern)));
    found.find(|directory| holds(directory)).ok_or(PostgresError::NotInstalled)
}

fn holds(directory: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| directory.join(program).is_file())
}

/// The directories that fit a pattern, by the first number in the part that the star stands for, highest first.
fn newest_first(pattern: &str) -> Vec<PathBuf> {
    let (before, after) = pattern.split_once('*').unwrap_or((pattern, ""));
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = version(name.strip_prefix(prefix)?);
            Some((version, entry.path().join(after.trim_start_matches('/'))))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, directory)| directory).collect()
}

/// The first number in a name; Homebrew's `postgresql` without one comes last.
fn version(name: &str) -> u32 {
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with empty programs in it.
    fn install(directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        for program in ["initdb", "postgres"] {
            fs::write(directory.join(program), "").unwrap();
        }
    }

    #[test]
    fn the_newest_version_is_the_highest_number() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9.6", "15", "14"] {
            install(&root.path().join(version).join("bin"));
        }
        let found = newest_first(&format!("{}/*/bin", root.path().display()));
        let expected = ["15", "14", "9.6"].map(|version| root.path().join(version).join("bin"));
        assert_eq!(found, expected);
        assert_eq!(["postgresql@16", "@9.4", ""].map(version), [16, 9, 0]);
    }

    #[test]
    fn a_named_directory_wins_and_must_hold_the_programs() {
        let root = tempfile::tempdir().unwrap();
        let (named, on_path) = (root.path().join("named"), root.path().join("path"));
        install(&on_path);
        let path = format!("/nowhere::{}", on_path.display());
        assert!(matches!(find(Some(&named), Some(&path)), Err(PostgresError::NotThere(_))));
        assert_eq!(find(None, Some(&path)).unwrap(), on_path);
        install(&named);
        assert_eq!(find(Some(&named), Some(&path)).unwrap(), named);
    }
}
