//! Asking the person at the terminal before what cannot be taken back.

use std::io::{self, IsTerminal};

use super::{context::Context, exit::Exit, report::Failure};

/// Goes on only if somebody says yes. `undone` says what happens otherwise: "nothing was approved".
///
/// # Errors
/// Somebody says no, or there is no terminal; then `insist` is the advice.
pub(super) async fn confirm(context: &Context, asked: &str, undone: &str, insist: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, format!("there is no terminal to ask on, so {undone}")).hint(insist));
    }
    context.say(format_args!("{asked} [y/N]"));
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await.map_err(io::Error::from).flatten();
    let answer = answer.map_err(|error| Failure::new(Exit::Usage, "cannot read from the terminal").because(&error))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Usage, undone)),
    }
}
