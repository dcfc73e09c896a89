//! What the checker says of a campaign.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::Path,
    process::{Command, Output},
};

use crate::programs;

/// The checker's words, and whether it found nothing.
pub(crate) struct Verdict {
    pub(crate) is_sound: bool,
    pub(crate) printed: String,
}

impl Verdict {
    /// Lets the checker judge what a campaign left in `directory`.
    pub(crate) async fn of(directory: &Path) -> Self {
        let output = checker(&[directory.as_os_str()]).await;
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

/// Spoils the evidence in `directory`, and says whether the checker finds all of that.
pub(crate) async fn spoilt_is_found(directory: &Path) -> (bool, String) {
    let output = checker(&["--spoil".as_ref(), directory.as_os_str()]).await;
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

async fn checker(arguments: &[&OsStr]) -> Output {
    let mut command = Command::new(programs::python());
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/checker")).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("the checker can be waited for");
    output.expect("the checker runs")
}
