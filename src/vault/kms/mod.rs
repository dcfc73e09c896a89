//! AWS KMS: three operations with one key, on the lean client of [`crate::aws`].
//!
//! What masq asks of them are the keys of epochs ([`epochs`]) and the token root ([`token`]). A key never leaves KMS:
//! what it has made or wrapped is a blob that KMS opens again for whoever may, and only with the same encryption
//! context, which is no secret and stands in CloudTrail beside every call.
//! <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>

pub mod epochs;
mod error;
pub mod token;

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

pub use self::error::KmsError;
use crate::{
    aws::{AwsClient, AwsSettings, Operation, Service},
    backoff::Backoff,
};

const KMS: Service = Service {
    name: "kms",
    target: "TrentService",
    content_type: "application/x-amz-json-1.1",
    endpoint_variable: "AWS_ENDPOINT_URL_KMS",
    query: None,
};

/// How long one call may take. KMS answers in some 10 ms; longer bears a slow network, shorter finds out sooner that
/// nobody answers.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a call that fails for a passing reason is made again. Longer bears longer throttling; shorter says sooner
/// what is wrong. Whoever cannot wait at all (a worker with a batch) waits beside its work.
const PATIENCE: Duration = Duration::from_secs(10);

/// The delays between these calls: at most so long at first, and at most so long later.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// What a blob is bound to: names and values in clear.
pub type Context = BTreeMap<&'static str, String>;

/// One key of KMS, and the way to it. Cloning it is cheap.
#[derive(Clone)]
pub struct KmsKey {
    client: AwsClient,
    name: String,
}

/// What KMS made of a key: the blob, and the ARN of the key that opens it.
pub struct Wrapped {
    /// For KMS alone.
    pub blob: Vec<u8>,
    /// Of the key itself, also where it was named by an alias.
    pub arn: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ask<'a> {
    key_id: &'a str,
    encryption_context: &'a Context,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What<'a> {
    #[serde(rename_all = "PascalCase")]
    Make { key_spec: &'static str },
    #[serde(rename_all = "PascalCase")]
    Wrap { plaintext: &'a str },
    #[serde(rename_all = "PascalCase")]
    Open { ciphertext_blob: &'a str },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    key_id: String,
    ciphertext_blob: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    plaintext: Option<Zeroizing<String>>,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::deserialize(from)?.map(Zeroizing::new))
}

impl KmsKey {
    /// The way to the key of this name: an ARN of a key or an alias, `alias/…`, or a key id. `lookup` reads the
    /// environment, as AWS's tools do; an ARN names the region. Nothing is asked of KMS yet.
    ///
    /// # Errors
    /// [`KmsError::Configuration`] for a name, an address or a region that is none.
    pub fn connect(
        name: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> impl Future<Output = Result<Self, KmsError>> + Send + use<> {
        let region = region(name);
        let settings = AwsSettings { region: region.clone().flatten(), ..AwsSettings::default() };
        let (client, name) = (AwsClient::connect(KMS, settings, lookup), name.to_owned());
        async move {
            if region.is_none() {
                return Err(KmsError::no_name(&name));
            }
            // On the heap: finding the credentials is a future of 20 kB.
            let client = Box::pin(client).await.map_err(|error| KmsError::new(&name, "connect", &error))?;
            Ok(Self { client, name })
        }
    }

    /// As it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same key by another of its names.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { client: self.client.clone(), name: name.to_owned() }
    }

    /// A new key of 32 bytes, in clear and wrapped: GenerateDataKey.
    ///
    /// # Errors
    /// Any [`KmsError`]; one that may pass only after a while of trying.
    pub async fn make(&self, context: &Context) -> Result<(Zeroizing<[u8; 32]>, Wrapped), KmsError> {
        const ACTION: &str = "GenerateDataKey";
        let told = self.call(ACTION, context, What::Make { key_spec: "AES_256" }).await?;
        Ok((self.key(ACTION, &told)?, self.wrapped(ACTION, told)?))
    }

    /// Wraps a key: Encrypt.
    ///
    /// # Errors
    /// As [`KmsKey::make`].
    pub async fn wrap(&self, key: &[u8; 32], context: &Context) -> Result<Wrapped, KmsError> {
        const ACTION: &str = "Encrypt";
        let plaintext = Zeroizing::new(BASE64_STANDARD.encode(key));
        let told = self.call(ACTION, context, What::Wrap { plaintext: &plaintext }).await?;
        self.wrapped(ACTION, told)
    }

    /// Opens what this key has wrapped under the same context: Decrypt. Answers the key's ARN beside.
    ///
    /// # Errors
    /// As [`KmsKey::make`].
    pub async fn open(&self, blob: &[u8], context: &Context) -> Result<(Zeroizing<[u8; 32]>, String), KmsError> {
        const ACTION: &str = "Decrypt";
        let blob = BASE64_STANDARD.encode(blob);
        let told = self.call(ACTION, context, What::Open { ciphertext_blob: &blob }).await?;
        Ok((self.key(ACTION, &told)?, told.key_id))
    }

    async fn call(&self, action: &'static str, context: &Context, what: What<'_>) -> Result<Told, KmsError> {
        let operation = Operation { action, timeout: ANSWER, repeatable: true };
        let ask = Ask { key_id: &self.name, encryption_context: context, what };
        let body = serde_json::to_vec(&ask).map_err(|_| self.unreadable(action))?;
        let body = Bytes::from(body);
        let (deadline, mut backoff) = (Instant::now() + PATIENCE, Backoff::new(FIRST, LONGEST));
        loop {
            // On the heap: a call is rare here, and its future large in whatever waits for it.
            let answer = Box::pin(self.client.call(operation, body.clone())).await;
            match answer.map_err(|error| KmsError::new(&self.name, action, &error)) {
                Ok(answer) => return serde_json::from_slice(&answer).map_err(|_| self.unreadable(action)),
                Err(KmsError::Unavailable { .. }) if Instant::now() < deadline => {
                    sleep(backoff.next(fastrand::f64())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn key(&self, action: &'static str, told: &Told) -> Result<Zeroizing<[u8; 32]>, KmsError> {
        let plain = told.plaintext.as_ref().and_then(|plain| BASE64_STANDARD.decode(&**plain).ok());
        let plain = Zeroizing::new(plain.unwrap_or_default());
        let key = plain.as_slice().try_into();
        key.map(Zeroizing::new).map_err(|_| self.unreadable(action))
    }

    fn wrapped(&self, action: &'static str, told: Told) -> Result<Wrapped, KmsError> {
        let blob = told.ciphertext_blob.and_then(|blob| BASE64_STANDARD.decode(blob).ok());
        let blob = blob.filter(|blob| !blob.is_empty() && told.key_id.starts_with("arn:"));
        Ok(Wrapped { blob: blob.ok_or_else(|| self.unreadable(action))?, arn: told.key_id })
    }

    fn unreadable(&self, action: &'static str) -> KmsError {
        let reason = "what answers is no KMS: check AWS_ENDPOINT_URL_KMS and AWS_ENDPOINT_URL".to_owned();
        KmsError::Unavailable { key: self.name.clone(), action, reason }
    }
}

/// The region that a key's name tells, if it is an ARN; `None`: it is no name of a key.
fn region(name: &str) -> Option<Option<String>> {
    let is_word =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b));
    let is_key = |text: &str| is_word(text) && !text.contains('/');
    if let Some(alias) = name.strip_prefix("alias/") {
        return is_word(alias).then_some(None);
    }
    let Some(arn) = name.strip_prefix("arn:") else { return is_key(name).then_some(None) };
    let parts: Vec<&str> = arn.splitn(5, ':').collect();
    let [_partition, "kms", region, _account, resource] = parts.as_slice() else { return None };
    let (kind, rest) = resource.split_once('/')?;
    let is_good = !region.is_empty() && (kind == "key" && is_key(rest) || kind == "alias" && is_word(rest));
    is_good.then(|| Some((*region).to_owned()))
}

#[cfg(test)]
mod tests;
