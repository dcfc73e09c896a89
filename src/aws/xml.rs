//! A strict reader of the little XML in which AWS's older protocols answer. Pure.
//!
//! It knows elements, text, CDATA, comments, the five named entities and characters by number. Whatever else there is in
//! XML it refuses: a DOCTYPE above all, so that there are no entities to expand. Attributes are passed over, and a prefix
//! is left off a name. Line ends stay as they are, which XML itself would change: a body has an MD5.

use thiserror::Error;

/// How deep elements may stand in each other: answers of SQS have five levels, and whoever drops a tree goes as deep.
const DEEPEST: usize = 16;

/// An element with what is in it: text, or other elements.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    /// What stands in it itself, entities resolved.
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

/// Where a document stops being the XML that is known here. It says nothing of what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no well-formed XML at byte {at}")]
pub struct Malformed {
    /// How many bytes before it are well.
    pub at: usize,
}

impl Element {
    /// The root of a document.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(document).map_err(|error| Malformed { at: error.valid_up_to() })?;
        let mut reader = Reader { text, at: 0 };
        let (mut open, mut root): (Vec<Self>, Option<Self>) = (Vec::new(), None);
        while let Some(token) = reader.token()? {
            let wrong = Malformed { at: reader.at };
            let whole = match token {
                Token::Start(_) if root.is_some() || open.len() == DEEPEST => return Err(wrong),
                Token::Start(name) => {
                    open.push(Self { name: name.to_owned(), ..Self::default() });
                    continue;
                }
                Token::Text(text) => {
                    match open.last_mut() {
                        Some(element) => element.text.push_str(&text),
                        None if text.trim().is_empty() => {}
                        None => return Err(wrong),
                    }
                    continue;
                }
                Token::End(name) => open.pop().filter(|element| element.name == name).ok_or(wrong)?,
                Token::Empty(_) if root.is_some() => return Err(wrong),
                Token::Empty(name) => Self { name: name.to_owned(), ..Self::default() },
            };
            match open.last_mut() {
                Some(parent) => parent.children.push(whole),
                None => root = Some(whole),
            }
        }
        root.filter(|_| open.is_empty()).ok_or(Malformed { at: reader.at })
    }

    /// The first child of this name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }
}

enum Token<'a> {
    Start(&'a str),
    Empty(&'a str),
    End(&'a str),
    Text(String),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong<T>(&self) -> Result<T, Malformed> {
        Err(Malformed { at: self.at })
    }

    /// Goes past this, if it comes next.
    fn take(&mut self, what: &str) -> bool {
        let there = self.rest().starts_with(what);
        self.at += if there { what.len() } else { 0 };
        there
    }

    /// Goes past the next of this; answers what stands before it.
    fn until(&mut self, what: &str) -> Result<&'a str, Malformed> {
        let Some(length) = self.rest().find(what) else { return self.wrong() };
        let before = &self.rest()[..length];
        self.at += length + what.len();
        Ok(before)
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// A name without its prefix.
    fn name(&mut self) -> Result<&'a str, Malformed> {
        let is_part = |c: char| c.is_alphanumeric() || "_-.:".contains(c);
        let length = self.rest().find(|c| !is_part(c)).unwrap_or(self.rest().len());
        let name = &self.rest()[..length];
        if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return self.wrong();
        }
        self.at += length;
        Ok(name.rsplit(':').next().unwrap_or(name))
    }

    fn token(&mut self) -> Result<Option<Token<'a>>, Malformed> {
        loop {
            if self.rest().is_empty() {
                return Ok(None);
            } else if self.take("<?") {
                self.until("?>")?;
            } else if self.take("<!--") {
                self.until("-->")?;
            } else if self.take("<![CDATA[") {
                return Ok(Some(Token::Text(self.until("]]>")?.to_owned())));
            } else if self.take("</") {
                let name = self.name()?;
                self.space();
                return if self.take(">") { Ok(Some(Token::End(name))) } else { self.wrong() };
            } else if self.take("<") {
                let name = self.name()?;
                return Ok(Some(if self.attributes()? { Token::Empty(name) } else { Token::Start(name) }));
            } else {
                return self.text().map(|text| Some(Token::Text(text)));
            }
        }
    }

    /// Goes past a start tag's attributes and its end; says whether the element ends with it.
    fn attributes(&mut self) -> Result<bool, Malformed> {
        loop {
            let before = self.at;
            self.space();
            if self.take("/>") {
                return Ok(true);
            } else if self.take(">") {
                return Ok(false);
            } else if self.at == before {
                return self.wrong();
            }
            self.name()?;
            self.space();
            if !self.take("=") {
                return self.wrong();
            }
            self.space();
            let quote = if self.take("\"") { "\"" } else { "'" };
            if quote == "'" && !self.take("'") {
                return self.wrong();
            }
            if self.until(quote)?.contains('<') {
                return self.wrong();
            }
        }
    }

    /// Text up to the next tag.
    fn text(&mut self) -> Result<String, Malformed> {
        let length = self.rest().find('<').unwrap_or(self.rest().len());
        let (mut written, begin) = (&self.rest()[..length], self.at);
        let mut text = String::with_capacity(length);
        while let Some((plain, entity)) = written.split_once('&') {
            let at = begin + length - entity.len();
            text.push_str(plain);
            let (name, rest) = entity.split_once(';').ok_or(Malformed { at })?;
            text.push(character(name).ok_or(Malformed { at })?);
            written = rest;
        }
        text.push_str(written);
        self.at = begin + length;
        Ok(text)
    }
}

/// What stands between `&` and `;`.
fn character(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |hexadecimal| (hexadecimal, 16));
            // `from_str_radix` would take a sign.
            let number =
                digits.chars().all(|c| c.is_digit(radix)).then(|| u32::from_str_radix(digits, radix).ok())??;
            char::from_u32(number)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_escaped_comes_back(text in any::<String>()) {
            let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
            let root = Element::parse(format!("<a><b>{escaped}</b></a>").as_bytes());
            prop_assert_eq!(&root.unwrap().children[0].text, &text);
            if !text.contains("]]>") {
                prop_assert_eq!(super::Element::parse(format!("<a><![CDATA[{text}]]></a>").as_bytes()).unwrap().text, text);
            }
        }

        #[test]
        fn anything_may_come(document in "[<>/&;#xa='\"!\\[\\]CDAT \\-?é]{0,40}") {
            if let Err(Malformed { at }) = Element::parse(document.as_bytes()) {
                prop_assert!(at <= document.len());
            }
        }
    }

    fn text(document: &str) -> String {
        Element::parse(document.as_bytes()).unwrap_or_else(|error| panic!("{document}: {error}")).text
    }

    #[test]
    fn elements_text_and_what_is_passed_over() {
        let document = "\n<?xml version='1.0' encoding='utf-8'?>\n<a:R xmlns:a=\"http://x/\" b = 'c>d'><!-- <no/> -->\
            <M><Id>1</Id><Body> x\r\n y </Body></M><M/><a:M >2</a:M ></a:R>\n";
        let root = Element::parse(document.as_bytes()).unwrap();
        assert_eq!((root.name.as_str(), root.children.len()), ("R", 3));
        let first = root.child("M").unwrap();
        assert_eq!(first.child("Id").unwrap().text, "1");
        assert_eq!(first.child("Body").unwrap().text, " x\r\n y ", "every byte of a body counts");
        assert_eq!((&root.children[1].text[..], &root.children[2].text[..]), ("", "2"));
        assert!(first.child("Other").is_none());
    }

    #[test]
    fn characters_are_what_they_stand_for() {
        assert_eq!(text("<a>&lt;&gt;&amp;&quot;&apos;&#233;&#xE9;&#x1F600;&#13;</a>"), "<>&\"'éé😀\r");
        assert_eq!(text("<a>&amp;lt;</a>"), "&lt;", "once");
        assert_eq!(text("<a>1<![CDATA[<b>&lt;]]>2<!-- 3 -->4</a>"), "1<b>&lt;24");
        assert_eq!(text("<a/>"), "");
    }

    #[test]
    fn what_is_not_whole_is_nothing() {
        let cases = [
            "",
            "x",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a></a><b></b>",
            "<a></a>x",
            "</a>",
            "<a",
            "<a b></a>",
            "<a b=c/>",
            "<a b='<'/>",
            "<ab='c'/>",
            "<a>&</a>",
            "<a>&nbsp;</a>",
            "<a>&#x110000;</a>",
            "<a>&#xD800;</a>",
            "<a>&#+1;</a>",
            "<a>&#;</a>",
            "<a><![CDATA[</a>",
            "<a><!-- </a>",
            "< a/>",
            "<1/>",
            "<a><b></a></b>",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        ];
        for document in cases {
            assert!(Element::parse(document.as_bytes()).is_err(), "{document}");
        }
        assert_eq!(Element::parse(b"<a>\xff</a>"), Err(Malformed { at: 3 }));
        assert_eq!(Element::parse(b"<a>12&x;</a>"), Err(Malformed { at: 6 }));
    }

    #[test]
    fn depth_has_an_end() {
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(Element::parse(nested(DEEPEST).as_bytes()).is_ok());
        assert!(Element::parse(nested(DEEPEST + 1).as_bytes()).is_err());
    }
}
