//! Lends this program's HTTP client to aws-config, so that its calls to STS and to metadata services trust the same
//! authorities as ours.
//!
//! Those calls are few (one in an hour at most), so every one has connections of its own: their time-outs differ.

use std::time::Duration;

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use super::{
    error::AwsError,
    http::{Answer, HttpClient},
};

/// For calls that come without one. Enough for a slow STS; short enough that a start does not seem to hang.
const READ: Duration = Duration::from_secs(10);

impl aws_smithy_runtime_api::client::http::HttpClient for HttpClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let http = settings.connect_timeout().map_or_else(|| self.clone(), |limit| self.with_connect_timeout(limit));
        SharedHttpConnector::new(Connector { http, timeout: settings.read_timeout().unwrap_or(READ) })
    }
}

#[derive(Debug)]
struct Connector {
    http: HttpClient,
    timeout: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (http, timeout) = (self.http.clone(), self.timeout);
        HttpConnectorFuture::new(async move {
            let user = |error| ConnectorError::user(Box::new(error));
            let request = request.try_into_http1x().map_err(user)?;
            let request = request.map(|body| Bytes::copy_from_slice(body.bytes().unwrap_or_default()));
            let place = request.uri().clone();
            let answer = http.send(request, &place, timeout, None).await.map_err(unreachable)?;
            let Answer { status, headers, body, .. } = answer;
            let mut answer = hyper::Response::new(SdkBody::from(body));
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            HttpResponse::try_from(answer).map_err(user)
        })
    }
}

fn unreachable(error: AwsError) -> ConnectorError {
    match error {
        AwsError::Timeout { .. } => ConnectorError::timeout(Box::new(error)),
        _ => ConnectorError::io(Box::new(error)),
    }
}
