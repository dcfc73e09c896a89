//! The accounts of this machine, from `/etc/passwd`: who am I, and whom can a server run as.
//!
//! Accounts that only a directory service knows are not found here.

use std::fs;

/// One line of `/etc/passwd` (passwd(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The number of the login group.
    pub gid: u32,
}

impl Account {
    /// The account of this name.
    pub fn named(name: &str) -> Option<Self> {
        accounts().find(|account| account.name == name)
    }
}

/// The operating system's name of whoever runs this: libpq's default for `user`. `lookup` reads the environment, where
/// `USER` helps out on systems that keep their accounts elsewhere.
pub fn me(lookup: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let uid = rustix::process::geteuid().as_raw();
    let listed = accounts().find(|account| account.uid == uid).map(|account| account.name);
    listed.or_else(|| lookup("USER").filter(|name| !name.is_empty()))
}

fn accounts() -> impl Iterator<Item = Account> {
    let lines = fs::read_to_string("/etc/passwd").unwrap_or_default();
    lines.lines().filter_map(account).collect::<Vec<_>>().into_iter()
}

fn account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Account { name: name.to_owned(), uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_and_passes_over_what_is_none() {
        let found = account("postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash");
        assert_eq!(found, Some(Account { name: "postgres".into(), uid: 101, gid: 104 }));
        assert_eq!(account("+::::::"), None);
        assert_eq!(account(""), None);
    }

    #[test]
    fn somebody_runs_this() {
        assert!(me(&|_| Some("someone".into())).is_some());
    }
}
