//! Signature Version 4 of what masq asks thousands of times a second: a POST to the root of a host, with its body. Pure.
//!
//! The general way is the aws-sigv4 crate's, and whatever is not of that form goes there. It spends about three times as
//! much on a request, a third of a message's whole CPU: it derives the day's key anew each time. A property test holds
//! the two against each other. The steps and their names:
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

use std::sync::{Mutex, PoisonError};

use aws_credential_types::Credentials;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use time::UtcDateTime;

/// What is signed besides the body.
pub(super) struct Post<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// Names in lower case and their values, without the date and the session token, in any order.
    pub(super) headers: Vec<(&'static str, &'a str)>,
}

/// The signing key of one day, kept with the credentials that it was derived from.
#[derive(Default)]
pub(super) struct DaysKey(Mutex<Option<(String, Hmac<Sha256>)>>);

/// The value of `x-amz-date`: 20231122T093000Z.
pub(super) fn date(at: UtcDateTime) -> String {
    let mut out = String::with_capacity(16);
    digits(&mut out, at.year().unsigned_abs(), 4);
    digits(&mut out, u8::from(at.month()).into(), 2);
    digits(&mut out, at.day().into(), 2);
    out.push('T');
    digits(&mut out, at.hour().into(), 2);
    digits(&mut out, at.minute().into(), 2);
    digits(&mut out, at.second().into(), 2);
    out.push('Z');
    out
}

fn digits(out: &mut String, number: u32, width: u32) {
    for place in (0..width).rev() {
        out.push(char::from(b'0' + u8::try_from(number / 10_u32.pow(place) % 10).unwrap_or(0)));
    }
}

impl DaysKey {
    /// The value of the `authorization` header of a request that is dated with [`date`].
    pub(super) fn authorize<'a>(&self, post: Post<'a>, body: &[u8], date: &'a str, by: &'a Credentials) -> String {
        let Post { region, service, mut headers } = post;
        headers.push(("x-amz-date", date));
        headers.extend(by.session_token().map(|token| ("x-amz-security-token", token)));
        headers.sort_unstable_by_key(|(name, _)| *name);

        let mut names = String::with_capacity(96);
        // An empty line each for the query, which there is none of, and after the headers.
        let mut canonical = String::with_capacity(512);
        canonical.push_str("POST\n/\n\n");
        for (name, value) in &headers {
            names.extend([if names.is_empty() { "" } else { ";" }, name]);
            canonical.extend([name, ":", value.trim(), "\n"]);
        }
        canonical.extend(["\n", &names, "\n"]);
        push_hex(&mut canonical, &Sha256::digest(body));

        let scope = [&date[..8], "/", region, "/", service, "/aws4_request"].concat();
        let mut to_sign = ["AWS4-HMAC-SHA256\n", date, "\n", &scope, "\n"].concat();
        push_hex(&mut to_sign, &Sha256::digest(&canonical));
        let key = self.key(&scope, by);

        let mut out = String::with_capacity(names.len() + 192);
        out.extend(["AWS4-HMAC-SHA256 Credential=", by.access_key_id(), "/", &scope, ", SignedHeaders=", &names]);
        out.push_str(", Signature=");
        push_hex(&mut out, &key.chain_update(&to_sign).finalize().into_bytes());
        out
    }

    /// The key for this scope: day, region and service.
    fn key(&self, scope: &str, by: &Credentials) -> Hmac<Sha256> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((of, key)) if of == scope => key.clone(),
            _ => {
                let secret = zeroize::Zeroizing::new(["AWS4", by.secret_access_key()].concat());
                let derive = |key: Hmac<Sha256>, part: &str| keyed(&key.chain_update(part).finalize().into_bytes());
                let key = scope.split('/').fold(keyed(secret.as_bytes()), derive);
                *kept = Some((scope.to_owned(), key.clone()));
                key
            }
        }
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)].into());
        out.push(DIGITS[usize::from(byte & 15)].into());
    }
}
