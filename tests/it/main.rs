//! The integration tests: one binary, a module for each part of the world it needs.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test that fails says so by panicking"
)]

mod database;
mod scene;
mod scripted;
mod source;
mod stage;
mod support;

mod compile_fail;
mod refused;
mod repository;
mod tidy;
mod witness;

mod approve;
mod audit;
mod bench;
mod canary;
mod cli;
mod dead;
mod deliveries;
mod demo;
mod forget;
mod guards;
mod hostile;
mod kms;
mod limits;
mod local_queue;
mod messages;
mod model;
mod naughty;
mod opener;
mod order;
mod pipeline;
mod pooler;
mod postgres;
mod preview;
mod protocols;
mod rds;
mod reconcile;
mod refusals;
mod remedies;
mod replay;
mod restored;
mod retention;
mod reveal;
mod rights;
mod risk;
mod roles;
mod rotate;
mod run;
mod sdk;
mod second_opinions;
mod signature;
mod sim;
mod sink;
mod stopped;
mod tables;
mod thieves;
mod tls;
mod vault;
