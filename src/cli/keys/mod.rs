//! `masq keys`: make them, look at them, put others in their place.

mod new;
mod rotate;
mod status;

use clap::Subcommand;

pub(super) use self::{new::create, status::forgive_missing_recipients};
use super::{context::Context, exit::Exit, report::Failure};

/// Make the keys, look at them, or rotate them
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(new::Args),
    Status(status::Args),
    Rotate(Box<rotate::Args>),
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    match &args.command {
        Command::New(args) => new::run(args, context).await,
        Command::Status(args) => status::run(args, context),
        Command::Rotate(args) => Box::pin(rotate::run(args, context)).await,
    }
}
