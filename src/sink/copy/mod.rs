//! Values as PostgreSQL's COPY BINARY takes them. Pure.
//!
//! Nothing is ever sent as text for PostgreSQL to cast: it would take 'now' for a date and '010.1.1.1' for an address.
//! The frame of the format is in the documentation of COPY ("Binary Format"); each type's bytes are what its `*_recv`
//! function in PostgreSQL's source reads.

mod text;

use std::net::IpAddr;

pub use text::texts;

use crate::{
    config::ColumnType,
    event::{Field, Value},
    vault::token::Token,
};

/// What a COPY BINARY begins with: signature, no flags, no extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What it ends with.
pub const TRAILER: &[u8] = &(-1i16).to_be_bytes();

/// 2000-01-01, PostgreSQL's day 0, in days since 1970-01-01.
const EPOCH_DAYS: i32 = 10_957;

/// 2000-01-01, PostgreSQL's moment 0, in microseconds since 1970-01-01 UTC.
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Opens a tuple of so many fields.
pub fn tuple(out: &mut Vec<u8>, fields: usize) {
    #[expect(clippy::cast_possible_truncation, reason = "a table has at most 1,600 columns")]
    out.extend_from_slice(&(fields as i16).to_be_bytes());
}

/// NULL.
pub fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1i32).to_be_bytes());
}

/// Bytes of any type, their length before them.
pub fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    #[expect(clippy::cast_possible_truncation, reason = "no value is larger than a message, 1 MiB")]
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A token, as 64 hexadecimal characters or, in a bytea column, as its 32 bytes.
pub fn token(out: &mut Vec<u8>, stored: ColumnType, token: &Token) {
    if stored == ColumnType::Bytea {
        return bytes(out, &token.0);
    }
    let mut hex = [0; 64];
    token.write_hex(&mut hex);
    bytes(out, &hex);
}

/// A plain value in a column of this type. The two fit each other: `check` has seen to that before the start.
pub fn field(out: &mut Vec<u8>, stored: ColumnType, field: &Field<'_>) {
    match (field.value, stored) {
        (Value::Integer(value), ColumnType::SmallInt) => integer::<2>(out, value),
        (Value::Integer(value), ColumnType::Integer) => integer::<4>(out, value),
        (Value::Integer(value), ColumnType::BigInt) => integer::<8>(out, value),
        (Value::Version(version), ColumnType::Integer) => integer::<4>(out, version_number(version)),
        (Value::Version(version), ColumnType::BigInt) => integer::<8>(out, version_number(version)),
        #[expect(clippy::cast_possible_truncation, reason = "rounded to the column's precision, as a cast would")]
        (Value::Number(value), ColumnType::Real) => bytes(out, &(value as f32).to_be_bytes()),
        (Value::Number(value), ColumnType::DoublePrecision) => bytes(out, &value.to_be_bytes()),
        (Value::Number(_) | Value::Integer(_), ColumnType::Numeric) => numeric(out, &field.raw),
        (Value::Boolean(value), ColumnType::Boolean) => bytes(out, &[u8::from(value)]),
        (Value::Date(days), ColumnType::Date) => bytes(out, &(days - EPOCH_DAYS).to_be_bytes()),
        (Value::Timestamp(micros), ColumnType::Timestamp | ColumnType::TimestampTz) => timestamp(out, micros),
        (Value::Uuid(uuid), ColumnType::Uuid) => bytes(out, &uuid),
        (Value::Uuid(uuid), _) => bytes(out, uuid::Uuid::from_bytes(uuid).to_string().as_bytes()),
        (Value::Ip(address), ColumnType::Inet) => inet(out, address, None),
        (Value::Ip(address), _) => bytes(out, address.to_string().as_bytes()),
        (_, ColumnType::Jsonb) => jsonb(out, &field.raw),
        // Text types and json hold the value as it came.
        (_, _) => bytes(out, field.raw.as_bytes()),
    }
}

/// A moment, in microseconds since 1970-01-01 UTC.
pub fn timestamp(out: &mut Vec<u8>, micros: i64) {
    bytes(out, &(micros - EPOCH_MICROS).to_be_bytes());
}

/// A version as the official login table holds it.
pub fn version_number([major, minor, patch]: [u32; 3]) -> i64 {
    i64::from(major) * 10_000 + i64::from(minor) * 100 + i64::from(patch)
}

/// An address, or with `bits` the network that so many of its leading bits name (`network_recv`).
pub fn inet(out: &mut Vec<u8>, address: IpAddr, bits: Option<u8>) {
    const PGSQL_AF_INET: u8 = 2;
    const PGSQL_AF_INET6: u8 = 3;
    match address {
        IpAddr::V4(v4) => {
            bytes(out, &[&[PGSQL_AF_INET, bits.unwrap_or(32), 0, 4], v4.octets().as_slice()].concat());
        }
        IpAddr::V6(v6) => {
            bytes(out, &[&[PGSQL_AF_INET6, bits.unwrap_or(128), 0, 16], v6.octets().as_slice()].concat());
        }
    }
}

/// The last `N` bytes of a number that was checked to fit into them.
fn integer<const N: usize>(out: &mut Vec<u8>, value: i64) {
    bytes(out, &value.to_be_bytes()[8 - N..]);
}

fn jsonb(out: &mut Vec<u8>, text: &str) {
    const VERSION: u8 = 1;
    bytes(out, &[&[VERSION], text.as_bytes()].concat());
}

/// A JSON number, exactly (`numeric_recv`): digits in base 10,000, the weight of the first, sign and decimal places.
fn numeric(out: &mut Vec<u8>, number: &str) {
    let (negative, unsigned) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent: i32 = exponent.parse().expect("decode bounds the exponent");
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));

    // The value is 0.DIGITS times ten to the power of `point`.
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
    let length = |part: &str| i32::try_from(part.len()).unwrap_or(i32::MAX);
    let point = length(whole) + exponent;
    let places = (length(fraction) - exponent).max(0);

    // Groups of four around the decimal point.
    let lead = (4 - point.rem_euclid(4)) % 4;
    let mut groups = vec![0u16; (digits.len() + usize::try_from(lead).unwrap_or(0)).div_ceil(4)];
    for (index, digit) in digits.iter().enumerate() {
        let at = index + usize::try_from(lead).unwrap_or(0);
        groups[at / 4] += u16::from(*digit) * [1000, 100, 10, 1][at % 4];
    }
    let mut weight = (point + lead) / 4 - 1;
    let zeros = groups.iter().take_while(|&&group| group == 0).count();
    groups.drain(..zeros);
    weight -= i32::try_from(zeros).unwrap_or(0);
    while groups.last() == Some(&0) {
        groups.pop();
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "decode bounds the digits and the exponent"
    )]
    let head = [
        groups.len() as u16,
        if groups.is_empty() { 0 } else { weight as i16 as u16 },
        if negative && !groups.is_empty() { 0x4000 } else { 0 },
        places as u16,
    ];
    let encoded: Vec<u8> = head.iter().chain(&groups).flat_map(|value| value.to_be_bytes()).collect();
    bytes(out, &encoded);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded_numeric(number: &str) -> Vec<u16> {
        let mut out = Vec::new();
        numeric(&mut out, number);
        out[4..].chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn numerics_as_postgresql_sends_them() {
        // Read off PostgreSQL 15: SELECT encode(numeric_send('…'), 'hex').
        for (number, expected) in [
            ("0", vec![0, 0, 0, 0]),
            ("-0.00", vec![0, 0, 0, 2]),
            ("1", vec![1, 0, 0, 0, 1]),
            ("12345.678", vec![3, 1, 0, 3, 1, 2345, 6780]),
            ("-9.99", vec![2, 0, 0x4000, 2, 9, 9900]),
            ("10000", vec![1, 1, 0, 0, 1]),
            ("0.0001", vec![1, 0xffff, 0, 4, 1]),
            ("1e3", vec![1, 0, 0, 0, 1000]),
            ("1.5E-3", vec![1, 0xffff, 0, 4, 15]),
        ] {
            assert_eq!(encoded_numeric(number), expected, "{number}");
        }
    }

    #[test]
    fn days_and_moments_count_from_2000() {
        let mut out = Vec::new();
        field(&mut out, ColumnType::Date, &Field { raw: "".into(), value: Value::Date(EPOCH_DAYS + 1) });
        assert_eq!(out, [0, 0, 0, 4, 0, 0, 0, 1]);
        out.clear();
        timestamp(&mut out, EPOCH_MICROS - 1);
        assert_eq!(out, [&[0, 0, 0, 8][..], &[0xff; 8]].concat());
    }

    #[test]
    fn addresses_carry_family_and_bits() {
        let mut out = Vec::new();
        inet(&mut out, IpAddr::from([199, 172, 111, 0]), Some(24));
        assert_eq!(out, [0, 0, 0, 8, 2, 24, 0, 4, 199, 172, 111, 0]);
    }
}
