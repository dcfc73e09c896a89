//! Is what a run left behind what it should be? A fast run that is wrong scores nothing.
//!
//! Counted are rows and the ledger's keys, whose unique index makes every counted one a different one; and all rows of
//! some people are compared with their records, masked here once more.

use crate::{
    cli::report::Failure,
    db::{DbError, Session},
    local::crowd::{Crowd, Record},
    vault::{keyring::KeyRing, token::sha256},
};

/// Why a run is wrong, in words.
pub(super) struct Wrong(pub(super) String);

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self(why)
    }
}

impl From<Failure> for Wrong {
    fn from(Failure { error, causes, .. }: Failure) -> Self {
        Self([vec![error], causes].concat().join(": "))
    }
}

impl From<DbError> for Wrong {
    fn from(error: DbError) -> Self {
        Failure::from(error).into()
    }
}

impl From<std::io::Error> for Wrong {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// How values are to be masked.
#[derive(Clone, Copy)]
pub(super) enum Masks<'a> {
    /// As masq does it.
    Keyed(&'a KeyRing),
    /// As the original did.
    Sha256,
}

impl Masks<'_> {
    /// What stands for address and device of a record.
    fn of(self, record: Record) -> Result<[String; 2], Wrong> {
        let keyed = |keys: &KeyRing| {
            let (ip, device) = (keys.token.domain("ip").ok()?, keys.token.domain("device_id").ok()?);
            Some([ip.ip(record.ip().into()).to_string(), device.text(&record.device_id()).ok()?.to_string()])
        };
        match self {
            Self::Keyed(keys) => keyed(keys).ok_or_else(|| Wrong("a value has no token".to_owned())),
            Self::Sha256 => Ok([sha256(&record.ip().to_string()), sha256(&record.device_id())].map(|t| t.to_string())),
        }
    }
}

/// What a run should leave behind.
pub(super) struct Expected<'a> {
    /// How many records there were, of a crowd of as many.
    pub(super) records: usize,
    pub(super) masks: Masks<'a>,
    /// Count keys from this moment on, in milliseconds since 1970-01-01 UTC; `None`: there is no ledger.
    pub(super) since: Option<i64>,
}

impl Expected<'_> {
    /// Compares a database with it.
    pub(super) async fn check_database(&self, session: &Session) -> Result<(), Wrong> {
        let number = |rows: Vec<Vec<Option<String>>>| rows.first().and_then(|row| row[0].clone()).unwrap_or_default();
        let rows = number(session.texts("counting rows", "SELECT count(*) FROM user_logins").await?);
        same("rows", &rows, self.records)?;
        if let Some(since) = self.since {
            let sql = format!(
                "SELECT count(*) FROM masq.ledger WHERE outcome = 1 AND sent_at >= to_timestamp({since}::float8 / 1000)"
            );
            same("different keys in the ledger", &number(session.texts("counting keys", &sql).await?), self.records)?;
        }
        self.check_people(session).await
    }

    /// Compares all rows of three people.
    async fn check_people(&self, session: &Session) -> Result<(), Wrong> {
        let crowd = Crowd::of(self.records);
        let people = [0, self.records / 2, self.records - 1].map(|n| crowd.record(n).person);
        let theirs = (0..self.records).map(|n| crowd.record(n)).filter(|record| people.contains(&record.person));
        let row = |record: Record| {
            let [ip, device] = self.masks.of(record)?;
            Ok([record.user_id(), ip, device])
        };
        let mut expected = theirs.map(row).collect::<Result<Vec<_>, Wrong>>()?;
        expected.sort_unstable();
        let names: Vec<String> =
            expected.iter().map(|[user_id, ..]| format!("'{}'", user_id.replace('\'', "''"))).collect();
        let sql = format!(
            "SELECT user_id, masked_ip, masked_device_id FROM user_logins WHERE user_id IN ({}) \
             ORDER BY user_id COLLATE \"C\", masked_ip COLLATE \"C\", masked_device_id COLLATE \"C\"",
            names.join(", ")
        );
        let found = session.texts("reading rows", &sql).await?;
        let found = found.iter().map(|row| row.iter().map(|text| text.as_deref().unwrap_or_default()));
        if found.map(Vec::from_iter).eq(expected.iter().map(|row| row.each_ref().map(String::as_str).to_vec())) {
            return Ok(());
        }
        Err(Wrong("rows are not what their records should have become: a masked value differs".to_owned()))
    }

    /// Compares the bytes of the first rows, of which it samples some.
    pub(super) fn check_bytes(&self, rows: &[u8], batch: usize) -> Result<(), Wrong> {
        let crowd = Crowd::of(self.records);
        for n in (0..self.records.min(batch)).step_by(100) {
            for token in self.masks.of(crowd.record(n))? {
                if !rows.windows(token.len()).any(|bytes| bytes == token.as_bytes()) {
                    return Err(Wrong("the encoded rows lack a token that they should have".to_owned()));
                }
            }
        }
        Ok(())
    }
}

/// Compares a count with what it should be.
pub(super) fn same(what: &str, found: &str, expected: usize) -> Result<(), Wrong> {
    if found == expected.to_string() { Ok(()) } else { Err(Wrong(format!("{found} {what} instead of {expected}"))) }
}
