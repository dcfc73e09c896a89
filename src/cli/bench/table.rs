//! The results, as a person reads them and as a program does.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{gates::Gate, machine::Machine, plan::Size, results::Results};

/// All there is to say.
pub(super) struct Report<'a> {
    pub(super) machine: &'a Machine,
    pub(super) size: Size,
    pub(super) rounds: usize,
    pub(super) results: &'a Results,
    pub(super) gates: &'a [Gate],
}

impl Report<'_> {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.machine.text());
        line(&mut text, ["", "", "median", "min", "max", "n"].map(str::to_owned));
        for arm in self.results.arms() {
            let mut name = arm.name();
            for (figure, spread) in self.results.figures(arm) {
                let (_, what, decimals) = figure.words();
                let number = |value: f64| format!("{value:.decimals$}");
                let [median, min, max] = [spread.median, spread.min, spread.max].map(number);
                line(&mut text, [name.to_owned(), what.to_owned(), median, min, max, spread.n.to_string()]);
                name = "";
            }
        }
        for wrong in &self.results.wrong {
            let _infallible = writeln!(text, "\nwrong: {} in round {}: {}", wrong.arm.name(), wrong.round, wrong.why);
        }
        text.push('\n');
        goal(&mut text, ["goal", "value", "min", "max", "gate", "aim", "holds"].map(str::to_owned));
        for gate in self.gates {
            let sign = if gate.at_least { '≥' } else { '≤' };
            let of = |pick: fn(&super::results::Spread) -> f64| {
                gate.value.as_ref().map_or_else(|| "-".to_owned(), |value| Significant(pick(value)).to_string())
            };
            let bound = |value: f64| format!("{sign} {value}");
            let holds = if gate.holds() { "yes" } else { "NO" };
            let cells = [gate.what.to_owned(), of(|v| v.median), of(|v| v.min), of(|v| v.max)];
            let [what, value, min, max] = cells;
            goal(&mut text, [what, value, min, max, bound(gate.gate), bound(gate.aim), holds.to_owned()]);
            if let Some(why) = &gate.invalid {
                let _infallible = writeln!(text, "  {why}");
            }
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let arms: Map<String, Value> = self
            .results
            .arms()
            .into_iter()
            .map(|arm| {
                let figures = self.results.figures(arm).into_iter();
                let figures: Map<String, Value> =
                    figures.map(|(figure, spread)| (figure.words().0.to_owned(), spread.json())).collect();
                let arm_json = json!({ "messages": self.size.of(arm), "figures": figures });
                (arm.id().to_owned(), arm_json)
            })
            .collect();
        let wrong = self.results.wrong.iter();
        let wrong: Vec<Value> =
            wrong.map(|wrong| json!({ "arm": wrong.arm.id(), "round": wrong.round, "why": wrong.why })).collect();
        json!({
            "machine": self.machine.json(),
            "messages": self.size.messages,
            "rounds": self.rounds,
            "arms": arms,
            "wrong": wrong,
            "gates": self.gates.iter().map(Gate::json).collect::<Vec<_>>(),
        })
    }
}

/// A number with three digits that say something.
struct Significant(f64);

impl std::fmt::Display for Significant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decimals = match self.0.abs() {
            value if value >= 100.0 => 0,
            value if value >= 10.0 => 1,
            value if value >= 0.3 => 2,
            _ => 4,
        };
        write!(f, "{:.decimals$}", self.0)
    }
}

fn line(text: &mut String, [arm, what, median, min, max, n]: [String; 6]) {
    let _infallible = writeln!(text, "{arm:<22} {what:<34} {median:>10} {min:>10} {max:>10} {n:>3}");
}

fn goal(text: &mut String, [what, value, min, max, gate, aim, holds]: [String; 7]) {
    let _infallible = writeln!(text, "{what:<46} {value:>8} {min:>8} {max:>8} {gate:>8} {aim:>9} {holds:>6}");
}
