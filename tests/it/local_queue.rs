//! The local queue's server, judged by clients that nobody here wrote: boto3 and the aws CLI. The boto3 script also
//! runs against moto's server, so that what it expects is not merely what ours does.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use masq::{local::sqs::SqsServer, queue::memory::MemoryQueues};
use tokio::process::Command;

use crate::support::{moto, python};

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
    let endpoint = moto().await;
    run(Command::new(python()).arg(script("boto3_queue.py")).arg(endpoint).arg("--moto")).await;
}
