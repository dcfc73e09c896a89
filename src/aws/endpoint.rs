//! Where a service answers, and for which region requests are signed.
//!
//! The order for the address: what the user set, then `AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL`, a profile's
//! `endpoint_url`, the host of the resource's own URL, and last the service's public name in the region
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>).
//! The order for the region: the one that the address names, since no other could work there; then the one that the
//! resource's URL or ARN names, `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile, the instance's metadata.

use aws_config::{
    BehaviorVersion, Region, SdkConfig,
    meta::region::RegionProviderChain,
    profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider},
    provider_config::ProviderConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::TokioSleep;
use hyper::Uri;

use super::{AwsError, AwsSettings, Service, credentials::LocalCredentials, http::HttpClient};

/// What settings and environment say about the place of a service.
#[derive(Clone)]
pub(super) struct Wanted {
    service: Service,
    endpoint: Option<Uri>,
    resource: Option<Uri>,
    region: Option<String>,
    ignore_profile_endpoint: bool,
    profile: Option<String>,
}

/// A service's place, and aws-config's answer, which knows where credentials come from.
pub(super) struct Place {
    pub(super) region: String,
    pub(super) endpoint: Uri,
    local: bool,
    config: SdkConfig,
}

impl Wanted {
    /// Reads settings and environment.
    pub(super) fn new(
        service: Service,
        settings: &AwsSettings,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, AwsError> {
        let get = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let ignored = get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| is_true(&value));
        let variable = |name| if ignored { None } else { get(name) };
        let endpoint = settings
            .endpoint
            .clone()
            .or_else(|| variable(service.endpoint_variable))
            .or_else(|| variable("AWS_ENDPOINT_URL"))
            .map(|text| parse(&text, "endpoint"))
            .transpose()?;
        let resource = settings.resource.as_deref().map(|text| parse(text, "URL")).transpose()?;
        let region = endpoint
            .as_ref()
            .and_then(region_of)
            .or_else(|| resource.as_ref().and_then(region_of))
            .or_else(|| settings.region.clone())
            .or_else(|| get("AWS_REGION"))
            .or_else(|| get("AWS_DEFAULT_REGION"));
        let profile = get("AWS_PROFILE");
        Ok(Self { service, endpoint, resource, region, ignore_profile_endpoint: ignored, profile })
    }

    /// Asks the profile and, where nothing else names a region, the instance's metadata.
    pub(super) async fn resolve(self, http: &HttpClient) -> Result<Place, AwsError> {
        // On the heap: aws-config's future is of 25 kB.
        let config = Box::pin(self.load(http)).await;
        let region = config.region().map(ToString::to_string);
        let missing = "no AWS region: set AWS_REGION, or name the queue by its full URL, the key by its ARN";
        let region = region.ok_or_else(|| AwsError::Configuration(missing.to_owned()))?;
        let from_profile = match (&self.endpoint, config.endpoint_url()) {
            (None, Some(text)) if !self.ignore_profile_endpoint => Some(parse(text, "endpoint_url of the profile")?),
            _ => None,
        };
        let names = Names {
            service: self.service.name,
            region: &region,
            fips: config.use_fips().unwrap_or(false),
            dual_stack: config.use_dual_stack().unwrap_or(false),
        };
        let endpoint = match self.endpoint.or(from_profile) {
            Some(endpoint) => endpoint,
            None => names.endpoint(self.resource.as_ref())?,
        };
        Ok(Place { local: is_local(&endpoint), region, endpoint, config })
    }

    async fn load(&self, http: &HttpClient) -> SdkConfig {
        // Dated, so that an update of the library cannot change time-outs and retries unseen.
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http.clone())
            .sleep_impl(TokioSleep::new());
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        let local = self.endpoint.as_ref().or(self.resource.as_ref()).is_some_and(is_local);
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        } else if local {
            // No metadata service is asked for what a stand-in does not care about: it would cost seconds.
            let profile = ProfileFileRegionProvider::new();
            loader = loader.region(RegionProviderChain::first_try(profile).or_else(Region::from_static("us-east-1")));
        }
        loader.load().await
    }
}

impl Place {
    /// Whether it is AWS itself, by the host's name.
    pub(super) fn is_aws(&self) -> bool {
        self.endpoint.host().is_some_and(is_aws)
    }

    /// Where credentials come from. A stand-in on this machine or network is content with any, so that where none are
    /// set up no metadata service is asked for them.
    pub(super) fn credentials(&self, http: &HttpClient) -> SharedCredentialsProvider {
        match self.config.credentials_provider() {
            Some(chain) if !self.local => chain,
            _ => {
                let config = ProviderConfig::empty()
                    .with_http_client(http.clone())
                    .with_sleep_impl(TokioSleep::new())
                    .with_region(Some(Region::new(self.region.clone())));
                let profile = ProfileFileCredentialsProvider::builder().configure(&config).build();
                SharedCredentialsProvider::new(LocalCredentials(profile))
            }
        }
    }
}

/// What makes up a public host name of AWS.
struct Names<'a> {
    service: &'a str,
    region: &'a str,
    fips: bool,
    dual_stack: bool,
}

impl Names<'_> {
    /// The resource's own host, unless that is AWS's and another of AWS's names is wanted.
    fn endpoint(&self, resource: Option<&Uri>) -> Result<Uri, AwsError> {
        if let Some(resource) = resource {
            let host = resource.host().unwrap_or_default();
            // A private link (vpce) is asked for by name. The old names (eu-west-1.queue.amazonaws.com) are not certain
            // to speak the JSON protocol.
            let public = is_aws(host) && !host.contains(".vpce.");
            let current = host.starts_with("sqs.") || host.starts_with("sqs-fips.");
            if !public || (current && !self.fips && !self.dual_stack) {
                return origin(resource);
            }
        }
        parse(&self.public(), "endpoint")
    }

    /// <https://docs.aws.amazon.com/general/latest/gr/sqs-service.html>
    fn public(&self) -> String {
        let Self { service, region, .. } = self;
        let fips = if self.fips { "-fips" } else { "" };
        let domain = match (region.starts_with("cn-"), self.dual_stack) {
            (false, false) => "amazonaws.com",
            (false, true) => "api.aws",
            (true, false) => "amazonaws.com.cn",
            (true, true) => "api.amazonwebservices.com.cn",
        };
        format!("https://{service}{fips}.{region}.{domain}")
    }
}

/// A URL that requests can be sent to. What is wrong with it is said without it: people write passwords into URLs.
fn parse(text: &str, what: &str) -> Result<Uri, AwsError> {
    let wrong =
        |why: &str| AwsError::Configuration(format!("the {what} {why}; it must begin with http:// or https://"));
    let uri: Uri = text.trim().parse().map_err(|e| wrong(&format!("is no URL ({e})")))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(wrong("names no protocol")),
    }
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err(wrong("must name a host, without user or password"));
    }
    Ok(uri)
}

/// Scheme and authority of a URL.
fn origin(uri: &Uri) -> Result<Uri, AwsError> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(hyper::http::uri::PathAndQuery::from_static("/"));
    Uri::from_parts(parts).map_err(|e| AwsError::Configuration(format!("the URL is none: {e}")))
}

/// The region that a host's name tells: after `sqs.` anywhere, and in any label of AWS's own names.
pub(super) fn region_of(uri: &Uri) -> Option<String> {
    let host = uri.host()?;
    if host == "queue.amazonaws.com" {
        return Some("us-east-1".to_owned());
    }
    let labels: Vec<&str> = host.split('.').collect();
    let after_sqs = labels.windows(2).find(|pair| matches!(pair[0], "sqs" | "sqs-fips")).map(|pair| pair[1]);
    let found = after_sqs.filter(|label| is_region(label));
    let found = found.or_else(|| labels.iter().copied().find(|label| is_aws(host) && is_region(label)));
    found.map(ToOwned::to_owned)
}

/// Whether it looks like `eu-west-1` or `us-gov-east-1`.
fn is_region(label: &str) -> bool {
    let parts: Vec<&str> = label.split('-').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return false };
    let letters = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    first.len() >= 2
        && letters(first)
        && !middle.is_empty()
        && middle.iter().all(letters)
        && matches!(last.len(), 1 | 2)
        && last.bytes().all(|b| b.is_ascii_digit())
}

fn is_aws(host: &str) -> bool {
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"]
        .iter()
        .any(|domain| host.ends_with(domain))
}

/// Whether it is a stand-in: on this machine, or without TLS, which AWS is not used without.
fn is_local(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    // LocalStack's public name for 127.0.0.1, for which it has a certificate.
    let localstack = host.ends_with("localhost.localstack.cloud");
    let named = host == "localhost" || host.ends_with(".localhost") || localstack;
    let loopback = named || address.is_ok_and(|a| a.is_loopback());
    !is_aws(host) && (loopback || uri.scheme_str() == Some("http"))
}

fn is_true(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQS: Service = Service {
        name: "sqs",
        target: "AmazonSQS",
        content_type: "application/x-amz-json-1.0",
        endpoint_variable: "AWS_ENDPOINT_URL_SQS",
        query: None,
    };

    fn wanted(url: &str, environment: &[(&str, &str)]) -> Wanted {
        let settings = AwsSettings { resource: Some(url.to_owned()), ..AwsSettings::default() };
        let lookup =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Wanted::new(SQS, &settings, &lookup).unwrap()
    }

    #[test]
    fn regions_in_urls() {
        let cases = [
            ("https://sqs.eu-west-1.amazonaws.com/1/q", Some("eu-west-1")),
            ("https://eu-west-1.queue.amazonaws.com/1/q", Some("eu-west-1")),
            ("https://queue.amazonaws.com/1/q", Some("us-east-1")),
            ("https://sqs.us-gov-west-1.amazonaws.com/1/q", Some("us-gov-west-1")),
            ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", Some("cn-north-1")),
            ("https://sqs-fips.us-east-2.api.aws/1/q", Some("us-east-2")),
            ("https://vpce-0a1-b2c.sqs.us-east-1.vpce.amazonaws.com/1/q", Some("us-east-1")),
            ("http://sqs.eu-central-1.localhost.localstack.cloud:4566/1/q", Some("eu-central-1")),
            ("http://localhost:4566/1/q", None),
            ("http://project-localstack-1:4566/1/q", None),
        ];
        for (url, region) in cases {
            assert_eq!(region_of(&url.parse().unwrap()).as_deref(), region, "{url}");
        }
    }

    #[test]
    fn the_region_of_the_address_wins() {
        let here = [("AWS_REGION", "us-east-1")];
        assert_eq!(wanted("https://sqs.eu-west-1.amazonaws.com/1/q", &here).region.unwrap(), "eu-west-1");
        assert_eq!(wanted("http://localhost/1/q", &here).region.unwrap(), "us-east-1");
        let vpce = [("AWS_ENDPOINT_URL", "https://x.sqs.eu-north-1.vpce.amazonaws.com")];
        assert_eq!(wanted("https://sqs.eu-west-1.amazonaws.com/1/q", &vpce).region.unwrap(), "eu-north-1");
    }

    #[test]
    fn the_service_s_variable_wins_over_the_general_one() {
        let url = "https://sqs.eu-west-1.amazonaws.com/1/q";
        let both = [("AWS_ENDPOINT_URL", "http://all:1"), ("AWS_ENDPOINT_URL_SQS", "http://sqs:2")];
        assert_eq!(wanted(url, &both).endpoint.unwrap(), "http://sqs:2/");
        assert_eq!(wanted(url, &both[..1]).endpoint.unwrap(), "http://all:1/");
        let ignored = [both[0], both[1], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
        assert_eq!(wanted(url, &ignored).endpoint, None);
        assert_eq!(wanted(url, &[("AWS_ENDPOINT_URL", " ")]).endpoint, None);
    }

    #[test]
    fn where_requests_go() {
        let at = |url: Option<&str>, region, fips, dual_stack| {
            let url = url.map(|url| url.parse().unwrap());
            Names { service: "sqs", region, fips, dual_stack }.endpoint(url.as_ref()).unwrap().to_string()
        };
        let aws = Some("https://sqs.eu-west-1.amazonaws.com/1/q");
        assert_eq!(at(aws, "eu-west-1", false, false), "https://sqs.eu-west-1.amazonaws.com/");
        assert_eq!(at(aws, "eu-west-1", true, false), "https://sqs-fips.eu-west-1.amazonaws.com/");
        assert_eq!(at(aws, "eu-west-1", true, true), "https://sqs-fips.eu-west-1.api.aws/");
        assert_eq!(at(None, "cn-north-1", false, false), "https://sqs.cn-north-1.amazonaws.com.cn/");
        let old = Some("https://eu-west-1.queue.amazonaws.com/1/q");
        assert_eq!(at(old, "eu-west-1", false, false), "https://sqs.eu-west-1.amazonaws.com/");
        let local = Some("http://localhost:4566/000000000000/q");
        assert_eq!(at(local, "us-east-1", true, false), "http://localhost:4566/");
        let private = Some("https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/1/q");
        assert_eq!(at(private, "eu-west-1", true, false), "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/");
    }

    #[test]
    fn what_is_no_address_is_said_so() {
        for text in ["localhost:4566", "ftp://host", "http://", "https://user:pw@host/", "not a url"] {
            let error = parse(text, "endpoint").unwrap_err().to_string();
            assert!(error.contains("http://") && !error.contains("pw"), "{text}: {error}");
        }
    }

    #[test]
    fn stand_ins_are_told_from_aws() {
        let local = |url: &str| is_local(&url.parse().unwrap());
        assert!(local("http://localhost:4566/") && local("https://[::1]:1/") && local("http://localstack:4566/"));
        assert!(!local("https://sqs.eu-west-1.amazonaws.com/") && !local("http://sqs.eu-west-1.amazonaws.com/"));
        assert!(local("https://sqs.eu-west-1.localhost.localstack.cloud:4566/"));
        assert!(!local("https://queue.example.com/"));
    }
}
