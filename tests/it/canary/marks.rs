//! The marks, and the hunt for them: every form in which a marked value may stand in bytes that somebody left behind.
//!
//! Plain text in both cases, percent and JSON escapes, hexadecimal digits, base64 at each of its three offsets, UTF-16 in
//! both byte orders, a list of bytes as programs print it; of an address also its octets, in both orders. What is
//! compressed or encrypted is not looked into.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    net::IpAddr,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};

/// A value that must not be found.
pub(super) struct Mark {
    name: String,
    forms: BTreeSet<(&'static str, Vec<u8>)>,
}

impl Mark {
    /// A text in lower case.
    pub(super) fn text(text: &str) -> Self {
        Self { name: text.to_owned(), forms: of_text(text) }
    }

    pub(super) fn address(address: IpAddr) -> Self {
        let mut forms = of_text(&address.to_string());
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => {
                let groups = v6.segments().map(|group| format!("{group:04x}"));
                forms.extend(of_text(&groups.join(":")));
                v6.octets().to_vec()
            }
        };
        forms.extend(of_bytes(&octets));
        Self { name: address.to_string(), forms }
    }

    /// A key: what opens or makes everything must lie nowhere either.
    pub(super) fn key(name: &str, bytes: &[u8]) -> Self {
        let mut forms = of_bytes(bytes);
        forms.extend(base64(bytes));
        Self { name: name.to_owned(), forms }
    }
}

fn of_text(text: &str) -> BTreeSet<(&'static str, Vec<u8>)> {
    let bytes = text.as_bytes();
    let each = |write: &dyn Fn(&mut String, u8)| {
        let mut out = String::new();
        bytes.iter().for_each(|&byte| write(&mut out, byte));
        out.into_bytes()
    };
    let mut forms = of_list(bytes);
    forms.extend(base64(bytes));
    forms.extend([
        ("text", bytes.to_vec()),
        ("text", text.to_uppercase().into_bytes()),
        ("hex", hex(bytes).into_bytes()),
        ("hex", hex(bytes).to_uppercase().into_bytes()),
        ("percent", each(&|out, byte| write!(out, "%{byte:02X}").unwrap())),
        ("JSON escapes", each(&|out, byte| write!(out, "\\u{byte:04x}").unwrap())),
        ("UTF-16LE", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("UTF-16BE", text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
    ]);
    forms
}

/// Bytes that are no text: an address's octets, a key.
fn of_bytes(bytes: &[u8]) -> BTreeSet<(&'static str, Vec<u8>)> {
    let mut forms = of_list(bytes);
    forms.extend([
        ("octets", bytes.to_vec()),
        ("octets reversed", bytes.iter().rev().copied().collect()),
        ("octets in hex", hex(bytes).into_bytes()),
        ("octets in hex", hex(bytes).to_uppercase().into_bytes()),
    ]);
    forms
}

/// As Rust's Debug, and PostgreSQL's dumps of plans, print bytes.
fn of_list(bytes: &[u8]) -> BTreeSet<(&'static str, Vec<u8>)> {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    [", ", " "].map(|between| ("list", numbers.join(between).into_bytes())).into()
}

/// Whatever stands before it; without the end, which depends on what stands behind it.
fn base64(bytes: &[u8]) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let offsets = (0..3).flat_map(|skip| [STANDARD.encode(&bytes[skip..]), URL_SAFE.encode(&bytes[skip..])]);
    offsets.map(|text| ("base64", text.as_bytes()[..text.len() - 4].to_vec()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a mark stands, and as what.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "a test that fails prints all of it")]
pub(super) struct Hit {
    pub(super) place: String,
    pub(super) mark: String,
    pub(super) form: &'static str,
    at: usize,
    around: String,
    /// Four bytes, or eight digits, come about by chance in one of some thousand runs; not twice in one.
    may_be_chance: bool,
}

/// Looks for all forms of some marks at once.
pub(super) struct Hunt {
    forms: Vec<(String, &'static str, Vec<u8>)>,
    /// Those that begin with these two bytes.
    by_start: HashMap<[u8; 2], Vec<usize>>,
    starts: Vec<bool>,
}

impl Hunt {
    pub(super) fn new(marks: &[Mark]) -> Self {
        let each = |mark: &Mark| {
            let Mark { name, forms } = mark;
            forms.iter().map(|(form, bytes)| (name.clone(), *form, bytes.clone())).collect::<Vec<_>>()
        };
        let forms: Vec<_> = marks.iter().flat_map(each).collect();
        let (mut by_start, mut starts) = (HashMap::<_, Vec<_>>::new(), vec![false; 1 << 16]);
        for (number, (_, _, bytes)) in forms.iter().enumerate() {
            let start = [bytes[0], bytes[1]];
            by_start.entry(start).or_default().push(number);
            starts[usize::from(u16::from_be_bytes(start))] = true;
        }
        Self { forms, by_start, starts }
    }

    /// Every place in these bytes where a mark stands.
    pub(super) fn hits(&self, place: &str, bytes: &[u8]) -> Vec<Hit> {
        /// Most of a cluster's files is zeros. No form begins with more than one of them.
        const ZEROS: [u8; 1024] = [0; 1024];
        let (mut hits, mut at) = (Vec::new(), 0);
        while at + 1 < bytes.len() {
            if bytes[at] == 0 && bytes[at..].starts_with(&ZEROS) {
                at += ZEROS.len() - 1;
                continue;
            }
            let start = [bytes[at], bytes[at + 1]];
            if self.starts[usize::from(u16::from_be_bytes(start))] {
                let begun = self.by_start[&start].iter().map(|&number| &self.forms[number]);
                let whole = begun.filter(|(_, _, form)| bytes[at..].starts_with(form));
                hits.extend(whole.map(|(mark, form, whole)| Hit {
                    place: place.to_owned(),
                    mark: mark.clone(),
                    form,
                    at,
                    around: String::from_utf8_lossy(&bytes[at.saturating_sub(60)..bytes.len().min(at + 90)]).into(),
                    may_be_chance: form.starts_with("octets") && whole.len() <= 8,
                }));
            }
            at += 1;
        }
        hits
    }
}

/// What a number of hits proves: without the one that may be chance, if it is alone.
pub(super) fn proven(hits: Vec<Hit>) -> Vec<Hit> {
    if let [Hit { may_be_chance: true, .. }] = hits[..] { Vec::new() } else { hits }
}

#[test]
fn a_mark_is_found_in_each_of_its_forms() {
    let marks = [Mark::text("canary-device"), Mark::address([203, 0, 113, 77].into())];
    let hunt = Hunt::new(&marks);
    let forms = |bytes: &[u8]| {
        let hits = hunt.hits("", bytes).into_iter();
        hits.map(|hit| format!("{} {}", hit.mark, hit.form)).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    for (planted, form) in [
        (&b"x canary-device y"[..], "text"),
        (b"CANARY-DEVICE", "text"),
        (b"\\x0063616e6172792d64657669636500", "hex"),
        (b"63616E6172792D646576696365", "hex"),
        (b"AAA Y2FuYXJ5LWRldmljZQ== B", "base64"),
        (b"eGNhbmFyeS1kZXZpY2U=", "base64"),
        (b"eHljYW5hcnktZGV2aWNl", "base64"),
        (b"%63%61%6E%61%72%79%2D%64%65%76%69%63%65", "percent"),
        (b"c\0a\0n\0a\0r\0y\0-\0d\0e\0v\0i\0c\0e\0", "UTF-16LE"),
        (b"\0c\0a\0n\0a\0r\0y\0-\0d\0e\0v\0i\0c\0e", "UTF-16BE"),
        (b"[99, 97, 110, 97, 114, 121, 45, 100, 101, 118, 105, 99, 101]", "list"),
    ] {
        assert_eq!(forms(planted), [format!("canary-device {form}")], "{planted:?}");
    }
    for (planted, form) in [
        (&b"::ffff:203.0.113.77"[..], "text"),
        (b"\x02 \xcb\0\x71\x4d", "octets"),
        (b"\x4d\x71\0\xcb", "octets reversed"),
        (b"cb00714d", "octets in hex"),
        (b"203 0 113 77", "list"),
    ] {
        assert_eq!(forms(planted), [format!("203.0.113.77 {form}")], "{planted:?}");
    }
    let behind_zeros = [&[0; 5000][..], b"canary-device", &[0; 3000], b"\xcb\0\x71\x4d"].concat();
    assert_eq!(hunt.hits("", &behind_zeros).len(), 2);
    assert!(forms(b"nothing here: canary-devic, 203.0.113.7, Y2FuYXJ5LW").is_empty());
}

#[test]
fn one_hit_of_four_bytes_is_chance_and_two_are_a_leak() {
    let hunt = Hunt::new(&[Mark::address([203, 0, 113, 77].into())]);
    let hits = |bytes: &[u8]| proven(hunt.hits("", bytes)).len();
    assert_eq!(hits(b"\xcb\0\x71\x4d"), 0);
    assert_eq!(hits(b"\xcb\0\x71\x4d cb00714d"), 2);
    assert_eq!(hits(b"203.0.113.77"), 1);
}
