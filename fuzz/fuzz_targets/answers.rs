//! Whatever a server answers is read as messages or as an error that names a remedy in one line; never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use masq::queue::sqs::fuzz::read_answer;

fuzz_target!(|answer: (u16, &str, &[u8])| {
    let (status, error_type, body) = answer;
    read_answer(status, error_type, body);
});
