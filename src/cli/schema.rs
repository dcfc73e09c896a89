//! `masq schema`: the JSON Schema of the configuration.

use super::{exit::Exit, report, report::Failure};
use crate::config::schema::schema;

/// Print the JSON Schema of the configuration, for editors
#[derive(clap::Args)]
#[command(after_help = "Example:
  masq schema > masq.schema.json")]
pub(super) struct Args {}

pub(super) fn run(_args: &Args) -> Result<Exit, Failure> {
    report::print_json(&schema())?;
    Ok(Exit::Done)
}
