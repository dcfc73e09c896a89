//! A text protected by a passphrase: an age v1 file (c2sp.org/age), so that `age -d` opens it without masq.
//!
//! Only what the recovery key needs: one scrypt stanza, armour, and for opening a payload of one chunk (less than 64 KiB).
//! Other recipients and longer payloads are not opened; [`super::age_recipient`] makes files for persons. Random bytes
//! are passed in.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use hmac::Mac;
use scrypt::{Params, scrypt};
use thiserror::Error;
use zeroize::Zeroizing;

use super::token::{hkdf, keyed};

/// log2 of scrypt's cost for files that masq writes, age's own choice: about a second and 256 MiB for each guess, and
/// for each honest opening.
pub const WORK: u8 = 18;
/// The most that masq does for a file of somebody else's: 1 GiB and some seconds. Without a limit a file could ask for
/// all memory.
const MAX_WORK: u8 = 20;

const VERSION: &str = "age-encryption.org/v1";
const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";
/// Columns of an armoured line (RFC 7468, section 3).
const COLUMNS: usize = 64;
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;

/// Why an age file stays shut, by what helps.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AgeError {
    /// Try again.
    #[error("the passphrase is not the one it was protected with")]
    WrongPassphrase,
    /// Restore it.
    #[error("the age file is damaged ({0}): restore it from a copy")]
    Damaged(&'static str),
    /// Use age itself.
    #[error("the age file {0}: decrypt it with `age` and use the result")]
    Unsupported(&'static str),
}

/// The random bytes of a file: file key, salt, payload nonce. Never used twice.
pub type FileRandom = Zeroizing<[u8; 16 + 16 + 16]>;

/// Whether this is an age file, armoured or not.
pub fn is_encrypted(file: &[u8]) -> bool {
    file.trim_ascii_start().starts_with(BEGIN.as_bytes()) || file.starts_with(VERSION.as_bytes())
}

/// Protects `text` with a passphrase at scrypt cost 2^`work`: an armoured age file. Only one of up to 64 KiB is opened by
/// [`decrypt`].
pub fn encrypt(text: &str, passphrase: &str, work: u8, random: &FileRandom) -> String {
    let (file_key, rest) = random.split_at(16);
    let (salt, nonce) = rest.split_at(16);
    let arguments = format!("scrypt {} {work}", BASE64_STANDARD_NO_PAD.encode(salt));
    file((&arguments, &wrap_key(passphrase, salt, work)), file_key, nonce, text.as_bytes())
}

/// An armoured file for one recipient: the arguments of its stanza, and the key under which it gets the file key. `file_key`
/// and `nonce` have 16 bytes each.
pub(super) fn file((arguments, wrap_key): (&str, &[u8; 32]), file_key: &[u8], nonce: &[u8], text: &[u8]) -> String {
    let body = BASE64_STANDARD_NO_PAD.encode(seal(wrap_key, [0; 12], file_key));
    let header = format!("{VERSION}\n-> {arguments}\n{body}\n---");
    let mac = keyed(&hkdf(file_key, &[], b"header")).chain_update(&header).finalize().into_bytes();
    let mut file = format!("{header} {}\n", BASE64_STANDARD_NO_PAD.encode(mac)).into_bytes();
    file.extend_from_slice(nonce);
    let key = hkdf(file_key, nonce, b"payload");
    let last = text.len().saturating_sub(1) / CHUNK;
    for at in 0..=last {
        let chunk = &text[at * CHUNK..text.len().min((at + 1) * CHUNK)];
        file.extend_from_slice(&seal(&key, chunk_nonce(at as u64, at == last), chunk));
    }
    armour(&file)
}

/// The number of a chunk in eleven bytes, and whether it is the last.
fn chunk_nonce(number: u64, is_last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(is_last);
    nonce
}

/// Opens what [`encrypt`] or any other age made with a passphrase, armoured or not.
pub fn decrypt(file: &[u8], passphrase: &str) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let file = if file.starts_with(VERSION.as_bytes()) { file.to_vec() } else { dearmour(file)? };
    let mut lines = file.splitn(5, |byte| *byte == b'\n');
    let mut line = || lines.next().ok_or(AgeError::Damaged("its header ends early"));
    let (version, stanza, body, mac, payload) = (line()?, line()?, line()?, line()?, line()?);
    if version != VERSION.as_bytes() {
        return Err(AgeError::Unsupported("is of another version"));
    }
    let (salt, work) = scrypt_stanza(stanza)?;
    let mac = mac.strip_prefix(b"--- ").ok_or(AgeError::Damaged("something stands beside its scrypt stanza"))?;
    let wrapped = decode::<32>(body, "its file key")?;

    let file_key = open(&wrap_key(passphrase, &salt, work), [0; 12], &wrapped).ok_or(AgeError::WrongPassphrase)?;
    let header = [version, stanza, body, b"---"].join(&b'\n');
    keyed(&hkdf(&file_key, &[], b"header"))
        .chain_update(header)
        .verify_slice(&decode::<32>(mac, "its header's MAC")?)
        .map_err(|_| AgeError::Damaged("its header was changed"))?;
    let (nonce, chunk) = payload.split_at_checked(16).ok_or(AgeError::Damaged("it ends early"))?;
    if chunk.len() > CHUNK + TAG {
        return Err(AgeError::Unsupported("holds more than a key"));
    }
    open(&hkdf(&file_key, nonce, b"payload"), chunk_nonce(0, true), chunk)
        .ok_or(AgeError::Damaged("its content was changed"))
}

/// The salt and log2 of the cost in `-> scrypt SALT WORK`.
fn scrypt_stanza(line: &[u8]) -> Result<([u8; 16], u8), AgeError> {
    let line = std::str::from_utf8(line).map_err(|_| AgeError::Damaged("its stanza is no text"))?;
    let arguments = line.strip_prefix("-> scrypt ").ok_or(AgeError::Unsupported("is not protected by a passphrase"))?;
    let (salt, work) = arguments.split_once(' ').ok_or(AgeError::Damaged("its stanza is too short"))?;
    if work.is_empty() || work.starts_with('0') || !work.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AgeError::Damaged("its work factor is no number"));
    }
    let work = work.parse().ok().filter(|work| *work <= MAX_WORK);
    let work = work.ok_or(AgeError::Unsupported("asks for a work factor above 20"))?;
    Ok((decode(salt.as_bytes(), "its salt")?, work))
}

/// scrypt (RFC 7914) with r = 8, p = 1.
fn wrap_key(passphrase: &str, salt: &[u8], work: u8) -> Zeroizing<[u8; 32]> {
    let salt = [b"age-encryption.org/v1/scrypt", salt].concat();
    let cost = Params::new(work, 8, 1).expect("a cost of at most 2^20 is one");
    let mut key = Zeroizing::new([0; 32]);
    scrypt(passphrase.as_bytes(), &salt, &cost, key.as_mut()).expect("32 bytes are within scrypt's limit");
    key
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has 32 bytes"))
}

fn seal(key: &[u8; 32], nonce: [u8; 12], plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + TAG);
    out.extend_from_slice(plain);
    cipher(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut out)
        .expect("64 KiB are within the cipher's limit");
    out
}

fn open(key: &[u8; 32], nonce: [u8; 12], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(sealed.to_vec());
    let len = cipher(key).open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut out).ok()?.len();
    out.truncate(len);
    Some(out)
}

/// Canonical base64 without padding, of exactly `N` bytes.
fn decode<const N: usize>(text: &[u8], what: &'static str) -> Result<[u8; N], AgeError> {
    let bytes = BASE64_STANDARD_NO_PAD.decode(text).map_err(|_| AgeError::Damaged(what))?;
    bytes.try_into().map_err(|_| AgeError::Damaged(what))
}

fn armour(file: &[u8]) -> String {
    let mut out = String::from(BEGIN);
    for (column, character) in BASE64_STANDARD.encode(file).chars().enumerate() {
        if column % COLUMNS == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out + "\n" + END + "\n"
}

/// Strict, as the specification asks: white space around the armour is all that may differ.
fn dearmour(file: &[u8]) -> Result<Vec<u8>, AgeError> {
    let damaged = AgeError::Damaged("its armour");
    let Ok(text) = std::str::from_utf8(file.trim_ascii()) else { return Err(damaged) };
    let Some(text) = text.strip_prefix(BEGIN).and_then(|text| text.strip_suffix(END)) else { return Err(damaged) };
    let lines: Vec<_> = text.trim_ascii().lines().collect();
    let full = lines.split_last().is_some_and(|(_, full)| full.iter().all(|line| line.len() == COLUMNS));
    if !full || lines.iter().any(|line| line.len() > COLUMNS) {
        return Err(damaged);
    }
    BASE64_STANDARD.decode(lines.concat()).map_err(|_| damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the age that Debian ships, 1.1.1: `age -p -a`, at its own cost of 2^18.
    const BY_AGE: &[u8] = include_bytes!("../../tests/data/vectors/age-1.1.1.age");
    /// Made by pyrage 1.4.0 (the age of Rust), at a cost of 2^19, not armoured.
    const BY_PYRAGE: &[u8] = include_bytes!("../../tests/data/vectors/pyrage.age");
    /// Made by [`cheap`]; both programs open it.
    const BY_MASQ: &str = include_str!("../../tests/data/vectors/masq.age");

    fn cheap(text: &str) -> String {
        encrypt(text, "correct horse", 10, &Zeroizing::new(std::array::from_fn(|i| u8::try_from(i).unwrap())))
    }

    fn damaged(change: &dyn Fn(String) -> String) -> AgeError {
        decrypt(change(cheap("text")).as_bytes(), "correct horse").unwrap_err()
    }

    /// The file without its armour, changed and armoured again.
    fn changed(from: &str, to: &str) -> AgeError {
        let file = dearmour(cheap("text").as_bytes()).unwrap();
        let at = file.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let file = [&file[..at], to.as_bytes(), &file[at + from.len()..]].concat();
        decrypt(armour(&file).as_bytes(), "correct horse").unwrap_err()
    }

    #[test]
    fn known_file_is_made_again_to_the_byte() {
        assert_eq!(cheap("a known text\n"), BY_MASQ);
        assert_eq!(decrypt(BY_MASQ.as_bytes(), "correct horse").unwrap().as_slice(), b"a known text\n");
    }

    #[test]
    fn files_of_other_programs_open() {
        for file in [BY_AGE, BY_PYRAGE] {
            assert!(is_encrypted(file));
            assert_eq!(decrypt(file, "correct horse").unwrap().as_slice(), b"a known text\n");
        }
    }

    #[test]
    fn wrong_passphrase_is_told_from_damage() {
        let file = cheap("text");
        assert_eq!(decrypt(file.as_bytes(), "battery staple").unwrap_err(), AgeError::WrongPassphrase);
        let end = AgeError::Damaged("its content was changed");
        let binary = dearmour(file.as_bytes()).unwrap();
        assert_eq!(decrypt(&binary[..binary.len() - 1], "correct horse").unwrap_err(), end);
        assert_eq!(damaged(&|file| file.replace("BEGIN", "START")), AgeError::Damaged("its armour"));
        assert_eq!(damaged(&|file| file + "more"), AgeError::Damaged("its armour"));
        assert_eq!(damaged(&|file| file.replacen('\n', "\n\n", 3)), AgeError::Damaged("its armour"));
        assert_eq!(changed("\n--- ", "\n--- A"), AgeError::Damaged("its header's MAC"));
    }

    #[test]
    fn only_a_single_passphrase_is_supported() {
        assert_eq!(changed("/v1\n", "/v2\n"), AgeError::Unsupported("is of another version"));
        assert_eq!(changed("-> scrypt", "-> X25519"), AgeError::Unsupported("is not protected by a passphrase"));
        let two = AgeError::Damaged("something stands beside its scrypt stanza");
        assert_eq!(changed("\n--- ", "\n-> grease\n\n--- "), two);
    }

    #[test]
    fn absurd_cost_is_refused_before_it_is_paid() {
        for work in ["21", "63", "300", "99999999999999999999"] {
            let refused = AgeError::Unsupported("asks for a work factor above 20");
            assert_eq!(changed(" 10\n", &format!(" {work}\n")), refused);
        }
        for work in ["", "0", "010", "+9", "1e1", "10 "] {
            assert_eq!(changed(" 10\n", &format!(" {work}\n")), AgeError::Damaged("its work factor is no number"));
        }
        // A cost that may be paid but is not the one that was.
        assert_eq!(changed(" 10\n", " 9\n"), AgeError::WrongPassphrase);
    }
}
