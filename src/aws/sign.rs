//! A request of the AWS JSON protocol or of the older query protocol, signed with Signature Version 4.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use bytes::Bytes;
use hyper::{
    Method, Request as HttpRequest, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT},
    http::uri::PathAndQuery,
};

use super::{
    AwsError, Service,
    credentials::Snapshot,
    protocol::Wire,
    sigv4::{self, Post},
};

const TARGET: &str = "x-amz-target";
const CONTENT_TYPE_NAME: &str = "content-type";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// What a request says besides its body.
pub(super) struct Request<'a> {
    pub(super) service: &'a Service,
    pub(super) action: &'static str,
    pub(super) region: &'a str,
    pub(super) endpoint: &'a Uri,
    /// In the query protocol the action stands in the body.
    pub(super) wire: Wire,
}

impl Request<'_> {
    /// The request, signed by these credentials at this time; a session token goes in as `x-amz-security-token`.
    pub(super) fn sign(&self, body: Bytes, by: &Snapshot, at: SystemTime) -> Result<HttpRequest<Bytes>, AwsError> {
        let (content_type, target) = match self.wire {
            Wire::Json => (self.service.content_type, Some(format!("{}.{}", self.service.target, self.action))),
            Wire::Query => (FORM, None),
        };
        let mut signed = vec![(CONTENT_TYPE_NAME, content_type)];
        signed.extend(target.as_deref().map(|target| (TARGET, target)));
        let mut request = HttpRequest::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(target) = &target {
            headers.insert(TARGET, HeaderValue::try_from(target).map_err(|e| odd(&e))?);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        match self.endpoint.path_and_query().map(PathAndQuery::as_str) {
            Some("/") => self.sign_post(&mut request, &signed, by, at)?,
            _ => self.sign_any(&mut request, &signed, by, at)?,
        }
        Ok(request)
    }

    /// `signed`: the headers to sign, besides those that every request has.
    fn sign_post(
        &self,
        request: &mut HttpRequest<Bytes>,
        signed: &[(&'static str, &str)],
        by: &Snapshot,
        at: SystemTime,
    ) -> Result<(), AwsError> {
        let Some(keys) = by.identity.data::<Credentials>() else { return self.sign_any(request, signed, by, at) };
        let date = sigv4::date(at.into());
        let host = host(self.endpoint);
        let headers = signed.iter().copied().chain([("host", host)]).collect();
        let post = Post { region: self.region, service: self.service.name, headers };
        let authorization = by.days_key.authorize(post, request.body(), &date, keys);

        let secret = |value: &str| {
            let mut value = HeaderValue::try_from(value).map_err(|e| odd(&e))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let authorization = secret(&authorization)?;
        let token = keys.session_token().map(secret).transpose()?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(host).map_err(|e| odd(&e))?);
        headers.insert("x-amz-date", HeaderValue::try_from(date).map_err(|e| odd(&e))?);
        headers.insert(AUTHORIZATION, authorization);
        headers.extend(token.map(|token| (HeaderName::from_static("x-amz-security-token"), token)));
        Ok(())
    }

    /// The same in the general way, for an endpoint that has a path.
    fn sign_any(
        &self,
        request: &mut HttpRequest<Bytes>,
        signed: &[(&'static str, &str)],
        by: &Snapshot,
        at: SystemTime,
    ) -> Result<(), AwsError> {
        let body = SignableBody::Bytes(request.body());
        let signable = SignableRequest::new("POST", self.endpoint.to_string(), signed.iter().copied(), body);
        let params = v4::SigningParams::builder()
            .identity(&by.identity)
            .region(self.region)
            .name(self.service.name)
            .time(at)
            .settings(SigningSettings::default())
            .build()
            .map_err(|e| odd(&e))?
            .into();
        let signed = sign(signable.map_err(|e| odd(&e))?, &params).map_err(|e| odd(&e))?;
        signed.into_parts().0.apply_to_request_http1x(request);
        Ok(())
    }
}

fn odd(error: &dyn std::error::Error) -> AwsError {
    AwsError::Configuration(format!("the request cannot be signed: {error}"))
}

/// What stands in the `Host` header: without the port if it is the scheme's own.
fn host(endpoint: &Uri) -> &str {
    match (endpoint.scheme_str(), endpoint.port_u16()) {
        (Some("http"), Some(80)) | (Some("https"), Some(443)) | (_, None) => endpoint.host().unwrap_or_default(),
        _ => endpoint.authority().map_or("", |authority| authority.as_str()),
    }
}

const AGENT: &str = concat!("masq/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const SERVICE: Service = Service {
        name: "sqs",
        target: "AmazonSQS",
        content_type: "application/x-amz-json-1.0",
        endpoint_variable: "AWS_ENDPOINT_URL_SQS",
        query: None,
    };

    /// The headers of a request, signed in both ways.
    fn both(endpoint: &str, region: &str, keys: Credentials, body: &str, at: SystemTime) -> [Vec<(String, String)>; 2] {
        let endpoint: Uri = endpoint.parse().unwrap();
        let wire = Wire::Json;
        let what = Request { service: &SERVICE, action: "ReceiveMessage", region, endpoint: &endpoint, wire };
        let by = Snapshot::of(keys);
        let signed = vec![(CONTENT_TYPE_NAME, SERVICE.content_type), (TARGET, "AmazonSQS.ReceiveMessage")];
        [true, false].map(|ours| {
            let mut request = HttpRequest::new(Bytes::from(body.to_owned()));
            if ours {
                what.sign_post(&mut request, &signed, &by, at).unwrap();
                request.headers_mut().remove(HOST); // signed by the crate too, and then left to the HTTP client
            } else {
                what.sign_any(&mut request, &signed, &by, at).unwrap();
            }
            let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
            let mut headers: Vec<_> =
                request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            headers.sort();
            headers
        })
    }

    proptest! {
        #[test]
        fn signature_is_what_the_crate_says(
            port in prop_oneof![Just(String::new()), Just(":80".to_owned()), Just(":443".to_owned()), Just(":4566".to_owned())],
            scheme in prop_oneof![Just("http"), Just("https")],
            region in "[a-z]{2}-[a-z]{4,9}-[0-9]",
            (id, secret, token) in ("[A-Z0-9]{16,20}", "[A-Za-z0-9/+]{1,90}", prop::option::of("[A-Za-z0-9/+=]{1,300}")),
            body in ".{0,400}",
            seconds in 0..4_000_000_000_u64,
        ) {
            let keys = Credentials::new(id, secret, token, None, "test");
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            let [ours, theirs] = both(&format!("{scheme}://sqs.example.com{port}/"), &region, keys, &body, at);
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn key_of_a_day_is_not_used_on_the_next() {
        let by = Snapshot::of(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"));
        let endpoint = Uri::from_static("https://sqs.eu-west-1.amazonaws.com/");
        let (region, wire) = ("eu-west-1", Wire::Json);
        let what = Request { service: &SERVICE, action: "ReceiveMessage", region, endpoint: &endpoint, wire };
        for day in [0, 0, 1, 0] {
            let at = UNIX_EPOCH + Duration::from_secs(day * 86_400);
            let fresh = Snapshot::of(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"));
            let sign = |by| what.sign(Bytes::from_static(b"{}"), by, at).unwrap().headers()[AUTHORIZATION].clone();
            assert_eq!(sign(&by), sign(&fresh));
        }
    }
}
