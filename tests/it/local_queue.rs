//! The local queue's server, judged by clients that nobody here wrote: boto3 and the aws CLI. The boto3 script also
//! runs against moto's server, so that what it expects is not merely what ours does.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use masq::{local::sqs::SqsServer, queue::memory::MemoryQueues};
use tokio::{net::TcpListener, net::TcpStream, process::Command};

/// How long moto may take to start; it imports much before it listens.
const MOTO_PATIENCE: Duration = Duration::from_secs(120);

/// The Python of the virtual environment with tests/requirements.txt in it.
#[expect(clippy::disallowed_methods, reason = "a test has no command line of its own to be told on")]
fn python() -> PathBuf {
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = std::env::var_os("MASQ_TEST_PYTHON").map_or_else(ours, PathBuf::from);
    assert!(python.exists(), "{} is missing; ./dev test installs it", python.display());
    python
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a command to its end; its talk is the message if it fails.
async fn run(command: &mut Command) {
    let output = command.kill_on_drop(true).output().await.expect("the command can be started");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
}

async fn server() -> SqsServer {
    SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), MemoryQueues::new()).await.expect("a free port")
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_finds_an_sqs() {
    let server = server().await;
    run(Command::new(python()).arg(script("boto3_queue.py")).arg(server.endpoint())).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_command_line_finds_an_sqs() {
    let server = server().await;
    let aws = python().with_file_name("aws");
    run(Command::new("bash").arg(script("aws_queue.sh")).arg(server.endpoint()).arg(aws)).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_expects_the_same_of_moto() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    let mut moto = Command::new(python().with_file_name("moto_server"))
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let listening = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            assert!(moto.try_wait().unwrap().is_none(), "moto_server ended before it listened");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(MOTO_PATIENCE, listening).await.expect("moto_server does not listen");
    let endpoint = format!("http://127.0.0.1:{port}");
    run(Command::new(python()).arg(script("boto3_queue.py")).arg(endpoint).arg("--moto")).await;
    moto.kill().await.unwrap();
}
