//! A server for tests that answers by a script: whatever is asked, the next step comes. It keeps what it was asked.
//!
//! It knows nothing of SQS; for a queue that behaves like one there is [`crate::local`].

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What happens to one request.
pub(crate) enum Step {
    Answer(u16, Vec<(&'static str, String)>, String),
    /// No answer, ever.
    Silence,
    /// The connection ends without an answer.
    Close,
    /// An answer that ends before the length it promised.
    Truncate,
    /// An answer that stops before the length it promised, on a connection that stays.
    Stall,
    /// An answer in one piece that does not say its length in advance.
    Chunked(String),
}

impl Step {
    pub(crate) fn ok(body: &str) -> Self {
        Self::Answer(200, Vec::new(), body.to_owned())
    }

    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::Answer(status, Vec::new(), format!(r#"{{"__type":"com.amazonaws.sqs#{code}","message":"{message}"}}"#))
    }
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: String,
    /// Which connection, counted from 0.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

#[derive(Default)]
struct Script {
    steps: Mutex<VecDeque<Step>>,
    seen: Mutex<Vec<Seen>>,
}

/// Ends with its connections when it is dropped.
pub(crate) struct Stub {
    pub(crate) url: String,
    script: Arc<Script>,
    _server: JoinSet<()>,
}

impl Stub {
    pub(crate) async fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        let script = Arc::new(Script { steps: Mutex::new(steps.into_iter().collect()), ..Script::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(serve(listener, script.clone()));
        Self { url, script, _server: server }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(converse(stream, script.clone(), number));
    }
}

/// The beginning of an answer.
const BEGUN: &[u8] = b"HTTP/1.1 200 -\r\ncontent-length: 100\r\n\r\n{\"Messages\":";

async fn converse(mut stream: TcpStream, script: Arc<Script>, connection: usize) {
    while let Some((head, body)) = read(&mut stream).await {
        script.seen.lock().unwrap().push(Seen { head, body, connection });
        let step = script.steps.lock().unwrap().pop_front().expect("a request that the script does not know of");
        let answer = match step {
            Step::Answer(status, headers, body) => {
                let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                format!("HTTP/1.1 {status} -\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
            }
            Step::Silence => std::future::pending().await,
            Step::Close => return,
            Step::Truncate => {
                stream.write_all(BEGUN).await.unwrap();
                return;
            }
            Step::Stall => {
                stream.write_all(BEGUN).await.unwrap();
                std::future::pending().await
            }
            Step::Chunked(body) => {
                format!("HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
            }
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let seen = Seen { head, body: String::new(), connection: 0 };
    let length: usize = seen.header("content-length").parse().unwrap_or(0);
    while bytes.len() < end + length {
        stream.read_buf(&mut bytes).await.ok()?;
    }
    Some((seen.head, String::from_utf8(bytes[end..].to_vec()).unwrap()))
}

/// An environment with keys and a region, and nothing else.
pub(crate) fn environment(name: &str) -> Option<String> {
    let value = match name {
        "AWS_ACCESS_KEY_ID" => "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY" => "secret",
        "AWS_REGION" => "eu-west-1",
        _ => return None,
    };
    Some(value.to_owned())
}
