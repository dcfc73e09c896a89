//! Text sealed to a person: an age v1 file (c2sp.org/age) for one X25519 recipient, `age1…`, which `age -d -i KEY` opens.
//!
//! What is revealed can so be handed on without ever lying anywhere in clear. Only sealing is here: nobody's age identity is
//! masq's business. Random bytes are passed in.

use std::str::FromStr;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{age, token::hkdf};

/// The characters of Bech32 (BIP 173), by value.
const BECH32: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM: usize = 6;
/// 32 bytes in characters of five bits.
const CHARACTERS: usize = 52;

/// The random bytes of a file: file key, ephemeral key, payload nonce. Never used twice.
pub type FileRandom = Zeroizing<[u8; 16 + 32 + 16]>;

/// To whom a file is sealed: an X25519 public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// Why a text names no recipient, by what helps.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RecipientError {
    /// Ask for another one.
    #[error("no X25519 recipient of age: ask for the one that `age-keygen` prints, age1 and 58 more characters")]
    OtherKind,
    /// Copy it again.
    #[error("its checksum is wrong: copy it again")]
    Mistyped,
    /// Nothing sealed to it would be secret.
    #[error("a key that anybody could have: ask for another one")]
    Weak,
}

impl FromStr for Recipient {
    type Err = RecipientError;

    /// Reads `age1…`, Bech32 (BIP 173) in lower case.
    fn from_str(text: &str) -> Result<Self, RecipientError> {
        let data = text.strip_prefix("age1").filter(|data| data.len() == CHARACTERS + CHECKSUM);
        let value = |c| BECH32.iter().position(|of| *of == c).and_then(|value| u8::try_from(value).ok());
        let values: Option<Vec<u8>> = data.ok_or(RecipientError::OtherKind)?.bytes().map(value).collect();
        let values = values.ok_or(RecipientError::Mistyped)?;
        if checksum(b"age", &values) != 1 {
            return Err(RecipientError::Mistyped);
        }
        let key = eights(&values[..CHARACTERS]).ok_or(RecipientError::Mistyped)?;
        // A point of small order gives everybody the same secret, all zeros.
        shared_secret(&[1; 32], &key).map(|_| Self(key)).ok_or(RecipientError::Weak)
    }
}

impl Recipient {
    /// Seals `text` to this person: an armoured age file.
    pub fn seal(&self, text: &[u8], random: &FileRandom) -> String {
        let (file_key, rest) = random.split_at(16);
        let (ephemeral, nonce) = rest.split_first_chunk::<32>().expect("48 bytes are left");
        let share = public(ephemeral);
        let secret = shared_secret(ephemeral, &self.0).expect("a recipient was tried when it was read");
        let wrap_key = hkdf(secret.as_slice(), &[share, self.0].concat(), b"age-encryption.org/v1/X25519");
        let arguments = format!("X25519 {}", BASE64_STANDARD_NO_PAD.encode(share));
        age::file((&arguments, &wrap_key), file_key, nonce, text)
    }
}

fn private(key: &[u8; 32]) -> PrivateKey {
    PrivateKey::from_private_key(&X25519, key).expect("any 32 bytes are a private key of X25519")
}

fn public(key: &[u8; 32]) -> [u8; 32] {
    let public = private(key).compute_public_key().expect("a private key of X25519 has a public one");
    public.as_ref().try_into().expect("it has 32 bytes")
}

/// X25519 (RFC 7748); `None` where the result would be all zeros.
fn shared_secret(ours: &[u8; 32], theirs: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    agree(&private(ours), UnparsedPublicKey::new(&X25519, theirs), (), |secret| {
        let secret: [u8; 32] = secret.try_into().map_err(|_| ())?;
        Ok(Zeroizing::new(secret))
    })
    .ok()
    .filter(|secret| secret.iter().any(|byte| *byte != 0))
}

/// The checksum over prefix and values; 1 where the last six values are right.
fn checksum(prefix: &[u8], values: &[u8]) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let high = prefix.iter().map(|c| c >> 5);
    let low = prefix.iter().map(|c| c & 31);
    let all = high.chain([0]).chain(low).chain(values.iter().copied());
    all.fold(1, |sum, value| {
        let top = sum >> 25;
        let shifted = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        (0..5).filter(|bit| top >> bit & 1 == 1).fold(shifted, |sum, bit| sum ^ GENERATOR[bit])
    })
}

/// 32 bytes out of 52 values of five bits; the four bits that are left over must be zeros.
fn eights(values: &[u8]) -> Option<[u8; 32]> {
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::with_capacity(32));
    for value in values {
        bits = (bits << 5 | u32::from(*value)) & 0xfff;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    (bits & ((1 << held) - 1) == 0).then_some(())?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the age project's own tests: the identity is AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0.
    const KNOWN: &str = "age1xmwwc06ly3ee5rytxm9mflaz2u56jjj36s0mypdrwsvlul66mv4q47ryef";
    /// Made by [`known`]; age and pyrage open it with that identity.
    const BY_MASQ: &str = include_str!("../../tests/data/vectors/masq-x25519.age");

    fn known() -> String {
        let random = Zeroizing::new(std::array::from_fn(|i| u8::try_from(i).unwrap()));
        KNOWN.parse::<Recipient>().unwrap().seal(b"a known text\n", &random)
    }

    #[test]
    fn known_file_is_made_again_to_the_byte() {
        assert_eq!(known(), BY_MASQ);
    }

    #[test]
    fn no_character_of_a_recipient_can_be_mistaken() {
        for at in 4..KNOWN.len() {
            for other in BECH32.iter().map(|c| char::from(*c)).filter(|c| !KNOWN[at..].starts_with(*c)) {
                let mistyped = format!("{}{other}{}", &KNOWN[..at], &KNOWN[at + 1..]);
                assert_eq!(mistyped.parse::<Recipient>(), Err(RecipientError::Mistyped), "{mistyped}");
            }
        }
        assert_eq!(KNOWN.replace('1', "b").parse::<Recipient>(), Err(RecipientError::OtherKind));
        assert_eq!(KNOWN.replace("xmw", "xbw").parse::<Recipient>(), Err(RecipientError::Mistyped));
    }

    #[test]
    fn what_is_no_recipient_is_told_what_one_is() {
        for text in
            ["", "age1", "ssh-ed25519 AAAA", "age1pq1qqqq", &KNOWN[..61], &format!("{KNOWN}q"), &KNOWN.to_uppercase()]
        {
            assert_eq!(text.parse::<Recipient>(), Err(RecipientError::OtherKind), "{text}");
        }
    }

    #[test]
    fn a_point_of_small_order_is_nobody() {
        for key in [[0; 32], std::array::from_fn(|i| u8::from(i == 0))] {
            assert_eq!(bech32(&key).parse::<Recipient>(), Err(RecipientError::Weak));
        }
        assert_eq!(bech32(&KNOWN.parse::<Recipient>().unwrap().0), KNOWN);
    }

    /// A recipient's text, made as BIP 173 says.
    fn bech32(key: &[u8; 32]) -> String {
        let bit = |at: usize| key.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
        let mut values: Vec<u8> = (0..CHARACTERS).map(|at| (0..5).fold(0, |v, i| v << 1 | bit(at * 5 + i))).collect();
        let sum = checksum(b"age", &[&values[..], &[0; CHECKSUM]].concat()) ^ 1;
        values.extend((0..CHECKSUM).map(|i| u8::try_from(sum >> (5 * (5 - i)) & 31).unwrap()));
        "age1".chars().chain(values.iter().map(|v| char::from(BECH32[usize::from(*v)]))).collect()
    }
}
