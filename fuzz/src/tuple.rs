//! A tuple of COPY BINARY, read as PostgreSQL reads it ("Binary Format" in the documentation of COPY), and each value as
//! its type's `*_recv` function would. It panics where PostgreSQL would refuse.

use masq::config::ColumnType;
use postgres_protocol::types;

/// The longest text that PostgreSQL's numeric takes apart here: digits before and after the point.
const MOST_DIGITS: usize = 147_455;

/// The fields of one tuple; `None` is NULL.
pub fn fields(mut bytes: &[u8]) -> Vec<Option<&[u8]>> {
    let mut take = |count: usize| {
        let (head, rest) = bytes.split_at_checked(count).expect("the tuple ends too early");
        bytes = rest;
        head
    };
    let count = i16::from_be_bytes(take(2).try_into().unwrap());
    let fields = (0..count)
        .map(|_| match i32::from_be_bytes(take(4).try_into().unwrap()) {
            -1 => None,
            length => Some(take(usize::try_from(length).expect("a length is not negative"))),
        })
        .collect();
    assert!(bytes.is_empty(), "something follows the tuple");
    fields
}

/// Whether a column of this type takes these bytes.
pub fn check(stored: ColumnType, bytes: &[u8]) {
    let text = || {
        let text = types::text_from_sql(bytes).expect("text is UTF-8");
        assert!(!text.contains('\0'), "PostgreSQL's text holds no NUL");
        text
    };
    match stored {
        ColumnType::Text | ColumnType::Varchar(None) => drop(text()),
        ColumnType::Varchar(Some(most)) | ColumnType::Char(most) => {
            assert!(text().chars().count() <= most as usize, "too long for the column");
        }
        ColumnType::SmallInt => drop(types::int2_from_sql(bytes).unwrap()),
        ColumnType::Integer => drop(types::int4_from_sql(bytes).unwrap()),
        ColumnType::BigInt => drop(types::int8_from_sql(bytes).unwrap()),
        ColumnType::Real => assert!(types::float4_from_sql(bytes).unwrap().is_finite()),
        ColumnType::DoublePrecision => assert!(types::float8_from_sql(bytes).unwrap().is_finite()),
        ColumnType::Numeric => drop(numeric(bytes)),
        ColumnType::Boolean => drop(types::bool_from_sql(bytes).unwrap()),
        // From 4713 BC to 5874897 AD, and to 294276 AD: date_recv and timestamptz_recv.
        ColumnType::Date => {
            assert!((-2_451_545..2_145_031_949).contains(&types::date_from_sql(bytes).unwrap()));
        }
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            let micros = types::timestamp_from_sql(bytes).unwrap();
            assert!((-211_813_488_000_000_000..9_223_371_331_200_000_000).contains(&micros));
        }
        ColumnType::Uuid => drop(types::uuid_from_sql(bytes).unwrap()),
        ColumnType::Inet => {
            let inet = types::inet_from_sql(bytes).unwrap();
            assert!(inet.netmask() <= if inet.addr().is_ipv4() { 32 } else { 128 });
        }
        ColumnType::Json => drop(serde_json::from_str::<serde_json::Value>(text()).expect("json is JSON")),
        ColumnType::Jsonb => {
            let (version, json) = bytes.split_first().expect("jsonb has a version");
            assert_eq!(*version, 1);
            check(ColumnType::Json, json);
        }
        ColumnType::Bytea => assert_eq!(bytes.len(), 32, "only tokens are stored as bytes"),
    }
}

/// A number as its sign, its digits without zeros at either end, and the power of ten of the first: two are equal if
/// these are.
#[derive(Debug, PartialEq, Eq)]
pub struct Decimal(bool, String, i64);

impl Decimal {
    /// As a JSON text writes it.
    pub fn of_json(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = whole.trim_start_matches('-').to_owned() + fraction;
        let point = whole.trim_start_matches('-').len() as i64 + exponent.parse::<i64>().expect("a bounded exponent");
        Self::new(mantissa.starts_with('-'), &digits, point - 1)
    }

    fn new(negative: bool, digits: &str, first: i64) -> Self {
        let zeros = digits.len() - digits.trim_start_matches('0').len();
        let digits = digits[zeros..].trim_end_matches('0');
        if digits.is_empty() {
            Self(false, String::new(), 0)
        } else {
            Self(negative, digits.to_owned(), first - zeros as i64)
        }
    }
}

/// What `numeric_recv` makes of these bytes, with its complaints.
pub fn numeric(bytes: &[u8]) -> Decimal {
    let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    assert_eq!(words.len() * 2, bytes.len());
    let [groups, weight, sign, places] = words[..4] else { panic!("numeric has a head") };
    let weight = weight.cast_signed();
    assert_eq!(usize::from(groups), words.len() - 4, "as many groups as it says");
    assert!([0, 0x4000].contains(&sign), "invalid sign");
    assert!(places <= 0x3fff, "invalid scale");
    assert!(words[4..].iter().all(|group| *group < 10_000), "invalid digit");
    assert!(usize::from(groups) * 4 <= MOST_DIGITS);
    let digits: String = words[4..].iter().map(|group| format!("{group:04}")).collect();
    // What stands after the last decimal place would be cut off.
    let after_point = (i64::from(groups) - 1 - i64::from(weight)) * 4;
    let cut = usize::try_from(after_point - i64::from(places)).unwrap_or(0).min(digits.len());
    assert!(digits[digits.len() - cut..].bytes().all(|digit| digit == b'0'), "digits beyond the scale");
    Decimal::new(sign == 0x4000, &digits, i64::from(weight) * 4 + 3)
}
