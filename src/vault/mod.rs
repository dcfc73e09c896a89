//! The way back: what makes tokens, and what seals a body so that only the recovery key opens it.
//!
//! [`token`] and [`seal`] are pure; [`keyring`] reads and makes the key files, [`identity`] protects the recovery key
//! with a passphrase.

pub mod identity;
pub mod keyring;
pub mod seal;
pub mod token;
