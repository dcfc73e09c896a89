//! Every metric, in one table: its name, what it counts, its labels.
//!
//! The names are a contract with dashboards and alerts. Labels come from closed sets; a value from a message, an id or a
//! key is never one. `masq_messages_received_total` is the sum of rows, dead letters, duplicates and returned messages
//! once nothing is in flight.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::{event::Reason, pipeline::load::Tally, queue::Depth};

/// The steps whose time is taken. Receiving is waiting, so it is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the files under pipeline/; decode goes message by message with mask
pub enum Step {
    Mask,
    Load,
    Acknowledge,
}

impl Step {
    const ALL: [Self; 3] = [Self::Mask, Self::Load, Self::Acknowledge];

    fn name(self) -> &'static str {
        match self {
            Self::Mask => "mask",
            Self::Load => "load",
            Self::Acknowledge => "acknowledge",
        }
    }
}

/// From 0.1 ms, a batch of one, to 30 s, where a statement times out.
const STEP_BUCKETS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

/// From 10 ms, a lone message at its best, to fourteen days, the longest that SQS keeps one.
const LAG_BUCKETS: [f64; 13] =
    [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3_600.0, 21_600.0, 86_400.0, 1_209_600.0];

/// The counters of one process, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    /// Messages that came, redeliveries counted each time.
    pub received: IntCounter,
    /// Messages that became a row.
    pub rows: IntCounter,
    dead: IntCounterVec,
    /// Deliveries that changed nothing because the message had its outcome already.
    pub duplicates: IntCounter,
    /// How many of them were an event that another message had brought already.
    pub repeated: IntCounter,
    /// Messages given back to the queue.
    pub returned: IntCounter,
    /// Messages deleted from the queue.
    pub deleted: IntCounter,
    /// Settled messages that could not be deleted; they come again as duplicates.
    pub delete_failures: IntCounter,
    /// Messages whose visibility was extended.
    pub extended: IntCounter,
    /// Messages whose visibility could not be extended.
    pub extend_failures: IntCounter,
    /// Attempts to begin an epoch that failed.
    pub epoch_failures: IntCounter,
    steps: HistogramVec,
    lag: Histogram,
    last_commit: IntGauge,
    depth: IntGaugeVec,
}

impl Metrics {
    /// All of them at zero, so that every series exists from the start; only the queue's depth waits to be known.
    ///
    /// # Errors
    /// A name stands twice in the table below: a defect.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("masq".to_owned()), None)?;
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let dead = IntCounterVec::new(
            Opts::new("messages_dead_lettered_total", "Messages that became a dead letter, by reason."),
            &["reason"],
        )?;
        let steps = HistogramVec::new(
            HistogramOpts::new("batch_step_seconds", "Time that a batch spends in a step.")
                .buckets(STEP_BUCKETS.into()),
            &["step"],
        )?;
        let lag = Histogram::with_opts(
            HistogramOpts::new("commit_lag_seconds", "From SQS getting a message to its row being committed.")
                .buckets(LAG_BUCKETS.into()),
        )?;
        let last_commit =
            IntGauge::new("last_commit_timestamp_seconds", "When outcomes were last committed; 0: never yet.")?;
        // A queue that was never asked is not an empty one.
        let depth = IntGaugeVec::new(
            Opts::new("queue_messages", "Messages on the queue as it last said, by state; approximate."),
            &["state"],
        )?;
        let build_info = IntGauge::with_opts(
            Opts::new("build_info", "Always 1; the label says which masq this is.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build_info.set(1);
        registry.register(Box::new(build_info))?;
        registry.register(Box::new(depth.clone()))?;
        registry.register(Box::new(dead.clone()))?;
        registry.register(Box::new(steps.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(last_commit.clone()))?;
        for kind in Reason::KINDS {
            dead.with_label_values(&[kind]);
        }
        for step in Step::ALL {
            steps.with_label_values(&[step.name()]);
        }
        Ok(Self {
            received: counter("messages_received_total", "Messages received, redeliveries counted each time.")?,
            rows: counter("messages_loaded_total", "Messages that became a row.")?,
            dead,
            duplicates: counter("messages_duplicate_total", "Deliveries of messages that had their outcome already.")?,
            repeated: counter("messages_repeated_total", "Duplicates that were an event of another message.")?,
            returned: counter("messages_returned_total", "Messages given back to the queue.")?,
            deleted: counter("messages_deleted_total", "Messages deleted from the queue.")?,
            delete_failures: counter("delete_failures_total", "Settled messages that could not be deleted.")?,
            extended: counter("visibility_extensions_total", "Messages whose visibility was extended.")?,
            extend_failures: counter("visibility_failures_total", "Messages whose visibility could not be extended.")?,
            epoch_failures: counter(
                "epoch_failures_total",
                "Attempts to begin an epoch that failed, as when KMS is away.",
            )?,
            steps,
            lag,
            last_commit,
            depth,
            registry,
        })
    }

    /// Counts a batch that has come to its end at `now`, in milliseconds since 1970-01-01 UTC.
    pub fn count(&self, tally: &Tally, now: i64) {
        self.rows.inc_by(tally.rows);
        self.duplicates.inc_by(tally.duplicates);
        self.repeated.inc_by(tally.repeated);
        self.returned.inc_by(tally.returned);
        for reason in &tally.dead {
            self.dead.with_label_values(&[reason.kind()]).inc();
        }
        if let Some((oldest, newest)) = tally.sent {
            for sent in [oldest, newest] {
                self.lag.observe(Duration::from_millis(u64::try_from(now - sent).unwrap_or(0)).as_secs_f64());
            }
        }
        if tally.rows > 0 || !tally.dead.is_empty() {
            self.last_commit.set(now / 1000);
        }
    }

    /// Notes the time that a batch spent in a step.
    pub fn step(&self, step: Step, time: Duration) {
        self.steps.with_label_values(&[step.name()]).observe(time.as_secs_f64());
    }

    /// Notes how much the queue holds.
    pub fn depth(&self, depth: Depth) {
        let states = [("visible", depth.visible), ("in_flight", depth.in_flight), ("delayed", depth.delayed)];
        for (state, messages) in states {
            self.depth.with_label_values(&[state]).set(i64::try_from(messages).unwrap_or(i64::MAX));
        }
    }

    /// Dead letters so far, all reasons together.
    pub fn dead_lettered(&self) -> u64 {
        Reason::KINDS.iter().map(|kind| self.dead.with_label_values(&[kind]).get()).sum()
    }

    /// All of them in the text format that Prometheus reads (version 0.0.4).
    ///
    /// # Errors
    /// A metric cannot be encoded: a defect.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        String::from_utf8(out).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}
