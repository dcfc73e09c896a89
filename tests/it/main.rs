//! The integration tests: one binary, so that they are linked once. Each module says what it needs.

mod compile_fail;
mod repository;
mod source;
mod tidy;
