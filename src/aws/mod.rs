//! One signed JSON call to an AWS service: HTTP, credentials, endpoint, signature and errors, each a file.
//!
//! It knows no service's operations: [`crate::queue::sqs`] and [`crate::vault::kms`] do. It does not back off either: whoever calls does
//! that, and a call is repeated here only where its failure was of our own making (a pooled connection that the server
//! had closed, credentials that had expired, a clock that is wrong), once each.
//!
//! The protocol is AWS JSON 1.0 or 1.1, which differ in nothing that is used here but their name:
//! <https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html>. For endpoints that know only the older query
//! protocol it is translated ([`protocol`]).

mod connector;
mod credentials;
mod endpoint;
mod error;
mod http;
mod protocol;
mod rds;
mod sign;
mod sigv4;
#[cfg(test)]
pub(crate) mod stub;
#[cfg(test)]
mod tests;
mod xml;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hyper::Uri;

#[cfg(any(test, fuzzing))]
pub(crate) use self::error::from_answer;
pub(crate) use self::xml::Element;
use self::{
    credentials::{Credentials, Snapshot},
    endpoint::Wanted,
    http::{Answer, HttpClient},
    protocol::{Hint, Spoken, Wire},
};
pub use self::{
    error::AwsError,
    protocol::{Form, Protocol, Query},
    rds::RdsTokens,
    xml::Malformed,
};
use crate::queue::room::{Room, Share};

/// Which service is called.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Its name in host names and signatures: `sqs`.
    pub name: &'static str,
    /// What stands before the action in `X-Amz-Target`: `AmazonSQS`.
    pub target: &'static str,
    /// The version of the protocol that it speaks: `application/x-amz-json-1.0` or `-1.1`.
    pub content_type: &'static str,
    /// The variable with which AWS's tools move this service's endpoint alone: `AWS_ENDPOINT_URL_SQS`.
    pub endpoint_variable: &'static str,
    /// Its older protocol, where it has one.
    pub query: Option<Query>,
}

/// What is known about where to go. Whatever is `None` comes from AWS's own rules.
#[derive(Clone, Debug, Default)]
pub struct AwsSettings {
    /// Where the service answers; wins over everything.
    pub endpoint: Option<String>,
    /// The URL of the resource, whose host is where it answers and often names the region.
    pub resource: Option<String>,
    /// The region of the resource, where its name says one, as an ARN does.
    pub region: Option<String>,
    /// A PEM file of trusted authorities, in place of the system's; wins over `AWS_CA_BUNDLE`.
    pub ca_bundle: Option<PathBuf>,
    /// What to speak with a service that has an older protocol, too.
    pub protocol: Protocol,
}

/// One kind of call.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its name, as the service documents it.
    pub action: &'static str,
    /// How long one attempt may take from connecting to the last byte.
    pub timeout: Duration,
    /// Whether doing it twice does no harm.
    pub repeatable: bool,
}

impl Operation {
    /// The action of IAM that allows it: batches have none of their own.
    fn permission(self, service: &Service) -> String {
        format!("{}:{}", service.name, self.action.strip_suffix("Batch").unwrap_or(self.action))
    }
}

/// A client of one service in one region. Cloning it is cheap; all clones share connections and credentials.
#[derive(Clone)]
pub struct AwsClient {
    inner: Arc<Inner>,
}

struct Inner {
    service: Service,
    http: HttpClient,
    credentials: Credentials,
    region: String,
    endpoint: Uri,
    /// Seconds that the service's clock is ahead of ours. 0 until the service has refused a signature for it, so that
    /// nobody's `Date` header is trusted without need.
    clock_offset: AtomicI64,
    spoken: Spoken,
}

/// What came of one attempt, and what it says of the protocol where that is open.
struct Failure {
    error: AwsError,
    hint: Hint,
}

impl From<AwsError> for Failure {
    fn from(error: AwsError) -> Self {
        Self { error, hint: Hint::Nothing }
    }
}

type Whole = (Bytes, Option<Share>);

impl AwsClient {
    /// Finds region, endpoint and credentials as the AWS tools do; `lookup` reads the environment. Asks the network
    /// only where the region or the endpoint is known to nobody but the instance's metadata service: the first
    /// credentials are fetched by the first call.
    ///
    /// # Errors
    /// [`AwsError::Configuration`] for an address or a CA bundle that is none, or where no region can be found.
    pub fn connect(
        service: Service,
        settings: AwsSettings,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> impl Future<Output = Result<Self, AwsError>> + Send + use<> {
        let wanted = Wanted::new(service, &settings, lookup);
        let static_keys = credentials::from_environment(lookup);
        let profile = lookup("AWS_PROFILE");
        let ca_bundle = settings.ca_bundle.or_else(|| lookup("AWS_CA_BUNDLE").map(PathBuf::from));
        async move {
            let http = HttpClient::new(ca_bundle.as_deref())?;
            let place = wanted?.resolve(&http).await?;
            http.check_roots(&place.endpoint)?;
            let provider = static_keys.unwrap_or_else(|| place.credentials(&http));
            let credentials = Credentials::new(provider, profile);
            let spoken = Spoken::new(settings.protocol, service.query, place.is_aws());
            Ok(Self::new(service, http, credentials, place.region, place.endpoint, spoken))
        }
    }

    fn new(
        service: Service,
        http: HttpClient,
        credentials: Credentials,
        region: String,
        endpoint: Uri,
        spoken: Spoken,
    ) -> Self {
        tracing::debug!(service = service.name, region, %endpoint, "aws client");
        let clock_offset = AtomicI64::new(0);
        Self { inner: Arc::new(Inner { service, http, credentials, region, endpoint, clock_offset, spoken }) }
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        &self.inner.region
    }

    /// Sends one request and answers the body of the service's answer.
    ///
    /// # Errors
    /// Any [`AwsError`] but `Configuration`, named by what helps.
    pub async fn call(&self, operation: Operation, body: Bytes) -> Result<Bytes, AwsError> {
        Ok(self.call_within(operation, body, None).await?.0)
    }

    /// The same, for an answer that may be large: its bytes are taken from `room` before they are read, which may mean
    /// waiting. That is not counted towards the operation's time-out.
    ///
    /// # Errors
    /// As [`AwsClient::call`].
    pub async fn call_within(&self, operation: Operation, body: Bytes, room: Option<&Room>) -> Result<Whole, AwsError> {
        let mut tried = Remedies::default();
        loop {
            let (credentials, wire) = (self.inner.credentials.get().await?, self.inner.spoken.wire());
            let failure = match self.attempt(operation, wire, body.clone(), &credentials, room).await {
                Ok(answer) => {
                    self.inner.spoken.settle(wire);
                    return Ok(answer);
                }
                Err(failure) if self.inner.spoken.is_open() => {
                    match Box::pin(self.in_the_other(operation, body.clone(), &credentials, room, failure)).await {
                        Ok(answer) => return Ok(answer),
                        Err(error) => error,
                    }
                }
                Err(failure) => failure.error,
            };
            tracing::debug!(action = operation.action, error = %failure, "a request failed");
            if !self.remedy(&failure, operation, &credentials, &mut tried) {
                return Err(failure);
            }
        }
    }

    /// Whether it is still open which protocol the endpoint understands.
    pub fn finds_out(&self) -> bool {
        self.inner.spoken.is_open()
    }

    /// Whether the endpoint knows only the older protocol: then nothing was done of what it was asked in JSON.
    pub fn speaks_query(&self) -> bool {
        self.inner.spoken.wire() == Wire::Query
    }

    /// After a failure in JSON with an endpoint of which nothing is known yet: the same in the query protocol, if that
    /// may help. Only what is understood there is taken for an answer.
    async fn in_the_other(
        &self,
        operation: Operation,
        body: Bytes,
        by: &Snapshot,
        room: Option<&Room>,
        failure: Failure,
    ) -> Result<Whole, AwsError> {
        let spoken = &self.inner.spoken;
        if let Hint::Speaks(wire) = failure.hint {
            spoken.settle(wire);
        }
        if !failure.hint.allows_query(operation.repeatable) {
            return Err(failure.error);
        }
        match self.attempt(operation, Wire::Query, body, by, room).await {
            Ok(answer) => {
                spoken.settle(Wire::Query);
                Ok(answer)
            }
            Err(Failure { error, hint: Hint::Speaks(wire) }) => {
                spoken.settle(wire);
                Err(error)
            }
            Err(_not_understood_either) => Err(failure.error),
        }
    }

    async fn attempt(
        &self,
        operation: Operation,
        wire: Wire,
        body: Bytes,
        by: &Snapshot,
        room: Option<&Room>,
    ) -> Result<Whole, Failure> {
        let Inner { service, http, region, endpoint, clock_offset, .. } = &*self.inner;
        let offset = clock_offset.load(Ordering::Relaxed);
        let signed_at = shifted(SystemTime::now(), offset);
        let query = service.query.filter(|_| wire == Wire::Query);
        let translated = query.map(|query| query.request(operation.action, &body, endpoint)).transpose()?;
        let (endpoint, body) = translated.as_ref().map_or((endpoint, body), |(uri, form)| (uri, form.clone()));
        let what = sign::Request { service, action: operation.action, region, endpoint, wire };
        let answer = http.send(what.sign(body, by, signed_at)?, operation.timeout, room).await?;
        let Answer { status, headers, body, share } = answer;
        if status.is_success() {
            return match query {
                Some(query) => Ok((query.read(service.name, &body)?, share)),
                None => Ok((body, share)),
            };
        }
        let told = error::told(&headers, &body);
        let hint = Hint::of(wire, status, &told);
        let error = match error::of_told(operation.permission(service), status, &headers, told, signed_at) {
            AwsError::ClockSkew { seconds } => AwsError::ClockSkew { seconds: seconds + offset },
            other => other,
        };
        Err(Failure { error, hint })
    }

    /// Removes the cause of a failure where it is ours; says whether another attempt is worth it.
    fn remedy(&self, failure: &AwsError, operation: Operation, used: &Arc<Snapshot>, tried: &mut Remedies) -> bool {
        match failure {
            AwsError::Network { closed: true, .. } if operation.repeatable => {
                !std::mem::replace(&mut tried.connect, true)
            }
            AwsError::Denied { stale_credentials: true, .. } => {
                self.inner.credentials.forget(used);
                !std::mem::replace(&mut tried.renew, true)
            }
            AwsError::ClockSkew { seconds } => {
                tracing::warn!(seconds, "this machine's clock differs from the service's; signing with the service's");
                self.inner.clock_offset.store(*seconds, Ordering::Relaxed);
                !std::mem::replace(&mut tried.clock, true)
            }
            _ => false,
        }
    }
}

/// A moment, moved by so many seconds.
fn shifted(moment: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 { moment.checked_sub(by) } else { moment.checked_add(by) };
    moved.unwrap_or(moment)
}

/// What one call has already been repeated for.
#[derive(Default)]
struct Remedies {
    connect: bool,
    renew: bool,
    clock: bool,
}
