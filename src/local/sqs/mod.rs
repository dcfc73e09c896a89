//! An SQS-compatible server on the queues in memory, for the demo, the tests and a first try: the AWS JSON 1.0
//! protocol of Amazon SQS, standard and FIFO queues, its limits and its error codes.
//!
//! It verifies no signature and knows one account, one region and plain http: it is no place for data that matters.
//! It has no high-throughput FIFO, fair queues, tags, policies or encryption, and refuses them instead of ignoring them.
//! The way of a request: `protocol` (HTTP and JSON) -> `queues` or `messages` (one function per operation) ->
//! [`MemoryQueues`]. For tests of its clients a [`Script`] can have anything go wrong, and a [`History`] be written.

mod attributes;
mod batch;
mod call;
mod content;
mod fault;
mod history;
mod messages;
mod protocol;
mod queues;
mod requests;
mod script;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{handler::Handler, serve::ListenerExt};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::requests::Requests;
pub use self::{
    history::History,
    script::{Script, ScriptError, Trouble},
};
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
    script: Arc<Script>,
    history: History,
    requests: Arc<Requests>,
}

/// What every request sees.
#[derive(Clone)]
struct Service {
    queues: MemoryQueues,
    script: Arc<Script>,
    history: History,
    requests: Arc<Requests>,
    started: Instant,
    stopping: CancellationToken,
}

impl SqsServer {
    /// Serves `queues` on `listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(listen: SocketAddr, queues: MemoryQueues) -> io::Result<Self> {
        Self::start_with(listen, queues, Script::default(), History::default()).await
    }

    /// The same, with what is to go wrong from now on, and with a record of what happens.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start_with(
        listen: SocketAddr,
        queues: MemoryQueues,
        script: Script,
        history: History,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let (script, requests) = (Arc::new(script), Arc::new(Requests::default()));
        let service = Service {
            queues,
            script: Arc::clone(&script),
            history: history.clone(),
            requests: Arc::clone(&requests),
            started: Instant::now(),
            stopping: stopping.clone(),
        };
        // Answers are one write each; Nagle's algorithm could only delay them. A connection that refuses is slower.
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        let serve = axum::serve(listener, protocol::answer.with_state(service).into_make_service())
            .with_graceful_shutdown(stopping.clone().cancelled_owned());
        let task = tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!(%error, "the local queue's server ended");
            }
        });
        Ok(Self { addr, stopping: stopping.drop_guard(), task, script, history, requests })
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

    /// How often each trouble of the script has happened, by its name.
    pub fn troubles(&self) -> BTreeMap<String, u64> {
        self.script.counts()
    }

    /// How many requests have come for each operation.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.requests.counts()
    }

    /// Ends long polls with an empty answer, finishes the answers on their way, closes the port, ends the history.
    /// Answers what [`SqsServer::troubles`] would.
    pub async fn stop(mut self) -> BTreeMap<String, u64> {
        drop(self.stopping);
        if timeout(STOP_PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
        }
        let troubles = self.script.counts();
        self.history.end(troubles.clone());
        troubles
    }
}

fn queue_url(host: &str, name: &str) -> String {
    format!("http://{host}/{ACCOUNT}/{name}")
}

fn queue_arn(name: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
}
