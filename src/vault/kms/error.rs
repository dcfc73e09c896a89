//! Why KMS does not do what was asked, by what helps. Each names the key, the call, the cause and the remedy.

use thiserror::Error;

use crate::aws::AwsError;

/// Why KMS does not do what was asked, by what helps.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KmsError {
    /// Wait: the network, a time-out, throttling, a fault of the service.
    #[error("KMS key {key}: {action}: {reason}")]
    #[allow(missing_docs)] // see the enum
    Unavailable { key: String, action: &'static str, reason: String },
    /// Somebody must allow it, or give other credentials.
    #[error("KMS key {key}: {action}: {reason}")]
    #[allow(missing_docs)] // see the enum
    Denied { key: String, action: &'static str, reason: String },
    /// Take another key, or make this one usable.
    #[error("KMS key {key}: {action}: {code}: {remedy}")]
    #[allow(missing_docs)] // see the enum
    Unusable { key: String, action: &'static str, code: String, remedy: &'static str },
    /// Take the key that made it.
    #[error("KMS key {key}: {action}: another key of KMS has made it: name that one")]
    #[allow(missing_docs)] // see the enum
    OtherKey { key: String, action: &'static str },
    /// Nothing helps but an older copy: it was changed, or made for something else.
    #[error("KMS key {key}: {action}: the blob was changed, or made for something else: restore it from a copy")]
    #[allow(missing_docs)] // see the enum
    Tampered { key: String, action: &'static str },
    /// A name, an address or a region that cannot be used.
    #[error("{0}")]
    Configuration(String),
}

impl KmsError {
    /// What the client says, of a call with this key.
    pub(super) fn new(key: &str, action: &'static str, error: &AwsError) -> Self {
        let (key, reason) = (key.to_owned(), error.to_string());
        match error {
            AwsError::Network { .. }
            | AwsError::Timeout { .. }
            | AwsError::Throttled { .. }
            | AwsError::Server { .. }
            | AwsError::Unreadable { .. }
            | AwsError::Credentials { passing: true, .. } => Self::Unavailable { key, action, reason },
            AwsError::Credentials { .. } | AwsError::Denied { .. } | AwsError::ClockSkew { .. } => {
                Self::Denied { key, action, reason }
            }
            AwsError::NotFound { code } => {
                let remedy = "there is no such key: check its name, the account and the region";
                Self::Unusable { key, action, code: code.clone(), remedy }
            }
            AwsError::Rejected { code, .. } => Self::of_code(key, action, code, reason),
            AwsError::Configuration(what) => Self::Configuration(what.clone()),
        }
    }

    /// <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html#API_Decrypt_Errors>
    fn of_code(key: String, action: &'static str, code: &str, reason: String) -> Self {
        let remedy = match code {
            "InvalidCiphertextException" => return Self::Tampered { key, action },
            "IncorrectKeyException" => return Self::OtherKey { key, action },
            "DisabledException" => "the key is disabled: enable it",
            "KMSInvalidStateException" => {
                "the key is pending deletion or import: cancel the deletion, or finish the import; what it has wrapped is \
                 lost with it"
            }
            "InvalidKeyUsageException" => {
                "the key is for something else: name a symmetric key that encrypts and decrypts"
            }
            _ => return Self::Configuration(format!("KMS key {key}: {action}: {reason}")),
        };
        Self::Unusable { key, action, code: code.to_owned(), remedy }
    }

    /// What was given as a key's name is none.
    pub(super) fn no_name(text: &str) -> Self {
        Self::Configuration(format!(
            "{text:?} names no key of KMS: write its ARN, its id, or alias/ and the name of an alias"
        ))
    }
}
