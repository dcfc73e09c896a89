//! The command line: one subcommand, one file. This file is the list of phases that every command goes through.
//!
//! Only here the environment is read and something printed: data to stdout, talk to stderr.

mod confirm;
mod connect;
mod context;
mod environment;
mod exit;
mod hygiene;
mod iam;
mod lines;
mod opening;
mod passphrase;
mod progress;
mod report;
mod signals;
mod sources;
mod vault;
mod watch;

mod approve;
mod audit;
mod bench;
mod check;
mod dead;
mod demo;
mod find;
mod forget;
mod init;
mod keys;
mod migrate;
mod preview;
mod queue;
mod reconcile;
mod reveal;
mod risk;
mod run;
mod schema;
mod send;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime::Runtime;

use self::{
    context::{Context, Globals},
    exit::Exit,
    report::Failure,
};

/// JSON events off an Amazon SQS queue, personal data masked, into PostgreSQL: each message exactly once
#[derive(Parser)]
#[command(name = "masq", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Run(run::Args),
    Check(check::Args),
    Preview(preview::Args),
    Send(send::Args),
    Init(init::Args),
    Migrate(migrate::Args),
    Keys(keys::Args),
    Dead(dead::Args),
    Find(find::Args),
    Reveal(reveal::Args),
    Approve(approve::Args),
    Forget(forget::Args),
    Audit(audit::Args),
    Reconcile(reconcile::Args),
    Risk(risk::Args),
    Queue(queue::Args),
    Bench(bench::Args),
    Schema(schema::Args),
}

impl Command {
    async fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Self::Demo(args) => Box::pin(demo::run(args, context)).await,
            Self::Run(args) => Box::pin(run::run(args, context)).await,
            Self::Check(args) => Box::pin(check::run(args, context)).await,
            Self::Preview(args) => Box::pin(preview::run(args, context)).await,
            Self::Send(args) => Box::pin(send::run(args, context)).await,
            Self::Init(args) => init::run(&args, context).await,
            Self::Migrate(args) => Box::pin(migrate::run(args, context)).await,
            Self::Keys(args) => keys::run(&args, context).await,
            Self::Dead(args) => Box::pin(dead::run(args, context)).await,
            Self::Find(args) => Box::pin(find::run(args, context)).await,
            Self::Reveal(args) => Box::pin(reveal::run(args, context)).await,
            Self::Approve(args) => Box::pin(approve::run(args, context)).await,
            Self::Forget(args) => Box::pin(forget::run(args, context)).await,
            Self::Audit(args) => Box::pin(audit::run(args, context)).await,
            Self::Reconcile(args) => Box::pin(reconcile::run(args, context)).await,
            Self::Risk(args) => Box::pin(risk::run(args, context)).await,
            Self::Queue(args) => Box::pin(queue::run(args, context)).await,
            Self::Bench(args) => Box::pin(bench::run(args, context)).await,
            Self::Schema(args) => schema::run(&args),
        }
    }
}

/// The program.
pub fn main() -> ExitCode {
    let (command, context) = match arguments() {
        Ok(said) => said,
        Err(usage) => {
            // Help goes to stdout, a mistake to stderr; nobody may be listening.
            drop(usage.print());
            return if usage.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| execute(command, &context)));
    let outcome = outcome.unwrap_or_else(|_| Err(Failure::new(Exit::Bug, "this is a bug in masq; nothing is lost")));
    let exit = outcome.unwrap_or_else(|failure| {
        failure.print(context.color);
        failure.exit
    });
    exit.into()
}

fn arguments() -> Result<(Command, Context), clap::Error> {
    let mut line = environment::without_empty(Cli::command());
    let matches = line.try_get_matches_from_mut(std::env::args_os())?;
    let Cli { globals, command } = Cli::from_arg_matches(&matches)?;
    Ok((command, Context::new(globals, sources::origins(&line, &matches))))
}

fn execute(command: Command, context: &Context) -> Result<Exit, Failure> {
    context.install_logging();
    hygiene::keep_panics_short();
    hygiene::keep_memory();
    let runtime = Runtime::new().map_err(|error| Failure::new(Exit::Absent, "cannot start threads").because(&error))?;
    let outcome = runtime.block_on(command.run(context));
    // Not a drop, which would wait for whatever still blocks, such as a name that is being looked up.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Imperative, one line, no full stop; and so for every option.
    #[test]
    fn help_is_of_one_form() {
        fn check(command: &clap::Command) {
            let about = command.get_about().unwrap_or_else(|| panic!("{} has no help", command.get_name())).to_string();
            assert!(!about.ends_with('.') && about.starts_with(char::is_uppercase), "{about}");
            for arg in command.get_arguments() {
                let help = arg.get_help().unwrap_or_else(|| panic!("{} has no help", arg.get_id())).to_string();
                assert!(!help.ends_with('.') && help.starts_with(char::is_uppercase), "{help}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
