//! A guard: how many instructions steps 2 and 3 (read, mask, encode) take for a message, counted by callgrind, so that a
//! busy machine changes nothing. `cargo bench --bench instructions`; without valgrind it says so and judges nothing.
//!
//! It starts itself under valgrind, once doing what is to be counted to the messages that it makes, and once only making
//! them: the difference counts. Nanoseconds of a real processor are measured by `mask.rs`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench is run for what it prints")]

mod records;

use std::{
    env,
    hint::black_box,
    process::{Command, ExitCode},
};

use masq::queue::Message;
use records::{BATCH, Steps, VAULT_OFF, VAULT_ON, batch};

/// So many that what happens once is nothing beside them: it varies by some thousand instructions, since keys are random.
const BATCHES: usize = 20;

/// Something that is done to messages, and the instructions that it may take for each on x86-64.
struct Guard {
    name: &'static str,
    config: &'static str,
    work: fn(&mut Steps, Vec<Message>),
    bound: u64,
}

/// Each bound is two to four per cent above what was counted. Two runs differ by a tenth of a per cent and a compiler may
/// move one or two; a value that is read or copied once more than it has to be moves more than four. callgrind's processor
/// has no instructions for SHA-256, so masking looks dearer here than it is.
const GUARDS: [Guard; 3] = [
    Guard { name: "read", config: VAULT_OFF, work: read, bound: 13_400 },
    Guard { name: "mask", config: VAULT_OFF, work: mask, bound: 31_300 },
    Guard { name: "seal", config: VAULT_ON, work: mask, bound: 62_200 },
];

fn read(steps: &mut Steps, messages: Vec<Message>) {
    messages.iter().for_each(|message| drop(black_box(steps.decoder.read(message))));
}

fn mask(steps: &mut Steps, messages: Vec<Message>) {
    drop(black_box(steps.settle(messages)));
}

impl Guard {
    /// What runs under valgrind.
    fn run(&self, is_counted: bool) {
        let mut steps = Steps::new(self.config);
        for number in 0..BATCHES {
            let messages = black_box(batch(number * BATCH));
            if is_counted {
                (self.work)(&mut steps, messages);
            }
        }
    }

    /// Instructions a message.
    fn count(&self) -> Result<u64, String> {
        let instructions = collect(&[self.name, "counted"])? - collect(&[self.name])?;
        Ok(instructions / (BATCHES * BATCH) as u64)
    }

    /// Whether it holds.
    fn judge(&self) -> Result<bool, String> {
        let Self { name, bound, .. } = self;
        let taken = self.count()?;
        let (holds, verdict) = match taken {
            _ if cfg!(not(target_arch = "x86_64")) => (true, "not judged on this processor"),
            _ if taken > *bound => (false, "MORE THAN IT MAY TAKE"),
            _ => (true, "holds"),
        };
        println!("{name}: {taken} instructions a message, at most {bound}: {verdict}");
        Ok(holds)
    }
}

/// All instructions of this program with these arguments.
fn collect(arguments: &[&str]) -> Result<u64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).args(arguments);
    let output = valgrind.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).ok_or_else(|| format!("valgrind counts nothing:\n{said}"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some(guard) = GUARDS.iter().find(|guard| arguments.first().is_some_and(|name| name == guard.name)) {
        guard.run(arguments.len() > 1);
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is missing: instructions are not counted");
        return ExitCode::SUCCESS;
    }
    let judged: Result<Vec<bool>, String> = GUARDS.iter().map(Guard::judge).collect();
    match judged {
        Ok(judged) if judged.iter().all(|holds| *holds) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
