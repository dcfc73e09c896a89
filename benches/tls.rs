//! What TLS costs a call to SQS: CPU time of the client's thread for receiving ten messages and deleting them, with the
//! local queue behind a relay that speaks TLS, and behind one that does not.
//!
//! `cargo bench --bench tls` prints microseconds a call and what a new connection costs besides. Client and servers have
//! a thread each; rounds take turns, and each figure is the median, with the least and the most beside it.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{Arc, mpsc},
    time::Duration,
};

use masq::{
    local::sqs::SqsServer,
    queue::{
        Queue,
        memory::{MemoryQueue, MemoryQueues, Settings},
        room::Room,
        sqs::{SqsQueue, SqsSettings},
    },
};
use rustix::time::{ClockId, clock_gettime};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Builder,
};
use tokio_rustls::TlsAcceptor;

const ROUNDS: usize = 9;
/// Receives of a round, and as many deletes.
const PAIRS: usize = 2_000;
/// New clients of a round, with a connection each.
const CONNECTIONS: usize = 100;

/// Where the servers are: the queue, and the relays' URLs of it.
struct Servers {
    queue: MemoryQueue,
    plain: String,
    tls: String,
}

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let tls = certificates(directory.path());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
            let queues = MemoryQueues::new();
            let queue = queues.create("q", Settings::default()).expect("a queue");
            let server = SqsServer::start(([127, 0, 0, 1], 0).into(), queues).await.expect("a server");
            let url = |scheme, relay: SocketAddr| format!("{scheme}://{relay}/000000000000/q");
            let plain = url("http", relay(server.addr(), None).await);
            let tls = url("https", relay(server.addr(), Some(TlsAcceptor::from(tls))).await);
            sender.send(Servers { queue, plain, tls }).expect("somebody waits");
            std::future::pending::<()>().await;
        });
    });
    let servers = receiver.recv().expect("servers");
    let bundle = directory.path().join("ca.crt").display().to_string();
    let client = Builder::new_current_thread().enable_all().build().expect("a runtime");
    client.block_on(Box::pin(measure(&servers, &bundle)));
}

#[allow(clippy::print_stdout)] // what a bench is run for
async fn measure(servers: &Servers, bundle: &str) {
    let urls = [&servers.plain, &servers.tls];
    let (mut calls, mut connections) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    let clients = [connect(urls[0], bundle).await, connect(urls[1], bundle).await];
    for round in 0..=ROUNDS {
        for turn in 0..2 {
            let which = (turn + round) % 2;
            let call = drain(servers, &clients[which]).await;
            let connection = dial(urls[which], bundle).await;
            // The first round warms up.
            if round > 0 {
                calls[which].push(call);
                connections[which].push(connection);
            }
        }
    }
    println!("microseconds of the client's CPU: median (least to most) of {ROUNDS} rounds");
    for (name, figures) in [("a call", calls), ("a new client and its first call", connections)] {
        let [plain, tls] = figures.map(summary);
        println!("{name}: {plain} plain, {tls} over TLS 1.3");
    }
}

async fn connect(url: &str, bundle: &str) -> SqsQueue {
    let environment = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("test".to_owned()),
        "AWS_REGION" => Some("eu-west-1".to_owned()),
        "AWS_CA_BUNDLE" => Some(bundle.to_owned()),
        _ => None,
    };
    let settings = SqsSettings { queue: url.to_owned(), ..SqsSettings::default() };
    SqsQueue::connect(settings, &environment).await.expect("a client")
}

/// Microseconds a call: ten messages received, ten deleted, over one connection.
async fn drain(servers: &Servers, client: &SqsQueue) -> f64 {
    let body = r#"{"user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae", "app_version": "2.3.0", "device_type": "android", "ip": "199.172.111.135", "locale": "RU", "device_id": "593-47-5928"}"#;
    for _ in 0..PAIRS * 10 {
        servers.queue.send(body.as_bytes().to_vec());
    }
    let room = Room::new(1 << 30);
    let begun = cpu();
    for _ in 0..PAIRS {
        let messages = client.receive(Duration::ZERO, Duration::from_secs(60), &room).await.expect("messages");
        assert_eq!(messages.len(), 10);
        let receipts: Vec<_> = messages.into_iter().map(|message| message.receipt).collect();
        assert!(client.delete(&receipts).await.expect("deleted").is_empty());
    }
    let spent = cpu() - begun;
    assert!(servers.queue.count().is_empty());
    spent * 1e6 / (PAIRS * 2) as f64
}

/// Microseconds for a client that asks once and goes.
async fn dial(url: &str, bundle: &str) -> f64 {
    let begun = cpu();
    for _ in 0..CONNECTIONS {
        connect(url, bundle).await.depth().await.expect("an answer");
    }
    (cpu() - begun) * 1e6 / CONNECTIONS as f64
}

async fn relay(to: SocketAddr, tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let mut inside = TcpStream::connect(to).await.expect("the queue");
                outside.set_nodelay(true).and(inside.set_nodelay(true)).expect("TCP");
                match tls {
                    Some(tls) => match tls.accept(outside).await {
                        Ok(mut outside) => drop(copy_bidirectional(&mut outside, &mut inside).await),
                        Err(error) => panic!("no handshake: {error}"),
                    },
                    None => drop(copy_bidirectional(&mut outside, &mut inside).await),
                }
            });
        }
    });
    address
}

/// An authority (`ca.crt`), and a server's certificate by it.
fn certificates(directory: &Path) -> Arc<ServerConfig> {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let leaf = "-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1";
    for arguments in [
        format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=ca"),
        format!("req -x509 {key} {leaf} -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt -subj /CN=sqs"),
    ] {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().expect("openssl");
        assert!(made.status.success(), "openssl {arguments}");
    }
    let certificate = CertificateDer::from_pem_file(directory.join("server.crt")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).expect("a key");
    ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key")
        .into()
}

/// Seconds that this thread has worked.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn summary(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let [least, .., most] = figures[..] else { return String::new() };
    format!("{:.1} ({least:.1} to {most:.1})", figures[figures.len() / 2])
}
