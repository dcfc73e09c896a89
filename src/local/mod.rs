//! (being written)

pub mod postgres;
