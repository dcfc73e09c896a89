//! One worker's wall clock, by libfaketime: it can be made to jump while the worker runs. Its monotonic clock stays.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;

use crate::faults::{Fault, Tally};

/// Where Debian, Fedora and others put it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// How long the clock is wrong: long enough for the worker to log something.
const WRONG: Duration = Duration::from_secs(6);

/// A clock that can be set.
pub(crate) struct Clock {
    file: PathBuf,
    logs: PathBuf,
    worker: String,
    tally: Arc<Tally>,
}

impl Clock {
    /// A clock for this worker, and the environment that makes the worker read it. `None` without libfaketime.
    pub(crate) fn new(
        directory: &Path,
        logs: &Path,
        worker: &str,
        tally: &Arc<Tally>,
    ) -> Option<(Self, Vec<(String, String)>)> {
        let library = LIBRARIES.iter().find(|library| Path::new(library).exists())?;
        let file = directory.join("clock");
        fs::write(&file, "+0").ok()?;
        let environment = [
            ("LD_PRELOAD", (*library).to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let clock = Self { file, logs: logs.to_owned(), worker: worker.to_owned(), tally: Arc::clone(tally) };
        Some((clock, environment))
    }

    /// A month ahead or an hour back, and right again after a while.
    pub(crate) async fn jump(&self, ahead: bool) {
        let (offset, seconds) = if ahead { ("+30d", 30 * 86_400) } else { ("-1h", -3_600) };
        let now = masq::pipeline::now_ms() / 1000;
        let wrong = [hour(now + seconds), hour(now + seconds + 60)];
        let before = self.said(&wrong);
        fs::write(&self.file, offset).expect("the clock can be set");
        sleep(WRONG).await;
        fs::write(&self.file, "+0").expect("the clock can be set");
        if self.said(&wrong) > before {
            self.tally.observed(Fault::ClockJump);
        }
    }

    /// How many lines of the worker's logs are from these hours.
    fn said(&self, hours: &[String]) -> usize {
        let starts = hours.iter().map(|hour| format!("\"timestamp\":\"{hour}")).collect::<Vec<_>>();
        let logs = fs::read_dir(&self.logs).into_iter().flatten().flatten();
        let own = logs.filter(|log| log.file_name().to_string_lossy().starts_with(&self.worker));
        let texts = own.filter_map(|log| fs::read_to_string(log.path()).ok());
        let lines = |text: String| text.lines().filter(|line| starts.iter().any(|start| line.contains(start))).count();
        texts.map(lines).sum()
    }
}

/// The beginning of an hour's timestamps, `2026-01-31T13`.
fn hour(seconds: i64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp(seconds).expect("a time of our days");
    format!("{}T{:02}", moment.date(), moment.hour())
}
