//! Step 2: a body becomes an [`Event`], or a [`Reject`] that says why not. Pure, and it never fails.
//!
//! The body is judged whole before a field is looked at, so a fault in a field that nobody asked for counts too. Which
//! reason wins when several fit is fixed: the first in [`Reason::KINDS`], and of two alike the one of the earlier column.
//! What comes out of an envelope is judged as a body is, and what a single value means is in [`value`].

use std::borrow::Cow;

use crate::{
    config::{Column, Default, Envelope, Meaning, OnInvalid, Path, UnknownFields},
    event::{Event, Field, Reason, Reject, Value},
    json::{At, Document, Json},
    mutant::{self, Mutant},
    pii::Pii,
    pipeline::{
        envelope,
        value::{self, Limits},
    },
    queue::Message,
};

/// The largest body that is read, in bytes: SQS's own limit for a message.
pub const MAX_BODY: usize = 1_048_576;

/// Knows what messages come wrapped in, and the columns: where their values stand in a message, what they mean, what the
/// table can hold.
pub struct Decoder {
    columns: Vec<Column>,
    limits: Vec<Limits>,
    /// Fields of a message in which a column or the event's id stands, each once.
    known: Vec<String>,
    unknown_fields: UnknownFields,
    envelope: Envelope,
    event_id: Option<Path>,
}

impl Decoder {
    /// `limits`: what the table's column can hold, one for each column.
    pub fn new(columns: Vec<Column>, limits: Vec<Limits>, unknown_fields: UnknownFields) -> Self {
        let mut known: Vec<String> =
            columns.iter().filter_map(|column| column.from.segments.first().cloned()).collect();
        known.sort_unstable();
        known.dedup();
        Self { columns, limits, known, unknown_fields, envelope: Envelope::None, event_id: None }
    }

    /// Takes messages out of this.
    #[must_use]
    pub fn unwrapping(self, envelope: Envelope) -> Self {
        Self { envelope, ..self }
    }

    /// Looks there for what the producer knows an event by.
    #[must_use]
    pub fn with_event_id(mut self, path: Path) -> Self {
        let name = path.segments.first().filter(|name| !self.known.contains(name));
        self.known.extend(name.cloned());
        Self { event_id: Some(path), ..self }
    }

    /// Whom a message concerns, as far as its body can be read at all.
    pub fn subject(&self, message: &Message) -> Option<Pii<String>> {
        let text = std::str::from_utf8(message.body.expose()).ok()?;
        self.find_subject(&Document::parse(text).ok()?)
    }

    /// What a message means, or why it means nothing.
    pub fn read<'m>(&self, message: &'m Message) -> Result<Event<'m>, Reject> {
        let document = parse(message.body.expose()).map_err(|reason| Reject { reason, subject: None })?;
        self.read_body(&document, message.key.sent_at)
            .map_err(|reason| Reject { reason, subject: self.find_subject(&document) })
    }

    fn read_body<'m>(&self, document: &Document<'m>, sent_at: i64) -> Result<Event<'m>, Reason> {
        let Some(inner) = envelope::open(document, self.envelope)? else {
            return self.read_object(document, sent_at);
        };
        let inner = parse(inner.expose().as_bytes())?;
        self.read_object(&inner, sent_at).map(Event::into_owned).map_err(|reason| match reason {
            // An object with a configured field is a message, whatever else it looks like.
            Reason::NotObject | Reason::UnknownMessageType => envelope::still_wrapped(&inner).unwrap_or(reason),
            reason => reason,
        })
    }

    fn read_object<'m>(&self, document: &Document<'m>, sent_at: i64) -> Result<Event<'m>, Reason> {
        if document.value(Document::ROOT) != Json::Object {
            return Err(Reason::NotObject);
        }
        if let Some(fault) = document.fault() {
            return Err(fault.into());
        }
        let mut values = Vec::with_capacity(self.columns.len());
        let mut worst: Option<Reason> = None;
        let mut is_known = false;
        for (column, limits) in self.columns.iter().zip(&self.limits) {
            let found = find(document, &column.from);
            is_known |= !matches!(found, Ok(None));
            match found.and_then(|at| read_field(document, at, column, limits, sent_at)) {
                Ok(field) => values.push(field.map(Pii::new)),
                Err(reason) if worst.as_ref().is_none_or(|worst| reason.rank() < worst.rank()) => worst = Some(reason),
                Err(_) => {}
            }
        }
        let unknown_fields = self.count_unknown(document);
        match worst {
            _ if !is_known => Err(Reason::UnknownMessageType),
            Some(reason) => Err(reason),
            None if unknown_fields > 0 && self.refuses_unknown() => Err(Reason::UnknownField),
            None => Ok(Event { values, event_id: self.find_event_id(document), unknown_fields }),
        }
    }

    fn refuses_unknown(&self) -> bool {
        self.unknown_fields == UnknownFields::Reject || mutant::is(Mutant::OtherVerdict)
    }

    fn count_unknown(&self, document: &Document) -> usize {
        let known = self.known.iter().filter(|name| document.member(Document::ROOT, name).is_some());
        document.members(Document::ROOT).count() - known.count()
    }

    /// Looks where the message should stand and then where else it may: a message in an envelope that nobody expected
    /// concerns somebody, too.
    fn find_subject(&self, document: &Document) -> Option<Pii<String>> {
        let inside = || self.subject_in(&Document::parse(envelope::peek(document)?.expose()).ok()?);
        let outside = || self.subject_in(document);
        if self.envelope == Envelope::None { outside().or_else(inside) } else { inside().or_else(outside) }
    }

    fn subject_in(&self, document: &Document) -> Option<Pii<String>> {
        let column = self.columns.iter().find(|column| column.subject)?;
        match document.value(find(document, &column.from).ok()??) {
            Json::String(name) if !name.is_empty() => Some(Pii::new(name.into_owned())),
            _ => None,
        }
    }

    fn find_event_id<'m>(&self, document: &Document<'m>) -> Option<Pii<Cow<'m, str>>> {
        match document.value(find(document, self.event_id.as_ref()?).ok()??) {
            Json::String(id) if !id.is_empty() => Some(Pii::new(id)),
            Json::Number(id) if !id.contains(['.', 'e', 'E']) => Some(Pii::new(Cow::Borrowed(id))),
            _ => None,
        }
    }
}

impl Event<'_> {
    /// The same, of which nothing is borrowed.
    pub fn into_owned(self) -> Event<'static> {
        let owned = |field: Pii<Field>| {
            let Field { raw, value } = field.expose();
            Pii::new(Field { raw: Cow::Owned(raw.as_ref().to_owned()), value: *value })
        };
        Event {
            values: self.values.into_iter().map(|value| value.map(owned)).collect(),
            event_id: self.event_id.map(|id| Pii::new(Cow::Owned(id.expose().as_ref().to_owned()))),
            unknown_fields: self.unknown_fields,
        }
    }
}

/// Judges the form of a body.
fn parse(body: &[u8]) -> Result<Document<'_>, Reason> {
    let text = std::str::from_utf8(body).map_err(|_not_utf8| Reason::InvalidUnicode)?;
    let document = Document::parse(text)?;
    if body.len() > MAX_BODY { Err(Reason::TooLarge) } else { Ok(document) }
}

/// Follows a path. A parent that is missing or null means that there is no value; a parent of another type is
/// a wrong type.
fn find(document: &Document, path: &Path) -> Result<Option<At>, Reason> {
    let mut at = Document::ROOT;
    for segment in &path.segments {
        let next = match document.value(at) {
            Json::Object => document.member(at, segment),
            Json::Array if path.pointer => index(segment).and_then(|index| document.element(at, index)),
            Json::Null => None,
            _ => return Err(Reason::WrongType(path.text.clone())),
        };
        let Some(next) = next else { return Ok(None) };
        at = next;
    }
    Ok(Some(at))
}

/// An array's index as RFC 6901 writes it: digits without a leading zero.
fn index(segment: &str) -> Option<usize> {
    let digits = segment.bytes().all(|byte| byte.is_ascii_digit());
    segment.parse().ok().filter(|_| digits && (segment == "0" || !segment.starts_with('0')))
}

/// The value of one column, its default, NULL, or what is wrong with it.
fn read_field<'m>(
    document: &Document<'m>,
    at: Option<At>,
    column: &Column,
    limits: &Limits,
    sent_at: i64,
) -> Result<Option<Field<'m>>, Reason> {
    let missing = match at.map(|at| document.value(at)) {
        None | Some(Json::Null) => Some(Reason::MissingField(column.from.text.clone())),
        Some(Json::String(text)) if text.is_empty() => Some(Reason::EmptyField(column.from.text.clone())),
        Some(_) => None,
    };
    match (missing, at) {
        (Some(reason), _) if column.required => Err(reason),
        (Some(_), _) | (None, None) => Ok(stand_in(column, sent_at)),
        (None, Some(at)) => match value::read(document, at, column, limits) {
            Ok(field) => Ok(Some(field)),
            Err(_) if column.on_invalid == OnInvalid::Null && !column.required => Ok(None),
            Err(reason) => Err(reason),
        },
    }
}

/// Why a literal `default` is no value for its column, if it is none. Asked at the start, so that it is not found out
/// by the first message that lacks the field.
pub fn bad_default(column: &Column, limits: &Limits) -> Option<Reason> {
    let Some(Default::Literal(literal)) = &column.default else { return None };
    let text = literal.to_string();
    let document = Document::parse(&text).ok()?;
    value::read(&document, Document::ROOT, column, limits).err()
}

/// What stands in for a value that is not there.
fn stand_in(column: &Column, sent_at: i64) -> Option<Field<'static>> {
    const DAY_MS: i64 = 86_400_000;
    match column.default.as_ref()? {
        Default::Literal(literal) => {
            let text = literal.to_string();
            let document = Document::parse(&text).ok()?;
            let Field { raw, value } = value::read(&document, Document::ROOT, column, &Limits::NONE).ok()?;
            Some(Field { raw: Cow::Owned(raw.into_owned()), value })
        }
        // A column that means text gets the text of the day or moment, so that it is stored as one reads it.
        Default::SentDate => {
            let day = i32::try_from(sent_at.div_euclid(DAY_MS)).ok()?;
            let value = if column.meaning == Meaning::Text { Value::Text } else { Value::Date(day) };
            Some(Field { raw: Cow::Owned(value::date_text(day)?), value })
        }
        Default::SentAt => {
            let value = if column.meaning == Meaning::Text { Value::Text } else { Value::Timestamp(sent_at * 1000) };
            Some(Field { raw: Cow::Owned(value::timestamp_text(sent_at)?), value })
        }
    }
}

#[cfg(test)]
mod tests;
