//! The records that guards put through steps 2 and 3, and those steps as a worker has them: a decoder and a masker made
//! from a configuration, without queue or database. Nothing is measured here.

use std::sync::Arc;

use futures_util::FutureExt;
use masq::{
    config::{Config, Sources},
    local::crowd::Record,
    pipeline::{
        decode::Decoder,
        mask::{Masker, mask},
    },
    queue::{Key, Message, Receipt},
    sink::{Batch, Verdict},
    start,
    vault::keyring::KeyRing,
};
use uuid::Uuid;

/// As many as a worker takes in a wave or two.
pub(crate) const BATCH: usize = 500;

/// The login pipeline without the vault.
pub(crate) const VAULT_OFF: &str = include_str!("../../src/cli/bench/vault-off.toml");

/// The login pipeline, which seals two values of a login.
pub(crate) const VAULT_ON: &str = "";

/// The batch that begins with the n-th record. Each is another person's, from another address with another device, so that
/// every value has to be sealed.
pub(crate) fn batch(n: usize) -> Vec<Message> {
    (n..n + BATCH).map(message).collect()
}

fn message(n: usize) -> Message {
    let key = Key { sent_at: 1_700_000_000_000, id: Uuid::from_u128(n as u128) };
    Message::new(key, 1, Record::unlike_any(n).body().into_bytes(), Receipt("".into()))
}

/// Steps 2 and 3 of one worker.
pub(crate) struct Steps {
    pub(crate) decoder: Decoder,
    pub(crate) masker: Masker,
}

impl Steps {
    /// With keys that nobody keeps.
    pub(crate) fn new(config: &str) -> Self {
        let sources = Sources { file: Some(("masq.toml", config)), ..Sources::default() };
        let config = Config::check(&sources).expect("it is a configuration");
        let stored: Vec<_> = config.columns.iter().map(|column| column.column_type).collect();
        let keys = Arc::new(KeyRing::throw_away().expect("there is randomness"));
        // Made at once, since no KMS is asked.
        let epoch = keys.new_epoch(0).now_or_never().and_then(Result::ok).expect("there is randomness");
        let masker = Masker::new(&config.columns, &stored, keys, epoch).expect("domains are short");
        Self { decoder: start::decoder(&config, &stored), masker }
    }

    /// Reads, masks and encodes a batch, and takes it as committed.
    pub(crate) fn settle(&mut self, messages: Vec<Message>) -> Batch {
        let Self { decoder, masker } = self;
        let batch = mask(messages, |message| decoder.read(message), masker);
        for entry in &batch.entries {
            let Verdict::Row(row) = &entry.verdict else { panic!("a good login is a row") };
            masker.remember(&batch, row);
        }
        batch
    }
}
