//! What `masq forget` prints: what there is of a person or what was erased, when that is complete, and what masq cannot
//! reach.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    cli::{
        context::Context,
        report::{self, Failure},
    },
    config::Config,
    vault::erase::{Erased, Plan},
};

/// What is out of reach, whatever was done.
const NOT_REACHED: [&str; 3] = [
    "messages of this person that are still queued, or that a producer sends again: they become new rows",
    "the queue's own dead-letter queue at SQS",
    "files that were made from reveals, and whatever else was copied out of the table",
];

/// Where rows were not deleted.
const STAYS: &str = "what the columns without a mask say in the rows that stay";

/// For stdout.
pub(super) struct Receipt {
    /// The erasure's number.
    done: Option<i64>,
    /// Whether there was nothing of that person.
    is_empty: bool,
    not_reached: Vec<&'static str>,
    what: Value,
    lines: Vec<String>,
}

impl Receipt {
    /// Of a dry run.
    pub(super) fn of_plan(plan: &Plan, config: &Config) -> Self {
        let Plan { rows, tokens, shared_tokens, entries, slots, letters, tables_without_persons } = plan;
        let mut lines = vec![
            format!("rows       {}", by_table(rows)),
            format!("tokens     {tokens}, {shared_tokens} of them shared with others, who keep theirs"),
            format!("vault      {entries} sealed values, {slots} slots"),
            format!("letters    {letters} dead letters"),
        ];
        lines.extend(untouched(tables_without_persons));
        lines.push(format!(
            "backups    erased now, a backup from before could bring it back until {}, to whoever has recovery.key",
            complete_by(config)
        ));
        lines.extend(scope(config));
        let what = json!({
            "dry_run": true, "rows": rows, "tokens": tokens, "shared_tokens": shared_tokens, "entries": entries,
            "slots": slots, "letters": letters, "tables_without_persons": tables_without_persons,
            "backups_until": complete_by(config), "backups_of": backups_of(config),
        });
        let is_empty = rows.values().sum::<u64>() + entries + slots + letters == 0;
        Self { done: None, is_empty, not_reached: Vec::new(), what, lines }
    }

    /// Of an erasure.
    pub(super) fn of_erasure(erased: &Erased, config: &Config) -> Self {
        let Erased { number, rows, rows_deleted, entries, slots, letters, tables_without_persons, swept } = erased;
        let not_reached: Vec<_> = NOT_REACHED.into_iter().chain((!rows_deleted).then_some(STAYS)).collect();
        let how = if *rows_deleted { "deleted" } else { "unlinked" };
        let mut lines = vec![
            format!("erasure    {number}"),
            format!("rows       {} {how}", by_table(rows)),
            format!("vault      {entries} sealed values and {slots} slots deleted"),
            format!("letters    {letters} dead letters deleted"),
        ];
        if *swept > 0 {
            lines.push(format!("swept      {swept} that workers had brought back meanwhile"));
        }
        lines.extend(untouched(tables_without_persons));
        lines.push(format!(
            "complete   by {}, when the last backup of {} is gone",
            complete_by(config),
            backups_of(config)
        ));
        lines.extend(scope(config));
        let what = json!({
            "number": number, "rows": rows, "rows_deleted": rows_deleted, "entries": entries, "slots": slots,
            "letters": letters, "swept": swept, "tables_without_persons": tables_without_persons,
            "complete_by": complete_by(config), "backups_of": backups_of(config), "not_reached": not_reached,
        });
        let is_empty = rows.values().sum::<u64>() + entries + slots + letters + swept == 0;
        Self { done: Some(*number), is_empty, not_reached, what, lines }
    }

    /// Prints it, and says so if it is of nobody.
    ///
    /// # Errors
    /// As [`report::print`]. What was done stays done.
    pub(super) fn print(&self, as_json: bool, context: &Context) -> Result<(), Failure> {
        self.write(as_json).map_err(|failure| match self.done {
            Some(number) if !failure.error.is_empty() => failure.hint(format!(
                "erasure {number} is done all the same: `masq audit list --action forgotten` has what came of it"
            )),
            _ => failure,
        })?;
        if self.is_empty {
            context.say("There was nothing of this person: is that the id, as the messages have it, letter by letter?");
        }
        Ok(())
    }

    fn write(&self, as_json: bool) -> Result<(), Failure> {
        if as_json {
            return report::print_json(&self.what);
        }
        let mut text = self.lines.join("\n") + "\n";
        if !self.not_reached.is_empty() {
            text += "not reached\n";
            for what in &self.not_reached {
                let _infallible = writeln!(text, "           {what}");
            }
        }
        report::print(text)
    }
}

fn by_table(rows: &BTreeMap<String, u64>) -> String {
    if rows.is_empty() {
        return "none: no table is known to have rows of persons".to_owned();
    }
    rows.iter().map(|(table, rows)| format!("{rows} in {table}")).collect::<Vec<_>>().join(", ")
}

fn untouched(tables: &[String]) -> Option<String> {
    let tables = tables.join(", ");
    (!tables.is_empty())
        .then(|| format!("untouched  {tables}: no column is known to name a person; see `masq migrate`"))
}

/// By when the last backup is gone that holds the slots.
fn complete_by(config: &Config) -> String {
    let by = OffsetDateTime::now_utc() + config.vault.backup_retention;
    by.replace_nanosecond(0).unwrap_or(by).format(&Rfc3339).unwrap_or_default()
}

fn backups_of(config: &Config) -> &'static str {
    if config.vault.slots_url.is_some() { "the database with the slots" } else { "the database" }
}

/// With slots elsewhere, values are noise in old backups of the rows; a dead letter's body needs no slot.
fn scope(config: &Config) -> Option<String> {
    config.vault.slots_url.is_some().then(|| {
        "           backups of the rows hold this person's id, tokens and dead letters until they are gone themselves".to_owned()
    })
}
