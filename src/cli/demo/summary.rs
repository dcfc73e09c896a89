//! What came out of the demo, compared with what went in.

use std::{collections::HashSet, time::Duration};

use serde_json::Value;

use crate::{
    cli::report::Failure,
    db::{DbError, Session},
    local::logins::Login,
    metrics::Metrics,
    queue::Depth,
    vault::keyring::KeyRing,
};

/// Digits of a token beside what was sent: they fit 80 columns.
const DIGITS: usize = 44;

/// How many rows are shown beside what was sent.
const SHOWN: usize = 3;

/// What stands in the database, on the queue and in the counters.
pub(super) struct Counts {
    rows: u64,
    dead: u64,
    ledger_rows: u64,
    ledger_dead: u64,
    distinct_ips: u64,
    distinct_devices: u64,
    received: u64,
    settled: u64,
    duplicates: u64,
    forgotten: u64,
    depth: Depth,
}

impl Counts {
    /// Counts in the database, and takes the rest.
    pub(super) async fn read(
        session: &Session,
        metrics: &Metrics,
        forgotten: u64,
        depth: Depth,
    ) -> Result<Self, DbError> {
        let sql = "SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM masq.dead_letters), \
                   (SELECT count(*) FROM masq.ledger WHERE outcome = 1), \
                   (SELECT count(*) FROM masq.ledger WHERE outcome = 2), \
                   (SELECT count(DISTINCT masked_ip) FROM user_logins), \
                   (SELECT count(DISTINCT masked_device_id) FROM user_logins)";
        let answer = session.texts("counting what came out", sql).await?;
        let number = |at: usize| answer[0][at].as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        let duplicates = metrics.duplicates.get();
        Ok(Self {
            rows: number(0),
            dead: number(1),
            ledger_rows: number(2),
            ledger_dead: number(3),
            distinct_ips: number(4),
            distinct_devices: number(5),
            received: metrics.received.get(),
            settled: metrics.rows.get() + metrics.dead_lettered() + duplicates + metrics.returned.get(),
            duplicates,
            forgotten,
            depth,
        })
    }
}

/// All that the summary says.
pub(super) struct Summary<'a> {
    pub(super) logins: &'a [Login],
    pub(super) counts: Counts,
    pub(super) keys: &'a KeyRing,
    pub(super) took: Duration,
}

impl Summary<'_> {
    /// What does not add up; empty if all does.
    pub(super) fn contradictions(&self) -> Vec<String> {
        let counts = &self.counts;
        let sent = self.logins.len() as u64;
        let bad = self.bad();
        let checks = [
            ("rows + dead letters", counts.rows + counts.dead, "sent", sent),
            ("dead letters", counts.dead, "wrong messages", bad),
            ("rows in the ledger", counts.ledger_rows, "rows", counts.rows),
            ("dead letters in the ledger", counts.ledger_dead, "dead letters", counts.dead),
            ("duplicates dropped", counts.duplicates, "deletes lost", counts.forgotten),
            ("received", counts.received, "rows + dead letters + duplicates + returned", counts.settled),
            ("different masked_ip", counts.distinct_ips, "different addresses sent", self.distinct("ip")),
            (
                "different masked_device_id",
                counts.distinct_devices,
                "different devices sent",
                self.distinct("device_id"),
            ),
            ("left on the queue", counts.depth.visible + counts.depth.in_flight + counts.depth.delayed, "nothing", 0),
        ];
        let wrong = checks.iter().filter(|(_, found, _, expected)| found != expected);
        wrong.map(|(what, found, of, expected)| format!("{what} are {found}, {of} {expected}")).collect()
    }

    fn bad(&self) -> u64 {
        self.logins.iter().filter(|login| login.is_bad).count() as u64
    }

    /// How many different values a field has in the good logins.
    fn distinct(&self, field: &str) -> u64 {
        let good = self.logins.iter().filter(|login| !login.is_bad);
        let values: HashSet<String> = good
            .filter_map(|login| serde_json::from_str::<Value>(&login.body).ok())
            .filter_map(|body| body.get(field).and_then(Value::as_str).map(str::to_owned))
            .collect();
        values.len() as u64
    }

    /// The summary as the person at the terminal reads it.
    pub(super) async fn text(&self, session: &Session) -> Result<String, Failure> {
        let Self { counts, logins, took, .. } = self;
        let (sent, bad) = (logins.len() as u64, self.bad());
        let rate = sent as f64 / took.as_secs_f64();
        let mut text = format!(
            "\n{:>10}  logins sent, {} of them wrong on purpose\n\
             {:>10}  rows in user_logins\n\
             {:>10}  dead letters\n\
             {:>10}  deliveries came a second time and changed nothing\n\
             {:>10}  left on the queue\n\n\
             Loaded in {:.1} s: {} messages a second; queue and database ran here, too.\n",
            grouped(sent),
            grouped(bad),
            grouped(counts.rows),
            grouped(counts.dead),
            grouped(counts.duplicates),
            grouped(counts.depth.visible + counts.depth.in_flight),
            took.as_secs_f64(),
            grouped(rate as u64),
        );
        text.push_str("\nWhat was sent, and what stands in the table (tokens are cut to fit):\n");
        for login in logins.iter().filter(|login| !login.is_bad).take(SHOWN) {
            text.push_str(&self.beside(login, session).await?);
        }
        text.push_str("Dead letters, by reason (each body sealed for the holder of recovery.key):\n");
        let sql = "SELECT count(*), reason FROM masq.dead_letters GROUP BY 2 ORDER BY 1 DESC, 2";
        for row in session.texts("listing the dead letters", sql).await? {
            let cell = |at: usize| row[at].clone().unwrap_or_default();
            text.push_str(&format!("{:>10}  {}\n", cell(0), cell(1)));
        }
        Ok(text)
    }

    /// A login as it was sent, and its row, found by the token that its address must have.
    async fn beside(&self, login: &Login, session: &Session) -> Result<String, Failure> {
        let body: Value = serde_json::from_str(&login.body).unwrap_or_default();
        let field = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let token = self.keys.token.domain("ip").ok().zip(field("ip").parse().ok()).map(|(key, ip)| key.ip(ip));
        let sql = format!(
            "SELECT masked_ip, masked_device_id, app_version, coalesce(locale, 'NULL'), create_date FROM user_logins \
             WHERE user_id = '{}' AND masked_ip = '{}' AND app_version = '{}' LIMIT 1",
            field("user_id").replace('\'', "''"),
            token.map(|token| token.to_string()).unwrap_or_default(),
            field("app_version").replace('\'', "''"),
        );
        let rows = session.texts("reading a row", &sql).await?;
        let cell = |at: usize| rows.first().and_then(|row| row[at].clone()).unwrap_or_else(|| "(missing)".to_owned());
        Ok(format!(
            "  ip         {:<16} -> {}\n  device_id  {:<16} -> {}\n  version {}, locale {}, date {}\n\n",
            field("ip"),
            short(&cell(0), DIGITS),
            field("device_id"),
            short(&cell(1), DIGITS),
            cell(2),
            cell(3),
            cell(4)
        ))
    }
}

/// A token cut to so many digits.
pub(super) fn short(token: &str, digits: usize) -> String {
    match token.get(..digits) {
        Some(cut) if cut.len() < token.len() => format!("{cut}…"),
        _ => token.to_owned(),
    }
}

/// A number with a comma between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let groups = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        for (number, expected) in groups {
            assert_eq!(grouped(number), expected);
        }
    }
}
