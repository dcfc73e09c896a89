//! What the runs came to: figures by arm and round, what was wrong, and the spread of each figure over the rounds.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::plan::Arm;

/// What a run is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // `name` says what each is
pub(super) enum Figure {
    Rate,
    Client,
    Postgres,
    Queue,
    Wal,
    Requests,
    Resident,
    Sealed,
    Latency,
    RoundTrips,
}

impl Figure {
    /// Its name in JSON; what it counts, for people; and with how many decimals.
    pub(super) fn words(self) -> (&'static str, &'static str, usize) {
        match self {
            Self::Rate => ("messages_per_second", "messages a second", 0),
            Self::Client => ("client_cpu_us", "client, µs of CPU a message", 2),
            Self::Postgres => ("postgres_cpu_us", "PostgreSQL, µs of CPU a message", 2),
            Self::Queue => ("queue_cpu_us", "queue server, µs of CPU a message", 2),
            Self::Wal => ("wal_bytes_per_message", "bytes of WAL a message", 0),
            Self::Requests => ("requests_per_message", "requests a message", 4),
            Self::Resident => ("resident_mib", "resident memory at most, MiB", 1),
            Self::Sealed => ("sealed_per_message", "sealed values a message", 3),
            Self::Latency => ("latency_ms", "send to row visible, ms", 2),
            Self::RoundTrips => ("round_trips_ms", "the round trips that it needs, ms", 2),
        }
    }
}

/// What one run came to.
pub(super) type Figures = BTreeMap<Figure, f64>;

/// Several values of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // the names say it
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) n: usize,
}

impl Spread {
    /// Of these values, if there are any. Of an even number the median is the mean of the two in the middle.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (n, middle) = (values.len(), values.len() / 2);
        let median = if n.is_multiple_of(2) {
            (values.get(middle.checked_sub(1)?)? + values[middle]) / 2.0
        } else {
            values[middle]
        };
        Some(Self { median, min: *values.first()?, max: *values.last()?, n })
    }

    pub(super) fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max, "n": self.n })
    }
}

/// A run that scores nothing.
pub(super) struct Wrong {
    pub(super) arm: Arm,
    pub(super) round: usize,
    pub(super) why: String,
}

/// What all runs came to.
#[derive(Default)]
pub(super) struct Results {
    rounds: Vec<BTreeMap<Arm, Figures>>,
    pub(super) wrong: Vec<Wrong>,
}

impl Results {
    /// Adds a run.
    pub(super) fn add(&mut self, arm: Arm, round: usize, outcome: Result<Figures, String>) {
        if self.rounds.len() <= round {
            self.rounds.resize_with(round + 1, BTreeMap::new);
        }
        match outcome {
            Ok(figures) => drop(self.rounds[round].insert(arm, figures)),
            Err(why) => self.wrong.push(Wrong { arm, round: round + 1, why }),
        }
    }

    /// The arms of which a run counts.
    pub(super) fn arms(&self) -> Vec<Arm> {
        let mut arms: Vec<Arm> = self.rounds.iter().flat_map(BTreeMap::keys).copied().collect();
        arms.sort_unstable();
        arms.dedup();
        arms
    }

    /// The spread of each figure of an arm.
    pub(super) fn figures(&self, arm: Arm) -> Vec<(Figure, Spread)> {
        let runs = || self.rounds.iter().filter_map(|round| round.get(&arm));
        let mut figures: Vec<Figure> = runs().flat_map(BTreeMap::keys).copied().collect();
        figures.sort_unstable();
        figures.dedup();
        let spread = |figure: Figure| Some((figure, self.figure(arm, figure)?));
        figures.into_iter().filter_map(spread).collect()
    }

    /// The spread of one figure.
    pub(super) fn figure(&self, arm: Arm, figure: Figure) -> Option<Spread> {
        self.each_round(|get| get(arm, figure))
    }

    /// The spread of what is computed from figures of the same round: what slows a round slows all its arms.
    pub(super) fn each_round(
        &self,
        compute: impl Fn(&dyn Fn(Arm, Figure) -> Option<f64>) -> Option<f64>,
    ) -> Option<Spread> {
        let of = |round: &BTreeMap<Arm, Figures>| compute(&|arm, figure| round.get(&arm)?.get(&figure).copied());
        Spread::of(self.rounds.iter().filter_map(of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 20.0]), Some(Spread { median: 3.0, min: 1.0, max: 20.0, n: 3 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, f64::NAN, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0, n: 4 }));
    }

    #[test]
    fn a_wrong_run_scores_nothing_and_ratios_are_of_one_round() {
        let mut results = Results::default();
        let rate = |rate: f64| Ok(Figures::from([(Figure::Rate, rate)]));
        results.add(Arm::Pipeline, 0, rate(100.0));
        results.add(Arm::Original, 0, rate(10.0));
        results.add(Arm::Pipeline, 1, rate(1000.0));
        results.add(Arm::Original, 1, Err("9 rows instead of 10".to_owned()));
        let ratio =
            results.each_round(|get| Some(get(Arm::Pipeline, Figure::Rate)? / get(Arm::Original, Figure::Rate)?));
        assert_eq!(ratio, Some(Spread { median: 10.0, min: 10.0, max: 10.0, n: 1 }));
        assert_eq!(results.figure(Arm::Original, Figure::Rate).unwrap().n, 1);
        assert_eq!((results.wrong.len(), results.wrong[0].round), (1, 2));
    }
}
