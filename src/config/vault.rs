//! `[vault]`, `[dead_letters]` and `[audit]`: what is kept for the way back, for how long, and who may ask for how much.

use std::{fmt, path::PathBuf, time::Duration};

use super::{Auth, duration, given, layers::Values};

/// `[vault]`
#[derive(Clone)]
pub struct VaultConfig {
    /// The connection string of the database with the slots; `None`: they are where the rows are.
    pub slots_url: Option<String>,
    /// A file whose first line is the password for it.
    pub slots_password_file: Option<PathBuf>,
    /// What stands in where no password for it is given.
    pub slots_auth: Auth,
    /// How long a sealed value is kept; `None`: until its person is erased.
    pub retention: Option<Duration>,
    /// How long backups of the database with the slots are kept: so long an erasure takes to be complete.
    pub backup_retention: Duration,
    /// The file to which erasures are appended, to be replayed after a restore.
    pub erasures: Option<PathBuf>,
    /// A request for more tokens than this needs the approval of a second login.
    pub approve_above: u32,
    /// Tokens that one login may have revealed on one UTC day.
    pub daily_quota: u32,
}

impl VaultConfig {
    pub(super) fn build(values: &Values) -> Self {
        let number = |key| given(values.integer(key).and_then(|number| u32::try_from(number).ok()));
        Self {
            slots_url: values.text("slots_url").map(str::to_owned),
            slots_password_file: values.text("slots_password_file").map(PathBuf::from),
            slots_auth: Auth::build(values, "slots_auth"),
            retention: duration(values, "retention"),
            backup_retention: given(duration(values, "backup_retention")),
            erasures: values.text("erasures").map(PathBuf::from),
            approve_above: number("approve_above"),
            daily_quota: number("daily_quota"),
        }
    }
}

impl fmt::Debug for VaultConfig {
    /// Without the connection string, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultConfig").field("retention", &self.retention).finish_non_exhaustive()
    }
}

/// `[dead_letters]`
#[derive(Clone, Debug)]
pub struct DeadLettersConfig {
    /// How long one is kept; `None`: until somebody purges it.
    pub retention: Option<Duration>,
}

impl DeadLettersConfig {
    pub(super) fn build(values: &Values) -> Self {
        Self { retention: duration(values, "retention") }
    }
}

/// `[audit]`
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The file to which signed checkpoints are appended.
    pub checkpoints: Option<PathBuf>,
}

impl AuditConfig {
    pub(super) fn build(values: &Values) -> Self {
        Self { checkpoints: values.text("checkpoints").map(PathBuf::from) }
    }
}
