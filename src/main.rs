//! The program: everything it does is in the library, everything it says is in `masq::cli`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Bodies come and go by the thousand, on other threads than they came on: that costs a fifth of the CPU less than with
/// the C library's allocator.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    masq::cli::main()
}
