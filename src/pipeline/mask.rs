//! Step 3: an event becomes the bytes of a row with every value masked that is to be masked; a reject becomes a sealed
//! dead letter. Pure, and the last step that sees a plain value of an event: it goes into the bytes of COPY and no further.

use std::{net::IpAddr, sync::Arc};

use crate::{
    config::{Column, ColumnType, Mask},
    event::{Event, Field, Reason, Reject, Value},
    pii::Pii,
    pipeline::decode::Decoded,
    queue::Message,
    sink::{Batch, DeadLetter, Entry, MaskedRow, Verdict, copy},
    vault::{
        keyring::KeyRing,
        seal::EpochKey,
        token::{self, DomainKey, TooLong},
    },
};

/// Holds the keys of one worker and knows what is done to each column.
pub struct Masker {
    columns: Vec<(ColumnType, Action)>,
    keys: Arc<KeyRing>,
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
    /// `stored`: the type of the table's column, one for each column. A domain of more than 255 bytes has no tokens.
    pub fn new(
        columns: &[Column],
        stored: &[ColumnType],
        keys: Arc<KeyRing>,
        epoch: EpochKey,
    ) -> Result<Self, TooLong> {
        let action = |column: &Column| {
            Ok(match &column.mask {
                None => Action::Plain,
                Some(Mask::Hmac { domain }) => Action::Token(keys.token.domain(domain)?),
                Some(Mask::Sha256) => Action::Sha256,
                Some(Mask::Prefix) => Action::Prefix,
                Some(Mask::Redact) => Action::Redact,
            })
        };
        let actions = columns.iter().map(action).collect::<Result<Vec<Action>, TooLong>>()?;
        Ok(Self { columns: stored.iter().copied().zip(actions).collect(), keys, epoch })
    }

    /// The keys it masks and seals with.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
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
            sealed: self.epoch.seal(message.key, message.body.expose()),
            subject: subject.map(|subject| self.keys.subject.tag(subject.expose())),
        }
    }

    fn verdict(&mut self, message: &Message, meaning: Result<Event, Reject>, rows: &mut Vec<u8>) -> Verdict {
        match meaning {
            Ok(event) => {
                let start = rows.len();
                self.row(&event, rows);
                Verdict::Row(MaskedRow { bytes: start..rows.len(), claim: None })
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
    // Concurrent polls answer in any order: the delivery counted last is the newest, of equal counts the one received
    // last, since the sort is stable. Reversing lets dedup keep it.
    decoded.sort_by_key(|decoded| decoded.message.order());
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
        (Action::Token(key), Value::Ip(address)) => copy::token(out, stored, &key.ip(address)),
        (Action::Token(key), _) => {
            let token = key.text(&field.raw).expect("decode refuses a text that is too long for a token");
            copy::token(out, stored, &token);
        }
        (Action::Sha256, _) => copy::token(out, stored, &token::sha256(&field.raw)),
        (Action::Prefix, Value::Ip(address)) => prefix(out, stored, address),
        // The configuration allows a prefix of addresses only.
        (Action::Redact | Action::Prefix, _) => copy::null(out),
    }
}

fn prefix(out: &mut Vec<u8>, stored: ColumnType, address: IpAddr) {
    let (network, bits) = token::prefix(address);
    match stored {
        ColumnType::Inet => copy::inet(out, network, Some(bits)),
        _ => copy::bytes(out, format!("{network}/{bits}").as_bytes()),
    }
}
