//! JSON (RFC 8259), read once and strictly: a whole body is judged by one rule, fields that nobody asked for included.
//!
//! It is not serde because serde's derive lets an array pass for a struct, does not look into ignored fields and stops
//! at its first complaint, while a dead letter's reason is the first *by a fixed order* ([`Fault`]). A property test
//! holds it against serde_json. Nesting costs no stack. Pure.

mod escape;
mod reader;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashSet};

use self::{escape::unescape, reader::Reader};

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

/// What a value is. Strings have their escapes resolved, numbers are as written. It is not behind a
/// [`Pii`](crate::pii::Pii) yet, so it has no `Debug`.
#[derive(Clone, PartialEq)]
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

/// One value: where its text stands, and which node follows all that is in it; while a container is being read, which
/// one it stands in.
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
        let mut reader = Reader::new(text);
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

    /// Reads one value and all that is in it. `open` is the innermost container that is not closed yet.
    fn read_value(&mut self, reader: &mut Reader) -> Result<(), Fault> {
        let (mut open, mut depth): (Option<At>, usize) = (None, 0);
        loop {
            let container = self.read_one(reader, depth)?;
            if let Some(at) = container {
                self.nodes[at].next = open.unwrap_or(at);
                open = container;
                depth += 1;
            }
            let mut fresh = container.is_some();
            loop {
                let Some(parent) = open else { return Ok(()) };
                let is_object = self.nodes[parent].kind == Kind::Object;
                if !reader.continues(fresh, if is_object { b'}' } else { b']' })? {
                    let outer = self.nodes[parent].next;
                    open = Some(outer).filter(|outer| *outer != parent);
                    depth -= 1;
                    self.close(parent, reader);
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
        let (mut few, mut count) = ([0; FEW], 0);
        for (key, _) in self.members(object).take(FEW + 1) {
            if let Some(at) = few.get_mut(count) {
                *at = key;
            }
            count += 1;
        }
        if count <= FEW {
            let few = &few[..count];
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
