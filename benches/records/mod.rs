//! The records that benches and guards put through steps 2 and 3, and those steps as a worker has them: a decoder and a
//! masker made from a configuration, without queue or database. No measuring is done here.
#![allow(dead_code, reason = "each of those takes a part of it")]

use std::sync::Arc;

use futures_util::FutureExt;
use masq::{
    config::{Config, Sources},
    pipeline::{
        decode::Decoder,
        mask::{Masker, mask},
    },
    queue::{Key, Message, Receipt},
    sink::{Batch, Verdict},
    start,
    vault::{keyring::KeyRing, seal::EpochKey},
};
use uuid::Uuid;

/// As many as a worker takes in a wave or two.
pub(crate) const BATCH: usize = 500;
const PEOPLE: usize = 50_000;

/// The login pipeline without the vault.
const OFF: &str = r#"
[columns]
user_id          = { from = "user_id",     type = "varchar(128)", required = true, subject = true }
device_type      = { from = "device_type", type = "varchar(32)" }
masked_ip        = { from = "ip",          type = "varchar(256)", as = "ip", mask = "hmac" }
masked_device_id = { from = "device_id",   type = "varchar(256)", mask = "hmac" }
locale           = { from = "locale",      type = "varchar(32)" }
app_version      = { from = "app_version", type = "varchar(32)",  as = "version" }
create_date      = { from = "create_date", type = "date", default = "sent_date" }
"#;

/// One sort of records, and what is done to them.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    config: &'static str,
    /// The person, address and device of the n-th record.
    record: fn(usize) -> (usize, usize, usize),
}

pub(crate) const VAULT_OFF: Case = Case { name: "vault off", config: OFF, record: realistic };
pub(crate) const REALISTIC: Case = Case { name: "realistic repeats", config: "", record: realistic };
pub(crate) const ALL_NEW: Case = Case { name: "every value new", config: "", record: |n| (n, n, n) };

/// People of whom some come often; each has three addresses, one of them shared by ten, and two devices.
fn realistic(n: usize) -> (usize, usize, usize) {
    let random = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let random = usize::try_from(random).unwrap_or(0);
    let person = random % PEOPLE * (random / PEOPLE % PEOPLE) / PEOPLE;
    let place = random % 7;
    let address = if place == 0 { person / 10 } else { PEOPLE + person * 2 + place % 2 };
    (person, address, person * 2 + usize::from(random % 5 == 0))
}

impl Case {
    /// The batch that begins with the n-th record.
    pub(crate) fn batch(&self, n: usize) -> Vec<Message> {
        (n..n + BATCH).map(|n| self.message(n)).collect()
    }

    fn message(&self, n: usize) -> Message {
        let (person, address, device) = (self.record)(n);
        let [a, b, c, d] = u32::try_from(address + 0x0b00_0000).unwrap_or(0).to_be_bytes();
        let body = format!(
            r#"{{"user_id": "user-{person:032x}", "app_version": "2.3.0", "device_type": "android", "ip": "{a}.{b}.{c}.{d}", "locale": "RU", "device_id": "{:03}-{:02}-{:04}"}}"#,
            device / 1_000_000 % 1000,
            device / 10_000 % 100,
            device % 10_000,
        );
        let key = Key { sent_at: 1_700_000_000_000, id: Uuid::from_u128(n as u128) };
        Message::new(key, 1, body.into_bytes(), Receipt(String::new()))
    }
}

/// Steps 2 and 3 of one worker.
pub(crate) struct Steps {
    pub(crate) decoder: Decoder,
    pub(crate) masker: Masker,
    keys: Arc<KeyRing>,
}

impl Steps {
    /// With keys that nobody keeps.
    pub(crate) fn new(case: &Case) -> Self {
        let file = ("masq.toml", case.config);
        let config = Config::check(&Sources { file: Some(file), ..Sources::default() }).expect("it is a configuration");
        let stored: Vec<_> = config.columns.iter().map(|column| column.column_type).collect();
        let keys = Arc::new(KeyRing::throw_away().expect("there is randomness"));
        let masker = Masker::new(&config.columns, &stored, Arc::clone(&keys), epoch(&keys));
        Self { decoder: start::decoder(&config, &stored), masker: masker.expect("domains are short"), keys }
    }

    /// Seals under a new key from now on. Answers how many values were sealed under the old one.
    pub(crate) fn start_epoch(&mut self) -> u64 {
        let sealed = self.masker.epoch().sealed();
        self.masker.start_epoch(epoch(&self.keys));
        sealed
    }

    /// Reads, masks and encodes a batch, and takes it as committed.
    pub(crate) fn settle(&mut self, messages: Vec<Message>) -> Batch {
        let Self { decoder, masker, .. } = self;
        let batch = mask(messages, |message| decoder.read(message), masker);
        for entry in &batch.entries {
            let Verdict::Row(row) = &entry.verdict else { panic!("a good login is a row") };
            masker.remember(&batch, row);
        }
        batch
    }
}

/// Made at once, since no KMS is asked.
fn epoch(keys: &KeyRing) -> EpochKey {
    keys.new_epoch(0).now_or_never().and_then(Result::ok).expect("there is randomness")
}
