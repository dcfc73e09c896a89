//! An SQS-compatible server on the queues in memory, for the demo, the tests and a first try: the AWS JSON 1.0
//! protocol of Amazon SQS, standard queues, its limits and its error codes.
//!
//! It verifies no signature and knows one account, one region and plain http: it is no place for data that matters.
//! It has no FIFO queues, tags, policies or encryption, and refuses them instead of ignoring them.
//! The way of a request: `protocol` (HTTP and JSON) -> `queues` or `messages` (one function per operation) ->
//! [`MemoryQueues`].

mod attributes;
mod batch;
mod content;
mod fault;
mod messages;
mod protocol;
mod queues;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, time::Duration};

use axum::{handler::Handler, serve::ListenerExt};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::queue::memory::MemoryQueues;

/// The account that all queues belong to. No real account has this number; LocalStack uses the same.
const ACCOUNT: &str = "000000000000";
/// The region in ARNs.
const REGION: &str = "us-east-1";
/// How long [`SqsServer::stop`] waits for answers on their way. Long polls end at once, so only a client that has
/// stalled in the middle of a request is cut off; a stop that takes longer than this would be noticed by its user.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// A running server. Dropping it stops it too, without waiting.
pub struct SqsServer {
    addr: SocketAddr,
    stopping: DropGuard,
    task: JoinHandle<()>,
}

/// What every request sees.
#[derive(Clone)]
struct Service {
    queues: MemoryQueues,
    stopping: CancellationToken,
}

impl SqsServer {
    /// Serves `queues` on `listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(listen: SocketAddr, queues: MemoryQueues) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let service = Service { queues, stopping: stopping.clone() };
        // Answers are one write each; Nagle's algorithm could only delay them. A connection that refuses is slower.
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        let serve = axum::serve(listener, protocol::answer.with_state(service).into_make_service())
            .with_graceful_shutdown(stopping.clone().cancelled_owned());
        let task = tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!(%error, "the local queue's server ended");
            }
        });
        Ok(Self { addr, stopping: stopping.drop_guard(), task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What AWS clients take as endpoint: `http://ADDRESS:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The URL of the queue of this name, whether it exists or not.
    pub fn queue_url(&self, name: &str) -> String {
        queue_url(&self.addr.to_string(), name)
    }

    /// Ends long polls with an empty answer, finishes the answers on their way, closes the port.
    pub async fn stop(mut self) {
        drop(self.stopping);
        if timeout(STOP_PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

fn queue_url(host: &str, name: &str) -> String {
    format!("http://{host}/{ACCOUNT}/{name}")
}

fn queue_arn(name: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
}
