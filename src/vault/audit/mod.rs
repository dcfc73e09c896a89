//! The audit log as a proof: that no entry of it was changed, left out, moved or cut off, shown to somebody who does not
//! trust the owner of the database.
//!
//! Entries are made in SQL (migrations/0005_audit.sql). Here they are read ([`read`]), hashed as there ([`leaf`],
//! [`merkle`]), exported ([`export`]) and judged ([`verify`], [`epochs`], [`findings`]); and the root of them is signed
//! ([`checkpoint`]) and kept in a file outside of the database ([`sign`]). All but [`read`] and [`sign`] are pure.

pub mod checkpoint;
pub mod epochs;
pub mod export;
pub mod findings;
pub mod leaf;
pub mod merkle;
pub mod read;
pub mod sign;
pub mod verify;

#[cfg(test)]
mod tests;

pub use sign::checkpoint_after;
