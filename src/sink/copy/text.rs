//! Values of COPY BINARY as text, as psql shows them (ISO dates, UTC): what a masked row is going to look like.
//!
//! It reads what [`super`] writes and is no reader of what PostgreSQL may send. Pure.

use std::net::IpAddr;

use time::{Date, OffsetDateTime};

use super::{EPOCH_DAYS, EPOCH_MICROS};
use crate::config::ColumnType;

/// The Julian day of 1970-01-01.
const UNIX_EPOCH: i32 = 2_440_588;

/// The values of one tuple in the columns' order, each `None` where it is NULL; `None` altogether if the bytes are no
/// tuple of columns of these types.
pub fn texts(tuple: &[u8], stored: &[ColumnType]) -> Option<Vec<Option<String>>> {
    let (fields, mut rest) = tuple.split_first_chunk()?;
    if usize::try_from(i16::from_be_bytes(*fields)).ok()? != stored.len() {
        return None;
    }
    let mut values = Vec::with_capacity(stored.len());
    for column_type in stored {
        let (length, after) = rest.split_first_chunk()?;
        let (value, after) = match i32::from_be_bytes(*length) {
            -1 => (None, after),
            length => {
                let (bytes, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
                (Some(text(*column_type, bytes)?), after)
            }
        };
        values.push(value);
        rest = after;
    }
    rest.is_empty().then_some(values)
}

fn text(stored: ColumnType, bytes: &[u8]) -> Option<String> {
    Some(match stored {
        ColumnType::Text | ColumnType::Varchar(_) | ColumnType::Char(_) | ColumnType::Json => utf8(bytes)?,
        ColumnType::Jsonb => utf8(bytes.split_first()?.1)?,
        ColumnType::SmallInt => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        ColumnType::Integer => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        ColumnType::BigInt => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        ColumnType::Real => f32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        ColumnType::DoublePrecision => f64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        ColumnType::Numeric => numeric(bytes)?,
        ColumnType::Boolean => (*bytes.first()? != 0).to_string(),
        ColumnType::Date => date(i32::from_be_bytes(bytes.try_into().ok()?))?,
        ColumnType::Timestamp => timestamp(i64::from_be_bytes(bytes.try_into().ok()?))?,
        ColumnType::TimestampTz => timestamp(i64::from_be_bytes(bytes.try_into().ok()?))? + "+00",
        ColumnType::Uuid => uuid::Uuid::from_slice(bytes).ok()?.to_string(),
        ColumnType::Inet => inet(bytes)?,
        ColumnType::Bytea => bytes.iter().fold("\\x".to_owned(), |hex, byte| hex + &format!("{byte:02x}")),
    })
}

fn utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

fn date(days: i32) -> Option<String> {
    let date = Date::from_julian_day(days.checked_add(EPOCH_DAYS + UNIX_EPOCH)?).ok()?;
    Some(date.to_string())
}

/// Without zeros at the end of the fraction, and without a fraction that is nothing else.
fn timestamp(micros: i64) -> Option<String> {
    let nanos = (i128::from(micros) + i128::from(EPOCH_MICROS)) * 1000;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    let (hour, minute, second, micros) = moment.to_hms_micro();
    let text = format!("{} {hour:02}:{minute:02}:{second:02}.{micros:06}", moment.date());
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// The bits are shown where they name a network.
fn inet(bytes: &[u8]) -> Option<String> {
    let ([_family, bits, _is_cidr, _length], address) = bytes.split_first_chunk()?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    let all = if address.is_ipv4() { 32 } else { 128 };
    Some(if *bits == all { address.to_string() } else { format!("{address}/{bits}") })
}

/// Groups of four digits around the decimal point, the first of them at `weight` groups left of it.
fn numeric(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (_count, weight, sign, places) = (words.next()?, words.next()?, words.next()?, usize::from(words.next()?));
    let weight = i32::from(weight.cast_signed());
    let groups: Vec<u16> = words.collect();
    let group = |place: i32| usize::try_from(weight - place).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let digits = |places: &mut dyn Iterator<Item = i32>| -> String {
        places.map(|place| format!("{:04}", group(place))).collect()
    };
    let whole = digits(&mut (0..=weight).rev());
    let mut fraction = digits(&mut (1..=i32::try_from(places.div_ceil(4)).ok()?).map(|place| -place));
    fraction.truncate(places);
    let sign = if sign == 0 { "" } else { "-" };
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::{Field, Value},
        sink::copy,
    };

    /// What stands in a column after this value was written.
    fn stored(column_type: ColumnType, raw: &str, value: Value) -> Option<String> {
        let mut out = Vec::new();
        copy::tuple(&mut out, 2);
        copy::null(&mut out);
        copy::field(&mut out, column_type, &Field { raw: raw.into(), value });
        let mut values = texts(&out, &[ColumnType::Text, column_type])?;
        assert_eq!(values.remove(0), None);
        values.remove(0)
    }

    #[test]
    fn every_type_reads_back() {
        use ColumnType as T;
        const SECOND: i64 = 1_683_356_889_000_000;
        for (column_type, raw, value, expected) in [
            (T::Text, "a\u{e9}", Value::Text, "a\u{e9}"),
            (T::Json, "{\"a\": 1}", Value::Json, "{\"a\": 1}"),
            (T::Jsonb, "[1]", Value::Json, "[1]"),
            (T::SmallInt, "-2", Value::Integer(-2), "-2"),
            (T::Integer, "", Value::Version([2, 3, 0]), "20300"),
            (T::BigInt, "", Value::Integer(i64::MIN), "-9223372036854775808"),
            (T::Real, "", Value::Number(0.1), "0.1"),
            (T::DoublePrecision, "", Value::Number(-1.5), "-1.5"),
            (T::Boolean, "true", Value::Boolean(true), "true"),
            (T::Date, "", Value::Date(19_483), "2023-05-06"),
            (T::Timestamp, "", Value::Timestamp(SECOND), "2023-05-06 07:08:09"),
            (T::TimestampTz, "", Value::Timestamp(SECOND + 120_000), "2023-05-06 07:08:09.12+00"),
            (T::TimestampTz, "", Value::Timestamp(-1), "1969-12-31 23:59:59.999999+00"),
            (T::Uuid, "", Value::Uuid([1; 16]), "01010101-0101-0101-0101-010101010101"),
            (T::Inet, "", Value::Ip([199, 172, 111, 135].into()), "199.172.111.135"),
            (T::Inet, "", Value::Ip([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()), "2001:db8::1"),
        ] {
            assert_eq!(stored(column_type, raw, value).as_deref(), Some(expected), "{column_type}");
        }
    }

    #[test]
    fn networks_and_bytes_read_back() {
        let mut out = Vec::new();
        copy::tuple(&mut out, 2);
        copy::inet(&mut out, IpAddr::from([199, 172, 111, 0]), Some(24));
        copy::bytes(&mut out, &[0, 0xff]);
        let texts = texts(&out, &[ColumnType::Inet, ColumnType::Bytea]).unwrap();
        assert_eq!(texts, [Some("199.172.111.0/24".into()), Some("\\x00ff".into())]);
    }

    #[test]
    fn numerics_read_as_postgresql_shows_them() {
        // Read off PostgreSQL 15: SELECT '…'::numeric.
        for (number, expected) in [
            ("0", "0"),
            ("-0.00", "0.00"),
            ("12345.678", "12345.678"),
            ("-9.99", "-9.99"),
            ("10000", "10000"),
            ("0.0001", "0.0001"),
            ("-0.00000012", "-0.00000012"),
            ("1e3", "1000"),
            ("1.5E-3", "0.0015"),
            ("100000000.00000001", "100000000.00000001"),
        ] {
            assert_eq!(stored(ColumnType::Numeric, number, Value::Number(0.0)).as_deref(), Some(expected), "{number}");
        }
    }

    #[test]
    fn what_is_no_tuple_of_these_columns_is_none() {
        let tuple = [0, 1, 0, 0, 0, 4, 0, 0, 0, 7];
        assert_eq!(texts(&tuple, &[ColumnType::Integer]), Some(vec![Some("7".into())]));
        assert_eq!(texts(&tuple, &[ColumnType::BigInt]), None);
        assert_eq!(texts(&tuple, &[ColumnType::Integer; 2]), None);
        assert_eq!(texts(&tuple[..9], &[ColumnType::Integer]), None);
        assert_eq!(texts(&[&tuple[..], &[0]].concat(), &[ColumnType::Integer]), None);
        assert_eq!(texts(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn any_number_reads_back(whole: i64, fraction in "[0-9]{1,12}") {
            let number = format!("{whole}.{fraction}");
            prop_assert_eq!(stored(ColumnType::Numeric, &number, Value::Number(0.0)), Some(number));
        }

        #[test]
        fn arbitrary_bytes_break_nothing(bytes: Vec<u8>, at in 0..6_usize) {
            use ColumnType as T;
            let column_type = [T::Numeric, T::Date, T::TimestampTz, T::Inet, T::Jsonb, T::Boolean][at];
            drop(text(column_type, &bytes));
        }
    }
}
