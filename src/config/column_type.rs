//! The words of a column: PostgreSQL's types, what a value means, and which of the two go together.

use std::{fmt, str::FromStr};

use super::{ColumnType, Meaning, complaint::suggestion};

/// Every spelling of a type without a length: the first of each is the one masq writes. PostgreSQL's documentation,
/// table 8.1, and the aliases that its catalogue and other databases use.
const SPELLINGS: [(&str, ColumnType); 31] = [
    ("text", ColumnType::Text),
    ("varchar", ColumnType::Varchar(None)),
    ("character varying", ColumnType::Varchar(None)),
    ("char", ColumnType::Char(1)),
    ("character", ColumnType::Char(1)),
    ("smallint", ColumnType::SmallInt),
    ("int2", ColumnType::SmallInt),
    ("integer", ColumnType::Integer),
    ("int", ColumnType::Integer),
    ("int4", ColumnType::Integer),
    ("bigint", ColumnType::BigInt),
    ("int8", ColumnType::BigInt),
    ("real", ColumnType::Real),
    ("float4", ColumnType::Real),
    ("double precision", ColumnType::DoublePrecision),
    ("float8", ColumnType::DoublePrecision),
    ("float", ColumnType::DoublePrecision),
    ("numeric", ColumnType::Numeric),
    ("decimal", ColumnType::Numeric),
    ("boolean", ColumnType::Boolean),
    ("bool", ColumnType::Boolean),
    ("date", ColumnType::Date),
    ("timestamp", ColumnType::Timestamp),
    ("timestamp without time zone", ColumnType::Timestamp),
    ("timestamptz", ColumnType::TimestampTz),
    ("timestamp with time zone", ColumnType::TimestampTz),
    ("uuid", ColumnType::Uuid),
    ("inet", ColumnType::Inet),
    ("json", ColumnType::Json),
    ("jsonb", ColumnType::Jsonb),
    ("bytea", ColumnType::Bytea),
];

/// PostgreSQL's bound on the length of varchar(n) and char(n), in characters.
const LONGEST: u32 = 10_485_760;

impl FromStr for ColumnType {
    /// The end of a sentence that begins with the setting's name.
    type Err = String;

    /// Reads a type as PostgreSQL spells it, whatever its case and spacing.
    fn from_str(text: &str) -> Result<Self, String> {
        let folded = text.to_ascii_lowercase();
        let (word, length) = match folded.trim().strip_suffix(')').and_then(|open| open.split_once('(')) {
            Some((word, length)) => (word, Some(length.trim())),
            None => (folded.as_str(), None),
        };
        let word = word.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let Some((_, plain)) = SPELLINGS.iter().find(|(spelling, _)| *spelling == word) else {
            return Err(format!(
                "must be a type that masq writes, not \"{text}\"{}",
                suggestion(&word, SPELLINGS.map(|(spelling, _)| spelling))
            ));
        };
        let Some(length) = length else { return Ok(*plain) };
        let length = length.parse().ok().filter(|length| (1..=LONGEST).contains(length));
        match (plain, length) {
            (Self::Varchar(_), Some(length)) => Ok(Self::Varchar(Some(length))),
            (Self::Char(_), Some(length)) => Ok(Self::Char(length)),
            (Self::Varchar(_) | Self::Char(_), None) => Err(format!("must have a length from 1 to {LONGEST}")),
            _ => Err(format!("must be \"{plain}\" alone: masq sets no length or precision on it")),
        }
    }
}

impl fmt::Display for ColumnType {
    /// As SQL spells it, and so as it may stand in a CREATE TABLE.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Varchar(Some(length)) => return write!(f, "varchar({length})"),
            Self::Char(length) => return write!(f, "char({length})"),
            _ => {}
        }
        let spelling = SPELLINGS.iter().find(|(_, column_type)| column_type == self);
        f.write_str(spelling.map_or("text", |(spelling, _)| spelling))
    }
}

impl ColumnType {
    /// Whether it holds text of any content.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Varchar(_) | Self::Char(_))
    }

    /// The most characters it holds, where it has a bound.
    pub fn length(self) -> Option<u32> {
        match self {
            Self::Varchar(length) => length,
            Self::Char(length) => Some(length),
            _ => None,
        }
    }

    /// What a value of a column of this type means unless `as` says otherwise. A bytea holds tokens, which are of text.
    pub fn meaning(self) -> Meaning {
        match self {
            Self::Text | Self::Varchar(_) | Self::Char(_) | Self::Bytea => Meaning::Text,
            Self::SmallInt | Self::Integer | Self::BigInt => Meaning::Integer,
            Self::Real | Self::DoublePrecision | Self::Numeric => Meaning::Number,
            Self::Boolean => Meaning::Boolean,
            Self::Date => Meaning::Date,
            Self::Timestamp | Self::TimestampTz => Meaning::Timestamp,
            Self::Uuid => Meaning::Uuid,
            Self::Inet => Meaning::Ip,
            Self::Json | Self::Jsonb => Meaning::Json,
        }
    }
}

impl Meaning {
    /// The words of `as`.
    pub const WORDS: [&'static str; 10] =
        ["text", "integer", "number", "boolean", "date", "timestamp", "uuid", "ip", "version", "json"];

    /// In the order of [`Meaning::WORDS`].
    const ALL: [Self; 10] = [
        Self::Text,
        Self::Integer,
        Self::Number,
        Self::Boolean,
        Self::Date,
        Self::Timestamp,
        Self::Uuid,
        Self::Ip,
        Self::Version,
        Self::Json,
    ];

    /// The meaning of that word, if it is one.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().position(|candidate| *candidate == word).map(|position| Self::ALL[position])
    }

    /// Whether a value of this meaning, unmasked, can be stored in a column of that type.
    pub fn fits(self, column_type: ColumnType) -> bool {
        use ColumnType as T;
        column_type.is_text()
            || match self {
                Self::Text => false,
                Self::Integer => matches!(column_type, T::SmallInt | T::Integer | T::BigInt | T::Numeric),
                Self::Number => matches!(column_type, T::Real | T::DoublePrecision | T::Numeric),
                Self::Boolean => column_type == T::Boolean,
                Self::Date => column_type == T::Date,
                Self::Timestamp => matches!(column_type, T::Timestamp | T::TimestampTz),
                Self::Uuid => column_type == T::Uuid,
                Self::Ip => column_type == T::Inet,
                Self::Version => matches!(column_type, T::Integer | T::BigInt),
                Self::Json => matches!(column_type, T::Json | T::Jsonb),
            }
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS[*self as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_reads_and_what_is_written_reads_back() {
        for (spelling, column_type) in SPELLINGS {
            assert_eq!(spelling.parse(), Ok(column_type));
            assert_eq!(column_type.to_string().parse(), Ok(column_type));
        }
        for (text, canonical) in [
            ("VARCHAR ( 128 )", "varchar(128)"),
            ("character  varying(5)", "varchar(5)"),
            ("Char(2)", "char(2)"),
            ("char", "char(1)"),
            (" Timestamp  With Time Zone ", "timestamptz"),
            ("INT4", "integer"),
            ("float8", "double precision"),
            ("varchar", "varchar"),
        ] {
            assert_eq!(text.parse::<ColumnType>().unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn a_type_that_masq_does_not_write() {
        for (text, error) in [
            ("txet", "must be a type that masq writes, not \"txet\"; did you mean \"text\"?"),
            ("money", "must be a type that masq writes, not \"money\""),
            ("text; drop table x", "must be a type that masq writes, not \"text; drop table x\""),
            ("varchar(0)", "must have a length from 1 to 10485760"),
            ("varchar()", "must have a length from 1 to 10485760"),
            ("numeric(10,2)", "must be \"numeric\" alone: masq sets no length or precision on it"),
            ("text(3)", "must be \"text\" alone: masq sets no length or precision on it"),
        ] {
            assert_eq!(text.parse::<ColumnType>(), Err(error.to_owned()));
        }
    }

    #[test]
    fn a_type_holds_what_it_means() {
        for (_, column_type) in SPELLINGS.into_iter().filter(|(_, column_type)| *column_type != ColumnType::Bytea) {
            assert!(column_type.meaning().fits(column_type), "{column_type}");
        }
        for meaning in Meaning::ALL {
            assert!(meaning.fits(ColumnType::Varchar(Some(1))), "{meaning}");
            assert!(!meaning.fits(ColumnType::Bytea), "{meaning}");
            assert_eq!(Meaning::of_word(&meaning.to_string()), Some(meaning));
        }
    }

    #[test]
    fn what_can_be_stored_where() {
        use ColumnType as T;
        let all = SPELLINGS.map(|(_, column_type)| column_type);
        for (meaning, types) in [
            (Meaning::Text, &[][..]),
            (Meaning::Integer, &[T::SmallInt, T::Integer, T::BigInt, T::Numeric]),
            (Meaning::Number, &[T::Real, T::DoublePrecision, T::Numeric]),
            (Meaning::Boolean, &[T::Boolean]),
            (Meaning::Date, &[T::Date]),
            (Meaning::Timestamp, &[T::Timestamp, T::TimestampTz]),
            (Meaning::Uuid, &[T::Uuid]),
            (Meaning::Ip, &[T::Inet]),
            (Meaning::Version, &[T::Integer, T::BigInt]),
            (Meaning::Json, &[T::Json, T::Jsonb]),
        ] {
            for column_type in all.into_iter().filter(|column_type| !column_type.is_text()) {
                assert_eq!(meaning.fits(column_type), types.contains(&column_type), "{meaning} in {column_type}");
            }
        }
    }
}
