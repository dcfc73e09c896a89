//! The goals: what is compared, which value must be reached and which one is aimed at.
//!
//! Every goal is a ratio within one run or a cost that hardly depends on the machine; a rate by itself is none. A
//! comparison whose other side is too slow to be fair is invalid, and an invalid one does not hold.

use serde_json::{Value, json};

use super::{
    plan::Arm,
    results::{Figure, Results, Spread},
};

/// The most client CPU that the arm drain may cost, in µs a message: more, and it is no limit to be measured against.
const DRAIN_FLOOR: f64 = 6.0;

/// The most client CPU that the original's loop may cost, in µs a message: more, and a slow rival flatters us.
const ORIGINAL_FLOOR: f64 = 650.0;

/// A goal and what was reached.
pub(super) struct Gate {
    /// Its name in JSON.
    pub(super) name: &'static str,
    /// What it is.
    pub(super) what: &'static str,
    pub(super) value: Option<Spread>,
    pub(super) gate: f64,
    pub(super) aim: f64,
    /// Whether more is better.
    pub(super) at_least: bool,
    /// Why the comparison says nothing.
    pub(super) invalid: Option<String>,
}

impl Gate {
    fn new(name: &'static str, what: &'static str, bounds: Bounds, value: Option<Spread>) -> Self {
        let (at_least, gate, aim) = match bounds {
            Bounds::AtLeast(gate, aim) => (true, gate, aim),
            Bounds::AtMost(gate, aim) => (false, gate, aim),
        };
        let invalid = value.is_none().then(|| "no run of it counts".to_owned());
        Self { name, what, value, gate, aim, at_least, invalid }
    }

    /// The same, unless an arm costs more client CPU than a fair one does.
    fn with_floor(self, results: &Results, arm: Arm, floor: f64) -> Self {
        let cost = results.figure(arm, Figure::Client);
        let slow = cost.filter(|cost| cost.median > floor).map(|cost| {
            format!("invalid: {} costs {:.0} µs of CPU a message, more than {floor:.0}", arm.name(), cost.median)
        });
        Self { invalid: self.invalid.or(slow), ..self }
    }

    /// Whether the median reaches the gate, in a comparison that is valid.
    pub(super) fn holds(&self) -> bool {
        let reached = |value: f64| if self.at_least { value >= self.gate } else { value <= self.gate };
        self.invalid.is_none() && self.value.is_some_and(|value| reached(value.median))
    }

    pub(super) fn json(&self) -> Value {
        let Self { name, what, value, gate, aim, at_least, invalid } = self;
        json!({
            "name": name,
            "what": what,
            "value": value.map(|value| value.median),
            "min": value.map(|value| value.min),
            "max": value.map(|value| value.max),
            "n": value.map_or(0, |value| value.n),
            "bound": if *at_least { "at least" } else { "at most" },
            "gate": gate,
            "aim": aim,
            "holds": self.holds(),
            "why": invalid,
        })
    }
}

/// The gate, then the aim.
#[derive(Clone, Copy)]
enum Bounds {
    AtLeast(f64, f64),
    AtMost(f64, f64),
}
use Bounds::{AtLeast, AtMost};

/// The goals of the arms that were to run.
pub(super) fn gates(results: &Results, arms: &[Arm]) -> Vec<Gate> {
    let ratio = |figure: Figure, over: Arm, under: Arm| {
        results.each_round(|get| Some(get(over, figure)? / get(under, figure)?))
    };
    let rates = |over: Arm, under: Arm| ratio(Figure::Rate, over, under);
    let efficiency = Gate::new(
        "cpu_efficiency",
        "CPU of drain + load + transform, of pipeline's",
        AtLeast(0.80, 0.90),
        efficiency(results),
    );
    let client = results.figure(Arm::Pipeline, Figure::Client);
    let requests = results.figure(Arm::Pipeline, Figure::Requests);
    let resident = results.figure(Arm::Pipeline, Figure::Resident);
    let growth = ratio(Figure::Resident, Arm::Pipeline, Arm::Tenth);
    let mut gates = vec![
        efficiency.with_floor(results, Arm::Drain, DRAIN_FLOOR),
        Gate::new("client_cpu_us", "client CPU, µs a message", AtMost(10.0, 6.0), client),
        Gate::new("requests_per_message", "requests a message", AtMost(0.205, 0.2005), requests),
        Gate::new("resident_mib", "resident memory, MiB", AtMost(64.0, 40.0), resident),
        Gate::new("resident_growth", "the same, ten times the messages", AtMost(1.25, 1.05), growth),
    ];
    if arms.contains(&Arm::Original) {
        let (original, tuned) = (rates(Arm::Pipeline, Arm::Original), rates(Arm::Pipeline, Arm::Tuned));
        let original =
            Gate::new("times_original", "throughput, the original's loop = 1", AtLeast(40.0, 80.0), original);
        gates.push(original.with_floor(results, Arm::Original, ORIGINAL_FLOOR));
        gates.push(Gate::new("times_tuned", "throughput, tuned Python = 1", AtLeast(15.0, 30.0), tuned));
    }
    if arms.contains(&Arm::FullLedger) {
        let rate = rates(Arm::FullLedger, Arm::Load);
        let wal = ratio(Figure::Wal, Arm::FullLedger, Arm::Load);
        gates.push(Gate::new("full_ledger_rate", "load rate, empty ledger = 1", AtLeast(0.85, 0.98), rate));
        gates.push(Gate::new("full_ledger_wal", "WAL a row, empty ledger = 1", AtMost(1.1, 1.0), wal));
    }
    if arms.contains(&Arm::Vault) {
        let rate = rates(Arm::Vault, Arm::Pipeline);
        gates.push(Gate::new("vault", "throughput with the vault, without = 1", AtLeast(0.6, 0.8), rate));
    }
    if arms.contains(&Arm::Redelivered) {
        let rate = rates(Arm::Redelivered, Arm::Pipeline);
        gates.push(Gate::new("redelivered", "throughput with redeliveries, clean = 1", AtLeast(0.5, 0.7), rate));
    }
    if arms.contains(&Arm::Latency) {
        let times = results
            .each_round(|get| Some(get(Arm::Latency, Figure::Latency)? / get(Arm::Latency, Figure::RoundTrips)?));
        gates.push(Gate::new("latency", "a lone message, its round trips = 1", AtMost(3.0, 1.5), times));
    }
    gates
}

/// What the parts cost by themselves, of what the whole costs: all processes, in the same round.
fn efficiency(results: &Results) -> Option<Spread> {
    results.each_round(|get| {
        let drain = get(Arm::Drain, Figure::Client)? + get(Arm::Drain, Figure::Queue)?;
        let load = get(Arm::Load, Figure::Client)? + get(Arm::Load, Figure::Postgres)?;
        let transform = get(Arm::Transform, Figure::Client)?;
        let whole = [Figure::Client, Figure::Postgres, Figure::Queue].map(|figure| get(Arm::Pipeline, figure));
        let whole: f64 = whole.into_iter().collect::<Option<Vec<f64>>>()?.iter().sum();
        Some((drain + load + transform) / whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::results::Figures;

    fn results(original: f64) -> Results {
        let mut results = Results::default();
        let mut add =
            |arm, figures: &[(Figure, f64)]| results.add(arm, 0, Ok(Figures::from_iter(figures.iter().copied())));
        add(Arm::Drain, &[(Figure::Client, 4.0), (Figure::Queue, 2.0)]);
        add(Arm::Load, &[(Figure::Client, 0.5), (Figure::Postgres, 3.5)]);
        add(Arm::Transform, &[(Figure::Client, 2.0)]);
        let pipeline = [(Figure::Client, 8.0), (Figure::Postgres, 5.0), (Figure::Queue, 2.0), (Figure::Rate, 60_000.0)];
        add(Arm::Pipeline, &pipeline);
        add(Arm::Original, &[(Figure::Client, original), (Figure::Rate, 1_000.0)]);
        results
    }

    fn gate(results: &Results, name: &str) -> Gate {
        let arms = [Arm::Drain, Arm::Load, Arm::Transform, Arm::Pipeline, Arm::Original];
        gates(results, &arms).into_iter().find(|gate| gate.name == name).unwrap()
    }

    #[test]
    fn the_parts_are_compared_with_the_whole() {
        let gate = gate(&results(500.0), "cpu_efficiency");
        assert_eq!((gate.value.unwrap().median, gate.holds()), (12.0 / 15.0, true));
    }

    #[test]
    fn a_slow_rival_makes_the_comparison_invalid() {
        let fair = gate(&results(600.0), "times_original");
        assert_eq!((fair.value.unwrap().median, fair.holds(), fair.invalid), (60.0, true, None));
        let slow = gate(&results(700.0), "times_original");
        assert!(!slow.holds() && slow.invalid.unwrap().contains("700 µs"));
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let gate = gate(&results(600.0), "times_tuned");
        assert!(gate.value.is_none() && !gate.holds());
    }
}
