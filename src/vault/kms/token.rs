//! The token root as a blob that KMS opens: how `token.key` is then written, and how it is made and opened.
//!
//! ```text
//! masq-token-key-kms-v1 kid=1
//! # comments
//! arn:aws:kms:eu-west-1:123456789012:key/…   the key that opens the blob
//! AQIDAHh…                                   the blob, base64
//! ```
//! The encryption context is `{"masq:use": "token", "masq:kid": "1"}`: the blob of one key id is not taken for that of
//! another, and a policy can tell it from the keys of epochs.

use std::{collections::BTreeMap, num::NonZeroU8, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::{Context, KmsError, KmsKey, Wrapped};
use crate::vault::{
    keyfile::{self, KeyError, Kind},
    token::TokenRoot,
    token_files,
};

const HEADER: &str = "masq-token-key-kms-v1 kid=";
const COMMENT: &str = "\
# Makes the tokens that stand in masked columns, once AWS KMS has opened it with the key named below.
# Needed by every masq worker that writes this table, which needs kms:Decrypt with that key, too.
# Lost, or that key deleted: equal values no longer get equal tokens; old tokens stay as they are.
# Stolen: of no use to whoever may not use that key.
";

/// All token keys of a directory, by key id, those in clear and those that KMS opens. `lookup` reads the environment.
///
/// # Errors
/// Those of [`token_files::all`], and what KMS says.
pub async fn all(
    dir: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<NonZeroU8, TokenRoot>, KeyError> {
    let mut roots: BTreeMap<NonZeroU8, TokenRoot> = BTreeMap::new();
    for path in token_files::paths(dir) {
        let root = match WrappedRoot::parse(&path, &keyfile::read(Kind::Token, &path)?)? {
            Some(wrapped) => wrapped.open(lookup).await?,
            None => token_files::read(&path)?,
        };
        if roots.get(&root.kid()).is_some_and(|other| other.check_value() != root.check_value()) {
            return Err(KeyError::Malformed { path, problem: "another file has another key with its key id" });
        }
        roots.insert(root.kid(), root);
    }
    Ok(roots)
}

/// A token root that only KMS opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedRoot {
    /// The first byte of its tokens.
    pub kid: NonZeroU8,
    /// The key that opens it.
    pub arn: String,
    blob: Vec<u8>,
}

fn context(kid: NonZeroU8) -> Context {
    Context::from([("masq:use", "token".to_owned()), ("masq:kid", kid.to_string())])
}

impl WrappedRoot {
    /// Has KMS wrap a root.
    ///
    /// # Errors
    /// Any [`KmsError`].
    pub async fn wrap(key: &KmsKey, kid: NonZeroU8, root: &[u8; 32]) -> Result<Self, KmsError> {
        let Wrapped { blob, arn } = key.wrap(root, &context(kid)).await?;
        Ok(Self { kid, arn, blob })
    }

    /// Has KMS open it. `lookup` reads the environment.
    ///
    /// # Errors
    /// Any [`KmsError`].
    pub fn open(
        self,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> impl Future<Output = Result<TokenRoot, KmsError>> + Send + use<> {
        let key = KmsKey::connect(&self.arn, lookup);
        async move {
            let (root, _arn) = key.await?.open(&self.blob, &context(self.kid)).await?;
            Ok(TokenRoot::new(self.kid, &root))
        }
    }

    /// The text of its file.
    pub fn render(&self) -> Zeroizing<String> {
        let blob = BASE64_STANDARD.encode(&self.blob);
        Zeroizing::new(format!("{HEADER}{}\n{COMMENT}{}\n{blob}\n", self.kid, self.arn))
    }

    /// Reads that text; `None`: it is of another kind, as of a root in clear. `path` is for the complaint.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn parse(path: &Path, text: &[u8]) -> Result<Option<Self>, KeyError> {
        let Some(text) = std::str::from_utf8(text).ok() else { return Ok(None) };
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let Some(kid) = lines.next().and_then(|header| header.strip_prefix(HEADER)) else { return Ok(None) };
        let malformed = |problem| KeyError::Malformed { path: path.to_owned(), problem };
        let kid = kid.parse().map_err(|_| malformed("its key id is not between 1 and 255"))?;
        let arn = lines.next().filter(|line| line.starts_with("arn:")).ok_or_else(|| malformed("it names no key"))?;
        let blob = lines.next().and_then(|line| BASE64_STANDARD.decode(line).ok()).filter(|blob| !blob.is_empty());
        let blob = blob.ok_or_else(|| malformed("the wrapped key is missing or not base64"))?;
        match lines.next() {
            None => Ok(Some(Self { kid, arn: arn.to_owned(), blob })),
            Some(_) => Err(malformed("something follows the key")),
        }
    }
}
