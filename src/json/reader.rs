//! The bytes of a JSON text, walked over once: the grammar of RFC 8259 without containers.
//!
//! What it finds is put together by [`Document`](super::Document).

use super::{Fault, Kind, escape::hex_value};

/// Walks over the bytes. It ends at the first fault of form and notes the least of the others.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) fault: Option<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0, fault: None }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn step(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        kind
    }

    pub(super) fn note(&mut self, fault: Fault) {
        self.fault = Some(self.fault.map_or(fault, |noted| noted.min(fault)));
    }

    pub(super) fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Fault> {
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
    pub(super) fn continues(&mut self, fresh: bool, closing: u8) -> Result<bool, Fault> {
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

    pub(super) fn word(&mut self, word: &[u8], kind: Kind) -> Result<Kind, Fault> {
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

    pub(super) fn number(&mut self) -> Result<Kind, Fault> {
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
    pub(super) fn string(&mut self) -> Result<bool, Fault> {
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
