//! What a setting may be, and whether what was written is that.
//!
//! Errors here are the end of a sentence that begins with the setting's name: `must be …`.

use std::{net::SocketAddr, num::NonZeroU16, ops::RangeInclusive};

use super::{ColumnType, Dedupe, Path, complaint::suggestion, raw::Value};

/// What a setting may be.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A string that is not empty, and never quoted in a complaint: it may hold a password.
    Text,
    /// The address of an HTTP service.
    Url,
    /// An identifier of PostgreSQL's.
    Name,
    /// `address:port`, or the word `off`.
    Listen,
    /// true or false.
    Flag,
    /// A whole number, both bounds included.
    Integer(i64, i64),
    /// A number and a unit of time, both bounds in milliseconds and included.
    Duration(i64, i64),
    /// A number and a unit of memory, both bounds in bytes and included.
    Size(i64, i64),
    /// One word of several.
    Word(&'static [&'static str]),
    /// A type of PostgreSQL's.
    Type,
    /// Where in a message a value stands.
    Field,
    /// Where the producer's own id of an event stands.
    Dedupe,
    /// A string, a number, true or false.
    Literal,
}

/// A value that is what its setting may be.
#[derive(Clone, PartialEq)]
pub(super) enum Checked {
    /// Text, a URL, a name, an address, a word.
    Text(String),
    /// true or false.
    Flag(bool),
    /// An integer, milliseconds or bytes.
    Integer(i64),
    /// A column's type.
    Type(ColumnType),
    /// Where in a message a value stands.
    Field(Path),
    /// Where the producer's own id of an event stands.
    Dedupe(Dedupe),
    /// For a column's `default`.
    Literal(serde_json::Value),
}

pub(super) const SECOND: i64 = 1000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
pub(super) const MIB: i64 = 1024 * 1024;

/// Units of time in milliseconds, the longest first.
const TIME: &[(&str, i64)] = &[("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", 1)];
/// Units of memory in bytes, the largest first.
const MEMORY: &[(&str, i64)] = &[("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", 1024), ("B", 1)];

/// The bytes of an identifier that PostgreSQL keeps (NAMEDATALEN less one); it cuts off the rest without a word.
const LONGEST_NAME: usize = 63;

impl Kind {
    /// What a flag or an environment variable says, as a file would: there everything is a string.
    pub(super) fn value(self, text: &str) -> Value {
        match self {
            Self::Integer(..) => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer),
            _ => Value::Text(text.to_owned()),
        }
    }

    /// The value, if it is what it may be; else the end of a sentence that begins with the setting's name.
    pub(super) fn check(self, value: &Value) -> Result<Checked, String> {
        match (self, value) {
            (Self::Flag, Value::Flag(flag)) => Ok(Checked::Flag(*flag)),
            (Self::Integer(least, most), Value::Integer(number)) if (least..=most).contains(number) => {
                Ok(Checked::Integer(*number))
            }
            (Self::Integer(least, most), _) => Err(format!("must be a whole number from {least} to {most}")),
            (Self::Literal, _) => literal(value).map(Checked::Literal),
            (Self::Flag, _) => Err(format!("must be true or false, not {}", value.kind())),
            (_, Value::Text(text)) => self.check_text(text),
            _ => Err(format!("must be a string, not {}", value.kind())),
        }
    }

    fn check_text(self, text: &str) -> Result<Checked, String> {
        let plain = match self {
            Self::Type => return text.parse().map(Checked::Type),
            Self::Field => return Path::parse(text).map(Checked::Field),
            Self::Dedupe => return Dedupe::parse(text).map(Checked::Dedupe),
            Self::Duration(least, most) => return quantity(text, TIME, least..=most).map(Checked::Integer),
            Self::Size(least, most) => return quantity(text, MEMORY, least..=most).map(Checked::Integer),
            Self::Name => name(text),
            Self::Url => url(text),
            Self::Listen => listen(text),
            Self::Word(words) => word(text, words),
            Self::Text | Self::Flag | Self::Integer(..) | Self::Literal => not_empty(text),
        };
        plain.map(|()| Checked::Text(text.to_owned()))
    }
}

fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.contains('\0') { Err("must not hold a NUL character".to_owned()) } else { Ok(()) }
}

/// Whether a name can be a table's or a column's.
pub(super) fn name(text: &str) -> Result<(), String> {
    not_empty(text)?;
    if text.len() > LONGEST_NAME {
        return Err(format!("has {} bytes; PostgreSQL keeps {LONGEST_NAME} of a name", text.len()));
    }
    Ok(())
}

fn url(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let place = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if place.is_empty() || text.contains(char::is_whitespace) {
        return Err("must be a URL that begins with https:// or http://".to_owned());
    }
    if place.contains('@') {
        return Err("must name a host, without user or password".to_owned());
    }
    // What follows the last colon, unless that stands inside an IPv6 address.
    match place.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((_, port)) if port.parse::<NonZeroU16>().is_err() => {
            Err("must have a port from 1 to 65535, or none".to_owned())
        }
        _ => Ok(()),
    }
}

fn listen(text: &str) -> Result<(), String> {
    if text == "off" || text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    Err("must be an IP address and a port, like \"127.0.0.1:9464\", or \"off\"".to_owned())
}

fn word(text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) {
        return Ok(());
    }
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let (last, others) = quoted.split_last().map_or((String::new(), String::new()), |(l, o)| (l.clone(), o.join(", ")));
    Err(format!("must be {others} or {last}, not \"{text}\"{}", suggestion(text, words.iter().copied())))
}

/// A number and a unit, in the smallest of `units`.
fn quantity(text: &str, units: &[(&str, i64)], bounds: RangeInclusive<i64>) -> Result<i64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let size = units.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, size)| *size);
    let total = digits.parse::<i64>().ok().zip(size).map(|(number, size)| number.saturating_mul(size));
    let (least, most) = (in_units(*bounds.start(), units), in_units(*bounds.end(), units));
    match total {
        Some(total) if bounds.contains(&total) => Ok(total),
        Some(_) => Err(format!("must be from {least} to {most}, not {text}")),
        None => {
            let names: Vec<_> = units.iter().map(|(name, _)| *name).collect();
            Err(format!("must be a whole number and a unit ({}), from {least} to {most}", names.join(", ")))
        }
    }
}

/// The shortest way to write a quantity.
fn in_units(total: i64, units: &[(&str, i64)]) -> String {
    let unit = units.iter().find(|(_, size)| total % size == 0);
    unit.map_or_else(|| total.to_string(), |(name, size)| format!("{}{name}", total / size))
}

fn literal(value: &Value) -> Result<serde_json::Value, String> {
    match value {
        Value::Text(text) if text.contains('\0') => Err("must not hold a NUL character".to_owned()),
        Value::Text(text) => Ok(text.as_str().into()),
        Value::Integer(number) => Ok((*number).into()),
        Value::Float(number) if number.is_finite() => Ok((*number).into()),
        Value::Flag(flag) => Ok((*flag).into()),
        Value::Float(_) => Err("must be finite".to_owned()),
        Value::Table(_) | Value::Other(_) => {
            Err(format!("must be a string, a number, true or false, not {}", value.kind()))
        }
    }
}
