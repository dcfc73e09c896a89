//! The bodies that are sent, and what must become of them: rows and reasons computed here a second time, from the rules
//! in ARCHITECTURE.md and tests/data/README.md, without the code of masq.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::plan::Kind;

/// The token root and its key id in every simulated world.
pub const TOKEN_ROOT: [u8; 32] = [7; 32];
pub const KID: u8 = 1;

/// What the table refuses to take.
pub const REFUSED: &str = "refused-device";

/// Bodies that become dead letters whoever reads them, and why.
pub const BAD: [(&str, &str); 6] = [
    ("", "empty_body"),
    (r#"{"user_id": "u", "ip":"#, "truncated_json"),
    (r#"{"foo": "oops_wrong_msg_type", "bar": "123"}"#, "unknown_message_type"),
    (r#"{"user_id": "u", "ip": "199.172.111.256"}"#, "bad_ip:ip"),
    (r#"{"ip": "199.172.111.135"}"#, "missing_field:user_id"),
    (r#"{"user_id": "u"} {}"#, "trailing_data"),
];

impl Kind {
    pub fn body(self) -> Vec<u8> {
        let login = |number: usize, device_type: &str, more: &str| {
            format!(
                r#"{{"user_id": "{}", "app_version": "2.{}.0", "device_type": "{device_type}", "ip": "{}", "locale": null, "device_id": "{}"{more}}}"#,
                user(number),
                number % 7,
                ip(number),
                device(number),
            )
        };
        match self {
            Self::Login(number) => login(number, "android", ""),
            Self::Event(number) => login(number, "web", &format!(r#", "event_id": "event-{number}""#)),
            Self::Disputed(number) => login(number, "ios", r#", "extra": 1"#),
            Self::Refused(number) => login(number, REFUSED, ""),
            Self::Poison => login(0, "poison", ""),
            Self::Bad(which) => BAD[which].0.to_owned(),
        }
        .into_bytes()
    }

    /// The row as a tuple of COPY BINARY, if it may become one.
    pub fn row(self, sent_at: i64, tokens: &Tokens) -> Option<Vec<u8>> {
        let (number, device_type) = match self {
            Self::Login(number) => (number, "android"),
            Self::Event(number) => (number, "web"),
            Self::Disputed(number) => (number, "ios"),
            Self::Refused(_) | Self::Poison | Self::Bad(_) => return None,
        };
        let day = i32::try_from(sent_at.div_euclid(86_400_000) - 10_957).unwrap(); // days since 2000-01-01
        let fields: [Option<Vec<u8>>; 7] = [
            Some(user(number).into_bytes()),
            Some(device_type.into()),
            Some(tokens.ips[number % IPS].clone()),
            Some(tokens.devices[number % DEVICES].clone()),
            None,
            Some(format!("2.{}.0", number % 7).into_bytes()),
            Some(day.to_be_bytes().to_vec()),
        ];
        let mut tuple = 7_i16.to_be_bytes().to_vec();
        for field in fields {
            let length = field.as_ref().map_or(-1, |field| i32::try_from(field.len()).unwrap());
            tuple.extend(length.to_be_bytes());
            tuple.extend(field.unwrap_or_default());
        }
        Some(tuple)
    }

    /// Why it may become a dead letter.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Login(_) | Self::Event(_) => None,
            Self::Disputed(_) => Some("unknown_field"),
            Self::Refused(_) => Some("db_rejected:23514"),
            Self::Poison => Some("poison_receive_count"),
            Self::Bad(which) => Some(BAD[which].1),
        }
    }
}

/// A few values only, so that their tokens are computed once for all worlds.
const IPS: usize = 5;
const DEVICES: usize = 3;

/// A few people only, so that they come again with the same values.
const USERS: usize = 8;

/// What these values become.
pub struct Tokens {
    ips: Vec<Vec<u8>>,
    devices: Vec<Vec<u8>>,
}

impl Tokens {
    pub fn new() -> Self {
        Self {
            ips: (0..IPS).map(|number| token("ip", 0x04, &octets(number))).collect(),
            devices: (0..DEVICES).map(|number| token("device_id", 0x73, device(number).as_bytes())).collect(),
        }
    }
}

fn user(number: usize) -> String {
    format!("user-{}", number % USERS)
}

fn octets(number: usize) -> [u8; 4] {
    [10, 0, 0, u8::try_from(number % IPS).unwrap()]
}

fn ip(number: usize) -> String {
    octets(number).map(|octet| octet.to_string()).join(".")
}

fn device(number: usize) -> String {
    format!("593-47-{}", number % DEVICES)
}

fn token(domain: &str, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(None, &TOKEN_ROOT).expand(domain.as_bytes(), &mut key).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(&[0x01, KID, u8::try_from(domain.len()).unwrap()]);
    mac.update(domain.as_bytes());
    mac.update(&[kind]);
    mac.update(&u16::try_from(value.len()).unwrap().to_be_bytes());
    mac.update(value);
    let digest = mac.finalize().into_bytes();
    let bytes = std::iter::once(KID).chain(digest[..31].iter().copied());
    bytes.map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()
}
