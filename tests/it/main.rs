//! The integration tests: one binary, a module for each part of the world it needs.

mod support;

mod messages;
mod postgres;
