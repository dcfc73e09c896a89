//! db

pub mod conninfo;
