//! Step 3: an event becomes the bytes of a row with every value masked that is to be masked; a reject becomes a sealed
//! dead letter. Pure, and the last step that sees a plain value of an event: it goes into the bytes of COPY and no further.

use std::{net::IpAddr, sync::Arc};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    config::{Column, ColumnType, Mask},
    event::{Event, Field, Reason, Reject, Value},
    mutant::{self, Mutant},
    pii::Pii,
    queue::Message,
    sink::{Batch, DeadLetter, Entry, MaskedRow, Verdict, copy},
    vault::{
        keyring::KeyRing,
        seal::{EpochKey, Original, SubjectTag},
        sealer::{Sealer, Seals},
        token::{self, DomainKey, Kind, Token, TooLong},
    },
};

/// Holds the keys of one worker and knows what is done to each column.
pub struct Masker {
    columns: Vec<Masked>,
    /// Which column names the person, if any value is sealed for one.
    subject: Option<usize>,
    keys: Arc<KeyRing>,
    sealer: Sealer,
    /// Of the row in hand: which columns have which tokens.
    tokens: Vec<(usize, Token)>,
    /// The ARN or name of the queue, within which an event's id means one event.
    queue: String,
}

/// A column: how it is stored, what is done to its values, and the field under which the originals are sealed, if they
/// are.
struct Masked {
    stored: ColumnType,
    action: Action,
    vault: Option<Arc<str>>,
}

/// What is done to the values of a column.
enum Action {
    Plain,
    Token { domain: String, key: Box<DomainKey> },
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
                Some(Mask::Hmac { domain }) => {
                    Action::Token { domain: domain.clone(), key: Box::new(keys.token.domain(domain)?) }
                }
                Some(Mask::Sha256) => Action::Sha256,
                Some(Mask::Prefix) => Action::Prefix,
                Some(Mask::Redact) => Action::Redact,
            })
        };
        let masked = |(column, stored): (&Column, &ColumnType)| {
            let vault = match &column.mask {
                Some(Mask::Hmac { domain }) if column.vault => Some(Arc::from(domain.as_str())),
                _ => None,
            };
            Ok(Masked { stored: *stored, action: action(column)?, vault })
        };
        let masked = columns.iter().zip(stored).map(masked).collect::<Result<Vec<_>, TooLong>>()?;
        let is_sealing = masked.iter().any(|column| column.vault.is_some());
        let subject = columns.iter().position(|column| column.subject).filter(|_| is_sealing);
        Ok(Self {
            columns: masked,
            subject,
            keys,
            sealer: Sealer::new(epoch),
            tokens: Vec::new(),
            queue: String::new(),
        })
    }

    /// Claims the ids of events for this queue, named by its ARN or, where nothing says that, by its name.
    #[must_use]
    pub fn of_queue(self, queue: &str) -> Self {
        Self { queue: queue.to_owned(), ..self }
    }

    /// The keys it masks and seals with.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Masks with these keys from now on.
    ///
    /// # Errors
    /// A domain is too long for a token; it was not with the keys before.
    pub fn use_keys(&mut self, keys: KeyRing) -> Result<(), TooLong> {
        for Masked { action, .. } in &mut self.columns {
            if let Action::Token { domain, key } = action {
                **key = keys.token.domain(domain)?;
            }
        }
        self.keys = Arc::new(keys);
        Ok(())
    }

    /// The epoch under whose key bodies and values are being sealed.
    pub fn epoch(&self) -> &EpochKey {
        self.sealer.epoch()
    }

    /// Whether the epoch has sealed as much as one may.
    pub fn is_epoch_spent(&self) -> bool {
        self.sealer.is_spent()
    }

    /// Seals under another epoch's key from now on; the old key is wiped.
    pub fn start_epoch(&mut self, epoch: EpochKey) {
        self.sealer.start(epoch);
    }

    /// Takes note that a row of a batch is committed: what was sealed for it is not sealed again in this epoch.
    pub fn remember(&mut self, batch: &Batch, row: &MaskedRow) {
        self.sealer.remember(&batch.seals, &row.seals);
    }

    /// Seals a message as a dead letter.
    pub fn dead_letter(&mut self, message: &Message, reason: Reason, subject: Option<&Pii<String>>) -> DeadLetter {
        DeadLetter {
            reason,
            body_bytes: message.body_len(),
            sealed: self.sealer.epoch_mut().seal(message.key, message.body.expose()),
            subject: subject.map(|subject| self.keys.subject.tag(subject.expose())),
        }
    }

    fn verdict(
        &mut self,
        message: &Message,
        meaning: Result<Event<'_>, Reject>,
        rows: &mut Vec<u8>,
        seals: &mut Seals,
    ) -> Verdict {
        match meaning {
            Ok(event) => {
                let (start, begin) = (rows.len(), seals.begin_row());
                self.row(&event, rows, seals);
                let in_body = event.event_id.as_ref().map(|id| id.expose().as_ref());
                let event_id = in_body.or(message.event_id.as_ref().map(|id| id.expose().as_str()));
                let event_id = event_id.filter(|id| !id.is_empty() && !mutant::is(Mutant::NoDedupe));
                let claim = event_id.map(|id| self.claim(id));
                Verdict::Row(MaskedRow { bytes: start..rows.len(), claim, seals: seals.end_row(begin) })
            }
            Err(reject) => Verdict::Dead(self.dead_letter(message, reject.reason, reject.subject.as_ref())),
        }
    }

    /// The first 128 bits of SHA-256(queue, 0, id): an id may name a person, and is not stored.
    fn claim(&self, event_id: &str) -> Uuid {
        let digest = Sha256::new().chain_update(&self.queue).chain_update([0]).chain_update(event_id).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Uuid::from_bytes(bytes)
    }

    fn row(&mut self, event: &Event<'_>, out: &mut Vec<u8>, seals: &mut Seals) {
        self.tokens.clear();
        copy::tuple(out, self.columns.len());
        for (at, (column, value)) in self.columns.iter().zip(&event.values).enumerate() {
            let Some(field) = value.as_ref().map(Pii::expose) else {
                copy::null(out);
                continue;
            };
            if let Some(token) = masked(out, column.stored, &column.action, field) {
                self.tokens.push((at, token));
            }
        }
        let person = self.subject.and_then(|at| event.values[at].as_ref());
        if let Some(person) = person {
            self.seal(self.keys.subject.tag(&person.expose().raw), event, seals);
        }
    }

    /// Seals the originals of a row's tokens for its person, where that is to be done and is not done yet.
    fn seal(&mut self, person: SubjectTag, event: &Event<'_>, seals: &mut Seals) {
        let Self { columns, sealer, tokens, .. } = self;
        // All are looked up before one is sealed, so that the memory is waited for once a row, not once a value.
        tokens.retain(|(at, token)| columns[*at].vault.is_some() && !sealer.remembers(person, token));
        for (at, token) in tokens {
            if let (Some(name), Some(field)) = (&columns[*at].vault, &event.values[*at]) {
                sealer.seal(person, (name, token), original(field.expose()), seals);
            }
        }
    }
}

/// Masks a batch and puts it in the order in which it is written: by key, of two deliveries of a message the newer.
///
/// `read`: what a message means. Each is read when it is its turn, so a plain value outside its body lives no longer
/// than that.
pub fn mask(
    mut messages: Vec<Message>,
    read: impl Fn(&Message) -> Result<Event<'_>, Reject>,
    masker: &mut Masker,
) -> Batch {
    let received = messages.len();
    // Concurrent polls answer in any order: the delivery counted last is the newest, of equal counts the one received
    // last, since the sort is stable.
    messages.sort_by_cached_key(Message::order);
    let mut entries = Vec::with_capacity(received);
    let mut rows = Vec::with_capacity(received * 256);
    let mut seals = Seals::default();
    let mut messages = messages.into_iter().peekable();
    while let Some(mut message) = messages.next() {
        if messages.peek().is_some_and(|newer| newer.key == message.key) {
            continue;
        }
        let verdict = masker.verdict(&message, read(&message), &mut rows, &mut seals);
        // Sealed, it is not needed any more.
        if matches!(verdict, Verdict::Dead(_)) {
            message.body = Pii::new(Vec::new());
        }
        entries.push(Entry { message, verdict });
    }
    let epoch = masker.epoch().header().clone();
    Batch { doubles: received - entries.len(), entries, rows, epoch, seals, kid: masker.keys.token.kid() }
}

/// A value as it came, and what its token is made of.
fn original<'a>(field: &'a Field<'_>) -> Original<'a> {
    let kind = if matches!(field.value, Value::Ip(_)) { Kind::Ip } else { Kind::Text };
    Original { kind, raw: &field.raw }
}

/// Writes a value as its column is masked, and answers its token if it has a keyed one.
fn masked(out: &mut Vec<u8>, stored: ColumnType, action: &Action, field: &Field<'_>) -> Option<Token> {
    match (action, field.value) {
        (Action::Plain, _) => copy::field(out, stored, field),
        (Action::Token { key, .. }, value) => {
            let token = match value {
                Value::Ip(address) => key.ip(address),
                _ => key.text(&field.raw).expect("decode refuses a text that is too long for a token"),
            };
            copy::token(out, stored, &token);
            return Some(token);
        }
        (Action::Sha256, _) => copy::token(out, stored, &token::sha256(&field.raw)),
        (Action::Prefix, Value::Ip(address)) => prefix(out, stored, address),
        // The configuration allows a prefix of addresses only.
        (Action::Redact | Action::Prefix, _) => copy::null(out),
    }
    None
}

fn prefix(out: &mut Vec<u8>, stored: ColumnType, address: IpAddr) {
    let (network, bits) = token::prefix(address);
    match stored {
        ColumnType::Inet => copy::inet(out, network, Some(bits)),
        _ => copy::bytes(out, format!("{network}/{bits}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{
        config::{Config, Sources},
        queue::{Key, Receipt},
        start,
    };

    const ARN: &str = "arn:aws:sqs:eu-west-1:123456789012:logins";

    /// What a login claims that has this as its `event_id`, and this message attribute.
    fn claim(dedupe: &str, queue: &str, event_id: &str, attribute: Option<&str>) -> Option<String> {
        let file = format!("[queue]\ndedupe = \"{dedupe}\"\n");
        let sources = Sources { file: Some(("masq.toml", &file)), ..Sources::default() };
        let config = Config::check(&sources).unwrap();
        let stored: Vec<_> = config.columns.iter().map(|column| column.column_type).collect();
        let keys = Arc::new(KeyRing::throw_away().unwrap());
        let epoch = keys.new_epoch(0).now_or_never().unwrap().unwrap();
        let mut masker = Masker::new(&config.columns, &stored, keys, epoch).unwrap().of_queue(queue);
        let decoder = start::decoder(&config, &stored);
        let body = format!("{{\"user_id\": \"u\", \"event_id\": {event_id}}}").into_bytes();
        let key = Key { sent_at: 1, id: Uuid::nil() };
        let mut message = Message::new(key, 1, body, Receipt("".into()));
        message.event_id = attribute.map(|id| Pii::new(id.to_owned()));
        let batch = mask(vec![message], |message| decoder.read(message), &mut masker);
        match &batch.entries[0].verdict {
            Verdict::Row(row) => row.claim.map(|claim| claim.to_string()),
            Verdict::Dead(dead) => panic!("{}", dead.reason),
        }
    }

    /// The answers are those of `claim` in tests/reference.py.
    #[test]
    fn a_claim_is_a_hash_of_queue_and_id() {
        let e1 = Some("2c19eb2c-1966-2d53-ac79-41e7e5f51ff9".to_owned());
        assert_eq!(claim("body:event_id", ARN, "\"e-1\"", None), e1);
        assert_eq!(claim("body:event_id", ARN, "\"\\u0065-1\"", None), e1);
        assert_eq!(claim("attribute:event-id", ARN, "\"other\"", Some("e-1")), e1);
        assert_eq!(
            claim("body:event_id", "logins", "\"e-1\"", None),
            Some("a9ddf219-760d-38f0-6c41-cb7ffbfc418d".to_owned())
        );
        assert_eq!(claim("body:event_id", ARN, "17", None), Some("60d34e76-1f2a-5206-6e90-47df46d08719".to_owned()));
        assert_eq!(
            claim("attribute:event-id", ARN, "\"other\"", Some("17")),
            Some("60d34e76-1f2a-5206-6e90-47df46d08719".to_owned())
        );
    }

    #[test]
    fn without_a_readable_id_there_is_no_claim() {
        for event_id in ["null", "\"\"", "17.0", "true", "[1]"] {
            assert_eq!(claim("body:event_id", ARN, event_id, None), None, "{event_id}");
        }
        assert_eq!(claim("attribute:event-id", ARN, "\"e-1\"", None), None);
        assert_eq!(claim("attribute:event-id", ARN, "\"e-1\"", Some("")), None);
    }
}
