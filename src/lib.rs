//! masq takes JSON events off an Amazon SQS queue, masks the personal data in them, and loads them into PostgreSQL:
//! every message exactly once, nothing lost, and what cannot be loaded sealed for the holder of the recovery key.
//!
//! ARCHITECTURE.md is the map; [`pipeline`] is the program, all else serves it.

pub mod pipeline;

pub mod event;
pub mod json;
pub mod pii;

pub mod queue;
pub mod sink;
pub mod vault;

pub mod aws;
pub mod check;
pub mod config;
pub mod db;
pub mod http;
pub mod local;

pub mod backoff;
pub mod cli;
pub mod logging;
pub mod metrics;
pub mod mutant;
pub mod reconcile;
pub mod replay;
pub mod risk;
pub mod setup;
pub mod shutdown;
pub mod start;
