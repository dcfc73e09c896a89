//! Do the numbers add up: what must be true of ledger, dead letters and rows at every moment, judged from counts of one
//! moment. Pure; `db/counts.rs` counts.

use crate::db::counts::{Baseline, Counts, DAY, Found, Rows};

/// The longest that a message lives on a queue of SQS's, and so is loaded after it was sent: 14 days.
const LONGEST_LIFE: i64 = 14 * DAY;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It holds, and there is something to know.
    Note,
    /// Nobody can tell.
    NotCheckable,
    /// It does not hold.
    Broken,
}

/// One thing that must be true.
#[derive(Clone, Debug)]
pub struct Check {
    /// What must be true, in a few words.
    pub name: &'static str,
    /// Whether it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What helps; empty where there is nothing to do.
    pub remedy: &'static str,
}

/// All that must be true. `other_writers`: others than masq write to the tables or delete from them.
pub fn judge(counts: &Counts, other_writers: bool) -> Vec<Check> {
    let mut checks = vec![
        none(
            "each dead letter of the ledger is there",
            &counts.missing,
            format!("{} dead letters", counts.letters),
            "dead letters without a letter",
            "somebody deleted them: restore masq.dead_letters from a backup; in future use masq dead purge",
        ),
        none(
            "each dead letter is one in the ledger",
            &counts.denied,
            String::new(),
            "letters that the ledger does not call dead letters",
            "somebody changed masq.ledger or masq.dead_letters: compare both with a backup; such letters are not replayed",
        ),
        none(
            "resolved letters are those replayed",
            &counts.mismarked,
            String::new(),
            "letters whose resolved_at does not fit the ledger's outcome",
            "somebody changed masq.ledger or masq.dead_letters: compare both with a backup",
        ),
        none(
            "each message has one key",
            &counts.twice,
            String::new(),
            "messages under two sent times, each of which may be a row",
            "a FIFO queue's message was drained from the dead-letter queue while a stalled worker still held it: look for \
             its rows and delete one",
        ),
        rows(counts, other_writers),
    ];
    checks.extend(notes(counts));
    checks
}

fn none(name: &'static str, bad: &Found, good: String, what: &str, remedy: &'static str) -> Check {
    match bad {
        Found { count: 0, .. } => Check { name, verdict: Verdict::Holds, found: good, remedy: "" },
        Found { count, example } => {
            let example = example.as_ref().map(|id| format!(", such as {id}")).unwrap_or_default();
            Check { name, verdict: Verdict::Broken, found: format!("{count} {what}{example}"), remedy }
        }
    }
}

fn notes(counts: &Counts) -> impl Iterator<Item = Check> {
    let note = |count: u64, name, found: String, remedy| {
        (count > 0).then_some(Check { name, verdict: Verdict::Note, found, remedy })
    };
    let Counts { late, forgotten, suspects, .. } = counts;
    let late_letters = note(
        *late,
        "messages later than the ledger",
        format!("{late} dead letters older_than_ledger, which may be rows already"),
        "masq dead replay --force, if they are known not to be",
    );
    let forgotten_letters = note(
        *forgotten,
        "letters older than the ledger",
        format!("{forgotten} dead letters that there is no key to compare with any more"),
        "",
    );
    let example = suspects.example.as_deref().unwrap_or_default();
    let suspected = note(
        suspects.count,
        "messages read alone",
        format!("{} that nobody came back from for an hour, such as {example}", suspects.count),
        "they become dead letters poison_receive_count when they come again",
    );
    [late_letters, forgotten_letters, suspected].into_iter().flatten()
}

/// Rows now less rows then are the messages that became rows since, by the ledger and by the record of replays, less the
/// rows that erasures deleted. Rows that were unlinked are still rows.
fn rows(counts: &Counts, other_writers: bool) -> Check {
    const NAME: &str = "rows are those of the ledger";
    const RECORD: &str = "masq reconcile --baseline records what is there now, for later times to be compared with";
    let unknown = |found: String, remedy| Check { name: NAME, verdict: Verdict::NotCheckable, found, remedy };
    if other_writers {
        return unknown("others write to the table too".to_owned(), "");
    }
    let Some(baseline) = &counts.baseline else {
        return unknown("no baseline was recorded".to_owned(), RECORD);
    };
    let change = match change(&counts.tables, baseline) {
        Ok(change) => change,
        Err(why) => return unknown(why, RECORD),
    };
    let deleted = counts.tables.iter().map(|table| table.deleted).sum::<i64>();
    let is_forgotten = counts.oldest > baseline.at - LONGEST_LIFE;
    let gap = change - expected(counts, baseline);
    let broken = |found: String, remedy| Check { name: NAME, verdict: Verdict::Broken, found, remedy };
    match gap {
        0 => Check {
            name: NAME,
            verdict: Verdict::Holds,
            found: format!("{change} more than at the baseline"),
            remedy: "",
        },
        1.. if is_forgotten => unknown(
            format!("{gap} more rows than the ledger knows of, which has forgotten days since the baseline"),
            RECORD,
        ),
        1.. => broken(
            format!("{gap} more rows than messages that became one"),
            "if others write to the table, say --other-writers; else a message was written twice: please report it",
        ),
        _ if -gap <= deleted => {
            unknown(format!("{} rows are gone, and PostgreSQL counts {deleted} deleted ones", -gap), RECORD)
        }
        _ => broken(
            format!("{} rows are gone", -gap),
            "restore them from a backup; if they were removed on purpose, record a new baseline with --baseline",
        ),
    }
}

/// How many rows came since, in all tables together: the ledger does not say which message went where.
fn change(tables: &[Rows], baseline: &Baseline) -> Result<i64, String> {
    if tables.is_empty() {
        return Err("nobody has noted yet where rows go".to_owned());
    }
    let mut change = 0;
    for Rows { table, noted_at, created, count, .. } in tables {
        let now = count.ok_or_else(|| format!("{table} is gone, or this login may not read it"))?;
        let was_empty = *created && *noted_at >= baseline.at;
        let then = baseline.rows.get(table).copied().or(was_empty.then_some(0));
        change += now - then.ok_or_else(|| format!("{table} was not counted when the baseline was recorded"))?;
    }
    Ok(change)
}

fn expected(counts: &Counts, baseline: &Baseline) -> i64 {
    let oldest = crate::db::counts::name(counts.oldest);
    let now: i64 = counts.settled.values().sum();
    // What a day held that is forgotten now was there then, too.
    let then: i64 = baseline.settled.iter().filter(|(day, _)| **day >= oldest).map(|(_, count)| count).sum();
    now - then + counts.keyless - baseline.keyless - (counts.erased - baseline.erased)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// 2024-03-01, of which the ledger remembers what came from 2024-02-15 on.
    fn counts(rows: i64, ledger: &[(&str, i64)]) -> Counts {
        let at = 1_709_251_200_000;
        let table = Rows { table: "t".into(), noted_at: 0, created: false, count: Some(rows), deleted: 0 };
        Counts { at, oldest: at - 15 * DAY, settled: days(ledger), tables: vec![table], ..Counts::default() }
    }

    fn days(days: &[(&str, i64)]) -> BTreeMap<String, i64> {
        days.iter().map(|(day, count)| ((*day).to_owned(), *count)).collect()
    }

    fn baseline(days_ago: i64, rows: i64, ledger: &[(&str, i64)]) -> Option<Baseline> {
        let at = 1_709_251_200_000 - days_ago * DAY;
        Some(Baseline {
            at,
            rows: BTreeMap::from([("t".to_owned(), rows)]),
            settled: days(ledger),
            keyless: 0,
            erased: 0,
        })
    }

    fn verdict(counts: &Counts) -> (Verdict, String) {
        let check = rows(counts, false);
        (check.verdict, check.found)
    }

    #[test]
    fn rows_are_compared_with_the_baseline() {
        let mut counts = counts(150, &[("2024-02-28", 80), ("2024-02-29", 40)]);
        assert_eq!(verdict(&counts), (Verdict::NotCheckable, "no baseline was recorded".to_owned()));
        counts.baseline = baseline(1, 100, &[("2024-02-28", 70)]);
        assert_eq!(verdict(&counts), (Verdict::Holds, "50 more than at the baseline".to_owned()));
        counts.tables[0].count = Some(151);
        assert_eq!(verdict(&counts), (Verdict::Broken, "1 more rows than messages that became one".to_owned()));
        assert_eq!(rows(&counts, true).verdict, Verdict::NotCheckable);
        counts.keyless = 1;
        assert_eq!(verdict(&counts).0, Verdict::Holds, "a replayed letter without a key accounts for it");
        counts.tables[0].count = Some(149);
        assert_eq!(verdict(&counts), (Verdict::Broken, "2 rows are gone".to_owned()));
        counts.erased = 2;
        assert_eq!(verdict(&counts).0, Verdict::Holds, "an erasure that deletes rows accounts for them");
        counts.erased = 0;
        counts.tables[0].deleted = 2;
        assert_eq!(verdict(&counts).0, Verdict::NotCheckable, "somebody deletes");
        counts.tables[0].count = None;
        assert!(verdict(&counts).1.contains("may not read it"));
    }

    #[test]
    fn days_that_are_forgotten_since_leave_it_open() {
        // 2024-02-14 is forgotten. A baseline of a day ago can do without it: nothing sent then could still come.
        let mut counts = counts(150, &[("2024-02-29", 40)]);
        let then = [("2024-02-14", 60), ("2024-02-29", 10)];
        counts.baseline = baseline(1, 120, &then);
        assert_eq!(verdict(&counts).0, Verdict::Holds);
        counts.tables[0].count = Some(151);
        assert_eq!(verdict(&counts).0, Verdict::Broken);
        counts.baseline = baseline(3, 120, &then);
        assert_eq!(verdict(&counts).0, Verdict::NotCheckable);
        counts.tables[0].count = Some(149);
        assert_eq!(verdict(&counts).0, Verdict::Broken, "forgetting makes no row go");
    }

    #[test]
    fn a_table_that_masq_made_was_empty() {
        let mut counts = counts(40, &[("2024-02-29", 40)]);
        counts.baseline = Some(Baseline { rows: BTreeMap::new(), ..baseline(1, 0, &[]).unwrap() });
        assert!(verdict(&counts).1.contains("not counted"));
        (counts.tables[0].created, counts.tables[0].noted_at) = (true, counts.at);
        assert_eq!(verdict(&counts).0, Verdict::Holds);
    }

    #[test]
    fn what_is_found_is_named_with_an_example() {
        let missing = Found { count: 2, example: Some("5fd1ab2e".to_owned()) };
        let checks = judge(&Counts { missing, late: 1, ..Counts::default() }, false);
        assert_eq!((checks[0].verdict, checks[1].verdict), (Verdict::Broken, Verdict::Holds));
        assert_eq!(checks[0].found, "2 dead letters without a letter, such as 5fd1ab2e");
        assert_eq!(checks.last().unwrap().verdict, Verdict::Note);
    }
}
