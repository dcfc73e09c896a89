//! A sealed value of the vault, and what becomes of it: its value, if it is what its token says, or why it stays shut.
//!
//! Nothing here asks the database: [`super::reveal`] does. A worker's login can write entries, slots and epochs of its own
//! making, so whatever is opened is worth only what its token says when it is made again.

use std::collections::HashMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    epochs::Opener,
    seal::{EpochHeader, OpenError, Opened, SubjectTag},
    token::{Token, TokenRoot},
};

/// A sealed value as it stands in `masq.entries`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it was asked for by: its token, or the one that a rotation has replaced by it.
    pub item: Token,
    /// What stands in the table in the value's place.
    pub token: Token,
    /// The token's domain.
    pub field: String,
    /// Whose it is; other than 16 bytes is nobody's.
    pub subject: Vec<u8>,
    /// The bytes that were sealed.
    pub sealed: Vec<u8>,
    /// In which epoch.
    pub epoch: Uuid,
}

/// What entries are locked with: the headers of their epochs, and the salts of their slots.
#[derive(Default)]
pub struct Locks {
    /// By epoch.
    pub headers: HashMap<Uuid, EpochHeader>,
    /// By subject tag and epoch. There is one, but who has a worker's login can add others under another month.
    pub salts: HashMap<(Vec<u8>, Uuid), Vec<Vec<u8>>>,
}

/// A value that its token vouches for.
pub struct Value {
    /// The token's domain.
    pub field: String,
    /// As it came.
    pub raw: Zeroizing<String>,
}

/// Why an entry stays shut, by what helps.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Shut {
    /// Nothing helps.
    #[error("it has expired: the key of its epoch is no longer kept")]
    Expired,
    /// Nothing helps, unless somebody moved the entry.
    #[error(
        "its slot is gone: its person is being erased, it is just expiring, or somebody deleted the slot or moved the value"
    )]
    NoSlot,
    /// Take another recovery key, or a newer masq.
    #[error(transparent)]
    Sealed(OpenError),
    /// Look into it: somebody had a worker's login or the database.
    #[error("its bytes were changed, or moved from elsewhere")]
    Changed,
    /// The same: only a worker's login is needed to write another value in good form.
    #[error("it holds another value than its token says")]
    Forged,
}

impl Shut {
    /// Whether somebody has had a hand in it.
    pub fn is_tampering(&self) -> bool {
        matches!(self, Self::Changed | Self::Forged)
    }
}

impl From<OpenError> for Shut {
    fn from(error: OpenError) -> Self {
        if error == OpenError::Tampered { Self::Changed } else { Self::Sealed(error) }
    }
}

impl Entry {
    /// The value. `root` is of the key id of the token that was asked for, which vouches for it.
    ///
    /// # Errors
    /// Why it stays shut; then no part of the value leaves this function.
    pub fn open(&self, locks: &Locks, opener: &mut Opener<'_>, root: &TokenRoot) -> Result<Value, Shut> {
        let opened = self.unseal(locks, opener)?;
        let made = root.domain(&self.field).ok().and_then(|domain| domain.token(opened.kind, &opened.raw));
        let is_same = made.is_some_and(|made| verify_slices_are_equal(&made.0, &self.item.0).is_ok());
        if is_same { Ok(Value { field: self.field.clone(), raw: opened.raw }) } else { Err(Shut::Forged) }
    }

    fn unseal(&self, locks: &Locks, opener: &mut Opener<'_>) -> Result<Opened, Shut> {
        let header = locks.headers.get(&self.epoch).ok_or(Shut::Expired)?;
        let salts = locks.salts.get(&(self.subject.clone(), self.epoch)).ok_or(Shut::NoSlot)?;
        let subject = SubjectTag(self.subject.as_slice().try_into().map_err(|_| Shut::Changed)?);
        let epoch = opener.epoch(header)?;
        let mut opened = Err(OpenError::Tampered);
        for salt in salts.iter().filter_map(|salt| salt.as_slice().try_into().ok()) {
            opened = epoch.open_value(&epoch.slot(subject, salt), &self.field, &self.token, &self.sealed);
            if opened.is_ok() {
                break;
            }
        }
        Ok(opened?)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use zeroize::Zeroizing;

    use super::*;
    use crate::vault::{
        recovery::RecoveryKey,
        seal::{EpochKey, EpochSecret, Original, Wrap, header_digest},
        token::Kind,
    };

    const ADDRESS: Original<'_> = Original { kind: Kind::Ip, raw: " 199.172.111.135" };

    fn root() -> TokenRoot {
        TokenRoot::new(NonZeroU8::MIN, &[7; 32])
    }

    fn recovery() -> RecoveryKey {
        RecoveryKey::new(&[1; 32])
    }

    /// A vault in which each value is sealed in an epoch of its own.
    #[derive(Default)]
    struct Vault {
        locks: Locks,
        entries: Vec<Entry>,
    }

    impl Vault {
        /// Seals a value under a token, whether or not it is its own.
        fn add(&mut self, subject: u8, token: Token, value: Original<'_>) -> usize {
            let seed = u8::try_from(self.entries.len()).unwrap();
            let secret = EpochSecret::new(&Zeroizing::new([seed; 80]));
            let digest = header_digest(secret.id, 5);
            let wrap = Wrap::new(&recovery().public(), &secret.key, &digest, &[seed; 64]);
            let mut epoch = EpochKey::new(&secret, 5, vec![wrap]);
            let slot = epoch.slot(SubjectTag([subject; 16]));
            let mut sealed = Vec::new();
            epoch.seal_value((&slot, "ip", &token), value, &mut sealed);
            self.locks.salts.insert((vec![subject; 16], secret.id), vec![slot.salt.to_vec()]);
            self.locks.headers.insert(secret.id, epoch.header().clone());
            let entry =
                Entry { item: token, token, field: "ip".into(), subject: vec![subject; 16], sealed, epoch: secret.id };
            self.entries.push(entry);
            self.entries.len() - 1
        }

        fn open(&self, at: usize) -> Result<String, Shut> {
            let opened = self.entries[at].open(&self.locks, &mut Opener::new(&recovery()), &root());
            opened.map(|value| format!("{} {}", value.field, *value.raw))
        }
    }

    fn token(value: Original<'_>) -> Token {
        root().domain("ip").unwrap().token(value.kind, value.raw).unwrap()
    }

    fn two() -> Vault {
        let mut vault = Vault::default();
        vault.add(1, token(ADDRESS), ADDRESS);
        let other = Original { kind: Kind::Ip, raw: "10.0.0.1" };
        vault.add(2, token(other), other);
        vault
    }

    #[test]
    fn a_value_comes_back_as_it_was() {
        let vault = two();
        assert_eq!(vault.open(0).unwrap(), "ip  199.172.111.135");
        assert_eq!(vault.open(1).unwrap(), "ip 10.0.0.1");
    }

    #[test]
    fn a_replaced_token_vouches_for_what_stands_under_the_new_one() {
        let mut vault = Vault::default();
        let new = TokenRoot::new(NonZeroU8::new(2).unwrap(), &[8; 32]).domain("ip").unwrap();
        for value in [ADDRESS, Original { kind: Kind::Ip, raw: "10.0.0.1" }] {
            vault.add(1, new.token(value.kind, value.raw).unwrap(), value);
        }
        for entry in &mut vault.entries {
            entry.item = token(ADDRESS);
        }
        assert_eq!(vault.open(0).unwrap(), "ip  199.172.111.135");
        assert_eq!(vault.open(1), Err(Shut::Forged), "a bridge to another value is none");
    }

    #[test]
    fn a_salt_that_was_added_hides_nothing() {
        let mut vault = two();
        for salts in vault.locks.salts.values_mut() {
            *salts = vec![vec![3; 32], vec![3; 31], salts[0].clone(), vec![4; 32]];
        }
        assert_eq!(vault.open(0).unwrap(), "ip  199.172.111.135");
    }

    #[test]
    fn another_value_in_good_form_is_not_shown() {
        let mut vault = Vault::default();
        let others = [
            Original { kind: Kind::Ip, raw: "10.0.0.1" },
            Original { kind: Kind::Text, raw: ADDRESS.raw },
            Original { kind: Kind::Ip, raw: "no address" },
        ];
        for other in others {
            let forged = vault.add(1, token(ADDRESS), other);
            assert_eq!(vault.open(forged), Err(Shut::Forged));
        }
        let by_another_root = TokenRoot::new(NonZeroU8::MIN, &[8; 32]).domain("ip").unwrap();
        let foreign = vault.add(1, by_another_root.token(ADDRESS.kind, ADDRESS.raw).unwrap(), ADDRESS);
        assert_eq!(vault.open(foreign), Err(Shut::Forged));
    }

    #[test]
    fn whatever_is_swapped_or_flipped_is_tampering() {
        type Change = fn(&mut Vault);
        let changes: [(&str, Change); 11] = [
            ("bytes of another row", |vault| vault.entries[0].sealed = vault.entries[1].sealed.clone()),
            ("row under another token", |vault| vault.entries[0].token = vault.entries[1].token),
            ("row under another token that was asked for", |vault| {
                (vault.entries[0].token, vault.entries[0].item) = (vault.entries[1].token, vault.entries[1].token);
            }),
            ("bit of the ciphertext", |vault| vault.entries[0].sealed[20] ^= 1),
            ("length", |vault| vault.entries[0].sealed.truncate(5)),
            ("nothing left", |vault| vault.entries[0].sealed.clear()),
            ("bit of the salt", |vault| vault.locks.salts.values_mut().for_each(|salts| salts[0][9] ^= 1)),
            ("length of the salt", |vault| vault.locks.salts.values_mut().for_each(|salts| salts[0].truncate(31))),
            ("bit of the wrap", |vault| {
                vault.locks.headers.values_mut().for_each(|header| header.wraps[0].wrapped[600] ^= 1);
            }),
            ("epoch", |vault| {
                let (subject, other) = (vault.entries[0].subject.clone(), vault.entries[1].epoch);
                vault.entries[0].epoch = other;
                vault.locks.salts.insert((subject, other), vec![vec![3; 32]]);
            }),
            ("subject", |vault| {
                let (other, epoch) = (vault.entries[1].subject.clone(), vault.entries[0].epoch);
                vault.entries[0].subject = other.clone();
                vault.locks.salts.insert((other, epoch), vec![vec![3; 32]]);
            }),
        ];
        for (what, change) in changes {
            let mut vault = two();
            change(&mut vault);
            assert_eq!(vault.open(0), Err(Shut::Changed), "{what}");
            assert!(Shut::Changed.is_tampering());
        }
        let mut field = two();
        field.entries[0].field = "device_id".to_owned();
        assert_eq!(field.open(0), Err(Shut::Changed));
    }

    #[test]
    fn what_is_gone_is_told_from_what_is_sealed_to_others() {
        let mut vault = two();
        vault.locks.salts.clear();
        assert_eq!(vault.open(0), Err(Shut::NoSlot));
        vault.locks.headers.clear();
        assert_eq!(vault.open(0), Err(Shut::Expired));
        let mut foreign = two();
        foreign.locks.headers.values_mut().for_each(|header| header.wraps[0].recipient = [9; 32]);
        let shut = foreign.open(0).unwrap_err();
        assert_eq!(shut, Shut::Sealed(OpenError::WrongKey { recipients: vec![[9; 32]] }));
        assert!(!shut.is_tampering());
    }
}
