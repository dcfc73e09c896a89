//! Exit codes, and which error has which: a contract with whoever calls masq from a script or a scheduler.
//!
//! From 69 on they are those of BSD's `sysexits.h`.

use std::{io, process::ExitCode};

use super::report::Failure;
use crate::{
    check::{Finding, Severity},
    config::Complaints,
    db::{ConnectError, DbError, conninfo::ConninfoError},
    pipeline::PipelineError,
    queue::QueueError,
    start::StartError,
    vault::{
        identity::IdentityError,
        keyring::KeyError,
        kms::KmsError,
        refusal::{Refusal, Remedy},
        rotate::RotateError,
    },
};

/// How masq ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// Done.
    Done = 0,
    /// The command line is wrong.
    Usage = 2,
    /// Done, but not everything was accepted.
    Rejects = 3,
    /// Something that masq depends on is not there: a server, or room to write.
    Absent = 69,
    /// A defect of masq.
    Bug = 70,
    /// Stopped before the end; doing it again goes on.
    Unfinished = 75,
    /// A permission is missing.
    Denied = 77,
    /// Configuration, keys or schema must be changed first.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// For a file that cannot be read or written.
    pub(super) fn of_file(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Absent,
            _ => Self::Config,
        }
    }

    /// For what is not ready, by the worst of it. Notes are none of its business.
    pub(super) fn of_findings(findings: &[Finding]) -> Self {
        match findings.iter().map(|finding| finding.severity).max() {
            Some(Severity::Absent) => Self::Absent,
            Some(Severity::Denied) => Self::Denied,
            Some(Severity::Refused) => Self::Config,
            Some(Severity::Note) | None => Self::Done,
        }
    }

    fn of_key(error: &KeyError) -> Self {
        match error {
            KeyError::Unreadable { source, .. } | KeyError::Unwritable { source, .. } => Self::of_file(source),
            KeyError::NoRandomness | KeyError::Kms(KmsError::Unavailable { .. }) => Self::Absent,
            KeyError::Kms(KmsError::Denied { .. }) => Self::Denied,
            _ => Self::Config,
        }
    }
}

impl From<Complaints> for Failure {
    fn from(complaints: Complaints) -> Self {
        Self::new(Exit::Config, complaints)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::of(Exit::of_key(&error), &error)
    }
}

impl From<KmsError> for Failure {
    fn from(error: KmsError) -> Self {
        KeyError::from(error).into()
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let exit = match &error {
            IdentityError::File(error) => Exit::of_key(error),
            IdentityError::NoFile { .. } | IdentityError::AnotherKey { .. } => Exit::Config,
            IdentityError::PassphraseNeeded => Exit::Usage,
            IdentityError::Locked(_) => Exit::Denied,
        };
        Self::of(exit, &error)
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        let exit = match &error {
            QueueError::Unavailable { .. } => Exit::Absent,
            QueueError::Denied { .. } => Exit::Denied,
        };
        Self::of(exit, &error)
    }
}

impl From<ConninfoError> for Failure {
    fn from(error: ConninfoError) -> Self {
        Self::of(Exit::Config, &error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let exit = match &error {
            ConnectError::Unavailable(_) => Exit::Absent,
            ConnectError::Denied(_) => Exit::Denied,
            ConnectError::Misconfigured(_) | ConnectError::Tls(_) => Exit::Config,
        };
        Self::of(exit, &error)
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        let exit = match &error {
            DbError::Unavailable(_) => Exit::Absent,
            DbError::Denied(_) => Exit::Denied,
            DbError::Misconfigured(_) => Exit::Config,
            DbError::Refused(refusal) => return refusal.clone().into(),
        };
        Self::of(exit, &error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal.remedy {
            Remedy::SayWhy | Remedy::AskAnew => Exit::Usage,
            Remedy::Tomorrow | Remedy::Approval | Remedy::Commit => Exit::Unfinished,
            Remedy::AnotherPerson | Remedy::Replay => Exit::Denied,
            Remedy::WorkersFirst => Exit::Unfinished,
            Remedy::Rewrap | Remedy::RetiredRecipient | Remedy::AnotherStep => Exit::Config,
            Remedy::NotRestored | Remedy::ActiveKey | Remedy::OwnersPolicy | Remedy::NewerMasq => Exit::Config,
        };
        Self::of(exit, &refusal).hint(refusal.remedy.advice())
    }
}

impl From<RotateError> for Failure {
    fn from(error: RotateError) -> Self {
        match error {
            RotateError::Database(error) => error.into(),
            RotateError::Keys(error) => error.into(),
            RotateError::AnotherKey { .. } => Self::of(Exit::Config, &error)
                .hint("point --keys at the directory with the keys of this database: masq keys status"),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Absent(_) => Exit::Absent,
            StartError::Denied(_) => Exit::Denied,
            StartError::Keys(error) => Exit::of_key(error),
            StartError::Problems(findings) => Exit::of_findings(findings),
            StartError::Domain(_) => Exit::Config,
        };
        Self::of(exit, &error)
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        let exit = match &error {
            PipelineError::Bug => Exit::Bug,
        };
        Self::of(exit, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let found = |severities: &[Severity]| {
            let finding = |severity: &Severity| Finding::new(*severity, "queue", "", "");
            Exit::of_findings(&severities.iter().map(finding).collect::<Vec<_>>())
        };
        assert_eq!(found(&[]), Exit::Done);
        assert_eq!(found(&[Severity::Note]), Exit::Done);
        assert_eq!(found(&[Severity::Refused, Severity::Note]), Exit::Config);
        assert_eq!(found(&[Severity::Refused, Severity::Denied]), Exit::Denied);
        assert_eq!(found(&[Severity::Absent, Severity::Denied]), Exit::Absent);
    }
}
