//! What the checker says of a campaign.

use std::{collections::BTreeSet, path::Path, process::Command};

use crate::programs;

/// The checker's words, and whether it found nothing.
pub(crate) struct Verdict {
    pub(crate) is_sound: bool,
    pub(crate) printed: String,
}

impl Verdict {
    /// Lets the checker judge what a campaign left in `directory`.
    pub(crate) async fn of(directory: &Path) -> Self {
        let mut command = Command::new(programs::python());
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/checker")).arg(directory);
        let output =
            tokio::task::spawn_blocking(move || command.output()).await.expect("the checker can be waited for");
        let output = output.expect("the checker runs");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        // One that fails itself has found nothing, and has not found that there is nothing.
        let finished = printed.trim_end().ends_with("violations");
        assert!(finished, "the checker fails: {printed}{}", String::from_utf8_lossy(&output.stderr));
        Self { is_sound: output.status.success(), printed }
    }

    /// The kinds of violation that it found.
    pub(crate) fn kinds(&self) -> BTreeSet<&str> {
        let violations = self.printed.lines().filter_map(|line| line.strip_prefix("VIOLATION "));
        violations.filter_map(|violation| violation.split(':').next()).collect()
    }
}
