//! Which arms a benchmark has, and how many messages each of them takes.

/// What is measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // `name` says what each is
pub(super) enum Arm {
    Drain,
    Load,
    FullLedger,
    Transform,
    Pipeline,
    Tenth,
    Vault,
    Redelivered,
    Original,
    Tuned,
    Latency,
}

impl Arm {
    /// Its name in JSON.
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Load => "load",
            Self::FullLedger => "load_full_ledger",
            Self::Transform => "transform",
            Self::Pipeline => "pipeline",
            Self::Tenth => "pipeline_tenth",
            Self::Vault => "pipeline_vault",
            Self::Redelivered => "pipeline_redelivered",
            Self::Original => "original",
            Self::Tuned => "tuned",
            Self::Latency => "latency",
        }
    }

    /// Its name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Load => "load",
            Self::FullLedger => "load, full ledger",
            Self::Transform => "transform",
            Self::Pipeline => "pipeline",
            Self::Tenth => "pipeline, a tenth",
            Self::Vault => "pipeline, vault",
            Self::Redelivered => "pipeline, redelivered",
            Self::Original => "original (Python)",
            Self::Tuned => "tuned (Python)",
            Self::Latency => "latency",
        }
    }

    /// Whether it is masq that is measured, and not a rival.
    pub(super) fn is_ours(self) -> bool {
        !matches!(self, Self::Original | Self::Tuned)
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Messages of a run.
    pub(super) messages: usize,
    /// Percent of them that come a second time, in the arm that has such.
    pub(super) redelivered: u8,
    /// Keys in a ledger that is full.
    pub(super) ledger_rows: u64,
}

/// The most that the transform arm prepares in memory. Its figure does not depend on how many there are.
const MOST_TRANSFORMED: usize = 200_000;

/// The most messages that may be in flight on a queue, less a margin: before the redelivered arm begins, all are.
const MOST_IN_FLIGHT: usize = 100_000;

impl Size {
    /// How many messages a run of this arm takes. Those in Python are slower by two orders of magnitude; a few seconds
    /// are enough for their figure, and all that two minutes allow.
    pub(super) fn of(self, arm: Arm) -> usize {
        let all = self.messages;
        match arm {
            Arm::Transform => all.min(MOST_TRANSFORMED),
            Arm::Tenth => (all / 10).max(1),
            Arm::Redelivered => all.min(MOST_IN_FLIGHT),
            Arm::Original => (all / 100).clamp(100, 3_000).min(all),
            Arm::Tuned => (all / 25).clamp(1_000, 12_000).min(all),
            Arm::Latency => (all / 1_000).clamp(20, 200),
            Arm::Drain | Arm::Load | Arm::FullLedger | Arm::Pipeline | Arm::Vault => all,
        }
    }
}
