//! What follows from a report, in plain words. Pure.

use super::{Finding, Report, Seconds, groups::SMALL};
use crate::config::Mask;

/// From this part of the values on the most frequent one is recognised by being so frequent. Higher would keep silent of
/// a company's one address; lower would speak of every column with few values.
const FREQUENT: f64 = 0.1;

/// More key ids than this no table's tokens have, for each is a rotation; a hundred plain hashes begin with some eighty
/// different bytes.
const KEY_IDS: usize = 16;

/// What follows, a sentence or two each, what is worst first.
pub fn conclusions(report: &Report) -> Vec<String> {
    if report.rows == 0 {
        return vec!["There are no rows, so this shows nothing.".to_owned()];
    }
    let columns = || report.columns.iter();
    let mut said: Vec<String> = columns().filter_map(reversed).collect();
    said.extend(columns().filter_map(unreversed));
    said.extend(columns().filter_map(frequent));
    said.extend(small_groups(report));
    said.extend(safe_harbor(report));
    if !report.is_whole {
        said.push(
            "Only a part of the rows was read: in all of them groups are larger and values are fewer times unique. \
             Read more with --rows."
                .to_owned(),
        );
    }
    said
}

fn reversed(column: &Finding) -> Option<String> {
    let Finding { name, attacked: Some(attacked), reversed: 1.., seconds: Some(seconds), .. } = column else {
        return None;
    };
    let Seconds { here, graphics_card } = seconds;
    let count = column.reversed;
    Some(format!(
        "{name} hides nothing: {count} of {attacked} values were reversed without any key. Everything like them is \
         reversed within {} here and {} on one graphics card. Treat these values as disclosed to whoever has had the \
         table, and mask the column with \"hmac\".",
        time(*here),
        time(*graphics_card),
    ))
}

fn unreversed(column: &Finding) -> Option<String> {
    let Finding { name, attacked: Some(1..), reversed: 0, mask, .. } = column else { return None };
    Some(match mask {
        Some(Mask::Hmac { .. }) if column.key_ids > KEY_IDS => format!(
            "No value of {name} was reversed. Its mask is \"hmac\", but not all of these are masq's tokens, which begin \
             with the number of their key: {} different beginnings. Was there a plain hash before?",
            column.key_ids,
        ),
        Some(Mask::Hmac { .. }) => format!(
            "No value of {name} was reversed. Its tokens are keyed: without token.key there is nothing to try them \
             with, however much time there is.",
        ),
        Some(Mask::Sha256) => format!(
            "No value of {name} was reversed in this time, but its mask has no key: whoever guesses a value can check \
             the guess. Mask it with \"hmac\".",
        ),
        _ => format!(
            "No value of {name} was reversed. It looks like a hash, and the configuration does not say of what: if it \
             was made without a key, only values that are hard to guess are safe.",
        ),
    })
}

fn frequent(column: &Finding) -> Option<String> {
    let is_masked = column.attacked.is_some() && column.reversed == 0;
    (is_masked && column.distinct > 1 && column.top >= FREQUENT).then(|| {
        format!(
            "One value of {} stands in {} of its rows. Whoever knows which value is that frequent (a company's address, a \
             test device) knows it without reversing anything.",
            column.name,
            percent(column.top),
        )
    })
}

fn small_groups(report: &Report) -> Option<String> {
    let by = report.grouped_by.join(", ");
    let found = report.groups;
    if by.is_empty() {
        return None;
    }
    if found.smallest >= SMALL {
        return Some(format!(
            "Whoever knows {by} of a person finds a group of at least {} people, not the person.",
            found.smallest
        ));
    }
    Some(format!(
        "Whoever knows {by} of a person finds a group of fewer than {SMALL} people for {} of the rows (the smallest has \
         {}), and so which tokens are that person's. Coarser values or fewer columns make larger groups.",
        percent(found.rows_in_small as f64 / report.rows as f64),
        found.smallest,
    ))
}

fn safe_harbor(report: &Report) -> Option<String> {
    let of = |is_clear: bool| -> Vec<&str> {
        let with = report.columns.iter().filter(|column| column.identifier.is_some() && column.is_clear() == is_clear);
        with.map(|column| column.name.as_str()).collect()
    };
    let (clear, masked) = (of(true).join(", "), of(false).join(", "));
    let mut said = match (clear.is_empty(), masked.is_empty()) {
        (true, true) => return None,
        (false, _) => format!("By HIPAA's Safe Harbor the table is not de-identified: {clear} would have to go."),
        (true, false) => "No identifier of HIPAA's list was seen in clear.".to_owned(),
    };
    if !masked.is_empty() {
        said += &format!(
            " What is masked ({masked}) is made from identifiers, which 45 CFR 164.514(c) does not let pass for Safe \
             Harbor either; Expert Determination, 164.514(b)(1), is the way with tokens.",
        );
    }
    Some(said)
}

/// A part as people say it.
pub fn percent(part: f64) -> String {
    let percent = part * 100.0;
    match percent {
        0.0 => "0 %".to_owned(),
        ..0.1 => "less than 0.1 %".to_owned(),
        ..10.0 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// A time as people say it.
pub fn time(seconds: f64) -> String {
    match seconds {
        ..0.1 => "a tenth of a second".to_owned(),
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} minutes", seconds / 60.0),
        ..172_800.0 => format!("{:.0} hours", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_as_exact_as_they_are_worth() {
        for (seconds, said) in [
            (0.000_2, "a tenth of a second"),
            (0.195_4, "0.2 s"),
            (2.0, "2.0 s"),
            (59.6, "60 s"),
            (319.0, "5 minutes"),
            (10_000.0, "3 hours"),
            (1_000_000.0, "12 days"),
        ] {
            assert_eq!(time(seconds), said);
        }
        let said = [0.0, 0.000_1, 0.012, 0.5, 1.0].map(percent);
        assert_eq!(said, ["0 %", "less than 0.1 %", "1.2 %", "50 %", "100 %"]);
    }
}
