//! The password file: `host:port:database:user:password`, a line each (PostgreSQL 15, "34.16. The Password File").

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use zeroize::Zeroizing;

/// Whose password is looked for.
pub(super) struct Wanted<'a> {
    /// The host as it was written; `localhost` for a socket in its usual place.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The file's text, if it is there and only its owner may read it; otherwise, where it is there, why it is passed over.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<String>>, String> {
    let passed_over = |why: &str| format!("password file {} passed over: {why}", path.display());
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(passed_over(&error.to_string())),
    };
    if !metadata.is_file() {
        return Err(passed_over("it is not a plain file"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(passed_over("others than its owner may read it; chmod 0600 helps"));
    }
    fs::read_to_string(path).map(|text| Some(Zeroizing::new(text))).map_err(|error| passed_over(&error.to_string()))
}

/// The password of the first line that fits.
pub(super) fn find(text: &str, wanted: &Wanted<'_>) -> Option<String> {
    let port = wanted.port.to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (host, rest) = field(line)?;
        let (line_port, rest) = field(rest)?;
        let (database, rest) = field(rest)?;
        let (user, password) = field(rest)?;
        let fits = matches(host, wanted.host)
            && matches(line_port, &port)
            && matches(database, wanted.database)
            && matches(user, wanted.user);
        let password = unescape(field(password).map_or(password, |(password, _)| password));
        (fits && !password.is_empty()).then_some(password)
    })
}

/// The text up to the next colon that no backslash stands before, and what follows it.
fn field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let at = text.find(|c| {
        let ends = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some((&text[..at], &text[at + 1..]))
}

fn matches(field: &str, wanted: &str) -> bool {
    field == "*" || unescape(field) == wanted
}

fn unescape(field: &str) -> String {
    let mut plain = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.push(characters.next().unwrap_or('\\')),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# everyday\n\
        db.example.com:5432:events:masq:first\n\
        db.example.com:*:*:masq:second\n\
        *:*:*:other:with\\:colon\\\\and:rest\n\
        \\:\\:1:5432:*:*:six\r\n\
        localhost:5432:a\\:b:masq:odd\n\
        short:line\n\
        empty:5432:*:*:\n\
        *:1:*:*:\\*\n";

    fn password(host: &str, port: u16, database: &str, user: &str) -> Option<String> {
        find(FILE, &Wanted { host, port, database, user })
    }

    #[test]
    fn the_first_line_that_fits_wins() {
        assert_eq!(password("db.example.com", 5432, "events", "masq").as_deref(), Some("first"));
        assert_eq!(password("db.example.com", 5433, "events", "masq").as_deref(), Some("second"));
        assert_eq!(password("db.example.com", 5432, "events2", "masq").as_deref(), Some("second"));
        assert_eq!(password("db.example.com", 5432, "events", "nobody"), None);
    }

    #[test]
    fn a_backslash_makes_the_next_character_ordinary() {
        assert_eq!(password("any", 5, "any", "other").as_deref(), Some("with:colon\\and"));
        assert_eq!(password("::1", 5432, "x", "y").as_deref(), Some("six"));
        assert_eq!(password("localhost", 5432, "a:b", "masq").as_deref(), Some("odd"));
        assert_eq!(password("any", 1, "x", "y").as_deref(), Some("*"));
    }

    #[test]
    fn an_empty_password_and_a_short_line_are_none() {
        assert_eq!(password("empty", 5432, "x", "y"), None);
        assert_eq!(password("short", 5432, "x", "y"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgpass");
        assert!(read(&path).unwrap().is_none());
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o610, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), good, "{mode:o}");
        }
        let complaint = read(&path).unwrap_err();
        assert!(complaint.contains("0600") && !complaint.contains("secret"), "{complaint}");
        assert!(read(directory.path()).is_err());
    }
}
