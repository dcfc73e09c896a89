//! The arms that are not the shipped pipeline, each in a process of its own, so that its CPU time is its own: hidden
//! subcommands of `masq bench`, which speak the protocol of `process.rs`.

mod batches;
mod drain;
mod load;
mod transform;

use std::io;

use clap::Subcommand;
use serde_json::Value;

use crate::cli::{
    connect,
    context::Context,
    exit::Exit,
    report::{self, Failure},
    sources::Sources,
};

/// Which arm.
#[derive(Subcommand)]
pub(super) enum Arm {
    /// Receive and delete all messages
    #[command(hide = true)]
    Drain(Args),
    /// Copy rows and keys into the database
    #[command(hide = true)]
    Load(Args),
    /// Decode, mask and encode
    #[command(hide = true)]
    Transform(Args),
}

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Take so many messages
    #[arg(long, value_name = "N")]
    messages: usize,
}

/// Is that arm.
pub(super) async fn run(arm: Arm, context: &Context) -> Result<Exit, Failure> {
    let (Arm::Drain(args) | Arm::Load(args) | Arm::Transform(args)) = &arm;
    let config = args.sources.config(context)?;
    let done = match &arm {
        Arm::Drain(_) => drain::run(connect::queue(&config).await?).await?,
        Arm::Load(args) => Box::pin(load::run(&config, args.messages)).await?,
        Arm::Transform(args) => transform::run(&config, args.messages).await?,
    };
    say_done(&done)?;
    Ok(Exit::Done)
}

/// Says that all is prepared, and waits until it is time to begin.
fn wait_to_begin() -> Result<(), Failure> {
    report::print("ready\n")?;
    io::stdin().read_line(&mut String::new()).map_err(|error| Failure::of(Exit::Absent, &error))?;
    Ok(())
}

/// Says what was done, and lives on until the end of stdin, so that its CPU time can be read.
fn say_done(done: &Value) -> Result<(), Failure> {
    report::print(format_args!("{done}\n"))?;
    io::copy(&mut io::stdin(), &mut io::sink()).map_err(|error| Failure::of(Exit::Absent, &error))?;
    Ok(())
}
