//! `[keys]`: where the keys are, and which of them AWS KMS keeps.

use std::path::PathBuf;

use super::layers::Values;

/// `[keys]`
#[derive(Clone, Debug)]
pub struct KeysConfig {
    /// The directory with `token.key`, `subject.key` and `recovery.pub`.
    pub dir: Option<PathBuf>,
    /// The key of AWS KMS that makes the keys of epochs, by ARN, alias or id; `None`: they are random.
    pub kms_epoch_key: Option<String>,
}

impl KeysConfig {
    pub(super) fn build(values: &Values) -> Self {
        Self {
            dir: values.text("dir").map(PathBuf::from),
            kms_epoch_key: values.text("kms_epoch_key").map(str::to_owned),
        }
    }
}
