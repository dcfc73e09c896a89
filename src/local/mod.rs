//! The embedded defaults: what masq brings along so that a fresh machine needs no running server.

pub mod crowd;
pub mod logins;
pub mod postgres;
pub mod scratch;
pub mod sqs;
