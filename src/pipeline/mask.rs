//! Step 3: an event becomes the bytes of a row with every value masked that is to be masked; a reject becomes a sealed
//! dead letter. Pure, and the last step that sees a plain value of an event: it goes into the bytes of COPY and no further.

use crate::{
    config::{Column, ColumnType, Mask},
    event::{Event, Field, Reason, Reject, Value},
    pii::Pii,
    pipeline::decode::Decoded,
    queue::Message,
    sink::{Batch, DeadLetter, Entry, MaskedRow, Verdict, copy},
    vault::{
        keyring::KeyRing,
        seal::{EpochKey, SubjectKey},
        token::{self, DomainKey},
    },
};

/// Holds the keys of one worker and knows what is done to each column.
pub struct Masker {
    columns: Vec<(ColumnType, Action)>,
    subject_key: SubjectKey,
    epoch: EpochKey,
}

/// What is done to the values of a column.
enum Action {
    Plain,
    Token(DomainKey),
    Sha256,
    Prefix,
    Redact,
}

impl Masker {
    /// `stored`: the type of the table's column, one for each column.
    pub fn new(columns: &[Column], stored: &[ColumnType], keys: &KeyRing, epoch: EpochKey) -> Self {
        let action = |column: &Column| match &column.mask {
            None => Action::Plain,
            Some(Mask::Hmac { domain }) => Action::Token(keys.token_root().domain(domain)),
            Some(Mask::Sha256) => Action::Sha256,
            Some(Mask::Prefix) => Action::Prefix,
            Some(Mask::Redact) => Action::Redact,
        };
        let columns = stored.iter().copied().zip(columns.iter().map(action)).collect();
        Self { columns, subject_key: keys.subject_key(), epoch }
    }

    /// The epoch under whose key bodies are being sealed.
    pub fn epoch(&self) -> &EpochKey {
        &self.epoch
    }

    /// Seals under another epoch's key from now on; the old key is wiped.
    pub fn start_epoch(&mut self, epoch: EpochKey) {
        self.epoch = epoch;
    }

    /// Seals a message as a dead letter.
    pub fn dead_letter(&mut self, message: &Message, reason: Reason, subject: Option<&Pii<String>>) -> DeadLetter {
        DeadLetter {
            reason,
            sealed: self.epoch.seal(message.key.sent_at, message.key.id, message.body.expose()),
            subject: subject.map(|subject| self.subject_key.tag(subject.expose())),
        }
    }

    fn verdict(&mut self, message: &Message, meaning: Result<Event, Reject>, rows: &mut Vec<u8>) -> Verdict {
        match meaning {
            Ok(event) => {
                let start = rows.len();
                self.row(&event, rows);
                Verdict::Row(MaskedRow(start..rows.len()))
            }
            Err(reject) => Verdict::Dead(self.dead_letter(message, reject.reason, reject.subject.as_ref())),
        }
    }

    fn row(&self, event: &Event, out: &mut Vec<u8>) {
        copy::tuple(out, self.columns.len());
        for ((stored, action), value) in self.columns.iter().zip(&event.values) {
            match value {
                None => copy::null(out),
                Some(field) => masked(out, *stored, action, field.expose()),
            }
        }
    }
}

/// Masks a batch and puts it in the order in which it is written: by key, of two deliveries of a message the newer.
pub fn mask(mut decoded: Vec<Decoded>, masker: &mut Masker) -> Batch {
    let received = decoded.len();
    // Stable, so of equal keys the one received last stays last; reversing lets dedup keep it.
    decoded.sort_by_key(|decoded| decoded.message.key);
    decoded.reverse();
    decoded.dedup_by_key(|decoded| decoded.message.key);
    decoded.reverse();

    let mut rows = Vec::with_capacity(decoded.len() * 256);
    let entries: Vec<Entry> = decoded
        .into_iter()
        .map(|Decoded { message, meaning }| {
            let verdict = masker.verdict(&message, meaning, &mut rows);
            Entry { message, verdict }
        })
        .collect();
    Batch { doubles: received - entries.len(), entries, rows, epoch: masker.epoch.header().clone() }
}

fn masked(out: &mut Vec<u8>, stored: ColumnType, action: &Action, field: &Field) {
    match (action, field.value) {
        (Action::Plain, _) => copy::field(out, stored, field),
        (Action::Redact, _) => copy::null(out),
        (Action::Token(key), Value::Ip(address)) => copy::token(out, stored, &key.ip(address)),
        (Action::Token(key), _) => copy::token(out, stored, &key.text(&field.raw)),
        (Action::Sha256, _) => copy::token(out, stored, &token::sha256(&field.raw)),
        (Action::Prefix, Value::Ip(address)) if stored == ColumnType::Inet => {
            let (network, bits) = token::prefix(address);
            copy::inet(out, network, Some(bits));
        }
        (Action::Prefix, Value::Ip(address)) => {
            let (network, bits) = token::prefix(address);
            copy::bytes(out, format!("{network}/{bits}").as_bytes());
        }
        // The configuration allows a prefix of addresses only.
        (Action::Prefix, _) => copy::null(out),
    }
}
