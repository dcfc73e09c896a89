//! A request of the AWS JSON protocol or of the older query protocol, signed with Signature Version 4.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::time::SystemTime;

use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use bytes::Bytes;
use hyper::{
    Method, Request as HttpRequest, Uri,
    header::{CONTENT_TYPE, HeaderValue, USER_AGENT},
};

use super::{AwsError, Service, credentials::Snapshot, protocol::Wire};

const TARGET: &str = "x-amz-target";
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
        let odd = |e: &dyn std::error::Error| AwsError::Configuration(format!("the request cannot be signed: {e}"));
        let (content_type, target) = match self.wire {
            Wire::Json => (self.service.content_type, Some(format!("{}.{}", self.service.target, self.action))),
            Wire::Query => (FORM, None),
        };
        let signed_headers = [(CONTENT_TYPE.as_str(), content_type)].into_iter();
        let signed_headers = signed_headers.chain(target.iter().map(|target| (TARGET, target.as_str())));
        let signable =
            SignableRequest::new("POST", self.endpoint.to_string(), signed_headers, SignableBody::Bytes(&body))
                .map_err(|e| odd(&e))?;
        let params = v4::SigningParams::builder()
            .identity(&by.identity)
            .region(self.region)
            .name(self.service.name)
            .time(at)
            .settings(SigningSettings::default())
            .build()
            .map_err(|e| odd(&e))?
            .into();
        let (instructions, _signature) = sign(signable, &params).map_err(|e| odd(&e))?.into_parts();

        let mut request = HttpRequest::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(target) = target {
            headers.insert(TARGET, HeaderValue::try_from(target).map_err(|e| odd(&e))?);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

const AGENT: &str = concat!("masq/", env!("CARGO_PKG_VERSION"));
