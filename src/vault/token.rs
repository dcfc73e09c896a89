//! value -> token: what stands in the table in a value's place. Pure.
//!
//! A token is an HMAC, so equal values stay equal and nobody without the key can try values out. It knows nothing of
//! columns, and nothing leads back from it.
//!
//! ```text
//! frame      0x01 | kid | len(domain) | domain | type | len, 2 bytes big-endian | bytes
//! type       0x04 with 4 bytes of IPv4 · 0x06 with 16 bytes of IPv6 · 0x73 with UTF-8 text
//! K[domain]  HKDF-SHA-256 (RFC 5869) of the token root, no salt, info = domain, 32 bytes
//! token      kid | HMAC-SHA-256(K[domain], frame)[..31]
//! ```
//! Every part of the frame has its length before it, so two different values never share one.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU8,
    str::FromStr,
};

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::mac::Mac;

/// The first byte of a frame. Another framing gets another number, and so other tokens.
const FRAME: u8 = 0x01;
const TYPE_IPV4: u8 = 0x04;
const TYPE_IPV6: u8 = 0x06;
const TYPE_TEXT: u8 = 0x73;

/// A domain or text that does not fit its length field. The field is part of every token, so it cannot grow.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a {what} of {len} bytes is too long for a token: at most {max}")]
pub struct TooLong {
    /// `domain` or `text`.
    pub what: &'static str,
    /// Its bytes.
    pub len: usize,
    /// The bytes that fit.
    pub max: usize,
}

/// The secret that all tokens of one key id come from.
pub struct TokenRoot {
    kid: NonZeroU8,
    root: Zeroizing<[u8; 32]>,
}

impl TokenRoot {
    /// A root by its key id. Key id 0 does not exist, so that no token begins with 00.
    pub fn new(kid: NonZeroU8, root: &[u8; 32]) -> Self {
        Self { kid, root: Zeroizing::new(*root) }
    }

    /// The first byte of its tokens.
    pub fn kid(&self) -> NonZeroU8 {
        self.kid
    }

    /// The key of one domain (at most 255 bytes). Equal values of two domains have different tokens.
    pub fn domain(&self, domain: &str) -> Result<DomainKey, TooLong> {
        let len = u8::try_from(domain.len()).map_err(|_| TooLong { what: "domain", len: domain.len(), max: 255 })?;
        let key = hkdf(self.root.as_slice(), &[], domain.as_bytes());
        let mac = Mac::new(&key).with_head(&[FRAME, self.kid.get(), len]).with_head(domain.as_bytes());
        Ok(DomainKey { kid: self.kid, mac })
    }

    /// Tells a wrong root or key id from the right one and gives neither away, so a database may keep it:
    /// HMAC-SHA-256(HKDF(root, info = `masq/key-check/v1`), `token` | kid)[..16].
    pub fn check_value(&self) -> [u8; 16] {
        key_check(&self.root, &[b't', b'o', b'k', b'e', b'n', self.kid.get()])
    }
}

/// Makes the tokens of one domain.
///
/// It keeps an HMAC that has seen the key and the frame as far as the domain; a short value costs two compressions of
/// SHA-256, no key schedule.
pub struct DomainKey {
    kid: NonZeroU8,
    mac: Mac,
}

impl DomainKey {
    /// The token of an address. `::ffff:a.b.c.d` is `a.b.c.d`.
    pub fn ip(&self, ip: IpAddr) -> Token {
        match ip.to_canonical() {
            IpAddr::V4(v4) => self.value(TYPE_IPV4, 4, &v4.octets()),
            IpAddr::V6(v6) => self.value(TYPE_IPV6, 16, &v6.octets()),
        }
    }

    /// The token of a text as it is: nothing is trimmed, folded or normalised.
    ///
    /// A text above 65,535 bytes has none. Cutting it would make different values equal, so the caller refuses the
    /// message as `field_too_long`.
    pub fn text(&self, text: &str) -> Result<Token, TooLong> {
        let len = u16::try_from(text.len()).map_err(|_| TooLong { what: "text", len: text.len(), max: 65_535 })?;
        Ok(self.value(TYPE_TEXT, len, text.as_bytes()))
    }

    /// The token of a value as it came; `None` if there is none for it, since it is no address or too long.
    pub fn token(&self, kind: Kind, raw: &str) -> Option<Token> {
        match kind {
            Kind::Ip => canonical_ip(raw).map(|ip| self.ip(ip)),
            Kind::Text => self.text(raw).ok(),
        }
    }

    fn value(&self, kind: u8, len: u16, bytes: &[u8]) -> Token {
        let [high, low] = len.to_be_bytes();
        let tag = self.mac.tag(&[&[kind, high, low], bytes]);
        let mut token = [self.kid.get(); 32];
        token[1..].copy_from_slice(&tag[..31]);
        Token(token)
    }
}

/// What a value's token was made of: it is kept with the sealed value, so that the token can be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An address.
    Ip = b'i',
    /// A text.
    Text = b's',
}

impl Kind {
    /// The kind of that byte.
    pub fn of(byte: u8) -> Option<Self> {
        [Self::Ip, Self::Text].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A key id and 31 bytes of an HMAC (or, unkeyed, a SHA-256). Its text is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 32]);

impl Token {
    /// Writes the text without allocating.
    pub fn write_hex(&self, out: &mut [u8; 64]) {
        write_hex(&self.0, out);
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected 64 hexadecimal digits")]
pub struct NoToken;

impl FromStr for Token {
    type Err = NoToken;

    /// Reads 64 hexadecimal digits, in capitals too.
    fn from_str(text: &str) -> Result<Self, NoToken> {
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
        let digits: [u8; 64] = digits.and_then(|digits| digits.try_into().ok()).ok_or(NoToken)?;
        Ok(Self(std::array::from_fn(|at| digits[2 * at] << 4 | digits[2 * at + 1])))
    }
}

/// SHA-256 of the UTF-8 bytes: the mask `sha256`, for those who must match old values. There is no key in it, so whoever
/// can list the possible values can reverse it.
pub fn sha256(text: &str) -> Token {
    Token(Sha256::digest(text).into())
}

/// The network of an address and its bits, 199.172.111.0 and 24 or 2001:db8:1:: and 48: the mask `prefix`.
pub fn prefix(ip: IpAddr) -> (IpAddr, u8) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => (Ipv4Addr::from_bits(v4.to_bits() & (!0 << 8)).into(), 24),
        IpAddr::V6(v6) => (Ipv6Addr::from_bits(v6.to_bits() & (!0 << 80)).into(), 48),
    }
}

/// The address that a text means: ASCII white space around it is dropped, `::ffff:a.b.c.d` is `a.b.c.d`.
///
/// Strict in all else: no brackets, zone, port, prefix length or shorthand, and no leading zeros in IPv4, which some
/// programs read as octal.
pub fn canonical_ip(text: &str) -> Option<IpAddr> {
    text.trim_ascii().parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// HMAC-SHA-256(HKDF(key, info = `masq/key-check/v1`), message)[..16].
///
/// With it a database refuses a worker with another key before its first write. The HKDF keeps it apart from what the
/// key itself is used for.
pub(super) fn key_check(key: &[u8; 32], message: &[u8]) -> [u8; 16] {
    let check = keyed(&hkdf(key, &[], b"masq/key-check/v1")).chain_update(message).finalize().into_bytes();
    std::array::from_fn(|i| check[i])
}

/// HKDF-SHA-256 (RFC 5869), 32 bytes. An empty salt is the same as none.
pub(super) fn hkdf(key: &[u8], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), key).expand(info, out.as_mut()).expect("32 bytes are within HKDF's limit of 8160");
    out
}

/// An HMAC-SHA-256 that has taken its key.
pub(super) fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn write_hex(bytes: &[u8; 32], out: &mut [u8; 64]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kid(kid: u8) -> NonZeroU8 {
        NonZeroU8::new(kid).unwrap()
    }

    fn domain(name: &str) -> DomainKey {
        TokenRoot::new(kid(1), &[7; 32]).domain(name).unwrap()
    }

    /// The frame in one piece, as the file's head describes it.
    fn frame(kid: u8, domain: &str, kind: u8, value: &[u8]) -> Vec<u8> {
        let mut frame = vec![FRAME, kid, u8::try_from(domain.len()).unwrap()];
        frame.extend_from_slice(domain.as_bytes());
        frame.push(kind);
        frame.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(value);
        frame
    }

    #[test]
    fn text_of_a_token_reads_back_and_no_other_does() {
        let token = domain("ip").text("x").unwrap();
        let text = token.to_string();
        assert_eq!((text.parse(), text.to_uppercase().parse()), (Ok(token), Ok(token)));
        for other in [&text[1..], &format!("{text}0"), &text.replacen('0', "g", 1), &format!(" {}", &text[1..]), ""] {
            assert_eq!(other.parse::<Token>(), Err(NoToken), "{other}");
        }
    }

    #[test]
    fn address_in_its_accepted_spellings() {
        let same = |text: &str, canonical: &str| {
            assert_eq!(canonical_ip(text).map(|ip| ip.to_string()).as_deref(), Some(canonical), "{text:?}");
        };
        same("199.172.111.135", "199.172.111.135");
        same(" \t\r\n\x0c199.172.111.135 ", "199.172.111.135");
        same("::ffff:199.172.111.135", "199.172.111.135");
        same("::FFFF:C7AC:6F87", "199.172.111.135");
        same("2001:DB8:0:0:0:0:0:0001", "2001:db8::1");
        same("::1.2.3.4", "::102:304"); // the old IPv4-compatible form is an IPv6 address of its own
        same("0.0.0.0", "0.0.0.0");
        same("::", "::");
    }

    #[test]
    fn what_only_resembles_an_address_is_none() {
        let short =
            "1.2.3 1.2.3.4.5 256.1.1.1 010.1.1.1 1.2.3.04 0x7f.0.0.1 2130706433 +1.2.3.4 １.2.3.4 ::ffff:010.1.1.1";
        let extra = "1.2.3.4:80 1.2.3.0/24 [::1] [::1]:80 fe80::1%eth0 fe80::1%1 2001:db8::/48 1::2::3 00001::";
        let blank = ["", " ", "1.2. 3.4", "\u{b}1.2.3.4", "\u{a0}1.2.3.4", "1.2.3.4\0"];
        for text in short.split(' ').chain(extra.split(' ')).chain(blank) {
            assert_eq!(canonical_ip(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_does_not_fit_a_frame_is_refused_by_its_length() {
        let root = TokenRoot::new(kid(1), &[7; 32]);
        assert!(root.domain(&"d".repeat(255)).is_ok());
        assert_eq!(root.domain(&"d".repeat(256)).err(), Some(TooLong { what: "domain", len: 256, max: 255 }));
        assert!(domain("d").text(&"t".repeat(65_535)).is_ok());
        let refused = domain("d").text(&"t".repeat(65_536)).unwrap_err();
        assert_eq!(refused.to_string(), "a text of 65536 bytes is too long for a token: at most 65535");
    }

    #[test]
    fn text_that_spells_an_address_is_not_that_address() {
        assert_ne!(domain("ip").text("1.2.3.4").unwrap(), domain("ip").ip([1, 2, 3, 4].into()));
        assert_ne!(domain("a").text("x").unwrap(), domain("b").text("x").unwrap());
    }

    #[test]
    fn key_check_differs_by_root_and_by_kid() {
        let check = |id, root| TokenRoot::new(kid(id), &[root; 32]).check_value();
        assert_eq!(check(1, 7), check(1, 7));
        assert_ne!(check(1, 7), check(2, 7));
        assert_ne!(check(1, 7), check(1, 8));
    }

    fn framed() -> impl Strategy<Value = (u8, String, u8, Vec<u8>)> {
        let value = prop_oneof![
            any::<[u8; 4]>().prop_map(|v4| (TYPE_IPV4, v4.to_vec())),
            any::<[u8; 16]>().prop_map(|v6| (TYPE_IPV6, v6.to_vec())),
            "[\\x00-\\x07s]{0,6}".prop_map(|text| (TYPE_TEXT, text.into_bytes())),
        ];
        // A small alphabet made of length and type bytes, so that shifted frames would collide if any could.
        (1_u8..4, "[\\x00-\\x07s]{0,4}", value).prop_map(|(kid, domain, (kind, value))| (kid, domain, kind, value))
    }

    proptest! {
        #[test]
        fn two_values_never_share_a_frame(a in framed(), b in framed()) {
            prop_assert_eq!(a == b, frame(a.0, &a.1, a.2, &a.3) == frame(b.0, &b.1, b.2, &b.3));
        }

        #[test]
        fn token_is_the_mac_of_that_frame(id in 1_u8.., name in ".{0,20}", text in ".{0,200}", root: [u8; 32]) {
            let token = TokenRoot::new(kid(id), &root).domain(&name).unwrap().text(&text).unwrap();
            let whole = frame(id, &name, TYPE_TEXT, text.as_bytes());
            let mac = keyed(&hkdf(&root, &[], name.as_bytes())).chain_update(whole).finalize().into_bytes();
            prop_assert_eq!(token.0[0], id);
            prop_assert_eq!(&token.0[1..], &mac[..31]);
            let mut hex = [0; 64];
            token.write_hex(&mut hex);
            prop_assert_eq!(std::str::from_utf8(&hex).unwrap(), token.to_string());
        }

        #[test]
        fn canonical_address_reads_back_as_itself(ip: IpAddr, before in "[ \t\r\n]{0,3}", after in "[ \t\r\n]{0,3}") {
            let canonical = canonical_ip(&format!("{before}{ip}{after}")).unwrap();
            prop_assert_eq!(canonical, ip.to_canonical());
            prop_assert_eq!(canonical_ip(&canonical.to_string()), Some(canonical));
            prop_assert_eq!(domain("ip").ip(ip), domain("ip").ip(canonical));
        }

        #[test]
        fn mapped_address_has_the_token_and_network_of_the_v4(v4: Ipv4Addr) {
            let mapped = IpAddr::V6(v4.to_ipv6_mapped());
            prop_assert_eq!(domain("ip").ip(mapped), domain("ip").ip(v4.into()));
            prop_assert_eq!(prefix(mapped), prefix(v4.into()));
        }
    }
}
