//! Keys and what is done with them: what makes tokens, and what seals a body so that only the recovery key opens it.
//!
//! [`token`], [`seal`] and [`recovery`] are pure. [`keyring`] makes the key files and loads what a worker needs,
//! [`identity`] reads the recovery key, which no worker has; both write keys as [`keyfile`] says, and a passphrase
//! protects them as [`age`] does it; [`token_files`] are several. [`dead`] is the way to a sealed body in the database, on the record; [`purge`] its
//! end. [`rotate`] puts other keys in the place of these.

pub mod token;

pub mod recovery;
pub mod seal;
pub mod sealer;

pub mod age;
pub mod dead;
pub mod epochs;
pub mod identity;
pub mod keyfile;
pub mod keyring;
pub mod purge;
pub mod refusal;
pub mod rotate;
pub mod token_files;

#[cfg(test)]
mod vectors;
