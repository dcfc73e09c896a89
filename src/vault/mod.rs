//! Keys and what is done with them: what makes tokens, and what seals a body so that only the recovery key opens it.
//!
//! [`token`], [`seal`] and [`recovery`] are pure. [`keyring`] makes the key files and loads what a worker needs,
//! [`identity`] reads the recovery key, which no worker has; both write keys as [`keyfile`] says, and a passphrase
//! protects them as [`age`] does it. [`kms`] stands in for some of them, beside key files behind [`backend`]. [`dead`] is
//! the way to a sealed body in the database, on the record; [`purge`] its end. [`reveal`] is the way from a token to its
//! value, as [`entry`] opens it with the roots of [`token_keys`]. [`audit`] is the record, as a proof.
//! [`rotate`] puts other keys in the place of these.

pub mod token;

pub mod recovery;
pub mod seal;
pub mod sealer;

pub mod age;
pub mod age_recipient;
pub mod audit;
pub mod backend;
pub mod dead;
pub mod entry;
pub mod epochs;
pub mod erase;
pub mod identity;
pub mod keyfile;
pub mod keyring;
pub mod kms;
pub mod purge;
pub mod refusal;
pub mod retention;
pub mod reveal;
pub mod rotate;
pub mod token_files;
pub mod token_keys;

mod mac;

#[cfg(test)]
mod published;
#[cfg(test)]
mod vectors;
