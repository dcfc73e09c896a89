//! What became of the tokens that were asked for, as it is written for programs and told to people.

use std::{collections::HashMap, fmt::Write};

use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    cli::{context::Context, exit::Exit},
    logging::Escaping,
    vault::{
        entry::{Shut, Value},
        reveal::Outcome,
        token::Token,
        token_keys::Origin,
    },
};

/// Nothing can be said of it for certain: this is what it can be.
const NONE: &str = "the vault has nothing under it: its person was erased, it has expired, or it was never there, like what \
                    was loaded before there was a vault";

/// The same where the token's key is over.
const REPLACED: &str = "its key was retired by a rotation, and the table has a new token in its place: take that from the \
                        table as it is now, or from the value with `masq find`";

/// What became of all tokens.
#[derive(Default)]
pub(super) struct Fates {
    fates: HashMap<Token, Fate>,
}

/// What became of one.
struct Fate {
    /// For programs.
    outcome: &'static str,
    value: Option<Value>,
    /// For people, where there is no value.
    why: String,
    /// How many of its sealed values were not what they should be.
    tampered: usize,
}

impl Fates {
    /// Of a token that is not asked for.
    pub(super) fn set_unasked(&mut self, token: &Token, origin: &Origin<'_>) {
        let (outcome, why) = match origin {
            Origin::Tombstone => ("erased", "its person was erased".to_owned()),
            Origin::Unknown { kid } => {
                ("unknown_key", format!("it is no token of this database, which knows no key with key id {kid}"))
            }
            Origin::Retired { .. } => ("none", REPLACED.to_owned()),
            Origin::Missing(why) => ("missing_key", format!("it could not be checked, so it was not asked for: {why}")),
            Origin::Root(_) => ("not_asked", "it was not asked for".to_owned()),
        };
        self.fates.insert(*token, Fate { outcome, value: None, why, tampered: 0 });
    }

    /// Of one that was; `is_over`: its key makes no tokens any more, and has none.
    pub(super) fn set(&mut self, token: &Token, Outcome { value, tampered }: Outcome, is_over: bool) {
        let (outcome, value, why) = match value {
            Ok(value) => ("revealed", Some(value), String::new()),
            Err(shut) => {
                let outcome = match &shut {
                    _ if tampered > 0 => "tampered",
                    None => "none",
                    Some(Shut::Expired) => "expired",
                    Some(Shut::NoSlot) => "no_slot",
                    Some(_) => "sealed",
                };
                (
                    outcome,
                    None,
                    shut.map_or_else(|| if is_over { REPLACED } else { NONE }.to_owned(), |shut| shut.to_string()),
                )
            }
        };
        self.fates.insert(*token, Fate { outcome, value, why, tampered });
    }

    /// Of these tokens: how many have a value and how many have none, and how many sealed values were not what they should
    /// be.
    pub(super) fn counts<'a>(&self, tokens: impl Iterator<Item = &'a Token>) -> [usize; 3] {
        tokens.filter_map(|token| self.fates.get(token)).fold([0; 3], |[shown, missing, tampered], fate| {
            let has_value = usize::from(fate.value.is_some());
            [shown + has_value, missing + 1 - has_value, tampered + fate.tampered]
        })
    }

    /// A line for each token, in this order.
    pub(super) fn text(&self, tokens: &[Token], json: bool) -> Zeroizing<String> {
        let fates = || tokens.iter().filter_map(|token| Some((token, self.fates.get(token)?)));
        // Large enough for every line, escaped: no plain copy stays behind in memory that was given back.
        let room = fates().map(|(_, fate)| 200 + fate.value.as_ref().map_or(0, |v| 10 * (v.field.len() + v.raw.len())));
        let mut out = Zeroizing::new(String::with_capacity(room.sum()));
        for (token, fate) in fates() {
            let _infallible = if json { write_json(&mut out, token, fate) } else { write_line(&mut out, token, fate) };
        }
        out
    }

    /// Says what has no value, and why; and what somebody had a hand in.
    pub(super) fn say(&self, tokens: &[Token], context: &Context) {
        for token in tokens {
            let Some(fate) = self.fates.get(token) else { continue };
            if fate.tampered > 0 {
                context.say(format_args!(
                    "ALARM: {token}: {} of its sealed values are not what they should be, and were not shown. Somebody \
                     had a worker's login or the database: keep both as they are, and find out who.",
                    fate.tampered
                ));
            }
            if fate.value.is_none() {
                context.say(format_args!("{token}: no value: {}", fate.why));
            }
        }
    }

    /// Not everything that was asked for could be had, or not without an alarm.
    pub(super) fn exit(&self) -> Exit {
        let is_whole = self.fates.values().all(|fate| fate.value.is_some() && fate.tampered == 0);
        if is_whole { Exit::Done } else { Exit::Rejects }
    }
}

fn write_line(out: &mut String, token: &Token, fate: &Fate) -> std::fmt::Result {
    write!(out, "{token}\t")?;
    if let Some(value) = &fate.value {
        Escaping(&mut *out).write_str(&value.raw)?;
    }
    out.write_char('\n')
}

fn write_json(out: &mut String, token: &Token, fate: &Fate) -> std::fmt::Result {
    let field = fate.value.as_ref().map(|value| value.field.as_str());
    let value = fate.value.as_ref().map(|value| value.raw.as_str());
    let line = json!({
        "token": token.to_string(),
        "field": field,
        "value": value,
        "outcome": fate.outcome,
        "tampered": fate.tampered,
    });
    // JSON escapes control characters below U+0020 by itself; a terminal obeys others, too.
    for character in line.to_string().chars() {
        match character {
            '\u{7f}'..='\u{9f}' => write!(out, "\\u{:04x}", u32::from(character))?,
            other => out.write_char(other)?,
        }
    }
    out.write_char('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(raw: &str) -> Fates {
        let mut fates = Fates::default();
        let value = Value { field: "ip".into(), raw: Zeroizing::new(raw.to_owned()) };
        fates.set(&Token([1; 32]), Outcome { value: Ok(value), tampered: 0 }, false);
        fates
    }

    const ONE: Token = Token([1; 32]);

    #[test]
    fn lines_are_in_the_order_of_asking_and_one_for_each() {
        let mut fates = fates("10.0.0.1");
        fates.set(&Token([2; 32]), Outcome { value: Err(None), tampered: 0 }, false);
        fates.set_unasked(&Token([0; 32]), &Origin::Tombstone);
        let order = [Token([2; 32]), ONE, Token([0; 32]), ONE];
        let lines = format!("{}\t\n{ONE}\t10.0.0.1\n{}\t\n{ONE}\t10.0.0.1\n", order[0], order[2]);
        assert_eq!(*fates.text(&order, false), lines);
        let json = fates.text(&order, true);
        let outcomes: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let words: Vec<_> = outcomes.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
        assert_eq!(words, ["none", "revealed", "erased", "revealed"]);
        assert_eq!((&outcomes[1]["field"], &outcomes[1]["value"]), (&"ip".into(), &"10.0.0.1".into()));
        assert_eq!(fates.counts([&ONE, &order[0]].into_iter()), [1, 1, 0]);
    }

    #[test]
    fn a_value_cannot_move_the_cursor_or_make_a_line_and_json_has_it_to_the_letter() {
        let raw = "a\x1b[2J\n\t\u{9b}31m\u{7f}\"";
        let fates = fates(raw);
        assert_eq!(*fates.text(&[ONE], false), format!("{ONE}\ta\\u{{1b}}[2J\\n\\t\\u{{9b}}31m\\u{{7f}}\"\n"));
        let json = fates.text(&[ONE], true);
        assert!(json.trim_end_matches('\n').chars().all(|c| !c.is_control()), "{}", *json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["value"], raw);
    }

    #[test]
    fn an_alarm_is_one_even_if_another_value_could_be_shown() {
        let mut fates = fates("10.0.0.1");
        assert_eq!(fates.exit(), Exit::Done);
        let value = Value { field: "ip".into(), raw: Zeroizing::new("10.0.0.2".into()) };
        fates.set(&Token([2; 32]), Outcome { value: Ok(value), tampered: 2 }, false);
        assert_eq!(fates.exit(), Exit::Rejects);
        assert_eq!(fates.counts([&ONE, &Token([2; 32])].into_iter()), [2, 0, 2]);
    }
}
