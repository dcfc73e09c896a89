//! What masking and sealing cost a record: CPU time of one thread, for steps 2 and 3 (`pipeline::mask`) less what reading
//! alone costs (`Decoder::read`).
//!
//! `cargo bench --bench mask` prints nanoseconds a record with the vault off, with realistic repeats (a million records
//! of fifty thousand people, who each come from a few addresses with a device or two) and with every value new. Each
//! figure is the median of several rounds, which take turns, with the fastest and the slowest beside it.

use std::{hint::black_box, sync::Arc, time::Duration};

use futures_util::FutureExt;
use masq::{
    config::{Config, Sources},
    local::crowd::{Crowd, Record},
    pipeline::{
        decode::Decoder,
        mask::{Masker, mask},
    },
    queue::{Key, Message, Receipt},
    sink::Verdict,
    start,
    vault::{keyring::KeyRing, seal::EpochKey},
};
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

/// As many as a worker takes in a wave or two.
const BATCH: usize = 500;
const RECORDS: usize = 1_000_000;
const ROUNDS: usize = 5;
/// Records between two epochs, as at 20,000 a second and worker.
const EPOCH: usize = 1_200_000;

/// The login pipeline without the vault.
const OFF: &str = include_str!("../src/cli/bench/vault-off.toml");

struct Case {
    name: &'static str,
    config: &'static str,
    /// The n-th record.
    record: fn(usize) -> Record,
    records: usize,
}

const CASES: [Case; 3] = [
    Case { name: "vault off", config: OFF, record: |n| Crowd::of(RECORDS).record(n), records: RECORDS },
    Case { name: "realistic repeats", config: "", record: |n| Crowd::of(RECORDS).record(n), records: RECORDS },
    Case { name: "every value new", config: "", record: Record::unlike_any, records: 200_000 },
];

fn message(n: usize, case: &Case) -> Message {
    let key = Key { sent_at: 1_700_000_000_000, id: Uuid::from_u128(n as u128) };
    Message::new(key, 1, (case.record)(n).body().into_bytes(), Receipt("".into()))
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Made at once, since no KMS is asked.
fn epoch(keys: &KeyRing) -> EpochKey {
    keys.new_epoch(0).now_or_never().and_then(Result::ok).expect("there is randomness")
}

/// What a record costs: nanoseconds to read it, nanoseconds to mask and seal it, sealed values.
#[derive(Clone, Copy)]
struct Cost {
    read: f64,
    mask: f64,
    sealed: f64,
}

fn measure(case: &Case) -> Cost {
    let file = ("masq.toml", case.config);
    let config = Config::check(&Sources { file: Some(file), ..Sources::default() }).expect("it is a configuration");
    let stored: Vec<_> = config.columns.iter().map(|column| column.column_type).collect();
    let decoder: Decoder = start::decoder(&config, &stored);
    let keys = Arc::new(KeyRing::throw_away().expect("there is randomness"));
    let mut masker = Masker::new(&config.columns, &stored, Arc::clone(&keys), epoch(&keys)).expect("domains are short");
    let (mut reading, mut both, mut sealed) = (Duration::ZERO, Duration::ZERO, 0);
    for start in (0..case.records).step_by(BATCH) {
        let messages: Vec<_> = (start..start + BATCH).map(|n| message(n, case)).collect();
        let before = cpu();
        messages.iter().for_each(|message| drop(black_box(decoder.read(message))));
        reading += cpu() - before;
        let before = cpu();
        if masker.is_epoch_spent() || start % EPOCH == EPOCH - BATCH {
            sealed += masker.epoch().sealed();
            masker.start_epoch(epoch(&keys));
        }
        let batch = mask(messages, |message| decoder.read(message), &mut masker);
        for entry in &batch.entries {
            let Verdict::Row(row) = &entry.verdict else { panic!("a good login is a row") };
            masker.remember(&batch, row);
        }
        both += cpu() - before;
    }
    sealed += masker.epoch().sealed();
    let records = case.records as f64;
    let each = |time: Duration| time.as_nanos() as f64 / records;
    Cost { read: each(reading), mask: each(both) - each(reading), sealed: sealed as f64 / records }
}

#[allow(clippy::print_stdout)] // what a bench is run for
fn main() {
    let mut figures: [Vec<Cost>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (case, figures) in CASES.iter().zip(&mut figures) {
            figures.push(measure(case));
        }
    }
    for (case, figures) in CASES.iter().zip(&mut figures) {
        figures.sort_by(|a, b| a.mask.total_cmp(&b.mask));
        let Cost { mask, read, sealed } = figures[ROUNDS / 2];
        let (least, most) = (figures[0].mask, figures[ROUNDS - 1].mask);
        println!(
            "{:<18} {mask:6.0} ns a record ({least:.0} to {most:.0}), {sealed:.3} values sealed; reading {read:.0} ns",
            case.name
        );
    }
}
