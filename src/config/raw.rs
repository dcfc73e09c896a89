//! A configuration as it was written: keys, values and their lines, in the order of the file.
//!
//! Nothing here knows which keys there are. What is no TOML is complained of, every line of it, and then nothing is
//! read: what a broken line was meant to say would be a guess.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::complaint::{Complaints, Place};

/// A key and its value. Without `Debug`, since the value may be a password.
#[derive(Clone, PartialEq)]
pub struct Entry {
    /// Unquoted, escapes resolved.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// What it is set to.
    pub value: Value,
}

/// A value of TOML, as far as a configuration can hold one.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// `"…"`
    Text(String),
    /// Of 64 bits.
    Integer(i64),
    /// May be infinite or not a number, as TOML's may.
    Float(f64),
    /// `true` or `false`
    Flag(bool),
    /// `[section]` or `{ … }`, in the order written.
    Table(Vec<Entry>),
    /// What no setting takes, by its name.
    Other(&'static str),
}

impl Value {
    /// What it is, for complaints: the value itself may be a password.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Flag(_) => "true or false",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// What stands in `text`, a file that complaints call `source`.
pub fn read(source: &str, text: &str) -> Result<Vec<Entry>, Complaints> {
    let file = File { source, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(file.entries(table.get_ref()));
    }
    let mut complaints = Complaints::default();
    let mut last = None;
    for error in errors {
        let place = file.column(error.span().unwrap_or_default());
        // One slip makes the parser complain several times on its line; the first says what it is.
        if last.replace(place.line) != Some(place.line) {
            complaints.add(&place, format!("this is not TOML: {}", error.message()));
        }
    }
    Err(complaints)
}

struct File<'a> {
    source: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn entries(&self, table: &DeTable<'_>) -> Vec<Entry> {
        let mut written: Vec<_> = table.iter().collect();
        // The table is sorted by key; columns come in the order in which they were written.
        written.sort_by_key(|(key, _)| key.span().start);
        written
            .into_iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                place: self.line(key.span()),
                value: self.value(value.get_ref()),
            })
            .collect()
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map_or(Value::Other("an integer beyond 64 bits"), Value::Integer),
            DeValue::Float(digits) => {
                digits.as_str().parse().map_or(Value::Other("a number beyond all bounds"), Value::Float)
            }
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(_) => Value::Other("a date or time without quotes"),
            DeValue::Array(_) => Value::Other("an array"),
            DeValue::Table(table) => Value::Table(self.entries(table)),
        }
    }

    fn line(&self, span: Range<usize>) -> Place {
        let before = &self.text[..self.text.floor_char_boundary(span.start)];
        Place { source: self.source.to_owned(), line: Some(before.matches('\n').count() + 1), column: None }
    }

    fn column(&self, span: Range<usize>) -> Place {
        let before = &self.text[..self.text.floor_char_boundary(span.start)];
        let line = before.rsplit('\n').next().unwrap_or_default();
        Place { column: Some(line.chars().count() + 1), ..self.line(span) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.key.as_str()).collect()
    }

    #[test]
    fn keys_keep_the_order_and_the_line_in_which_they_were_written() {
        let entries = read("f", "z = 1\n[m]\nq.b = 2\nq.a = 3\n[b.y]\n[a]\n\"ü\" = 0x1_0\n").unwrap();
        assert_eq!(keys(&entries), ["z", "m", "b", "a"]);
        let Value::Table(m) = &entries[1].value else { panic!("[m] is a table") };
        let Value::Table(q) = &m[0].value else { panic!("q is a table") };
        assert_eq!(keys(q), ["b", "a"]);
        assert_eq!(q[1].place.line, Some(4));
        let Value::Table(a) = &entries[3].value else { panic!("[a] is a table") };
        assert_eq!(a[0].place.line, Some(7));
        assert!(a[0].value == Value::Integer(16));
    }

    #[test]
    fn every_broken_line_is_complained_of_by_line_and_column() {
        let complaints = read("f", "a = 1\nb = \"x\nc = 2\na = 2\n").err().unwrap().into_vec();
        let places: Vec<_> = complaints.iter().map(|complaint| complaint.place.to_string()).collect();
        assert_eq!(places.len(), 2, "{complaints:?}");
        assert_eq!(places[1], "f:4:1");
    }

    #[test]
    fn a_broken_line_is_not_quoted() {
        let complaints = read("f", "url = postgres://masq:hunter2@db/x\n").err().unwrap();
        assert!(!complaints.to_string().contains("hunter2"), "{complaints}");
    }
}
