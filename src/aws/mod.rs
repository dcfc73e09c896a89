//! One signed JSON call to an AWS service: HTTP, credentials, endpoint, signature and errors, each a file.
//!
//! It knows no service's operations: [`crate::queue::sqs`] and [`crate::vault::kms`] do. It does not back off either: whoever calls does
//! that, and a call is repeated here only where its failure was of our own making (a pooled connection that the server
//! had closed, credentials that had expired, a clock that is wrong), once each.
//!
//! The protocol is AWS JSON 1.0 or 1.1, which differ in nothing that is used here but their name:
//! <https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html>. For endpoints that know only the older query
//! protocol it is translated ([`protocol`]).

mod call;
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
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use hyper::Uri;

#[cfg(any(test, fuzzing))]
pub(crate) use self::error::from_answer;
pub(crate) use self::xml::Element;
use self::{
    credentials::Credentials,
    endpoint::{Place, Wanted},
    http::HttpClient,
    protocol::{Spoken, Wire},
};
pub use self::{
    error::AwsError,
    protocol::{Form, Protocol, Query},
    rds::RdsTokens,
    xml::Malformed,
};

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
            let Place { region, endpoint, .. } = place;
            Ok(Self::new(Inner { service, http, credentials, region, endpoint, clock_offset: 0.into(), spoken }))
        }
    }

    fn new(inner: Inner) -> Self {
        let Inner { service, region, endpoint, .. } = &inner;
        tracing::debug!(service = service.name, region, %endpoint, "aws client");
        Self { inner: Arc::new(inner) }
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        &self.inner.region
    }

    /// Whether it is still open which protocol the endpoint understands.
    pub fn finds_out(&self) -> bool {
        self.inner.spoken.is_open()
    }

    /// Whether the endpoint knows only the older protocol: then nothing was done of what it was asked in JSON.
    pub fn speaks_query(&self) -> bool {
        self.inner.spoken.wire() == Wire::Query
    }
}
