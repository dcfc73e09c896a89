//! JSON (RFC 8259), read once and strictly: a whole body is judged by one rule, fields that nobody asked for included.
//!
//! It is not serde because serde's derive lets an array pass for a struct, does not look into ignored fields and stops
//! at its first complaint, while a dead letter's reason is the first *by a fixed order* ([`Fault`]). A property test
//! holds it against serde_json. Nesting costs no stack. Pure.

use std::{borrow::Cow, collections::HashSet};

/// Containers inside containers, the outermost included. Beyond it nothing is read.
pub const MAX_DEPTH: usize = 128;

/// What is wrong with a text. The first five end the reading; of the others, which stand in a text of good form, the
/// least in this order is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing, or white space.
    Empty,
    /// Not by the grammar.
    Syntax,
    /// By the grammar, but it ends too early.
    Truncated,
    /// A whole value and then something more.
    Trailing,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// An object names a key twice, escapes resolved.
    DuplicateKey,
    /// An escape stands for half a surrogate pair.
    LoneSurrogate,
    /// An escape stands for U+0000.
    Nul,
    /// A number is too large even for a double.
    NumberOutOfRange,
}

/// A value of a [`Document`], by its position there.
pub type At = usize;

/// What a value is. Strings have their escapes resolved, numbers are as written.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // JSON's own names
pub enum Json<'a> {
    Object,
    Array,
    String(Cow<'a, str>),
    Number(&'a str),
    Boolean(bool),
    Null,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    String { escaped: bool },
    Number,
    True,
    False,
    Null,
}

/// One value: where its text stands, and which node follows all that is in it.
struct Node {
    kind: Kind,
    start: usize,
    end: usize,
    next: At,
}

/// A text of good form. Its values lie in one list, in the order of the text: of an object, each key before its value.
pub struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
    fault: Option<Fault>,
}

impl<'a> Document<'a> {
    /// The outermost value.
    pub const ROOT: At = 0;

    /// Reads the whole text. A text of good form may still have a [`Document::fault`].
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        let mut reader = Reader { bytes: text.as_bytes(), at: 0, fault: None };
        let mut document = Document { text, nodes: Vec::with_capacity(16), fault: None };
        reader.skip_white_space();
        if reader.peek().is_none() {
            return Err(Fault::Empty);
        }
        document.read_value(&mut reader)?;
        reader.skip_white_space();
        if reader.peek().is_some() {
            return Err(Fault::Trailing);
        }
        document.fault = reader.fault;
        Ok(document)
    }

    /// What is wrong with it although its form is good.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// What stands there.
    pub fn value(&self, at: At) -> Json<'a> {
        match self.nodes[at].kind {
            Kind::Object => Json::Object,
            Kind::Array => Json::Array,
            Kind::String { .. } => Json::String(self.string(at)),
            Kind::Number => Json::Number(self.text(at)),
            Kind::True => Json::Boolean(true),
            Kind::False => Json::Boolean(false),
            Kind::Null => Json::Null,
        }
    }

    /// Its text as written.
    pub fn text(&self, at: At) -> &'a str {
        &self.text[self.nodes[at].start..self.nodes[at].end]
    }

    /// The member of an object with this key; `None` for anything but an object.
    pub fn member(&self, object: At, key: &str) -> Option<At> {
        self.members(object).find(|&(name, _)| self.is_key(name, key)).map(|(_, value)| value)
    }

    /// The element of an array, counted from 0; `None` for anything but an array.
    pub fn element(&self, array: At, index: usize) -> Option<At> {
        if self.nodes[array].kind != Kind::Array {
            return None;
        }
        let end = self.nodes[array].next;
        let mut at = array + 1;
        for _ in 0..index {
            if at >= end {
                return None;
            }
            at = self.nodes[at].next;
        }
        (at < end).then_some(at)
    }

    /// The keys and values of an object; nothing for anything else.
    pub fn members(&self, object: At) -> impl Iterator<Item = (At, At)> + '_ {
        let end = if self.nodes[object].kind == Kind::Object { self.nodes[object].next } else { 0 };
        let mut at = object + 1;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let member = (at, at + 1);
                at = self.nodes[at + 1].next;
                member
            })
        })
    }

    fn is_key(&self, at: At, key: &str) -> bool {
        match self.nodes[at].kind {
            Kind::String { escaped: false } => self.inside_quotes(at) == key,
            _ => self.string(at) == key,
        }
    }

    fn inside_quotes(&self, at: At) -> &'a str {
        &self.text[self.nodes[at].start + 1..self.nodes[at].end - 1]
    }

    fn string(&self, at: At) -> Cow<'a, str> {
        let inside = self.inside_quotes(at);
        if self.nodes[at].kind == (Kind::String { escaped: true }) { unescape(inside) } else { Cow::Borrowed(inside) }
    }

    /// Reads one value and all that is in it. `open` holds the containers that are not closed yet.
    fn read_value(&mut self, reader: &mut Reader) -> Result<(), Fault> {
        let mut open: Vec<At> = Vec::new();
        loop {
            let container = self.read_one(reader, open.len())?;
            if let Some(at) = container {
                open.push(at);
            }
            let mut fresh = container.is_some();
            loop {
                let Some(&parent) = open.last() else { return Ok(()) };
                let is_object = self.nodes[parent].kind == Kind::Object;
                if !reader.continues(fresh, if is_object { b'}' } else { b']' })? {
                    self.close(parent, reader);
                    open.pop();
                    fresh = false;
                    continue;
                }
                if is_object {
                    self.read_key(reader)?;
                }
                break;
            }
        }
    }

    /// Reads a scalar whole, or the opening of a container, whose position it answers.
    fn read_one(&mut self, reader: &mut Reader, depth: usize) -> Result<Option<At>, Fault> {
        reader.skip_white_space();
        let start = reader.at;
        let kind = match reader.peek().ok_or(Fault::Truncated)? {
            b'{' | b'[' if depth == MAX_DEPTH => return Err(Fault::TooDeep),
            b'{' => reader.step(Kind::Object),
            b'[' => reader.step(Kind::Array),
            b'"' => Kind::String { escaped: reader.string()? },
            b't' => reader.word(b"true", Kind::True)?,
            b'f' => reader.word(b"false", Kind::False)?,
            b'n' => reader.word(b"null", Kind::Null)?,
            b'-' | b'0'..=b'9' => reader.number()?,
            _ => return Err(Fault::Syntax),
        };
        let at = self.nodes.len();
        self.nodes.push(Node { kind, start, end: reader.at, next: at + 1 });
        Ok(matches!(kind, Kind::Object | Kind::Array).then_some(at))
    }

    fn read_key(&mut self, reader: &mut Reader) -> Result<(), Fault> {
        reader.skip_white_space();
        let start = reader.at;
        match reader.peek() {
            Some(b'"') => {}
            Some(_) => return Err(Fault::Syntax),
            None => return Err(Fault::Truncated),
        }
        let escaped = reader.string()?;
        let next = self.nodes.len() + 1;
        self.nodes.push(Node { kind: Kind::String { escaped }, start, end: reader.at, next });
        reader.skip_white_space();
        reader.expect(b':')
    }

    fn close(&mut self, container: At, reader: &mut Reader) {
        self.nodes[container].end = reader.at;
        self.nodes[container].next = self.nodes.len();
        if self.has_duplicate_key(container) {
            reader.note(Fault::DuplicateKey);
        }
    }

    fn has_duplicate_key(&self, object: At) -> bool {
        // Comparing each with each is quickest for the few keys that events have; a hostile body may have 100,000.
        const FEW: usize = 12;
        let few: Vec<At> = self.members(object).map(|(key, _)| key).take(FEW + 1).collect();
        if few.len() <= FEW {
            let plain = |at: At| matches!(self.nodes[at].kind, Kind::String { escaped: false });
            return few.iter().enumerate().any(|(i, &a)| {
                few[..i].iter().any(|&b| {
                    if plain(a) && plain(b) {
                        self.inside_quotes(a) == self.inside_quotes(b)
                    } else {
                        self.string(a) == self.string(b)
                    }
                })
            });
        }
        let mut seen = HashSet::new();
        !self.members(object).all(|(key, _)| seen.insert(self.string(key)))
    }
}

/// Walks over the bytes. It ends at the first fault of form and notes the least of the others.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    fault: Option<Fault>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn step(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        kind
    }

    fn note(&mut self, fault: Fault) {
        self.fault = Some(self.fault.map_or(fault, |noted| noted.min(fault)));
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        match self.peek() {
            Some(found) if found == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(Fault::Syntax),
            None => Err(Fault::Truncated),
        }
    }

    /// After the opening of a container (`fresh`) or after one of its values: does another follow, or is it closed?
    fn continues(&mut self, fresh: bool, closing: u8) -> Result<bool, Fault> {
        self.skip_white_space();
        match self.peek() {
            None => Err(Fault::Truncated),
            Some(found) if found == closing => {
                self.at += 1;
                Ok(false)
            }
            Some(_) if fresh => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(_) => Err(Fault::Syntax),
        }
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<Kind, Fault> {
        for &byte in word {
            self.expect(byte)?;
        }
        Ok(kind)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'0'..=b'9') => {}
            Some(_) => return Err(Fault::Syntax),
            None => return Err(Fault::Truncated),
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Kind, Fault> {
        // Below 1e308 whatever the digits: no need to compute it.
        const SURELY_FINITE: usize = 300;
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        if exponent || self.at - start > SURELY_FINITE {
            let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or("0");
            if text.parse::<f64>().is_ok_and(f64::is_infinite) {
                self.note(Fault::NumberOutOfRange);
            }
        }
        Ok(Kind::Number)
    }

    /// Walks over a string and answers whether it has escapes.
    fn string(&mut self) -> Result<bool, Fault> {
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.peek().ok_or(Fault::Truncated)? {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                    self.escape()?;
                }
                0..=0x1f => return Err(Fault::Syntax),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let letter = self.peek().ok_or(Fault::Truncated)?;
        self.at += 1;
        match letter {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => self.unicode_escape(),
            _ => Err(Fault::Syntax),
        }
    }

    fn unicode_escape(&mut self) -> Result<(), Fault> {
        match self.hex4()? {
            0 => self.note(Fault::Nul),
            0xd800..=0xdbff => {
                // Only a low half makes it whole; anything else that follows is looked at for itself.
                let rest = &self.bytes[self.at..];
                let low = rest.strip_prefix(b"\\u").and_then(|hex| hex.get(..4)).and_then(hex_value);
                if low.is_some_and(|low| (0xdc00..=0xdfff).contains(&low)) {
                    self.at += 6;
                } else {
                    self.note(Fault::LoneSurrogate);
                }
            }
            0xdc00..=0xdfff => self.note(Fault::LoneSurrogate),
            _ => {}
        }
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, Fault> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = char::from(self.peek().ok_or(Fault::Truncated)?).to_digit(16).ok_or(Fault::Syntax)?;
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }
}

fn hex_value(hex: &[u8]) -> Option<u32> {
    hex.iter().try_fold(0, |value, &byte| Some(value * 16 + char::from(byte).to_digit(16)?))
}

/// Resolves the escapes of a string that has been walked over. Half a surrogate pair, which is a [`Fault`] anyway,
/// becomes U+FFFD.
fn unescape(inside: &str) -> Cow<'_, str> {
    let mut plain = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let letter = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        match letter {
            b'b' => plain.push('\u{8}'),
            b'f' => plain.push('\u{c}'),
            b'n' => plain.push('\n'),
            b'r' => plain.push('\r'),
            b't' => plain.push('\t'),
            b'u' => {
                let (character, used) = unescape_unicode(rest.as_bytes());
                plain.push(character);
                rest = &rest[used..];
            }
            other => plain.push(char::from(other)),
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// The character whose four hexadecimal digits come next, and how many bytes it takes up.
fn unescape_unicode(rest: &[u8]) -> (char, usize) {
    let high = hex_value(&rest[..4]).unwrap_or_default();
    let low = rest[4..].strip_prefix(b"\\u").and_then(|hex| hex.get(..4)).and_then(hex_value);
    match (high, low) {
        (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
            let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            (char::from_u32(code).unwrap_or('\u{fffd}'), 10)
        }
        _ => (char::from_u32(high).unwrap_or('\u{fffd}'), 4),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> Option<Fault> {
        Document::parse(text).map_or_else(Some, |document| document.fault())
    }

    #[test]
    fn faults_of_form() {
        for (text, expected) in [
            ("", Fault::Empty),
            (" \r\n\t", Fault::Empty),
            ("\u{feff}{}", Fault::Syntax),
            ("{'a':1}", Fault::Syntax),
            ("[1,]", Fault::Syntax),
            ("[,1]", Fault::Syntax),
            ("{\"a\" 1}", Fault::Syntax),
            ("{\"a\":1,}", Fault::Syntax),
            ("[1 2]", Fault::Syntax),
            ("01", Fault::Trailing),
            ("[01]", Fault::Syntax),
            ("+1", Fault::Syntax),
            (".5", Fault::Syntax),
            ("1.", Fault::Truncated),
            ("[1.]", Fault::Syntax),
            ("-", Fault::Truncated),
            ("NaN", Fault::Syntax),
            ("nul", Fault::Truncated),
            ("nulx", Fault::Syntax),
            ("\"a", Fault::Truncated),
            ("\"\\", Fault::Truncated),
            ("\"\\u00", Fault::Truncated),
            ("\"\\x\"", Fault::Syntax),
            ("\"a\nb\"", Fault::Syntax),
            ("{\"a\":[1", Fault::Truncated),
            ("]", Fault::Syntax),
            ("[}", Fault::Syntax),
            ("{} {}", Fault::Trailing),
            ("{}]", Fault::Trailing),
        ] {
            assert_eq!(fault(text), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn faults_of_content_by_their_order() {
        for (text, expected) in [
            (r#"{"a":1,"a":1}"#, Some(Fault::DuplicateKey)),
            (r#"{"a":1,"\u0061":1}"#, Some(Fault::DuplicateKey)),
            (r#"[{"x":{"a":1,"a":2}}]"#, Some(Fault::DuplicateKey)),
            (r#"{"a":{"b":1},"b":2}"#, None),
            (r#""\ud800""#, Some(Fault::LoneSurrogate)),
            (r#""\udc00\ud800""#, Some(Fault::LoneSurrogate)),
            (r#""\ud800\ud800\udc00""#, Some(Fault::LoneSurrogate)),
            (r#""\ud83d\ude00""#, None),
            (r#""\u0000""#, Some(Fault::Nul)),
            ("1e400", Some(Fault::NumberOutOfRange)),
            ("-1e400", Some(Fault::NumberOutOfRange)),
            ("1e-400", None),
            (r#"["\u0000", 1e999, {"a":1,"a":2}]"#, Some(Fault::DuplicateKey)),
            (r#"["\u0000", {"a":1,"a":2}"#, Some(Fault::Truncated)),
        ] {
            assert_eq!(fault(text), expected, "{text}");
        }
        assert_eq!(fault(&"9".repeat(400)), Some(Fault::NumberOutOfRange));
        assert_eq!(fault(&"9".repeat(300)), None);
    }

    #[test]
    fn depth_is_bounded_and_costs_no_stack() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(fault(&nested(MAX_DEPTH)), None);
        assert_eq!(fault(&nested(MAX_DEPTH + 1)), Some(Fault::TooDeep));
        assert_eq!(fault(&"[".repeat(1 << 20)), Some(Fault::TooDeep));
        assert_eq!(fault(&"{\"a\":".repeat(1 << 18)), Some(Fault::TooDeep));
    }

    #[test]
    fn many_keys_are_compared_quickly() {
        let keys: Vec<String> = (0..100_000).map(|i| format!("\"k{i}\":1")).collect();
        assert_eq!(fault(&format!("{{{}}}", keys.join(","))), None);
        assert_eq!(fault(&format!("{{{},\"k7\":1}}", keys.join(","))), Some(Fault::DuplicateKey));
    }

    #[test]
    fn members_and_elements_are_found() {
        let document = Document::parse(r#"{"a":{"x":[1,[2,3],"\n\u00e9\ud83d\ude00"]},"b\/c":null}"#).unwrap();
        let a = document.member(Document::ROOT, "a").unwrap();
        let x = document.member(a, "x").unwrap();
        assert_eq!(document.text(document.element(x, 1).unwrap()), "[2,3]");
        assert_eq!(document.value(document.element(x, 2).unwrap()), Json::String("\né😀".into()));
        assert_eq!(document.element(x, 3), None);
        assert_eq!(document.member(x, "a"), None);
        assert_eq!(document.value(document.member(Document::ROOT, "b/c").unwrap()), Json::Null);
        assert_eq!(document.members(Document::ROOT).count(), 2);
    }

    /// What serde_json makes of the text, as far as the two should agree.
    fn agrees_with_serde(text: &str) {
        let serde = serde_json::from_str::<serde_json::Value>(text);
        match Document::parse(text) {
            Ok(document) if document.fault().is_none() => {
                assert_eq!(serde.expect("serde_json refuses it"), rebuild(&document, Document::ROOT), "{text:?}");
            }
            Ok(document) => {
                let lax = matches!(document.fault(), Some(Fault::DuplicateKey | Fault::Nul));
                assert!(lax || serde.is_err(), "{text:?}");
            }
            Err(_) => assert!(serde.is_err(), "serde_json takes {text:?}"),
        }
    }

    fn rebuild(document: &Document, at: At) -> serde_json::Value {
        match document.value(at) {
            Json::Object => document
                .members(at)
                .map(|(key, value)| (document.string(key).into_owned(), rebuild(document, value)))
                .collect(),
            Json::Array => (0..).map_while(|i| document.element(at, i)).map(|at| rebuild(document, at)).collect(),
            Json::String(text) => text.into(),
            Json::Number(text) => serde_json::from_str(text).unwrap(),
            Json::Boolean(value) => value.into(),
            Json::Null => serde_json::Value::Null,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_anything(text in "[\\[\\]{}:,\"\\\\ untrefalsd0-9.eE+-]{0,24}") {
            agrees_with_serde(&text);
        }

        #[test]
        fn agrees_with_serde_json_on_a_damaged_event(at in 0usize..120, byte in 0u8..128) {
            let mut text = br#"{"user_id": "424c", "app_version": "2.3.0", "n": [1.5e3, -0, true, null, {"k": "\u00e9\n"}], "locale": null}"#.to_vec();
            let at = at.min(text.len() - 1);
            text[at] = byte;
            agrees_with_serde(std::str::from_utf8(&text).unwrap());
        }
    }
}
