//! masq as one of the broken programs of `src/mutant.rs`, which the variable `MASQ_MUTANT` names. Built only with the
//! feature `mutants`, which no release build takes.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the library does not read the environment, a program's main may")]
    let name = std::env::var("MASQ_MUTANT").unwrap_or_default();
    assert!(
        masq::mutant::choose(&name),
        "MASQ_MUTANT names one of {:?}",
        masq::mutant::Mutant::ALL.map(|(name, _)| name)
    );
    masq::cli::main()
}
