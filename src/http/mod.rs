//! What the process says about itself over HTTP: `/livez`, `/readyz` and `/metrics`, on a port of their own.
//!
//! Read only, without TLS and without passwords: it is meant for loopback or a cluster's own network. Nothing here
//! shows a value from a message.
//!
//! * `/livez` (also `/healthz`): 200 as long as the runtime answers. Restart the process only if this fails.
//! * `/readyz`: 200 if nothing is wrong, otherwise 503 and JSON that says which part and why. An outage of the queue or
//!   the database makes it fail and is no reason to restart anything.
//! * `/metrics`: the [`Metrics`], for Prometheus to read.

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

use crate::{metrics::Metrics, pipeline::Status, shutdown::Shutdown};

/// How long requests that are being answered at the end may take. Answers take milliseconds; only a client that stops
/// in the middle of a request needs longer, and the process does not wait for it.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A running server. It ends with [`HttpServer::stop`] or with the runtime.
pub struct HttpServer {
    addr: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<io::Result<()>>,
}

impl HttpServer {
    /// Listens and answers. With port 0 the system chooses one, which [`HttpServer::addr`] knows.
    ///
    /// # Errors
    /// The address cannot be listened on, mostly because another process does.
    pub async fn start(listen: SocketAddr, status: Arc<Status>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let shutdown = Shutdown::new();
        let end = shutdown.clone();
        let server = axum::serve(listener, router(status, metrics)).with_graceful_shutdown(async move {
            end.started().await;
        });
        Ok(Self { addr, shutdown, task: tokio::spawn(server.into_future()) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes no more requests and closes idle connections; those being answered get a second.
    pub async fn stop(mut self) {
        self.shutdown.start();
        if timeout(LAST_ANSWERS, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// The pages. Whatever else is asked for is 404; a method other than GET and HEAD is 405.
fn router(status: Arc<Status>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz).with_state(status))
        .route("/metrics", get(text).with_state(metrics))
        .layer(map_response(do_not_sniff))
}

async fn readyz(State(status): State<Arc<Status>>) -> Response {
    let troubles = status.troubles();
    if troubles.is_empty() {
        return "ready\n".into_response();
    }
    let troubles: Vec<_> = troubles.into_iter().map(|(part, what)| json!({ "part": part, "what": what })).collect();
    let body = json!({ "ready": false, "troubles": troubles }).to_string();
    (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, "application/json")], body + "\n").into_response()
}

async fn text(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be shown: this is a bug in masq");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A browser must not take an answer for a page, whatever stands in it.
async fn do_not_sniff(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
