//! SQS over TLS: the local queue behind a listener of rustls, with a certificate of a private authority that only
//! `AWS_CA_BUNDLE` names.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command as Program,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use masq::{
    local::sqs::{History, Script, SqsServer},
    queue::{
        Queue, Receipt,
        memory::{MemoryQueue, MemoryQueues, Settings},
        room::Room,
        sqs::{SqsQueue, SqsSettings},
    },
};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{Database, Keys, config, environment, finish, login, service};

/// `ca.crt`, and `server.crt` with its key, signed by it, for 127.0.0.1.
fn certificates(directory: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let leaf = "-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1";
    for arguments in [
        format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=ca"),
        format!("req -x509 {key} {leaf} -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt -subj /CN=sqs"),
    ] {
        let made = Program::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

/// A local queue that is reached over TLS alone. It ends with its handle.
struct Place {
    directory: TempDir,
    endpoint: String,
    queue_url: String,
    queue: MemoryQueue,
    handshakes: Arc<AtomicUsize>,
    _server: SqsServer,
    _listener: JoinSet<()>,
}

impl Place {
    async fn start(version: &'static SupportedProtocolVersion) -> Self {
        Self::start_with(version, Script::default()).await
    }

    async fn start_with(version: &'static SupportedProtocolVersion, script: Script) -> Self {
        let directory = tempfile::tempdir().unwrap();
        certificates(directory.path());
        let certificate = CertificateDer::from_pem_file(directory.path().join("server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(directory.path().join("server.key")).unwrap();
        let tls = ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();

        let queues = MemoryQueues::new();
        let queue = queues.create("q", Settings::default()).unwrap();
        let listen = ([127, 0, 0, 1], 0).into();
        let server = SqsServer::start_with(listen, queues, script, History::default()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let queue_url = server.queue_url("q").replace(&server.endpoint(), &endpoint);
        let (handshakes, mut tasks) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        tasks.spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), server.addr(), handshakes.clone()));
        Self { directory, endpoint, queue_url, queue, handshakes, _server: server, _listener: tasks }
    }

    fn bundle(&self) -> String {
        self.directory.path().join("ca.crt").display().to_string()
    }

    async fn client(&self, bundle: Option<String>) -> SqsQueue {
        let environment = |name: &str| match name {
            "AWS_CA_BUNDLE" => bundle.clone(),
            _ => environment(name),
        };
        let settings = SqsSettings { queue: self.queue_url.clone(), ..SqsSettings::default() };
        SqsQueue::connect(settings, &environment).await.unwrap()
    }

    fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, to: SocketAddr, handshakes: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, handshakes) = (tls.clone(), handshakes.clone());
        connections.spawn(async move {
            let Ok(mut stream) = tls.accept(stream).await else { return };
            handshakes.fetch_add(1, Ordering::SeqCst);
            let mut inside = TcpStream::connect(to).await.unwrap();
            // Either side may go without a goodbye.
            drop(copy_bidirectional(&mut stream, &mut inside).await);
        });
    }
}

/// Receives until nothing is left.
async fn all(queue: &SqsQueue) -> Vec<Receipt> {
    let (room, mut receipts) = (Room::new(1 << 30), Vec::new());
    loop {
        let messages = queue.receive(Duration::ZERO, Duration::from_secs(60), &room).await.unwrap();
        if messages.is_empty() {
            return receipts;
        }
        receipts.extend(messages.into_iter().map(|message| message.receipt));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_made_once_and_kept() {
    for version in [&TLS13, &TLS12] {
        let place = Place::start(version).await;
        for number in 0..400 {
            place.queue.send(format!("body {number}").into_bytes());
        }
        let client = place.client(Some(place.bundle())).await;
        let receipts = all(&client).await;
        // One would do. A call that comes before the last one's connection is back may make another, which is kept.
        let few = place.handshakes();
        assert!(receipts.len() == 400 && few <= 8, "{few} connections for forty calls, one after the other");
        for seconds in 90..95 {
            assert!(client.extend(&receipts, Duration::from_secs(seconds)).await.unwrap().is_empty());
        }
        assert!(client.delete(&receipts).await.unwrap().is_empty());
        let many = place.handshakes();
        assert!((2..=64).contains(&many), "{many} connections for 240 calls, of which 64 at most go at once");
        assert!(place.queue.count().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_way_has_more_requests_on_it() {
    let late = r#"{"action":"ChangeMessageVisibilityBatch","fault":"hang","seconds":0.05}"#;
    let place = Place::start_with(&TLS13, Script::parse(late, 1).unwrap()).await;
    for number in 0..400 {
        place.queue.send(format!("body {number}").into_bytes());
    }
    let client = place.client(Some(place.bundle())).await;
    let receipts = all(&client).await;
    for seconds in 90..93 {
        assert!(client.extend(&receipts, Duration::from_secs(seconds)).await.unwrap().is_empty());
    }
    let many = place.handshakes();
    assert!((30..=64).contains(&many), "{many} connections, where 40 requests could go at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_nobody_named_is_not_trusted() {
    let place = Place::start(&TLS13).await;
    let error = place.client(None).await.depth().await.unwrap_err().to_string();
    assert!(error.contains(&place.endpoint) && error.contains("UnknownIssuer"), "{error}");
    assert!(error.contains("name its PEM file in AWS_CA_BUNDLE"), "{error}");
    assert_eq!(place.handshakes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn masq_run_over_tls() {
    let (keys, database, place) = (Keys::create(), Database::loadable(&config()).await, Place::start(&TLS13).await);
    for user in 0..100 {
        place.queue.send(login(&format!("user-{user}"), "10.1.2.3").into_bytes());
    }
    let (keys, worker) = (keys.path().display().to_string(), database.login("worker"));
    let run = ["run", "--drain", "--queue-url", &place.queue_url, "--database-url", &worker, "--keys", &keys];
    let mut command = service(&run);
    command.env("AWS_CA_BUNDLE", place.bundle());
    let (exit, _, stderr) = finish(command).await;
    assert_eq!(exit, 0, "{stderr}");
    assert_eq!(database.query("SELECT count(DISTINCT user_id) FROM user_logins").await, ["100"]);
    assert!(place.handshakes() > 0 && place.queue.count().is_empty());
}
