//! One JSON value in a column of every type and meaning: what is stored is a value that PostgreSQL takes, and the one
//! that was sent.

#![no_main]

use std::{cell::RefCell, net::IpAddr};

use libfuzzer_sys::fuzz_target;
use masq::config::{ColumnType, Mask, Meaning};
use masq_fuzz::{Steps, keys, tuple};
use postgres_protocol::types;
use serde_json::Value;

/// Types, and what may be added to them.
const COLUMNS: &[&str] = &[
    "text",
    "varchar",
    "varchar(5)",
    "char(5)",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "numeric",
    "boolean",
    "date",
    "timestamp",
    "timestamptz",
    "uuid",
    "inet",
    "json",
    "jsonb",
    "text' as='ip",
    "text' as='uuid",
    "text' as='version",
    "text' as='integer",
    "text' as='number",
    "text' as='boolean",
    "text' as='date",
    "text' as='timestamp",
    "text' as='json",
    "varchar(7)' as='json",
    "integer' as='version",
    "bigint' as='version",
    "numeric' as='integer",
    "bytea' mask='hmac",
    "text' mask='hmac",
    "char(64)' mask='hmac",
    "bytea' as='ip' mask='hmac",
    "bytea' mask='sha256",
    "inet' mask='prefix",
    "text' as='ip' mask='prefix",
    "real' mask='redact",
];

thread_local! {
    static STEPS: RefCell<Steps> = RefCell::new(Steps::new(&file(), &keys()));
}

fn file() -> String {
    let columns = COLUMNS.iter().enumerate().map(|(number, column)| {
        let keys = column.replace("' ", "', ");
        format!("c{number} = {{ from = 'f', type = '{keys}', on_invalid = 'null' }}\n")
    });
    format!("accept_reversible_masks = true\n[columns]\n{}", columns.collect::<String>())
}

fuzz_target!(|value: &str| {
    let Ok(sent) = serde_json::from_str::<Value>(value) else { return };
    let body = format!("{{\"f\":{value}}}");
    STEPS.with_borrow_mut(|steps| {
        let Some(row) = steps.row(body.as_bytes()) else { return };
        for (column, stored) in steps.config.columns.iter().zip(row) {
            if let (None, Some(stored)) = (&column.mask, &stored) {
                assert_same(column.column_type, column.meaning, value.trim_ascii(), &sent, stored);
            }
            if let (Some(Mask::Prefix), Some(stored)) = (&column.mask, &stored) {
                assert!(stored.len() <= 20);
            }
            assert!(column.mask != Some(Mask::Redact) || stored.is_none());
        }
    });
});

/// `written`: the value's JSON text; `sent`: what serde_json makes of it.
fn assert_same(column_type: ColumnType, meaning: Meaning, written: &str, sent: &Value, stored: &[u8]) {
    let number = || sent.to_string();
    let text = || sent.as_str().expect("only a string becomes this");
    match column_type {
        ColumnType::SmallInt => assert_eq!(types::int2_from_sql(stored).unwrap().to_string(), whole(&number())),
        ColumnType::Integer if meaning == Meaning::Integer => {
            assert_eq!(types::int4_from_sql(stored).unwrap().to_string(), whole(&number()));
        }
        ColumnType::BigInt if meaning == Meaning::Integer => {
            assert_eq!(types::int8_from_sql(stored).unwrap().to_string(), whole(&number()));
        }
        ColumnType::Integer => assert_eq!(i64::from(types::int4_from_sql(stored).unwrap()), version(sent)),
        ColumnType::BigInt => assert_eq!(types::int8_from_sql(stored).unwrap(), version(sent)),
        ColumnType::DoublePrecision => {
            assert_eq!(types::float8_from_sql(stored).unwrap(), number().parse::<f64>().unwrap());
        }
        ColumnType::Real => {
            let nearest = number().parse::<f64>().unwrap() as f32;
            assert_eq!(types::float4_from_sql(stored).unwrap(), nearest);
        }
        ColumnType::Numeric => assert_eq!(tuple::numeric(stored), tuple::Decimal::of_json(written)),
        ColumnType::Boolean => assert_eq!(types::bool_from_sql(stored).unwrap(), sent.as_bool().unwrap()),
        ColumnType::Date => assert_eq!(types::date_from_sql(stored).unwrap(), days(text())),
        ColumnType::Uuid => {
            let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, text().replace('-', "").to_ascii_lowercase());
        }
        ColumnType::Inet => assert_eq!(types::inet_from_sql(stored).unwrap().addr(), address(text())),
        ColumnType::Json => assert_eq!(stored, written.as_bytes()),
        ColumnType::Jsonb => assert_eq!(&stored[1..], written.as_bytes()),
        ColumnType::Timestamp | ColumnType::TimestampTz | ColumnType::Bytea => {}
        ColumnType::Text | ColumnType::Varchar(_) | ColumnType::Char(_) => match (meaning, sent) {
            (Meaning::Ip, _) => assert_eq!(stored, address(text()).to_string().as_bytes()),
            (Meaning::Uuid, _) => assert_eq!(stored, text().to_ascii_lowercase().as_bytes()),
            (Meaning::Json, _) => assert_eq!(stored, written.as_bytes()),
            (_, Value::String(text)) => assert_eq!(stored, text.as_bytes()),
            _ => assert_eq!(stored, written.as_bytes()),
        },
    }
}

/// -0 is 0 as an integer.
fn whole(number: &str) -> String {
    if number == "-0" { "0".to_owned() } else { number.to_owned() }
}

fn version(sent: &Value) -> i64 {
    let text = sent.as_str().map_or_else(|| sent.to_string(), str::to_owned);
    let mut parts = text.split('.').map(|part| part.parse::<i64>().unwrap());
    let mut part = || parts.next().unwrap_or(0);
    part() * 10_000 + part() * 100 + part()
}

fn address(text: &str) -> IpAddr {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0c']).parse::<IpAddr>().unwrap().to_canonical()
}

/// Days since 2000-01-01 by the civil calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days(text: &str) -> i32 {
    let parts: Vec<i32> = text.split('-').map(|part| part.parse().unwrap()).collect();
    let (year, month, day) = (if parts[1] <= 2 { parts[0] - 1 } else { parts[0] }, parts[1], parts[2]);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468 - 10_957
}
