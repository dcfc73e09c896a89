//! What one value of a message means, by its column's `as`, and whether the table's column can hold it. Pure.
//!
//! Nothing is coerced: a device id that comes as a number would get another token than the same digits in a string.

use std::borrow::Cow;

use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    config::{Column, ColumnType, Mask, Meaning},
    event::{Field, Reason, Value},
    json::{At, Document, Json},
    vault::token,
};

/// What a column of the table can hold, found out before PostgreSQL has to say so.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Characters, not bytes, trailing spaces included.
    characters: Option<usize>,
    /// The smallest and the largest whole number.
    integers: (i64, i64),
    /// Whether a version is stored as one number, major*10000 + minor*100 + patch.
    version_is_number: bool,
    /// Whether a number is stored in four bytes.
    single_precision: bool,
    /// Whether a number is stored digit by digit.
    numeric: bool,
}

impl Limits {
    /// Anything goes.
    pub const NONE: Self = Self {
        characters: None,
        integers: (i64::MIN, i64::MAX),
        version_is_number: false,
        single_precision: false,
        numeric: false,
    };

    /// The limits of a column of this type. An original is held to the column's length even where a token of 64
    /// characters will stand there instead: what is too long for the plain column is too long for the masked one. What
    /// is left of an address is short whatever its spelling, and of what is redacted nothing is left.
    pub fn of(stored: ColumnType, mask: Option<&Mask>) -> Self {
        let characters = match stored {
            ColumnType::Varchar(length) => length.map(|length| length as usize),
            ColumnType::Char(length) => Some(length as usize),
            _ => None,
        };
        let integers = match stored {
            ColumnType::SmallInt => (i16::MIN.into(), i16::MAX.into()),
            ColumnType::Integer => (i32::MIN.into(), i32::MAX.into()),
            _ => (i64::MIN, i64::MAX),
        };
        Self {
            characters: characters.filter(|_| !matches!(mask, Some(Mask::Redact | Mask::Prefix))),
            integers,
            version_is_number: matches!(stored, ColumnType::Integer | ColumnType::BigInt),
            single_precision: stored == ColumnType::Real,
            numeric: stored == ColumnType::Numeric,
        }
    }
}

/// The Julian day of 1970-01-01.
const UNIX_EPOCH: i32 = 2_440_588;

/// A token's frame holds the text's length in two bytes.
const MAX_TOKEN_TEXT: usize = u16::MAX as usize;

/// Reads the value that stands there; it is neither null nor an empty string.
pub(super) fn read<'m>(document: &Document<'m>, at: At, column: &Column, limits: &Limits) -> Result<Field<'m>, Reason> {
    let field = || column.from.text.clone();
    let json = document.value(at);
    let value = match (column.meaning, &json) {
        (Meaning::Json, _) => Value::Json,
        (Meaning::Integer, Json::Number(text)) => Value::Integer(integer(text, limits, field)?),
        (Meaning::Number, Json::Number(text)) => Value::Number(number(text, limits)?),
        (Meaning::Boolean, Json::Boolean(value)) => Value::Boolean(*value),
        (Meaning::Version, Json::Number(text)) => Value::Version(major(text, limits, field)?),
        (Meaning::Integer | Meaning::Number | Meaning::Boolean, _) => return Err(Reason::WrongType(field())),
        (_, Json::String(text)) => {
            check_length(text, column, limits)?;
            from_text(text, column.meaning, limits, field)?
        }
        _ => return Err(Reason::WrongType(field())),
    };
    let raw = match json {
        Json::String(text) if column.meaning != Meaning::Json => text,
        _ => {
            check_length(document.text(at), column, limits)?;
            Cow::Borrowed(document.text(at))
        }
    };
    Ok(Field { raw, value })
}

fn from_text(text: &str, meaning: Meaning, limits: &Limits, field: impl Fn() -> String) -> Result<Value, Reason> {
    Ok(match meaning {
        Meaning::Date => Value::Date(date(text).ok_or_else(|| Reason::BadDate(field()))?),
        Meaning::Timestamp => Value::Timestamp(timestamp(text).ok_or_else(|| Reason::BadDate(field()))?),
        Meaning::Uuid => Value::Uuid(uuid(text).ok_or_else(|| Reason::BadUuid(field()))?),
        Meaning::Ip => Value::Ip(token::canonical_ip(text).ok_or_else(|| Reason::BadIp(field()))?),
        Meaning::Version => {
            Value::Version(version(text).filter(|&v| fits(v, limits)).ok_or_else(|| Reason::BadVersion(field()))?)
        }
        _ => Value::Text,
    })
}

fn check_length(text: &str, column: &Column, limits: &Limits) -> Result<(), Reason> {
    // As many bytes as characters are allowed are never too many characters.
    let too_long = limits.characters.is_some_and(|most| text.len() > most && text.chars().count() > most);
    let too_long_for_token = matches!(column.mask, Some(Mask::Hmac { .. })) && text.len() > MAX_TOKEN_TEXT;
    if too_long || too_long_for_token { Err(Reason::FieldTooLong(column.from.text.clone())) } else { Ok(()) }
}

fn is_whole(text: &str) -> bool {
    !text.contains(['.', 'e', 'E'])
}

fn integer(text: &str, limits: &Limits, field: impl Fn() -> String) -> Result<i64, Reason> {
    if !is_whole(text) {
        return Err(Reason::WrongType(field()));
    }
    let (least, most) = limits.integers;
    text.parse().ok().filter(|value| (least..=most).contains(value)).ok_or(Reason::NumberOutOfRange)
}

#[allow(clippy::cast_possible_truncation)] // that it may not fit is the question
fn number(text: &str, limits: &Limits) -> Result<f64, Reason> {
    text.parse::<f64>()
        .ok()
        .filter(|value| value.is_finite() && !(limits.single_precision && (*value as f32).is_infinite()))
        .filter(|_| !limits.numeric || fits_numeric(text))
        .ok_or(Reason::NumberOutOfRange)
}

/// Whether PostgreSQL's `numeric_recv` takes a number: at most 16,383 decimal places and 3,000 groups of four digits,
/// here a little fewer, whatever their place about the point. More it would call a broken protocol.
fn fits_numeric(text: &str) -> bool {
    const DIGITS: usize = 11_900;
    const PLACES: i32 = 16_383;
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let (Ok(exponent), Ok(fraction)) = (exponent.parse::<i32>(), i32::try_from(fraction)) else { return false };
    mantissa.len() <= DIGITS && (-PLACES..=PLACES).contains(&exponent) && fraction - exponent <= PLACES
}

/// A whole number in place of a version is its major part: the one thing that is read in two forms.
fn major(text: &str, limits: &Limits, field: impl Fn() -> String) -> Result<[u32; 3], Reason> {
    if !is_whole(text) {
        return Err(Reason::WrongType(field()));
    }
    let version = text.parse().ok().map(|major| [major, 0, 0]);
    version.filter(|&version| fits(version, limits)).ok_or_else(|| Reason::BadVersion(field()))
}

/// One to three groups of one to nine ASCII digits, with single dots between them.
fn version(text: &str) -> Option<[u32; 3]> {
    let mut parts = [0; 3];
    for (index, group) in text.split('.').enumerate() {
        let digits = (1..=9).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_digit());
        *parts.get_mut(index).filter(|_| digits)? = group.parse().ok()?;
    }
    Some(parts)
}

fn fits([major, minor, patch]: [u32; 3], limits: &Limits) -> bool {
    let number = i64::from(major) * 10_000 + i64::from(minor) * 100 + i64::from(patch);
    !limits.version_is_number || (minor < 100 && patch < 100 && number <= limits.integers.1)
}

/// YYYY-MM-DD and nothing else; days since 1970-01-01.
fn date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    let form = bytes.len() == 10
        && bytes.iter().enumerate().all(|(i, b)| if i == 4 || i == 7 { *b == b'-' } else { b.is_ascii_digit() });
    if !form {
        return None;
    }
    let (year, month, day) = (text[..4].parse().ok()?, text[5..7].parse::<u8>().ok()?, text[8..].parse().ok()?);
    let date = Date::from_calendar_date(year, month.try_into().ok()?, day).ok()?;
    // PostgreSQL knows no year 0.
    (year > 0).then(|| date.to_julian_day() - UNIX_EPOCH)
}

/// RFC 3339; microseconds since 1970-01-01 UTC, what is finer cut off.
fn timestamp(text: &str) -> Option<i64> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let micros = moment.unix_timestamp_nanos().div_euclid(1000);
    i64::try_from(micros).ok().filter(|_| moment.year() > 0)
}

/// The usual form, 8-4-4-4-12 hexadecimal digits.
fn uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    uuid::Uuid::try_parse(text).ok().map(uuid::Uuid::into_bytes)
}

/// A day as text, YYYY-MM-DD. Written by hand, since most messages need it: the general way costs a fifth of masking.
pub(super) fn date_text(days: i32) -> Option<String> {
    let (year, month, day) = Date::from_julian_day(days + UNIX_EPOCH).ok()?.to_calendar_date();
    let year = u16::try_from(year).ok().filter(|year| *year <= 9999)?;
    let mut text = String::with_capacity("YYYY-MM-DD".len());
    for (number, places) in
        [(year, [1000, 100, 10, 1].as_slice()), (u8::from(month).into(), &[10, 1]), (day.into(), &[10, 1])]
    {
        if !text.is_empty() {
            text.push('-');
        }
        text.extend(places.iter().filter_map(|place| char::from_digit(u32::from(number / place % 10), 10)));
    }
    Some(text)
}

/// A moment as text (RFC 3339), from milliseconds since 1970-01-01 UTC.
pub(super) fn timestamp_text(millis: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_reads_as_the_time_crate_writes_it() {
        for days in 0..2_932_897 {
            let date = Date::from_julian_day(days + UNIX_EPOCH).unwrap();
            if days % 97 == 0 || date.day() == 1 {
                assert_eq!(date_text(days), Some(date.to_string()));
            }
        }
    }
}
