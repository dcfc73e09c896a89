//! sealed value, old token -> sealed value, new token: what re-keying does with one entry. Pure: random bytes are passed in.
//!
//! The epoch and the slot stay, so retention and erasure meet the new entry as they would have met the old one.

use uuid::Uuid;

use crate::vault::{
    seal::{OpenEpoch, Original, SubjectTag},
    token::{DomainKey, Token},
};

/// An entry as it stands in the database.
pub struct Entry {
    /// Of the old key.
    pub token: Token,
    /// Whose value it is.
    pub subject: SubjectTag,
    /// The month of its epoch, as PostgreSQL writes the date of its first day.
    pub month: String,
    /// The token's domain.
    pub field: String,
    /// Under whose key it is sealed.
    pub epoch: Uuid,
    /// The sealed value.
    pub sealed: Vec<u8>,
}

/// The same value for its new token.
pub struct Resealed {
    /// Of the new key.
    pub token: Token,
    /// The sealed value.
    pub sealed: Vec<u8>,
}

/// Opens an entry, makes its old token again, and only if that is the one it stands under, seals the value for the new one.
/// `None`: it is not what a worker has sealed, whoever changed it.
pub fn reseal(
    epoch: &OpenEpoch,
    salt: &[u8; 32],
    entry: &Entry,
    (old, new): (&DomainKey, &DomainKey),
    nonce: [u8; 12],
) -> Option<Resealed> {
    let slot = epoch.slot(entry.subject, salt);
    let opened = epoch.open_value(&slot, &entry.field, &entry.token, &entry.sealed).ok()?;
    if old.token(opened.kind, &opened.raw)? != entry.token {
        return None;
    }
    let token = new.token(opened.kind, &opened.raw)?;
    let mut sealed = Vec::with_capacity(entry.sealed.len());
    let original = Original { kind: opened.kind, raw: &opened.raw };
    epoch.seal_value((&slot, &entry.field, &token), original, nonce, &mut sealed);
    Some(Resealed { token, sealed })
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU8, time::Instant};

    use zeroize::Zeroizing;

    use super::*;
    use crate::vault::{
        seal::{EpochKey, EpochSecret},
        token::{Kind, TokenRoot},
    };

    fn root(kid: u8) -> TokenRoot {
        TokenRoot::new(NonZeroU8::new(kid).unwrap(), &[kid; 32])
    }

    fn domain(kid: u8, field: &str) -> DomainKey {
        root(kid).domain(field).unwrap()
    }

    /// An entry of this value under this token, its epoch, and the salt of its slot.
    fn sealed(kind: Kind, raw: &str, token: Token) -> (Entry, OpenEpoch, [u8; 32]) {
        let secret = EpochSecret::new(&Zeroizing::new([7; 80]));
        let open = OpenEpoch::with_key(secret.id, &secret.key);
        let mut epoch = EpochKey::new(&secret, 0, vec![]);
        let slot = epoch.slot(SubjectTag([5; 16]));
        let mut sealed = Vec::new();
        epoch.seal_value((&slot, "ip", &token), Original { kind, raw }, &mut sealed);
        let (subject, month) = (slot.subject, "2026-11-01".to_owned());
        let entry = Entry { token, subject, month, field: "ip".to_owned(), epoch: secret.id, sealed };
        (entry, open, slot.salt)
    }

    #[test]
    fn the_value_as_it_came_lies_under_the_token_that_the_new_key_makes_of_it() {
        let (old, new) = (domain(1, "ip"), domain(2, "ip"));
        for (kind, raw) in [(Kind::Ip, " 199.172.111.135\n"), (Kind::Ip, "::ffff:1.2.3.4"), (Kind::Text, "")] {
            let (entry, epoch, salt) = sealed(kind, raw, old.token(kind, raw).unwrap());
            let again = reseal(&epoch, &salt, &entry, (&old, &new), [9; 12]).unwrap();
            assert_eq!(Some(again.token), new.token(kind, raw));
            let slot = epoch.slot(entry.subject, &salt);
            let opened =
                epoch.open_value(&slot, "ip", &again.token, &again.sealed).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((opened.kind, opened.raw.as_str()), (kind, raw));
        }
    }

    #[test]
    fn what_is_not_what_was_sealed_stays_where_it_is() {
        let (old, new) = (domain(1, "ip"), domain(2, "ip"));
        let right = old.token(Kind::Ip, "1.2.3.4").unwrap();
        let made = |entry: &Entry, epoch: &OpenEpoch, salt: &[u8; 32]| {
            reseal(epoch, salt, entry, (&old, &new), [9; 12]).is_some()
        };
        let (entry, epoch, salt) = sealed(Kind::Ip, "1.2.3.4", right);
        assert!(made(&entry, &epoch, &salt));
        assert!(!made(&entry, &epoch, &[0; 32]), "the salt of another slot");
        assert!(!made(&Entry { subject: SubjectTag([6; 16]), ..sealed(Kind::Ip, "1.2.3.4", right).0 }, &epoch, &salt));
        // Sealed rightly by whoever had a worker's keys, but for a token that is not the value's.
        let (poisoned, epoch, salt) = sealed(Kind::Ip, "5.6.7.8", right);
        assert!(!made(&poisoned, &epoch, &salt));
        let (nothing, epoch, salt) = sealed(Kind::Ip, "no address", right);
        assert!(!made(&nothing, &epoch, &salt));
    }

    /// `cargo test --release --lib -- --ignored --nocapture reseal` says how fast it is.
    #[test]
    #[ignore = "a measurement, not a test"]
    fn values_a_second_on_one_thread() {
        const VALUES: u32 = 200_000;
        let (old, new) = (domain(1, "ip"), domain(2, "ip"));
        let secret = EpochSecret::new(&Zeroizing::new([7; 80]));
        let mut epoch = EpochKey::new(&secret, 0, vec![]);
        let entries: Vec<(Entry, [u8; 32])> = (0..VALUES)
            .map(|number| {
                let raw = std::net::Ipv4Addr::from_bits(number * 7919).to_string();
                let mut tag = [0; 16];
                tag[..4].copy_from_slice(&number.to_be_bytes());
                let (slot, token) = (epoch.slot(SubjectTag(tag)), old.token(Kind::Ip, &raw).unwrap());
                let mut sealed = Vec::new();
                epoch.seal_value((&slot, "ip", &token), Original { kind: Kind::Ip, raw: &raw }, &mut sealed);
                let (subject, month, field) = (slot.subject, String::new(), "ip".to_owned());
                (Entry { token, subject, month, field, epoch: secret.id, sealed }, slot.salt)
            })
            .collect();
        let begun = Instant::now();
        for (entry, salt) in &entries {
            // As bad as it gets but for the unwrapping: every entry in an epoch of its own.
            let open = OpenEpoch::with_key(secret.id, &secret.key);
            let mut nonce = [0; 12];
            aws_lc_rs::rand::fill(&mut nonce).unwrap();
            assert!(reseal(&open, salt, entry, (&old, &new), nonce).is_some());
        }
        let rate = f64::from(VALUES) / begun.elapsed().as_secs_f64();
        println!("{rate:.0} distinct values a second");
        assert!(rate >= 20_000.0);
    }
}
