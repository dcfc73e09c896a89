//! What a message means: an [`Event`], or a [`Reject`] that says why it means nothing to us.
//!
//! Neither knows of tables, tokens or queues. Their values are behind [`Pii`].

use std::{borrow::Cow, fmt, net::IpAddr};

use crate::{
    json::Fault,
    pii::{Pii, Wipe},
};

/// One decoded message: a value for every configured column, in the columns' order. `None` is NULL. What can be is
/// borrowed from the message's body.
pub struct Event<'m> {
    /// As many as there are columns.
    pub values: Vec<Option<Pii<Field<'m>>>>,
    /// What its producer knows it by, where that is looked for in the body and can be read.
    pub event_id: Option<Pii<Cow<'m, str>>>,
    /// How many fields of the message no column asked for; they are dropped.
    pub unknown_fields: usize,
}

/// One value of a message: as it came, and what it means.
pub struct Field<'m> {
    /// The string as it came, escapes resolved and nothing trimmed; for anything but a string, its JSON text.
    pub raw: Cow<'m, str>,
    /// What it means.
    pub value: Value,
}

impl Wipe for Field<'_> {
    fn wipe(&mut self) {
        self.raw.wipe();
        self.value = Value::Text;
    }
}

/// What a value means, checked and canonical. Text and JSON mean just what they say: see [`Field::raw`].
#[derive(Clone, Copy)]
pub enum Value {
    /// The text itself.
    Text,
    /// A whole number.
    Integer(i64),
    /// A number, as the double nearest to it.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// A UUID's sixteen bytes.
    Uuid([u8; 16]),
    /// An address; an IPv4 address written as IPv6 (::ffff:1.2.3.4) is the IPv4 address.
    Ip(IpAddr),
    /// Major, minor and patch; a part that is not there is 0.
    Version([u32; 3]),
    /// Any JSON.
    Json,
}

/// A message that becomes a dead letter: why, and what can be said of whom it concerns.
pub struct Reject {
    /// Why.
    pub reason: Reason,
    /// The subject's name, where it could be read although something else was wrong.
    pub subject: Option<Pii<String>>,
}

/// Why a message is a dead letter. The codes, and which of them wins when several fit (the first in this order), are a
/// contract: they stand in the table and in metrics. A field is named as the configuration names it in `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each means what its code in `kind` says
pub enum Reason {
    EmptyBody,
    NotJson,
    TruncatedJson,
    TrailingData,
    TooDeep,
    TooLarge,
    NotObject,
    DuplicateKey,
    InvalidUnicode,
    NulCharacter,
    NumberOutOfRange,
    UnknownMessageType,
    MissingField(String),
    EmptyField(String),
    WrongType(String),
    FieldTooLong(String),
    BadIp(String),
    BadVersion(String),
    BadDate(String),
    BadUuid(String),
    UnknownField,
    DoubleEncoded,
    EnvelopeUnsupported,
    EnvelopeInvalid,
    /// Refused by PostgreSQL, with this SQLSTATE.
    DbRejected(String),
    /// Whoever read it alone did not live to say that it is harmless.
    PoisonReceiveCount,
    OlderThanLedger,
}

impl Reason {
    /// All codes without their fields, in the order in which they win.
    pub const KINDS: [&str; 27] = [
        "empty_body",
        "not_json",
        "truncated_json",
        "trailing_data",
        "too_deep",
        "too_large",
        "not_object",
        "duplicate_key",
        "invalid_unicode",
        "nul_character",
        "number_out_of_range",
        "unknown_message_type",
        "missing_field",
        "empty_field",
        "wrong_type",
        "field_too_long",
        "bad_ip",
        "bad_version",
        "bad_date",
        "bad_uuid",
        "unknown_field",
        "double_encoded",
        "envelope_unsupported",
        "envelope_invalid",
        "db_rejected",
        "poison_receive_count",
        "older_than_ledger",
    ];

    /// Its place in [`Reason::KINDS`]: the lower one wins.
    pub fn rank(&self) -> usize {
        Self::KINDS.iter().position(|&kind| kind == self.kind()).unwrap_or(Self::KINDS.len())
    }

    /// The code without the field: a closed set, fit for a metric's label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::EmptyBody => "empty_body",
            Self::NotJson => "not_json",
            Self::TruncatedJson => "truncated_json",
            Self::TrailingData => "trailing_data",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::NotObject => "not_object",
            Self::DuplicateKey => "duplicate_key",
            Self::InvalidUnicode => "invalid_unicode",
            Self::NulCharacter => "nul_character",
            Self::NumberOutOfRange => "number_out_of_range",
            Self::UnknownMessageType => "unknown_message_type",
            Self::MissingField(_) => "missing_field",
            Self::EmptyField(_) => "empty_field",
            Self::WrongType(_) => "wrong_type",
            Self::FieldTooLong(_) => "field_too_long",
            Self::BadIp(_) => "bad_ip",
            Self::BadVersion(_) => "bad_version",
            Self::BadDate(_) => "bad_date",
            Self::BadUuid(_) => "bad_uuid",
            Self::UnknownField => "unknown_field",
            Self::DoubleEncoded => "double_encoded",
            Self::EnvelopeUnsupported => "envelope_unsupported",
            Self::EnvelopeInvalid => "envelope_invalid",
            Self::DbRejected(_) => "db_rejected",
            Self::PoisonReceiveCount => "poison_receive_count",
            Self::OlderThanLedger => "older_than_ledger",
        }
    }

    /// The field or SQLSTATE that belongs to it.
    fn detail(&self) -> Option<&str> {
        match self {
            Self::MissingField(detail)
            | Self::EmptyField(detail)
            | Self::WrongType(detail)
            | Self::FieldTooLong(detail)
            | Self::BadIp(detail)
            | Self::BadVersion(detail)
            | Self::BadDate(detail)
            | Self::BadUuid(detail)
            | Self::DbRejected(detail) => Some(detail),
            _ => None,
        }
    }
}

impl From<Fault> for Reason {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Empty => Self::EmptyBody,
            Fault::Syntax => Self::NotJson,
            Fault::Truncated => Self::TruncatedJson,
            Fault::Trailing => Self::TrailingData,
            Fault::TooDeep => Self::TooDeep,
            Fault::DuplicateKey => Self::DuplicateKey,
            Fault::LoneSurrogate => Self::InvalidUnicode,
            Fault::Nul => Self::NulCharacter,
            Fault::NumberOutOfRange => Self::NumberOutOfRange,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.detail().map_or(Ok(()), |detail| write!(f, ":{detail}"))
    }
}
