//! What the vault's own functions in the database refuse, and what helps: SQLSTATEs of class MQ, a class that no
//! PostgreSQL has. migrations/0005_audit.sql raises them.
//!
//! Of no other error is the server's message ever told. These messages are masq's own, made of policy, purposes and
//! numbers, and quote no row.

use thiserror::Error;
use tokio_postgres::Error;

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{said}")]
pub struct Refusal {
    /// What helps.
    pub remedy: Remedy,
    /// What the database said.
    pub said: String,
}

/// What helps against a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// MQ001: say why, or what, as it is asked for.
    SayWhy,
    /// MQ002: ask for less, or tomorrow.
    Tomorrow,
    /// MQ003: commit the request first. Whoever calls the functions by hand meets it; masq commits.
    Commit,
    /// MQ004: let a second person approve.
    Approval,
    /// MQ005: let somebody else approve.
    AnotherPerson,
    /// MQ006: ask anew.
    AskAnew,
    /// MQ007: replay the erasures.
    Replay,
    /// MQ008: finish the erasure, or have the owner say that there was a restore.
    NotRestored,
    /// MQ010: make tokens with the key that is active.
    ActiveKey,
    /// MQ011: let every epoch have another recipient first.
    Rewrap,
    /// MQ012: take the retired recipient out of recovery.pub.
    RetiredRecipient,
    /// MQ013: look where the rotation stands.
    AnotherStep,
    /// MQ014: take the recipient out of recovery.pub, or out of the configuration, on every worker first.
    WorkersFirst,
    /// MQ015: have it kept for as long as the policy says, or let the owner change that.
    OwnersPolicy,
    /// Another code: the schema is a newer masq's.
    NewerMasq,
}

impl Refusal {
    /// The refusal that this error is; `None` if it is an error of another kind.
    pub fn of(error: &Error) -> Option<Self> {
        let error = error.as_db_error()?;
        let remedy = Remedy::of(error.code().code())?;
        Some(Self { remedy, said: error.message().to_owned() })
    }
}

impl Remedy {
    fn of(sqlstate: &str) -> Option<Self> {
        Some(match sqlstate.strip_prefix("MQ")? {
            "001" => Self::SayWhy,
            "002" => Self::Tomorrow,
            "003" => Self::Commit,
            "004" => Self::Approval,
            "005" => Self::AnotherPerson,
            "006" => Self::AskAnew,
            "007" => Self::Replay,
            "008" => Self::NotRestored,
            "010" => Self::ActiveKey,
            "011" => Self::Rewrap,
            "012" => Self::RetiredRecipient,
            "013" => Self::AnotherStep,
            "014" => Self::WorkersFirst,
            "015" => Self::OwnersPolicy,
            _ => Self::NewerMasq,
        })
    }

    /// What to do, in words.
    pub fn advice(self) -> &'static str {
        match self {
            Self::SayWhy => "say --purpose, --ticket and --reason; the purposes stand in the table masq.purposes",
            Self::Tomorrow => {
                "ask for fewer tokens, or after midnight UTC; daily_quota in [vault] says how many a login may ask for"
            }
            Self::Commit => "commit the request, then fetch what it asks for: otherwise a ROLLBACK would hide it",
            Self::Approval => {
                "let somebody with another login run `masq approve` with the request's number, then go on"
            }
            Self::AnotherPerson => "somebody with another login of the database has to approve it",
            Self::AskAnew => {
                "ask anew: a request is answered for an hour, to the login that made it, and for what it named; an erasure \
                 once"
            }
            Self::Replay => {
                "after a restore, first erase again who was erased since: masq forget --replay FILE, with the file of \
                 `[vault] erasures`"
            }
            Self::NotRestored => {
                "an erasure that was cut off is finished by the same `masq forget` again; if a restore went unnoticed, as \
                 from a snapshot of the disk, the owner of the schema says so: UPDATE masq.home SET identity = 'restored'"
            }
            Self::ActiveKey => "put the file of the active key in the place of token.key: `masq keys status`",
            Self::Rewrap => {
                "seal those epochs to another recipient first: masq keys rotate --recovery --identity recovery.key, or --kms"
            }
            Self::RetiredRecipient => {
                "take the retired key out of recovery.pub, or out of [keys], and start the worker again"
            }
            Self::AnotherStep => "somebody else may be at it: masq keys rotate --token says where things stand",
            Self::WorkersFirst => {
                "take its line out of recovery.pub, or kms_epoch_key out of [keys], on every worker, start them again, and \
                 wait two minutes"
            }
            Self::OwnersPolicy => {
                "if less is to be kept, run `masq migrate` with this configuration as the schema's owner"
            }
            Self::NewerMasq => "use the masq that made this schema, or a newer one",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_class_mq_is_a_refusal_and_none_of_it_is_lost() {
        assert_eq!(Remedy::of("MQ002"), Some(Remedy::Tomorrow));
        assert_eq!(Remedy::of("MQ010"), Some(Remedy::ActiveKey));
        assert_eq!(Remedy::of("MQ999"), Some(Remedy::NewerMasq));
        assert_eq!((Remedy::of("42501"), Remedy::of("P0001"), Remedy::of("")), (None, None, None));
    }
}
