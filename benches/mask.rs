//! What masking and sealing cost a record: CPU time of one thread, for steps 2 and 3 (`pipeline::mask`) less what reading
//! alone costs (`Decoder::read`).
//!
//! `cargo bench --bench mask` prints nanoseconds a record with the vault off, with realistic repeats (a million records
//! of fifty thousand people, who each come from a few addresses with a device or two) and with every value new. Each
//! figure is the median of several rounds, which take turns, with the fastest and the slowest beside it.

mod records;

use std::{hint::black_box, time::Duration};

use records::{ALL_NEW, BATCH, Case, REALISTIC, Steps, VAULT_OFF};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 5;
/// Records between two epochs, as at 20,000 a second and worker.
const EPOCH: usize = 1_200_000;

/// With how many records each is measured.
const CASES: [(Case, usize); 3] = [(VAULT_OFF, 1_000_000), (REALISTIC, 1_000_000), (ALL_NEW, 200_000)];

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What a record costs: nanoseconds to read it, nanoseconds to mask and seal it, sealed values.
#[derive(Clone, Copy)]
struct Cost {
    read: f64,
    mask: f64,
    sealed: f64,
}

fn measure(case: &Case, records: usize) -> Cost {
    let mut steps = Steps::new(case);
    let (mut reading, mut both, mut sealed) = (Duration::ZERO, Duration::ZERO, 0);
    for start in (0..records).step_by(BATCH) {
        let messages = case.batch(start);
        let before = cpu();
        messages.iter().for_each(|message| drop(black_box(steps.decoder.read(message))));
        reading += cpu() - before;
        let before = cpu();
        if steps.masker.is_epoch_spent() || start % EPOCH == EPOCH - BATCH {
            sealed += steps.start_epoch();
        }
        let batch = steps.settle(messages);
        both += cpu() - before;
        drop(batch);
    }
    sealed += steps.start_epoch();
    let each = |time: Duration| time.as_nanos() as f64 / records as f64;
    Cost { read: each(reading), mask: each(both) - each(reading), sealed: sealed as f64 / records as f64 }
}

#[allow(clippy::print_stdout)] // what a bench is run for
fn main() {
    let mut figures: [Vec<Cost>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for ((case, records), figures) in CASES.iter().zip(&mut figures) {
            figures.push(measure(case, *records));
        }
    }
    for ((case, _), figures) in CASES.iter().zip(&mut figures) {
        figures.sort_by(|a, b| a.mask.total_cmp(&b.mask));
        let Cost { mask, read, sealed } = figures[ROUNDS / 2];
        let (least, most) = (figures[0].mask, figures[ROUNDS - 1].mask);
        println!(
            "{:<18} {mask:6.0} ns a record ({least:.0} to {most:.0}), {sealed:.3} values sealed; reading {read:.0} ns",
            case.name
        );
    }
}
