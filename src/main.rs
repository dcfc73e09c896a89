//! The program: everything it does is in the library, everything it says is in `masq::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    masq::cli::main()
}
