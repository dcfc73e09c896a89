//! The escapes of a JSON string, resolved (RFC 8259, section 7).

use std::borrow::Cow;

/// Hexadecimal digits of either case; at most eight.
pub(super) fn hex_value(hex: &[u8]) -> Option<u32> {
    hex.iter().try_fold(0, |value, &byte| Some(value * 16 + char::from(byte).to_digit(16)?))
}

/// Resolves the escapes of a string that has been walked over. Half a surrogate pair, which is a [`Fault`](super::Fault) anyway,
/// becomes U+FFFD.
pub(super) fn unescape(inside: &str) -> Cow<'_, str> {
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
