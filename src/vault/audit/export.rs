//! An entry of the audit log as a line of JSON, as `masq audit list --json` prints it: with everything that its hash is
//! made of, so that an exported log can be verified far from the database. Pure.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{leaf::Entry, merkle::Hash};

/// 2000-01-01 UTC, where PostgreSQL counts from, in microseconds since 1970.
const EPOCH_2000: i128 = 946_684_800_000_000;

/// Bytes are hexadecimal digits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: i64,
    at: String,
    action: String,
    login: String,
    claimed: String,
    purpose: Option<String>,
    ticket: Option<String>,
    reason: Option<String>,
    items: Vec<Option<String>>,
    request: Option<i64>,
    /// JSON inside of a text: its bytes are hashed, not what they mean.
    detail: String,
    prev: String,
    hash: String,
}

/// A line that is no entry.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("it is no entry of an audit log: a file that `masq audit list --json` wrote is wanted")]
pub struct NoEntry;

/// The line, without a line end.
pub fn write(entry: &Entry) -> String {
    let line = Line {
        seq: entry.seq,
        at: moment(entry.at),
        action: entry.action.clone(),
        login: entry.login.clone(),
        claimed: entry.claimed.clone(),
        purpose: entry.purpose.clone(),
        ticket: entry.ticket.clone(),
        reason: entry.reason.clone(),
        items: entry.items.iter().map(|item| item.as_deref().map(hex)).collect(),
        request: entry.request,
        detail: entry.detail.clone(),
        prev: hex(&entry.prev),
        hash: hex(&entry.hash),
    };
    serde_json::to_string(&line).expect("texts and numbers are JSON")
}

/// The entry of a line.
pub fn read(line: &str) -> Result<Entry, NoEntry> {
    let line: Line = serde_json::from_str(line).map_err(|_| NoEntry)?;
    let item = |item: Option<String>| item.map(|item| bytes(&item).ok_or(NoEntry)).transpose();
    let hash = |text: &str| -> Result<Hash, NoEntry> { bytes(text).and_then(|b| b.try_into().ok()).ok_or(NoEntry) };
    Ok(Entry {
        seq: line.seq,
        at: micros(&line.at).ok_or(NoEntry)?,
        action: line.action,
        login: line.login,
        claimed: line.claimed,
        purpose: line.purpose,
        ticket: line.ticket,
        reason: line.reason,
        items: line.items.into_iter().map(item).collect::<Result<_, _>>()?,
        request: line.request,
        detail: line.detail,
        prev: hash(&line.prev)?,
        hash: hash(&line.hash)?,
    })
}

/// A moment as RFC 3339 writes it, to the microsecond. `micros`: since 2000-01-01 UTC. What RFC 3339 cannot write, which
/// no clock has said, is left a number.
pub fn moment(micros: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos((i128::from(micros) + EPOCH_2000) * 1_000).ok();
    let Some(moment) = moment.filter(|moment| (0..=9999).contains(&moment.year())) else { return micros.to_string() };
    let (hour, minute, second, micro) = moment.to_hms_micro();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z", moment.date())
}

/// The other way round.
fn micros(text: &str) -> Option<i64> {
    let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) else { return text.parse().ok() };
    let nanos = moment.unix_timestamp_nanos();
    (nanos % 1_000 == 0).then(|| i64::try_from(nanos / 1_000 - EPOCH_2000).ok())?
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks() else { return None };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::{super::leaf::tests::entry, *};

    #[test]
    fn a_line_reads_back_with_its_hash() {
        let mut odd = entry(7, [9; 32], "reveal", "{\"a\":  \"\u{1b}\\u00e4\"}\n");
        odd.request = Some(3);
        for at in [i64::MIN, -1, 0, 845_000_000_123_456, 315_569_520_000_000_000, i64::MAX] {
            odd.at = at;
            odd.hash = odd.leaf_hash();
            let line = write(&odd);
            assert!(!line.contains('\n'), "{line}");
            let read = read(&line).unwrap();
            assert_eq!(read, odd, "{line}");
            assert_eq!(read.leaf_hash(), odd.hash);
        }
    }

    #[test]
    fn a_moment_reads_as_others_write_it() {
        assert_eq!(moment(0), "2000-01-01T00:00:00.000000Z");
        assert_eq!(moment(845_000_000_123_456), "2026-10-11T02:13:20.123456Z");
        assert_eq!(micros("2000-01-01T01:00:00.5+01:00"), Some(500_000));
        assert_eq!(micros("2000-01-01T00:00:00.0000005Z"), None, "more than PostgreSQL's microseconds");
    }

    #[test]
    fn anything_else_is_no_entry() {
        let line = write(&entry(7, [9; 32], "reveal", "{}"));
        let twice = line.replace("\"seq\":7", "\"seq\":7,\"seq\":8");
        for bad in [
            "",
            "{}",
            "[]",
            &line[1..],
            &twice,
            &line.replace("0909", "090"),
            &line.replace("\"seq\":7", "\"seq\":7.5"),
        ] {
            assert_eq!(read(bad), Err(NoEntry), "{bad}");
        }
    }
}
