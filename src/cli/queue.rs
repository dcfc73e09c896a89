//! `masq queue`: a local SQS-compatible queue, for development and tests.

use std::{io, net::SocketAddr};

use super::{
    context::Context,
    exit::Exit,
    report::{self, Failure},
    signals,
};
use crate::{
    local::sqs::SqsServer,
    queue::memory::{MemoryQueues, Settings},
};

/// Serve a local SQS-compatible queue in memory, until Ctrl-C
#[derive(clap::Args)]
#[command(after_help = "Example:
  masq queue --create login-queue
  masq send --generate 1000 --queue-url http://127.0.0.1:9324/000000000000/login-queue")]
pub(super) struct Args {
    /// Listen on this address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9324")]
    listen: SocketAddr,
    /// Create these queues; more can be created by any SQS client
    #[arg(long, value_name = "NAME", num_args = 1.., default_value = "login-queue")]
    create: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let stop = signals::listen()?;
    let queues = MemoryQueues::new();
    for name in &args.create {
        let failure = |error| Failure::new(Exit::Usage, format!("cannot create the queue {name}")).because(&error);
        queues.create(name, Settings::default()).map_err(failure)?;
    }
    let server = SqsServer::start(args.listen, queues).await.map_err(|error| cannot_listen(args.listen, &error))?;
    if !args.listen.ip().is_loopback() {
        tracing::warn!("this queue checks no signatures, and everybody who reaches {} can use it", server.addr());
    }
    let urls: Vec<String> = args.create.iter().map(|name| server.queue_url(name)).collect();
    context.say(format_args!(
        "A local queue, in memory. To see what it holds:\n  {}\nCtrl-C ends it.",
        look(&server.endpoint(), urls.first().map_or("", String::as_str)),
    ));
    report::print(urls.iter().map(|url| format!("{url}\n")).collect::<String>())?;
    stop.gently.started().await;
    server.stop().await;
    Ok(Exit::Done)
}

/// A line for the shell. The AWS CLI wants a region and keys, and this server takes any.
fn look(endpoint: &str, url: &str) -> String {
    format!(
        "AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any aws --region us-east-1 --endpoint-url {endpoint} \
         sqs get-queue-attributes --attribute-names All --queue-url {url}"
    )
}

fn cannot_listen(addr: SocketAddr, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::Denied,
        _ => Exit::Absent,
    };
    let failure = Failure::new(exit, format!("cannot listen on {addr}")).because(error);
    failure.hint("choose another address or port with --listen; port 0 takes a free one")
}
