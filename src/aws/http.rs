//! The one HTTP client: HTTP/1.1 over pooled connections, TLS by the system's trusted roots or a CA bundle's.
//!
//! It sends a request once and reads the answer whole. It neither signs nor repeats.

use std::{error::Error as StdError, io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Request, StatusCode, Uri, body::Body, body::Incoming, http::response::Parts};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use tokio::time::Instant;

use super::error::{AwsError, causes};
use crate::queue::room::{Room, Share};

/// How long a connection may stay unused. Longer saves handshakes; shorter meets fewer connections that the server, a
/// load balancer or a NAT has already forgotten (the shortest such limits in use are around 30 s).
const IDLE: Duration = Duration::from_secs(20);

/// How long a connection may take to be made. Longer bears bad networks; shorter finds out sooner that an address is
/// dead and tries the next (hyper divides it among a host's addresses).
const CONNECT: Duration = Duration::from_secs(4);

/// Bytes of an answer. SQS sends at most ten messages of 1 MiB; JSON may write a byte as six (`\u0001`).
const ANSWER: usize = 64 * 1024 * 1024;

/// Bytes a second of the slowest line on which a large answer is waited for. A line that is slower than this could not
/// be told from one that is dead.
const SLOWEST: u64 = 256 * 1024;

/// A pool of connections. Cloning it is cheap and shares the pool.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    pool: Pool,
    tls: Arc<ClientConfig>,
    roots: usize,
}

type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The room that its bytes take, where it was read into one.
    pub(super) share: Option<Share>,
}

impl HttpClient {
    /// A client that trusts the authorities in `ca_bundle` (PEM), or else the system's.
    pub(super) fn new(ca_bundle: Option<&Path>) -> Result<Self, AwsError> {
        let mut roots = RootCertStore::empty();
        match ca_bundle {
            Some(path) => add_bundle(&mut roots, path)?,
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let count = roots.len();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| AwsError::Configuration(format!("TLS cannot be set up: {e}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let pool = pool(tls.clone(), CONNECT);
        Ok(Self { pool, tls: Arc::new(tls), roots: count })
    }

    /// A client with the same trust, but connections and a connect time-out of its own.
    pub(super) fn with_connect_timeout(&self, timeout: Duration) -> Self {
        Self { pool: pool((*self.tls).clone(), timeout), ..self.clone() }
    }

    /// Says early what every handshake would say later: a slim container without any trusted root.
    pub(super) fn check_roots(&self, endpoint: &Uri) -> Result<(), AwsError> {
        if self.roots > 0 || endpoint.scheme_str() != Some("https") {
            return Ok(());
        }
        let remedy = "install the system's ca-certificates or set AWS_CA_BUNDLE to a PEM file";
        Err(AwsError::Configuration(format!("this machine has no trusted root certificates; {remedy}")))
    }

    /// Sends a request and reads the answer, all within `timeout` and the time that a large answer takes on a slow line.
    /// Where there is to be room for the answer, the wait for it does not count. `endpoint`: what errors name, put into words only for
    /// them.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        endpoint: &Uri,
        timeout: Duration,
        room: Option<&Room>,
    ) -> Result<Answer, AwsError> {
        let begun = Instant::now();
        let (head, body) = within(timeout, timeout, endpoint, self.begin(request)).await?;
        let waiting = Instant::now();
        let length = body.size_hint().exact().map(|bytes| bytes.min(ANSWER as u64));
        let room = room.filter(|_| head.status.is_success()); // errors are short, and nobody should wait for one
        let mut share = match room {
            // What does not say how long it is may be as long as any.
            Some(room) => Some(room.take(length.unwrap_or(ANSWER as u64)).await),
            None => None,
        };
        let left = timeout.saturating_sub(waiting - begun) + Duration::from_secs(length.unwrap_or(0) / SLOWEST);
        let body = within(left, timeout, endpoint, read(body)).await?;
        let share = share.as_mut().map(|share| share.split(body.len() as u64));
        Ok(Answer { status: head.status, headers: head.headers, body, share })
    }

    async fn begin(&self, request: Request<Bytes>) -> Result<(Parts, Incoming), Failure> {
        let answer = self
            .pool
            .request(request.map(Full::new))
            .await
            .map_err(|error| Failure { closed: !error.is_connect() && was_closed(&error), reason: causes(&error) })?;
        Ok(answer.into_parts())
    }
}

async fn read(body: Incoming) -> Result<Bytes, Failure> {
    let body = Limited::new(body, ANSWER).collect().await;
    Ok(body.map_err(|error| Failure { closed: false, reason: causes(&*error) })?.to_bytes())
}

/// A step that may take `left` of the whole `timeout`.
async fn within<T>(
    left: Duration,
    timeout: Duration,
    place: &Uri,
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, AwsError> {
    match tokio::time::timeout(left, step).await {
        Ok(done) => done.map_err(|failure| failure.at(place)),
        Err(_elapsed) => Err(AwsError::Timeout { place: shown(place), after: timeout }),
    }
}

struct Failure {
    closed: bool,
    reason: String,
}

impl Failure {
    fn at(self, place: &Uri) -> AwsError {
        AwsError::Network { place: shown(place), closed: self.closed, reason: self.reason }
    }
}

fn pool(tls: ClientConfig, connect: Duration) -> Pool {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).pool_timer(TokioTimer::new()).build(connector)
}

fn add_bundle(roots: &mut RootCertStore, path: &Path) -> Result<(), AwsError> {
    let wrong = |reason: String| AwsError::Configuration(format!("CA bundle {}: {reason}", path.display()));
    let found = CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("no certificate in it; it must be PEM".to_owned())) } else { Ok(()) }
}

/// Whether the server closed the connection before it answered: what happens to a pooled connection whose server has
/// just lost patience.
fn was_closed(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        {
            return true;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset);
        }
        next = error.source();
    }
    false
}

/// Scheme, host and port: all that a message about an address says.
fn shown(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}", uri.scheme_str().unwrap_or_default())
}
