//! What the fuzz targets share: the pipeline's pure steps for one body, and a reader of COPY BINARY that is not ours.

pub mod tuple;

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use masq::{
    config::{ColumnType, Config, Sources},
    pipeline::{
        decode::Decoder,
        mask::{Masker, mask},
    },
    queue::{Key, Message, Receipt},
    sink::{Batch, Verdict},
    start,
    vault::keyring::KeyRing,
};

/// 2023-05-06 07:08:09 UTC.
pub const SENT_AT: i64 = 1_683_356_889_000;

/// Keys that nobody has.
pub fn keys() -> Arc<KeyRing> {
    Arc::new(KeyRing::throw_away().expect("the system has random numbers"))
}

/// The pure steps of the pipeline under one configuration.
pub struct Steps {
    pub config: Config,
    pub stored: Vec<ColumnType>,
    decoder: Decoder,
    masker: Masker,
}

impl Steps {
    /// `file`: what differs from the built-in configuration. `keys`: [`keys`], or those of other steps.
    pub fn new(file: &str, keys: &Arc<KeyRing>) -> Self {
        let sources = Sources { file: Some(("masq.toml", file)), ..Sources::default() };
        let config = Config::check(&sources).unwrap_or_else(|complaints| panic!("{complaints}"));
        let stored: Vec<ColumnType> = config.columns.iter().map(|column| column.column_type).collect();
        let beginning = keys.new_epoch(SENT_AT);
        // Without KMS there is nothing to wait for.
        let Poll::Ready(epoch) = pin!(beginning).poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("an epoch of keys that nobody has is ready at once");
        };
        let epoch = epoch.expect("the system has random numbers");
        let masker = Masker::new(&config.columns, &stored, Arc::clone(keys), epoch).expect("the domains are short");
        Self { decoder: start::decoder(&config, &stored), config, stored, masker }
    }

    /// What becomes of a body.
    pub fn run(&mut self, body: &[u8]) -> Batch {
        let key = Key { sent_at: SENT_AT, id: uuid::Uuid::nil() };
        let message = Message::new(key, 1, body.to_vec(), Receipt("".into()));
        mask(vec![message], |message| self.decoder.read(message), &mut self.masker)
    }

    /// The fields of the row that a body becomes, checked to be what PostgreSQL takes; `None`: a dead letter.
    pub fn row(&mut self, body: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
        let batch = self.run(body);
        let [entry] = batch.entries.as_slice() else { panic!("one goes in, one comes out") };
        let Verdict::Row(row) = &entry.verdict else {
            assert!(batch.rows.is_empty(), "a dead letter leaves bytes among the rows");
            return None;
        };
        assert_eq!(row.bytes, 0..batch.rows.len());
        let fields = tuple::fields(&batch.rows);
        assert_eq!(fields.len(), self.stored.len());
        for (stored, field) in self.stored.iter().zip(&fields) {
            if let Some(bytes) = field {
                tuple::check(*stored, bytes);
            }
        }
        Some(fields.into_iter().map(|field| field.map(<[u8]>::to_vec)).collect())
    }
}
